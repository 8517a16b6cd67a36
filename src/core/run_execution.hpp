// One claimed run in memory: its phases, their coroutines, and what they have produced since the last commit.
//
// Life of a phase here:
//   pending --needs met--> performing --returns--> succeeded
//                              | throws PhaseError ------------> failed
//                              | throws MustWait --------------> parked (the run goes to waiting): pending, or running
//                              |                                 when something of it is outside
//                              | cancel or deadline: perform() is dropped at a point where no effect is on the wire
//                              v
//                          stopping  (the kind's cancel coroutine follows what is outside to its end) -> cancelled |
//                          failed
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/phase_catalog.hpp"
#include "core/phase_context.hpp"
#include "core/ports.hpp"

namespace ops {

class RunExecution;

/// A phase of the run that has been started by this worker.
class PhaseExecution {
 public:
  PhaseExecution(RunExecution& run, PhaseFacts& facts, const PhaseKind* kind, std::vector<EffectRecord> effects,
                 std::set<std::string> event_keys, PhaseEnvironment environment, SteadyTime deadline);

  RunExecution& run() noexcept { return run_; }
  PhaseContext& context() noexcept { return context_; }

  /// Runs the coroutine to its next command or its end.
  void resume();
  /// Asks perform() to make way for cancel(); done at once unless an effect is on the wire.
  enum class StopReason { cancel, deadline };
  void stop(StopReason reason);

  /// Fails the phase because resuming it threw.
  void abandon(const std::string& why);

  bool settled() const noexcept { return settled_; }
  SteadyTime deadline() const noexcept { return deadline_; }

  // Kept by the loop: what this phase waits for.
  std::optional<TransferId> transfer;
  std::optional<SteadyTime> wake_at;

 private:
  void go_on();
  void finish_performing();
  void finish_stopping();
  void begin_stopping();
  void fail(const std::string& code, const std::string& message, const std::string& hint, const Json& payload);
  void park(const MustWait& wait, bool begun);
  void settle(PhaseState state);

  RunExecution& run_;
  PhaseFacts& facts_;
  const PhaseKind* kind_;
  PhaseContext context_;
  Coroutine<Json> performing_;
  Coroutine<std::string> stopping_;
  std::optional<StopReason> stop_reason_;
  SteadyTime deadline_;
  bool started_ = false;
  bool settled_ = false;
};

class RunExecution {
 public:
  RunExecution(ClaimedRun claimed, const PhaseCatalog& catalog, PhaseEnvironment environment,
               const std::string& worker_id);
  RunExecution(const RunExecution&) = delete;
  RunExecution& operator=(const RunExecution&) = delete;

  const std::string& run_id() const noexcept { return claimed_.facts.run_id; }
  const ClaimedRun& claimed() const noexcept { return claimed_; }

  /// Starts every phase whose needs are met, skips what can no longer run, ends the run when nothing is left.
  /// Returns the phases that were started.
  std::vector<PhaseExecution*> advance();

  /// An operator wants the run to end. Returns the phases that must be resumed.
  std::vector<PhaseExecution*> cancel(const std::string& reason);

  /// Phases in progress.
  std::vector<std::unique_ptr<PhaseExecution>>& executions() noexcept { return executions_; }

  /// What has been produced since the last call; nothing when there is nothing to store.
  std::optional<RunWrites> take_writes();

  /// How the phases end when these writes, and with them the run's progress, cannot be stored: what is stored as final
  /// stays, what was under way has failed, what had not begun is skipped.
  std::vector<PhaseWrite> phases_given_up(const RunWrites& unstored) const;

  /// The run has ended or waits for somebody; it leaves memory when its writes are stored.
  bool over() const noexcept { return status_ != RunStatus::claimed && status_ != RunStatus::running; }
  RunStatus status() const noexcept { return status_; }

 private:
  friend class PhaseExecution;
  void event(Level level, const std::string& message, const Json& payload = Json::object());
  void set_status(RunStatus status);
  bool needs_met(const PhaseFacts& phase) const;
  const PhaseFacts* phase_named(const std::string& name) const;
  PhaseWrite& phase_write(const PhaseFacts& phase);
  /// Takes over what a phase has produced, so that events are numbered in the order in which they happened.
  void gather(PhaseContext& context);
  void end_when_nothing_is_left();

  ClaimedRun claimed_;
  const PhaseCatalog& catalog_;
  PhaseEnvironment environment_;
  RunStatus status_;
  RunStatus stored_status_;
  std::vector<std::unique_ptr<PhaseExecution>> executions_;
  bool cancelling_ = false;
  std::string failed_phase_;
  std::optional<MustWait> parked_;
  RunWrites writes_;
};

}  // namespace ops
