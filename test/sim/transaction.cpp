// One transaction of a worker.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "core/run_loop.hpp"
#include "database.hpp"

namespace ops::sim {

class Transaction final : public StoreTransaction {
 public:
  explicit Transaction(Session& session) : session_(session), database_(session.database_) { ++database_.open_; }
  ~Transaction() override { close(); }

  std::vector<ClaimedRun> claim(int limit) override {
    session_.at_point_("claim");
    session_.may_fail_();
    std::map<std::string, int> active;
    for (const auto& [run_id, stored] : database_.runs_)
      if (stored.row.is_active()) ++active[stored.plan->facts.env_id];
    std::vector<ClaimedRun> claimed;
    for (const auto& [run_id, stored] : database_.runs_) {
      if (static_cast<int>(claimed.size()) == limit) break;
      if (stored.row.status() != RunStatus::queued) continue;
      int& in_environment = active[stored.plan->facts.env_id];
      if (in_environment >= stored.plan->max_active_runs && !database_.defects_.ignores_slots) continue;
      ++in_environment;
      RunRow& row = database_.changed(changes_, run_id).row;
      row.history.push_back(RunStatus::claimed);
      row.worker_id = session_.worker_id_;
      row.attempt += 1;
      row.claim_token = database_.new_token();
      claimed.push_back(database_.claimed(stored, row));
      given_out_.emplace_back(run_id, row.claim_token);
    }
    if (!claimed.empty() && !std::exchange(has_claimed_, true)) ++database_.open_claims_;
    return claimed;
  }

  std::set<std::string> record(const std::vector<RunWrites>& writes) override {
    session_.at_point_("record");
    session_.may_fail_();
    std::set<std::string> lost;
    for (const RunWrites& write : writes) {
      Database::Change& change = database_.changed(changes_, write.run_id);
      const bool ours = change.row.claim_token == write.claim_token && change.row.is_active();
      if (!ours && !database_.defects_.has_no_fence) {
        lost.insert(write.run_id);
        continue;
      }
      accepted_.emplace_back(write.run_id, write.claim_token);
      store(change, write);
    }
    return lost;
  }

  std::set<std::string> renew_lease(Millis lease) override {
    session_.may_fail_();
    new_lease_ = database_.agenda_.steady_now() + (database_.defects_.endless_lease ? LoopSettings{}.lease : lease);
    std::set<std::string> held;
    for (const auto& [run_id, stored] : database_.runs_)
      if (stored.row.is_active() && stored.row.worker_id == session_.worker_id_) held.insert(run_id);
    return held;
  }

  std::vector<CancelRequest> cancel_requests() override {
    session_.may_fail_();
    std::vector<CancelRequest> requests;
    for (const auto& [run_id, stored] : database_.runs_) {
      if (!stored.row.is_active() || !stored.row.cancel_rung || stored.row.worker_id != session_.worker_id_) continue;
      database_.changed(changes_, run_id).row.cancel_rung = false;
      if (!database_.defects_.loses_cancels) requests.push_back({run_id, "asked"});
    }
    return requests;
  }

  void commit(bool flush) override {
    session_.may_fail_();
    try {
      session_.at_point_("before commit");
    } catch (...) {
      if (database_.defects_.tears_commits && !changes_.empty()) tear();
      throw;
    }
    for (const auto& [run_id, token] : given_out_) database_.witness_->given_out(run_id, token, session_.worker_id_);
    for (const auto& [run_id, token] : accepted_) database_.witness_->accepted(run_id, token);
    if (new_lease_) database_.lives_.at(session_.worker_id_).lease_until = *new_lease_;
    if (database_.defects_.commits_late) {
      database_.late_ = std::move(changes_);
    } else if (!(database_.defects_.loses_commits && database_.transactions_ % 10 == 9)) {
      database_.apply(std::move(changes_), flush);
    } else {
      ++database_.transactions_;
    }
    close();
    session_.at_point_("after commit");
  }

 private:
  void close() {
    if (!std::exchange(is_open_, false)) return;
    --database_.open_;
    if (has_claimed_) --database_.open_claims_;
  }

  /// The events of one run, without what belongs to them.
  void tear() {
    auto& [run_id, change] = *changes_.begin();
    StoredRun& stored = database_.runs_.at(run_id);
    std::ranges::move(change.events, std::back_inserter(stored.events));
  }

  void store(Database::Change& change, const RunWrites& write) const {
    RunRow& row = change.row;
    const std::vector<PhaseFacts>& planned = database_.runs_.at(write.run_id).plan->phases;
    if (write.status && *write.status != row.status()) row.history.push_back(*write.status);
    row.waiting_for = write.status == RunStatus::waiting ? write.waiting_for : "";
    if (write.status == RunStatus::waiting) {
      row.claim_token.clear();
      row.worker_id.clear();
    }
    for (const EventRecord& event : write.events) change.events.push_back(event);
    row.last_seq += write.events.size();
    for (const ArtifactRecord& artifact : write.artifacts) {
      std::erase_if(row.artifacts, [&](const ArtifactRecord& known) {
        return known.artifact_type == artifact.artifact_type && known.storage_path == artifact.storage_path;
      });
      row.artifacts.push_back(artifact);
    }
    for (const PhaseWrite& written : write.phases)
      for (std::size_t i = 0; i < planned.size(); ++i) {
        if (planned[i].name != written.name) continue;
        StoredPhase& phase = row.phases[i];
        phase.state = written.state;
        phase.attempt = written.attempt;
        phase.started_at = written.started_at;
        phase.finished_at = written.finished_at;
        if (written.remembered.is_object()) phase.remembered.update(written.remembered);
        if (!written.outcome.is_null()) phase.outcome = written.outcome;
      }
    for (const EffectRecord& effect : write.effects) {
      if (database_.defects_.forgets_intents && effect.state == EffectState::intended) continue;
      std::erase_if(row.effects, [&](const StoredEffect& known) {
        return known.record.phase == effect.phase && known.record.key == effect.key;
      });
      row.effects.push_back({effect, 0});
    }
  }

  Session& session_;
  Database& database_;
  Database::Changes changes_;
  std::optional<SteadyTime> new_lease_;
  bool is_open_ = true;
  bool has_claimed_ = false;
  std::vector<std::pair<std::string, std::string>> given_out_;
  std::vector<std::pair<std::string, std::string>> accepted_;
};

std::unique_ptr<StoreTransaction> Session::begin() {
  ++database_.begun_;
  at_point_("begin");
  may_fail_();
  if (!database_.late_.empty()) database_.apply(std::exchange(database_.late_, {}), false);
  return std::make_unique<Transaction>(*this);
}

}  // namespace ops::sim
