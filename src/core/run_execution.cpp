#include "core/run_execution.hpp"

#include <algorithm>
#include <utility>

#include "core/redact.hpp"

namespace ops {

namespace {

/// How long a cancel coroutine may follow what it stops before the run ends with an error.
constexpr Millis longest_stop = std::chrono::minutes{20};

/// What a phase that is taken up again has at least: what it waited for may have ended while nobody looked (fault F68).
constexpr std::chrono::microseconds shortest_resumption = std::chrono::minutes{5};

}  // namespace

// Phase --------------------------------------------------------------------------------------------------------------

PhaseExecution::PhaseExecution(RunExecution& run, PhaseFacts& facts, const PhaseKind* kind,
                               std::vector<EffectRecord> effects, std::set<std::string> event_keys,
                               PhaseEnvironment environment, SteadyTime deadline)
    : run_(run),
      facts_(facts),
      kind_(kind),
      context_(run.claimed_.facts, facts, run.claimed_.phases, std::move(effects), std::move(event_keys), environment),
      deadline_(deadline) {}

void PhaseExecution::resume() {
  go_on();
  run_.gather(context_);
}

void PhaseExecution::go_on() {
  transfer.reset();
  wake_at.reset();
  if (settled_) return;
  const bool first = !std::exchange(started_, true);
  if (kind_ == nullptr) {
    fail("unknown_kind", "this worker knows no phase kind \"" + facts_.kind + "\"",
         "Install the library version that brings this kind, then retry the run.", Json::object());
    return;
  }
  if (stop_reason_ && !stopping_ && !context_.effect_in_flight()) {
    begin_stopping();  // perform() is not resumed: what it waited for has not come
  } else if (first) {
    performing_ = kind_->perform(context_);
    performing_.start();
  } else if (const std::coroutine_handle<> waiting = context_.take_waiting()) {
    waiting.resume();
  }

  if (performing_ && performing_.done()) {
    finish_performing();
    return;
  }
  if (stop_reason_ && !stopping_ && !context_.effect_in_flight()) begin_stopping();
  if (stopping_ && stopping_.done()) finish_stopping();
}

void PhaseExecution::stop(StopReason reason) {
  if (settled_ || stop_reason_) {
    // A second reason while stopping: only the deadline of stopping itself matters, and it ends the phase.
    if (!settled_ && reason == StopReason::deadline) {
      stopping_.reset();
      fail("stop_unconfirmed", "it could not be confirmed in time that everything outside has stopped",
           "Look at the service and stop what is left by hand.", Json::object());
    }
    return;
  }
  stop_reason_ = reason;
  context_.refuse_effects(true);
}

void PhaseExecution::begin_stopping() {
  performing_.reset();
  context_.take_waiting();
  context_.take_command();
  context_.refuse_effects(false);
  deadline_ = context_.steady_now() + longest_stop;
  stopping_ = kind_->cancel(context_);
  stopping_.start();
}

void PhaseExecution::finish_performing() {
  try {
    facts_.outcome = performing_.take();
    settle(PhaseState::succeeded);
    run_.phase_write(facts_).outcome = facts_.outcome;
    context_.event(Level::info, "phase " + facts_.name + " succeeded", Json::object(), "phase:succeeded");
  } catch (const PhaseError& error) {
    fail(error.code(), error.what(), error.hint(), error.payload());
  } catch (const MustWait& wait) {
    park(wait, context_.has_begun_outside());
  } catch (const std::exception& error) {
    abandon(error.what());
  }
  performing_.reset();
}

/// @param begun  what it left outside must be stopped if the run is cancelled: it stays running
void PhaseExecution::park(const MustWait& wait, bool begun) {
  context_.event(Level::warn, std::string("waiting: ") + wait.what(),
                 {{"waiting_for", wait.waiting_for()}, {"hint", wait.hint()}});
  run_.parked_ = wait;
  settle(begun ? PhaseState::running : PhaseState::pending);
}

void PhaseExecution::abandon(const std::string& why) {
  fail("internal_error", "unexpected error in phase kind " + facts_.kind + ": " + why,
       "This is a fault of ops_runner; please report it with this event.", Json::object());
  run_.gather(context_);
}

void PhaseExecution::finish_stopping() {
  try {
    const std::string stopped = stopping_.take();
    if (stop_reason_ == StopReason::deadline) {
      fail("timed_out",
           "phase " + facts_.name + " did not end within its time limit" + (stopped.empty() ? "" : "; " + stopped),
           "Look at the last events for what it waited for; raise the phase's timeout if it needs longer.",
           Json::object());
    } else {
      settle(PhaseState::cancelled);
      context_.event(Level::info,
                     "phase " + facts_.name + " cancelled" +
                         (stopped.empty() ? std::string("; nothing was left to stop outside") : ": " + stopped),
                     Json::object(), "phase:cancelled");
    }
  } catch (const MustWait& wait) {
    park(wait, true);
  } catch (const std::exception& error) {
    fail("stop_unconfirmed",
         std::string("it could not be confirmed that everything outside has stopped: ") + error.what(),
         "Look at the service and stop what is left by hand.", Json::object());
  }
  stopping_.reset();
}

void PhaseExecution::fail(const std::string& code, const std::string& message, const std::string& hint,
                          const Json& payload) {
  Json details = payload.is_object() ? payload : Json::object();
  details["code"] = code;
  details["hint"] = hint;
  facts_.outcome = {{"error", code}};
  settle(PhaseState::failed);
  run_.phase_write(facts_).outcome = facts_.outcome;
  context_.event(Level::error, "phase " + facts_.name + " failed: " + message, std::move(details));
  if (run_.failed_phase_.empty()) run_.failed_phase_ = facts_.name;
}

void PhaseExecution::settle(PhaseState state) {
  settled_ = true;
  facts_.state = state;
  PhaseWrite& write = run_.phase_write(facts_);
  write.state = state;
  if (!is_final(state)) {
    facts_.started_at.reset();  // the time for which it waits does not count
  } else {
    facts_.finished_at = context_.now();
  }
  write.started_at = facts_.started_at;
  write.finished_at = facts_.finished_at;
}

// Run ----------------------------------------------------------------------------------------------------------------

RunExecution::RunExecution(ClaimedRun claimed, const PhaseCatalog& catalog, PhaseEnvironment environment,
                           const std::string& worker_id)
    : claimed_(std::move(claimed)),
      catalog_(catalog),
      environment_(environment),
      status_(claimed_.status),
      stored_status_(claimed_.status) {
  std::ranges::sort(claimed_.phases, {}, &PhaseFacts::phase_no);
  cancelling_ = claimed_.cancel_requested;
  const auto failed = std::ranges::find(claimed_.phases, PhaseState::failed, &PhaseFacts::state);
  if (failed != claimed_.phases.end()) failed_phase_ = failed->name;  // in an earlier life, beside one that went on
  event(Level::info,
        claimed_.facts.attempt <= 1 ? "claimed by worker " + worker_id : "taken over by worker " + worker_id,
        {{"worker", worker_id}, {"attempt", claimed_.facts.attempt}});
  set_status(RunStatus::running);
}

void RunExecution::event(Level level, const std::string& message, const Json& payload) {
  writes_.events.push_back({level, redact(message), redact_json(payload), {}, {}, environment_.clock.now()});
}

void RunExecution::set_status(RunStatus status) {
  status_ = status;
}

const PhaseFacts* RunExecution::phase_named(const std::string& name) const {
  const auto found = std::ranges::find(claimed_.phases, name, &PhaseFacts::name);
  return found == claimed_.phases.end() ? nullptr : &*found;
}

bool RunExecution::needs_met(const PhaseFacts& phase) const {
  return std::ranges::all_of(phase.needs, [&](const std::string& name) {
    const PhaseFacts* needed = phase_named(name);
    return needed != nullptr && (needed->state == PhaseState::succeeded || needed->state == PhaseState::skipped);
  });
}

PhaseWrite& RunExecution::phase_write(const PhaseFacts& phase) {
  const auto found = std::ranges::find(writes_.phases, phase.name, &PhaseWrite::name);
  if (found != writes_.phases.end()) return *found;
  PhaseWrite write;
  write.phase_no = phase.phase_no;
  write.name = phase.name;
  write.state = phase.state;
  write.attempt = phase.attempt;
  write.started_at = phase.started_at;
  write.finished_at = phase.finished_at;
  return writes_.phases.emplace_back(std::move(write));
}

std::vector<PhaseExecution*> RunExecution::advance() {
  std::vector<PhaseExecution*> started;
  if (over()) return started;
  std::erase_if(executions_, [](const auto& execution) { return execution->settled(); });
  const bool undisturbed = failed_phase_.empty() && !parked_;
  const bool may_start = undisturbed && !cancelling_;
  // Where the newest commits may be lost, a phase that looks pending may have begun: it is begun to be stopped.
  const bool must_stop_all = undisturbed && cancelling_ && claimed_.facts.look_first;
  for (PhaseFacts& phase : claimed_.phases) {
    // A phase that an earlier life began runs again from the top; when the run is being cancelled, only to be stopped.
    const bool resumes = phase.state == PhaseState::running && !parked_;
    const bool begins = phase.state == PhaseState::pending && ((may_start && needs_met(phase)) || must_stop_all);
    const bool in_progress = std::ranges::any_of(
        executions_, [&](const auto& execution) { return &execution->context().phase() == &phase; });
    if (in_progress || (!resumes && !begins)) continue;

    const WallTime now = environment_.clock.now();
    const SteadyTime steady_now = environment_.clock.steady_now();
    if (!phase.started_at) phase.started_at = now;
    phase.finished_at.reset();
    phase.state = PhaseState::running;
    phase.attempt = claimed_.facts.attempt;
    phase_write(phase);
    // What earlier lives used of the time limit counts; a clock set back cannot lengthen it.
    const auto used = std::max(std::chrono::microseconds{0}, now - phase.started_at.value_or(now));
    const std::chrono::microseconds limit = phase.timeout;
    const SteadyTime deadline = steady_now + std::max(limit - used, std::min(limit, shortest_resumption));

    std::vector<EffectRecord> effects;
    for (const EffectRecord& effect : claimed_.effects)
      if (effect.phase == phase.name) effects.push_back(effect);
    std::set<std::string> event_keys;
    for (const auto& [name, key] : claimed_.event_keys)
      if (name == phase.name) event_keys.insert(key);

    auto execution = std::make_unique<PhaseExecution>(*this, phase, catalog_.find(phase.kind), std::move(effects),
                                                      std::move(event_keys), environment_, deadline);
    execution->context().event(Level::info, "phase " + phase.name + " started", {{"kind", phase.kind}},
                               "phase:started");
    if (cancelling_) execution->stop(PhaseExecution::StopReason::cancel);
    started.push_back(execution.get());
    executions_.push_back(std::move(execution));
  }
  if (started.empty()) end_when_nothing_is_left();
  return started;
}

std::vector<PhaseExecution*> RunExecution::cancel(const std::string& reason) {
  std::vector<PhaseExecution*> affected;
  if (over() || cancelling_) return affected;
  cancelling_ = true;
  claimed_.cancel_reason = reason;
  for (const auto& execution : executions_) {
    if (execution->settled()) continue;
    execution->stop(PhaseExecution::StopReason::cancel);
    affected.push_back(execution.get());
  }
  return affected;
}

void RunExecution::end_when_nothing_is_left() {
  const bool busy = std::ranges::any_of(executions_, [](const auto& execution) { return !execution->settled(); });
  if (busy || over()) return;

  const bool begun =
      std::ranges::find(claimed_.phases, PhaseState::running, &PhaseFacts::state) != claimed_.phases.end();
  if (parked_ && failed_phase_.empty() && (begun || !cancelling_)) {
    writes_.waiting_for = parked_->waiting_for();
    set_status(RunStatus::waiting);
    return;
  }
  for (PhaseFacts& phase : claimed_.phases) {
    if (is_final(phase.state)) continue;
    phase.state = phase.state == PhaseState::running ? PhaseState::failed : PhaseState::skipped;
    phase_write(phase).state = phase.state;
  }
  if (!failed_phase_.empty()) {
    event(Level::error, "run failed in phase " + failed_phase_,
          {{"phase", failed_phase_}, {"cancel_requested", cancelling_}});
    set_status(RunStatus::failed);
  } else if (cancelling_) {
    event(Level::info,
          "run cancelled" + (claimed_.cancel_reason.empty() ? std::string() : ": " + claimed_.cancel_reason));
    set_status(RunStatus::cancelled);
  } else {
    event(Level::info, "run succeeded");
    set_status(RunStatus::success);
  }
}

void RunExecution::gather(PhaseContext& context) {
  if (!context.has_writes()) return;
  PhaseWrites produced = context.take_writes();
  std::ranges::move(produced.events, std::back_inserter(writes_.events));
  std::ranges::move(produced.artifacts, std::back_inserter(writes_.artifacts));
  for (EffectRecord& effect : produced.effects) {
    writes_.needs_flush |= effect.state == EffectState::intended;
    writes_.effects.push_back(std::move(effect));
  }
  if (!produced.remembered.empty()) phase_write(context.phase()).remembered.update(produced.remembered);
}

std::optional<RunWrites> RunExecution::take_writes() {
  for (const auto& execution : executions_) gather(execution->context());
  if (status_ != stored_status_) {
    writes_.status = status_;
    writes_.needs_flush |= is_final(status_);
    stored_status_ = status_;
  }
  const bool nothing = !writes_.status && writes_.events.empty() && writes_.phases.empty() && writes_.effects.empty() &&
                       writes_.artifacts.empty();
  if (nothing) return std::nullopt;
  writes_.run_id = claimed_.facts.run_id;
  writes_.claim_token = claimed_.claim_token;
  return std::exchange(writes_, RunWrites{});
}

std::vector<PhaseWrite> RunExecution::phases_given_up(const RunWrites& unstored) const {
  std::vector<PhaseWrite> ended;
  for (const PhaseFacts& phase : claimed_.phases) {
    const bool is_unstored = std::ranges::find(unstored.phases, phase.name, &PhaseWrite::name) != unstored.phases.end();
    if (is_final(phase.state) && !is_unstored) continue;
    PhaseWrite write;
    write.phase_no = phase.phase_no;
    write.name = phase.name;
    write.attempt = phase.attempt;
    write.started_at = phase.started_at;
    write.finished_at = environment_.clock.now();
    write.state = phase.started_at ? PhaseState::failed : PhaseState::skipped;
    ended.push_back(std::move(write));
  }
  return ended;
}

}  // namespace ops
