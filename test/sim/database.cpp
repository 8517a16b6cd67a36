#include "database.hpp"

#include <algorithm>
#include <utility>

namespace ops::sim {

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
  ++transactions_;
  ++commits_;
  std::vector<Before> before;
  for (auto& [run_id, change] : changes) {
    StoredRun& stored = runs_.at(run_id);
    for (StoredEffect& effect : change.row.effects)
      if (effect.commit == 0) effect.commit = commits_;
    before.push_back({run_id, true, std::exchange(stored.row, std::move(change.row))});
    std::ranges::move(change.events, std::back_inserter(stored.events));
  }
  unflushed_.push_back(std::move(before));
  if (flush && !defects_.never_flushes) flushed_ = commits_;
  for (const Before& old : unflushed_.back()) witness_->committed(old.run_id, old.row, runs_.at(old.run_id));
  if (flushed_ == commits_) unflushed_.clear();
}

void Database::undo_newest() {
  for (Before& old : unflushed_.back()) {
    if (!old.existed) {
      runs_.erase(old.run_id);
      continue;
    }
    StoredRun& stored = runs_.at(old.run_id);
    stored.row = std::move(old.row);
    stored.events.resize(std::min(stored.events.size(), stored.row.last_seq));
  }
  unflushed_.pop_back();
  --commits_;
}

void Database::crash() {
  late_.clear();
  const auto lost = dice_.between(0, static_cast<std::int64_t>(unflushed_.size()));
  for (std::int64_t i = 0; i < lost; ++i) undo_newest();
  flushed_ = commits_;
  unflushed_.clear();
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
  ++transactions_;
  flushed_ = ++commits_;
  unflushed_.clear();
  ring_queue();
}

bool Database::cancel_run(const std::string& run_id) {
  const RunRow& found = runs_.at(run_id).row;
  if (is_final(found.status())) return false;
  if (found.cancel_requested && found.status() != RunStatus::waiting) return false;
  Changes changes;
  Change& change = changed(changes, run_id);
  RunRow& row = change.row;
  const bool in_a_phase = std::ranges::find(row.phases, PhaseState::running, &StoredPhase::state) != row.phases.end();
  const bool at_once = row.status() == RunStatus::waiting || (row.status() == RunStatus::queued && !in_a_phase);
  write_event(change, Level::warn, at_once ? "cancelled by operator" : "cancel requested by operator");
  row.cancel_requested = true;
  if (at_once) {
    for (StoredPhase& phase : row.phases)
      if (!is_final(phase.state)) phase.state = phase.started_at ? PhaseState::cancelled : PhaseState::skipped;
    row.waiting_for.clear();
    row.history.push_back(RunStatus::cancelled);
  } else {
    row.cancel_rung = true;
  }
  apply(std::move(changes), true);
  ring_queue();
  if (!at_once) ring_cancel();
  return true;
}

bool Database::reset_run(const std::string& run_id) {
  if (!runs_.at(run_id).row.is_active()) return false;
  Changes changes;
  Change& change = changed(changes, run_id);
  write_event(change, Level::warn, "given back to the queue");
  change.row.history.push_back(RunStatus::queued);
  change.row.claim_token.clear();
  change.row.worker_id.clear();
  change.row.cancel_rung = false;
  apply(std::move(changes), true);
  ring_queue();
  return true;
}

bool Database::resolve_effect(const std::string& run_id, const std::string& key, EffectState state) {
  if (runs_.at(run_id).row.waiting_for != "decision") return false;
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
    const bool lost = !living_.contains(stored.row.worker_id) || stored.row.worker_id == worker_id ||
                      defects_.take_over_takes_living;
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
  if (!changes.empty()) apply(std::move(changes), false);
  for (const ClaimedRun& run : taken) witness_->given_out(run.facts.run_id, run.claim_token, worker_id);
  return taken;
}

Database::SafetyReport Database::safety_check(const std::string& worker_id) const {
  SafetyReport report;
  for (const auto& [run_id, stored] : runs_) {
    const RunRow& row = stored.row;
    report.queue |= row.status() == RunStatus::queued;
    if (row.is_active() && row.worker_id == worker_id) report.cancel |= row.cancel_rung;
    if (row.is_active() && (row.worker_id == worker_id || !living_.contains(row.worker_id))) ++report.runs;
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
