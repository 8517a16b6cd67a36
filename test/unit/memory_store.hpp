// What is durable, in memory: the same rules as the SQL side (claims by environment, fenced writes, take-over with a
// new token), with hooks for failures and crashes. The simulation has a model of its own (test/sim/database.hpp).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/ports.hpp"

namespace ops::test {

/// Codes of all errors that were stored by this program, of whatever store.
inline std::set<std::string>& stored_error_codes() {
  static std::set<std::string> codes;
  return codes;
}

class MemoryStore final : public Store {
 public:
  struct StoredRun {
    ClaimedRun run;
    std::vector<EventRecord> events;
    std::vector<ArtifactRecord> artifacts;
    std::vector<RunStatus> history;  ///< every status it has had
    std::optional<WallTime> cancel_requested_at;
    bool cancel_told = false;
  };

  std::unique_ptr<StoreTransaction> begin() override {
    ++transactions;
    return std::make_unique<MemoryTransaction>(*this);
  }

  void queue(ClaimedRun run) {
    run.status = RunStatus::queued;
    const std::string id = run.facts.run_id;
    StoredRun& stored = runs[id];
    stored.run = std::move(run);
    stored.history = {RunStatus::queued};
  }

  /// As ops.cancel_run: a queued run ends at once, a running one is told to its worker.
  void request_cancel(const std::string& run_id, WallTime now = {}) {
    StoredRun& stored = runs.at(run_id);
    if (is_final(stored.run.status) || stored.run.cancel_requested) return;
    stored.run.cancel_requested = true;
    stored.run.cancel_reason = "asked";
    stored.cancel_requested_at = now;
    if (stored.run.status == RunStatus::queued) set_status(stored, RunStatus::cancelled);
  }

  ClaimedRun taken_over(const std::string& run_id) {
    StoredRun& stored = runs.at(run_id);
    stored.run.claim_token = "token-" + std::to_string(++tokens);
    stored.run.facts.attempt += 1;
    ClaimedRun run = stored.run;
    for (const EventRecord& event : stored.events)
      if (!event.once.empty()) run.event_keys.emplace_back(event.phase, event.once);
    return run;
  }

  std::map<std::string, StoredRun> runs;
  int busy_commits = 0;            ///< so many transactions from now on meet a busy store
  int fail_commits = 0;            ///< so many commits fail from now on
  std::set<std::string> poisoned;  ///< runs whose events cannot be stored
  std::set<std::string> rescued;   ///< runs that were given to somebody else
  int transactions = 0;
  int tokens = 0;
  /// Called before (false) and after (true) a commit becomes durable; may throw to end the worker's life there.
  std::function<void(bool)> at_commit = [](bool) {};

 private:
  static void set_status(StoredRun& stored, RunStatus status) {
    stored.run.status = status;
    stored.history.push_back(status);
  }

  class MemoryTransaction final : public StoreTransaction {
   public:
    explicit MemoryTransaction(MemoryStore& store) : store_(store) {}

    std::vector<ClaimedRun> claim(int limit) override {
      std::set<std::string> busy;
      for (const auto& [id, stored] : store_.runs)
        if (stored.run.status == RunStatus::claimed || stored.run.status == RunStatus::running)
          busy.insert(stored.run.facts.env_id);
      std::vector<ClaimedRun> claimed;
      for (const auto& [id, unchanged] : store_.runs) {
        if (static_cast<int>(claimed.size()) == limit) break;
        if (unchanged.run.status != RunStatus::queued) continue;
        const std::string& env_id = unchanged.run.facts.env_id;
        if (!env_id.empty() && !busy.insert(env_id).second) continue;
        StoredRun& stored = changed(id);
        set_status(stored, RunStatus::claimed);
        stored.run.facts.attempt += 1;
        stored.run.claim_token = "token-" + std::to_string(++store_.tokens);
        claimed.push_back(stored.run);
      }
      return claimed;
    }

    std::set<std::string> record(const std::vector<RunWrites>& writes) override {
      std::set<std::string> lost;
      for (const RunWrites& write : writes) {
        StoredRun& stored = changed(write.run_id);
        const bool fenced = stored.run.claim_token != write.claim_token || is_final(stored.run.status) ||
                            stored.run.status == RunStatus::queued;
        if (fenced) {
          lost.insert(write.run_id);
          continue;
        }
        if (store_.poisoned.contains(write.run_id) && write.events.size() > 1) throw std::runtime_error("cannot store");
        store(stored, write);
      }
      return lost;
    }

    std::set<std::string> renew_lease(Millis) override {
      std::set<std::string> held;
      for (const auto& [id, stored] : store_.runs) {
        const bool active = stored.run.status == RunStatus::claimed || stored.run.status == RunStatus::running;
        if (active && !store_.rescued.contains(id)) held.insert(id);
      }
      return held;
    }

    std::vector<CancelRequest> cancel_requests() override {
      std::vector<CancelRequest> requests;
      for (const auto& [id, unchanged] : store_.runs) {
        const bool active = unchanged.run.status == RunStatus::claimed || unchanged.run.status == RunStatus::running;
        if (!active || !unchanged.run.cancel_requested || unchanged.cancel_told) continue;
        changed(id).cancel_told = true;
        requests.push_back({id, unchanged.run.cancel_reason});
      }
      return requests;
    }

    void commit(bool) override {
      if (store_.busy_commits > 0) {
        --store_.busy_commits;
        throw StoreBusy("deadlock detected");
      }
      if (store_.fail_commits > 0) {
        --store_.fail_commits;
        throw std::runtime_error("commit failed");
      }
      store_.at_commit(false);
      for (auto& [id, stored] : copies_) store_.runs[id] = std::move(stored);
      store_.at_commit(true);
    }

   private:
    StoredRun& changed(const std::string& id) { return copies_.try_emplace(id, store_.runs.at(id)).first->second; }

    void store(StoredRun& stored, const RunWrites& write) const {
      if (write.status) set_status(stored, *write.status);
      for (const EventRecord& event : write.events) {
        if (event.payload.contains("code")) stored_error_codes().insert(event.payload["code"].get<std::string>());
        stored.events.push_back(event);
      }
      for (const ArtifactRecord& artifact : write.artifacts) stored.artifacts.push_back(artifact);
      for (const PhaseWrite& change : write.phases)
        for (PhaseFacts& phase : stored.run.phases) {
          if (phase.name != change.name) continue;
          phase.state = change.state;
          phase.started_at = change.started_at;
          phase.finished_at = change.finished_at;
          if (change.remembered.is_object()) phase.remembered.update(change.remembered);
          if (!change.outcome.is_null()) phase.outcome = change.outcome;
        }
      for (const EffectRecord& effect : write.effects) {
        std::erase_if(stored.run.effects, [&](const EffectRecord& known) {
          return known.phase == effect.phase && known.key == effect.key;
        });
        stored.run.effects.push_back(effect);
      }
    }

    MemoryStore& store_;
    std::map<std::string, StoredRun> copies_;  ///< what this transaction has changed
  };
};

}  // namespace ops::test
