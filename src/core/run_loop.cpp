#include "core/run_loop.hpp"

#include <algorithm>
#include <utility>

#include "core/redact.hpp"
#include "core/stop_point.hpp"

namespace ops {

namespace {

constexpr int careful_turns_after_failure = 20;
constexpr int tries_of_a_transaction = 5;
constexpr Millis pause_after_failed_renewal{1'000};

/// The run that is being resumed, for the next life of the worker if this one ends meanwhile.
class Marked {
 public:
  Marked(CrashMark& mark, std::string_view run_id) : mark_(mark) { mark_.set(run_id); }
  ~Marked() { mark_.clear(); }
  Marked(const Marked&) = delete;
  Marked& operator=(const Marked&) = delete;

 private:
  CrashMark& mark_;
};

bool holds(const RunWrites& write, EffectState state) {
  return std::ranges::find(write.effects, state, &EffectRecord::state) != write.effects.end();
}

/// Test builds may stop here for every run of this turn that has written such an effect.
void stop_where(const std::vector<RunWrites>& writes, EffectState state, [[maybe_unused]] const char* point) {
  for (const RunWrites& write : writes)
    if (holds(write, state)) OPS_STOP_POINT(point, write.run_id);
}

}  // namespace

RunLoop::RunLoop(Ports ports, const PhaseCatalog& catalog, std::string worker_id, LoopSettings settings,
                 std::function<void(const std::string&)> report)
    : budget_(settings.mutation_interval),
      store_(ports.store),
      transport_(ports.transport),
      clock_(ports.clock),
      crash_mark_(ports.crash_mark),
      environment_{ports.clock, ports.random, budget_, tokens_, ports.files, settings.retry_delay},
      catalog_(catalog),
      worker_id_(std::move(worker_id)),
      settings_(settings),
      report_(std::move(report)) {}

RunLoop::~RunLoop() = default;

bool RunLoop::Sooner::operator()(const Timer& one, const Timer& other) const {
  if (one.first != other.first) return one.first < other.first;
  if (one.second == other.second) return false;
  const int by_run = one.second->run().run_id().compare(other.second->run().run_id());
  if (by_run != 0) return by_run < 0;
  return one.second->context().phase().phase_no < other.second->context().phase().phase_no;
}

void RunLoop::configure(LoopSettings settings) {
  if (settings.max_concurrent_runs > settings_.max_concurrent_runs) queue_rung_ = true;
  settings_ = settings;
  environment_.retry_delay = settings.retry_delay;
  budget_.set_mutation_interval(settings.mutation_interval);
}

void RunLoop::adopt(std::vector<ClaimedRun> runs) {
  std::ranges::move(runs, std::back_inserter(adopted_));
}

std::vector<std::string> RunLoop::run_ids() const {
  std::vector<std::string> ids;
  for (const auto& [run_id, run] : runs_) ids.push_back(run_id);
  for (const ClaimedRun& run : adopted_) ids.push_back(run.facts.run_id);
  return ids;
}

int RunLoop::capacity() const {
  const int free = settings_.max_concurrent_runs - static_cast<int>(runs_.size());
  return std::clamp(free, 0, careful_turns_ > 0 ? 1 : settings_.claim_batch);
}

std::optional<SteadyTime> RunLoop::next_deadline() const {
  std::optional<SteadyTime> next;
  if (!timers_.empty()) next = timers_.begin()->first;
  if (!runs_.empty()) next = next ? std::min(*next, renew_at_) : renew_at_;
  return next;
}

bool RunLoop::turn() {
  ++counters_.turns;
  resume_ready();
  store_turn();
  return !ready_.empty() || !adopted_.empty() || cancel_rung_ || (queue_rung_ && capacity() > 0);
}

// Resuming -----------------------------------------------------------------------------------------------------------

void RunLoop::resume_ready() {
  for (ClaimedRun& run : std::exchange(adopted_, {})) {
    const std::string run_id = run.facts.run_id;
    try {
      start_run(std::move(run));
    } catch (const std::exception& error) {
      report_("run " + run_id + " cannot be taken up: " + redact(error.what()));
      drop(run_id);
    }
  }

  for (PhaseExecution* phase : std::exchange(ready_, {})) resume(*phase);

  for (FinishedTransfer& finished : transport_.take_finished()) {
    const auto found = transfers_.find(finished.id);
    if (found == transfers_.end()) continue;  // its phase is gone
    PhaseExecution& phase = *found->second;
    transfers_.erase(found);
    phase.transfer.reset();
    phase.context().deliver(std::move(finished.response));
    resume(phase);
  }

  const SteadyTime now = clock_.steady_now();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    PhaseExecution& phase = *timers_.begin()->second;
    const bool woken = phase.wake_at && *phase.wake_at <= now;
    if (!woken) {
      phase.stop(PhaseExecution::StopReason::deadline);
      // An effect on the wire is heard first; its answer resumes the phase. Its own time limits bound the wait.
      if (!phase.settled() && phase.context().effect_in_flight()) {
        timers_.erase(timers_.begin());
        continue;
      }
    }
    resume(phase);
  }
}

void RunLoop::start_run(ClaimedRun claimed) {
  ++counters_.claimed;
  const std::string run_id = claimed.facts.run_id;
  drop(run_id);  // a run that came back to us by reset: the old life ends here
  auto run = std::make_unique<RunExecution>(std::move(claimed), catalog_, environment_, worker_id_);
  RunExecution& added = *run;
  runs_.emplace(run_id, std::move(run));
  touch(added);
  for (PhaseExecution* phase : added.advance()) resume(*phase);
}

void RunLoop::resume(PhaseExecution& phase) {
  RunExecution& run = phase.run();
  touch(run);
  unschedule(phase);
  {
    const Marked marked(crash_mark_, run.run_id());
    try {
      OPS_STOP_POINT("before_resume", run.run_id());
      phase.resume();
    } catch (const std::exception& error) {
      phase.abandon(error.what());
    }
  }
  if (!phase.settled()) return;
  for (PhaseExecution* next : run.advance()) resume(*next);
}

void RunLoop::unschedule(PhaseExecution& phase) {
  if (phase.transfer) {
    // Resumed while a transfer is out: its answer is no longer wanted (a read of a phase that is being stopped).
    if (transfers_.erase(*phase.transfer) > 0) transport_.abandon(*phase.transfer);
  }
  if (phase.wake_at) timers_.erase({*phase.wake_at, &phase});
  timers_.erase({phase.deadline(), &phase});
}

// Storing ------------------------------------------------------------------------------------------------------------

void RunLoop::take_claims(StoreTransaction& transaction) {
  const int limit = capacity();
  if (!queue_rung_ || limit == 0) return;
  std::vector<ClaimedRun> claimed = transaction.claim(limit);
  queue_rung_ = static_cast<int>(claimed.size()) == limit;
  for (ClaimedRun& run : claimed) {
    claimed_now_.insert(run.facts.run_id);
    start_run(std::move(run));
  }
}

void RunLoop::take_cancel_requests(StoreTransaction& transaction) {
  if (!cancel_rung_) return;
  for (const CancelRequest& request : transaction.cancel_requests()) {
    const auto found = runs_.find(request.run_id);
    if (found == runs_.end()) continue;
    for (PhaseExecution* phase : found->second->cancel(request.reason))
      if (!phase->context().effect_in_flight()) resume(*phase);
  }
  cancel_rung_ = false;
}

std::vector<RunWrites> RunLoop::collect_writes() {
  std::vector<RunWrites> writes;
  for (const std::string& run_id : touched_) {
    const auto found = runs_.find(run_id);
    if (found == runs_.end()) continue;
    if (auto produced = found->second->take_writes()) writes.push_back(std::move(*produced));
  }
  return writes;
}

// Lease --------------------------------------------------------------------------------------------------------------

void RunLoop::renew_lease(StoreTransaction& transaction) {
  const std::set<std::string> held = transaction.renew_lease(settings_.lease);
  std::vector<std::string> lost;
  for (const auto& [run_id, run] : runs_)
    if (!held.contains(run_id) && !claimed_now_.contains(run_id)) lost.push_back(run_id);
  for (const std::string& run_id : lost) drop(run_id);
}

void RunLoop::lease_renewed(SteadyTime began) {
  lease_end_ = began + settings_.lease;
  renew_at_ = began + settings_.lease / 3;
}

/// Asked right before sending: the time since the last renewal may have been spent stopped.
bool RunLoop::lease_holds() {
  const SteadyTime now = clock_.steady_now();
  if (now < lease_end_) return true;
  if (now < renew_at_) return false;
  try {
    const std::unique_ptr<StoreTransaction> transaction = store_.begin();
    renew_lease(*transaction);
    transaction->commit(false);
    lease_renewed(now);
    return true;
  } catch (const std::exception& error) {
    report_("the lease could not be renewed, nothing is sent until it is: " + redact(error.what()));
    renew_at_ = now + pause_after_failed_renewal;
    return false;
  }
}

void RunLoop::store_turn() {
  const SteadyTime began = clock_.steady_now();
  const bool claims = queue_rung_ && capacity() > 0;
  const bool renews = began >= renew_at_ && (claims || !runs_.empty());
  std::vector<RunWrites> writes;
  std::vector<std::string> claimed;
  bool collected = false;
  bool stored = false;
  try {
    if (claims && careful_turns_ > 0) {
      const std::unique_ptr<StoreTransaction> transaction = store_.begin();
      take_claims(*transaction);
      transaction->commit(false);
      claimed.assign(claimed_now_.begin(), claimed_now_.end());
      claimed_now_.clear();
    }
    std::unique_ptr<StoreTransaction> transaction;
    if ((claims && careful_turns_ == 0) || cancel_rung_ || renews) {
      transaction = store_.begin();
      if (renews) renew_lease(*transaction);
      if (careful_turns_ == 0) take_claims(*transaction);
      take_cancel_requests(*transaction);
    }
    writes = collect_writes();
    collected = true;
    if (!writes.empty()) {
      if (!transaction) transaction = store_.begin();
      for (const std::string& run_id : transaction->record(writes)) drop(run_id);
    }
    stop_where(writes, EffectState::done, "before_result_commit");
    if (transaction) {
      transaction->commit(std::ranges::any_of(writes, &RunWrites::needs_flush));
      ++counters_.commits;
    }
    stored = true;
    claimed.insert(claimed.end(), claimed_now_.begin(), claimed_now_.end());
    if (renews) lease_renewed(began);
    if (careful_turns_ > 0) --careful_turns_;
  } catch (const std::exception& error) {
    // Claims of this transaction are undone with it: those runs are queued again and have sent nothing.
    for (const std::string& run_id : claimed_now_) {
      drop(run_id);
      std::erase_if(writes, [&](const RunWrites& write) { return write.run_id == run_id; });
      queue_rung_ = true;
    }
    claimed_now_.clear();
    careful_turns_ = careful_turns_after_failure;
    if (!collected) writes = collect_writes();
    store_one_by_one(writes, error.what());
  }
  claimed_now_.clear();
  for (const std::string& run_id : claimed) OPS_STOP_POINT("after_claim", run_id);
  if (stored) {
    stop_where(writes, EffectState::done, "after_result_commit");
    stop_where(writes, EffectState::intended, "after_intent_commit");
  }
  release();
}

void RunLoop::store_one_by_one(const std::vector<RunWrites>& writes, const std::string& why) {
  report_("a transaction failed and is redone run by run: " + redact(why));
  for (const RunWrites& write : writes) store_alone(write);
}

void RunLoop::store_alone(const RunWrites& write) {
  try {
    if (store_with_retries(write)) return;
    report_("run " + write.run_id + " could not be recorded and is taken up again later");
    drop(write.run_id);
  } catch (const std::exception& error) {
    give_up(write, error.what());
  }
}

/// False when it failed each time for a reason that may pass. @throws what will not pass
bool RunLoop::store_with_retries(const RunWrites& write) {
  for (int attempt = 1; attempt <= tries_of_a_transaction; ++attempt) {
    try {
      const std::unique_ptr<StoreTransaction> transaction = store_.begin();
      const std::vector<RunWrites> single{write};
      for (const std::string& run_id : transaction->record(single)) drop(run_id);
      transaction->commit(write.needs_flush);
      return true;
    } catch (const TransientStoreError& error) {
      report_("run " + write.run_id + " could not be recorded: " + redact(error.what()));
    }
  }
  return false;
}

/// Nothing of this run's turn can be stored, now or later. What it sent stays in its journal as intended; it is not
/// sent again.
void RunLoop::give_up(const RunWrites& write, const std::string& why) {
  report_("run " + write.run_id + " could not be recorded: " + redact(why));
  RunWrites ending;
  ending.run_id = write.run_id;
  ending.claim_token = write.claim_token;
  if (const auto found = runs_.find(write.run_id); found != runs_.end())
    ending.phases = found->second->phases_given_up(write);
  drop(write.run_id);
  ending.status = RunStatus::failed;
  ending.needs_flush = true;
  ending.events.push_back(
      {Level::error,
       redact("run failed: its progress could not be recorded: " + why),
       {{"code", "internal_error"}, {"hint", "This is a fault of ops_runner; please report it with this event."}},
       {},
       {},
       clock_.now()});
  try {
    if (store_with_retries(ending)) return;
  } catch (const std::exception& again) {
    report_("run " + write.run_id + " stays claimed until the worker can read it again: " + redact(again.what()));
  }
}

// Releasing ----------------------------------------------------------------------------------------------------------

void RunLoop::release() {
  if (touched_.empty() || !lease_holds()) return;
  for (const std::string& run_id : std::exchange(touched_, {})) {
    const auto found = runs_.find(run_id);
    if (found == runs_.end()) continue;
    RunExecution& run = *found->second;
    if (run.over()) {
      if (is_final(run.status())) ++counters_.finished;
      drop(run_id);
      // Its slot is free now: a run of the same environment may be next.
      queue_rung_ = true;
      continue;
    }
    try {
      for (const auto& phase : run.executions()) schedule(*phase);
    } catch (const std::exception& error) {
      report_("run " + run_id + " cannot go on and is taken up again later: " + redact(error.what()));
      drop(run_id);
    }
  }
}

void RunLoop::schedule(PhaseExecution& phase) {
  if (phase.settled() || phase.transfer || phase.wake_at) return;
  Command command = phase.context().take_command();
  if (auto* send = std::get_if<SendCommand>(&command)) {
    phase.transfer = ++last_transfer_;
    transfers_.emplace(*phase.transfer, &phase);
    transport_.start(*phase.transfer, std::move(send->request));
  } else if (const auto* sleep = std::get_if<SleepCommand>(&command)) {
    phase.wake_at = sleep->until;
    timers_.insert({sleep->until, &phase});
  } else {
    ready_.push_back(&phase);  // it waited for this commit only
  }
  timers_.insert({phase.deadline(), &phase});
}

void RunLoop::drop(const std::string& run_id) {
  const auto found = runs_.find(run_id);
  if (found == runs_.end()) return;
  for (const auto& phase : found->second->executions()) {
    unschedule(*phase);
    std::erase(ready_, phase.get());
  }
  runs_.erase(found);
}

}  // namespace ops
