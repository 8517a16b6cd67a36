#include "database.hpp"

#include <algorithm>
#include <utility>

namespace ops::sim {

namespace {
constexpr Micros longest_replication_lag = std::chrono::seconds{3};
constexpr int most_crashes = 3;
}  // namespace

Database::Change& Database::changed(Changes& changes, const std::string& run_id) const {
  const auto [place, is_new] = changes.try_emplace(run_id);
  if (is_new) place->second.row = runs_.at(run_id).row;
  return place->second;
}

void Database::write_event(Change& change, Level level, std::string message) const {
  change.events.push_back({level, std::move(message), Json::object(), {}, {}, agenda_.now()});
  ++change.row.last_seq;
}

std::string Database::new_token() {
  return "token-" + std::to_string(++tokens_);
}

// Commits ------------------------------------------------------------------------------------------------------------

void Database::apply(Changes changes, bool flush) {
  Commit commit{agenda_.steady_now(), {}};
  for (auto& [run_id, change] : changes) {
    StoredRun& stored = runs_.at(run_id);
    for (StoredEffect& effect : change.row.effects)
      if (effect.commit == 0) effect.commit = commits_ + 1;
    commit.before.push_back({run_id, true, std::exchange(stored.row, std::move(change.row))});
    std::ranges::move(change.events, std::back_inserter(stored.events));
  }
  keep(std::move(commit), flush);
  for (const Before& old : newest_.back().before) witness_->committed(old.run_id, old.row, runs_.at(old.run_id));
}

void Database::keep(Commit commit, bool flush) {
  ++transactions_;
  ++commits_;
  if (flush && !defects_.never_flushes) flushed_ = commits_;
  newest_.push_back(std::move(commit));
  // Older ones can be lost neither by a crash nor by a promotion.
  while (commits_ - newest_.size() < flushed_ && newest_.front().time + longest_replication_lag < agenda_.steady_now())
    newest_.pop_front();
}

void Database::undo_newest() {
  for (Before& old : newest_.back().before) {
    if (!old.existed) {
      runs_.erase(old.run_id);
      witness_->lost(old.run_id);
      continue;
    }
    StoredRun& stored = runs_.at(old.run_id);
    stored.row = std::move(old.row);
    stored.events.resize(std::min(stored.events.size(), stored.row.last_seq));
  }
  newest_.pop_back();
  --commits_;
}

void Database::crash() {
  late_.clear();
  const auto lost = dice_.between(0, static_cast<std::int64_t>(commits_ - flushed_));
  for (std::int64_t i = 0; i < lost; ++i) undo_newest();
  flushed_ = commits_;
}

void Database::promote() {
  late_.clear();
  const SteadyTime replicated = agenda_.steady_now() - dice_.between(Micros{0}, longest_replication_lag);
  while (!newest_.empty() && newest_.back().time > replicated) undo_newest();
  flushed_ = commits_;
  Changes changes;
  for (const auto& [run_id, stored] : runs_)
    if (!is_final(stored.row.status())) {
      RunRow& row = changed(changes, run_id).row;
      row.look_first = true;
      for (StoredEffect& effect : row.effects)
        if (effect.record.state == EffectState::intended || effect.record.state == EffectState::absent) {
          effect.record.state = EffectState::uncertain;
          effect.commit = 0;
        }
    }
  apply(std::move(changes), true);
}

// People -------------------------------------------------------------------------------------------------------------

void Database::queue(std::shared_ptr<const RunPlan> plan) {
  const std::string run_id = plan->facts.run_id;
  StoredRun run;
  for (const PhaseFacts& phase : plan->phases) {
    StoredPhase stored;
    stored.state = phase.state;
    run.row.phases.push_back(std::move(stored));
  }
  run.events.push_back({Level::info, "queued by operator", Json::object(), {}, {}, agenda_.now()});
  run.row.last_seq = 1;
  run.plan = std::move(plan);
  runs_.emplace(run_id, std::move(run));
  Commit commit{agenda_.steady_now(), {}};
  commit.before.push_back({run_id, false, {}});
  keep(std::move(commit), true);
  ring_queue();
}

bool Database::cancel_run(const std::string& run_id) {
  if (!runs_.contains(run_id)) return false;
  const RunRow& found = runs_.at(run_id).row;
  if (is_final(found.status())) return false;
  if (found.cancel_requested && found.status() != RunStatus::waiting) return false;
  Changes changes;
  Change& change = changed(changes, run_id);
  RunRow& row = change.row;
  const bool in_a_phase = std::ranges::find(row.phases, PhaseState::running, &StoredPhase::state) != row.phases.end();
  const bool at_once = (row.status() == RunStatus::waiting && row.cancel_requested) ||
                       (!row.is_active() && !in_a_phase && !row.look_first);
  write_event(change, Level::warn, at_once ? "cancelled by operator" : "cancel requested by operator");
  row.cancel_requested = true;
  if (at_once) {
    for (StoredPhase& phase : row.phases)
      if (!is_final(phase.state)) phase.state = phase.started_at ? PhaseState::cancelled : PhaseState::skipped;
    row.history.push_back(RunStatus::cancelled);
  } else if (row.status() == RunStatus::waiting) {
    row.history.push_back(RunStatus::queued);
  }
  row.waiting_for.clear();
  row.cancel_rung = row.is_active();
  apply(std::move(changes), true);
  ring_queue();
  if (!at_once) ring_cancel();
  return true;
}

void Database::give_back(Change& change, const std::string& why) const {
  write_event(change, Level::warn, "given back to the queue: " + why);
  if (change.row.status() == RunStatus::waiting) change.row.crashes = 0;
  change.row.history.push_back(RunStatus::queued);
  change.row.waiting_for.clear();
  change.row.claim_token.clear();
  change.row.worker_id.clear();
  change.row.cancel_rung = false;
}

bool Database::reset_run(const std::string& run_id) {
  if (!runs_.contains(run_id)) return false;
  const RunRow& found = runs_.at(run_id).row;
  if (!found.is_active() && found.waiting_for != "poisoned") return false;
  Changes changes;
  give_back(changed(changes, run_id), "asked for");
  apply(std::move(changes), true);
  ring_queue();
  return true;
}

bool Database::resolve_effect(const std::string& run_id, const std::string& key, EffectState state) {
  if (!runs_.contains(run_id) || runs_.at(run_id).row.waiting_for != "decision") return false;
  Changes changes;
  Change& change = changed(changes, run_id);
  for (StoredEffect& effect : change.row.effects)
    if (effect.record.key == key && effect.record.state == EffectState::needs_decision) {
      effect.record.state = state;
      effect.record.outcome = state == EffectState::done ? Json::object() : Json();
      effect.commit = 0;
    }
  write_event(change, Level::warn, "operator decided that " + key + " is " + std::string(to_string(state)));
  change.row.waiting_for.clear();
  change.row.history.push_back(RunStatus::queued);
  apply(std::move(changes), true);
  ring_queue();
  return true;
}

// Worker -------------------------------------------------------------------------------------------------------------

ClaimedRun Database::claimed(const StoredRun& stored, const RunRow& row) const {
  ClaimedRun run;
  run.facts = stored.plan->facts;
  run.facts.attempt = row.attempt;
  run.facts.look_first = row.look_first;
  run.facts.queued_at = stored.events.front().created_at;
  run.claim_token = row.claim_token;
  run.status = row.status();
  run.cancel_requested = row.cancel_requested;
  run.cancel_reason = row.cancel_requested ? "asked" : "";
  run.phases = stored.plan->phases;
  for (std::size_t i = 0; i < run.phases.size(); ++i) {
    const StoredPhase& phase = row.phases[i];
    run.phases[i].state = phase.state;
    run.phases[i].attempt = phase.attempt;
    run.phases[i].started_at = phase.started_at;
    run.phases[i].finished_at = phase.finished_at;
    run.phases[i].remembered = defects_.take_over_forgets_memory ? Json::object() : phase.remembered;
    run.phases[i].outcome = phase.outcome;
  }
  if (row.attempt == 1) return run;
  if (!defects_.take_over_forgets_effects)
    for (const StoredEffect& effect : row.effects) {
      run.effects.push_back(effect.record);
      EffectState& state = run.effects.back().state;
      const bool open = state == EffectState::intended || state == EffectState::uncertain;
      if (open && defects_.take_over_settles_effects) state = EffectState::absent;
    }
  if (!defects_.take_over_forgets_event_keys)
    for (const EventRecord& event : stored.events)
      if (!event.once.empty()) run.event_keys.emplace_back(event.phase, event.once);
  return run;
}

std::vector<ClaimedRun> Database::take_over(const std::string& worker_id, const std::vector<std::string>& held) {
  std::vector<ClaimedRun> taken;
  if (defects_.take_over_finds_nothing) return taken;
  Changes changes;
  for (const auto& [run_id, stored] : runs_) {
    const bool lost =
        dead_since(stored.row.worker_id) || stored.row.worker_id == worker_id || defects_.take_over_takes_living;
    const bool held_here = std::ranges::find(held, run_id) != held.end();
    const bool wrongly = defects_.take_over_takes_finished && is_final(stored.row.status());
    if ((!stored.row.is_active() || !lost || held_here) && !wrongly) continue;
    RunRow& row = changed(changes, run_id).row;
    if (wrongly) row.history.push_back(RunStatus::running);
    row.worker_id = worker_id;
    row.cancel_rung = false;
    row.attempt += 1;
    if (!defects_.take_over_keeps_token) row.claim_token = new_token();
    taken.push_back(claimed(stored, row));
  }
  if (!changes.empty()) apply(std::move(changes), true);
  for (const ClaimedRun& run : taken) witness_->given_out(run.facts.run_id, run.claim_token, worker_id);
  return taken;
}

void Database::register_life(const std::string& worker_id, Micros lease) {
  lives_[worker_id] = {agenda_.steady_now() + lease, {}};
}

void Database::end_life(const std::string& worker_id) {
  lives_.at(worker_id).ended = agenda_.steady_now();
}

std::optional<SteadyTime> Database::dead_since(const std::string& worker_id) const {
  const auto life = lives_.find(worker_id);
  return life == lives_.end() ? std::nullopt : life->second.ended;
}

bool Database::has_lease(const std::string& worker_id) const {
  return lives_.at(worker_id).lease_until >= agenda_.steady_now();
}

void Database::note_crash(const std::string& run_id) {
  const auto found = runs_.find(run_id);
  if (found == runs_.end() || is_final(found->second.row.status()) || found->second.row.status() == RunStatus::waiting)
    return;
  Changes changes;
  Change& change = changed(changes, run_id);
  RunRow& row = change.row;
  ++row.crashes;
  write_event(change, Level::error, "the worker ended while it was resuming this run");
  if (row.crashes >= most_crashes) {
    row.history.push_back(RunStatus::waiting);
    row.waiting_for = "poisoned";
    row.claim_token.clear();
    row.worker_id.clear();
  }
  apply(std::move(changes), true);
}

void Database::rescue_expired_claims(const std::string& worker_id) {
  Changes changes;
  for (const auto& [run_id, stored] : runs_) {
    if (!stored.row.is_active() || stored.row.worker_id == worker_id || has_lease(stored.row.worker_id)) continue;
    give_back(changed(changes, run_id), "its worker shows no sign of life");
  }
  if (!changes.empty()) apply(std::move(changes), false);
}

Database::SafetyReport Database::safety_check(const std::string& worker_id) {
  rescue_expired_claims(worker_id);
  SafetyReport report;
  for (const auto& [run_id, stored] : runs_) {
    const RunRow& row = stored.row;
    report.queue |= row.status() == RunStatus::queued;
    if (row.is_active() && row.worker_id == worker_id) report.cancel |= row.cancel_rung;
    if (row.is_active() && (row.worker_id == worker_id || dead_since(row.worker_id))) ++report.runs;
    if (row.waiting_for.starts_with("secret:")) report.missing_secrets.insert(row.waiting_for.substr(7));
  }
  return report;
}

void Database::requeue_waiting_for_secret(const std::string& name) {
  Changes changes;
  for (const auto& [run_id, stored] : runs_) {
    if (stored.row.waiting_for != "secret:" + name) continue;
    RunRow& row = changed(changes, run_id).row;
    row.waiting_for.clear();
    row.history.push_back(RunStatus::queued);
  }
  if (!changes.empty()) apply(std::move(changes), false);
}

}  // namespace ops::sim
