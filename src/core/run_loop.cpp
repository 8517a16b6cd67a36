#include "core/run_loop.hpp"

#include <algorithm>
#include <utility>

#include "core/redact.hpp"

namespace ops {

namespace {
constexpr int careful_turns_after_failure = 20;
/// An origin with an outage is asked every so many retry delays: often enough to notice its recovery within 30 s.
constexpr int probe_factor = 10;
}  // namespace

RunLoop::RunLoop(Store& store, Transport& transport, Clock& clock, Random& random, Files& files,
                 const PhaseCatalog& catalog, std::string worker_id, LoopSettings settings,
                 std::function<void(const std::string&)> report)
    : store_(store),
      transport_(transport),
      clock_(clock),
      random_(random),
      files_(files),
      catalog_(catalog),
      worker_id_(std::move(worker_id)),
      settings_(settings),
      report_(std::move(report)),
      budget_(settings.mutation_interval, settings.retry_delay * probe_factor) {}

RunLoop::~RunLoop() = default;

void RunLoop::configure(LoopSettings settings) {
  if (settings.max_concurrent_runs > settings_.max_concurrent_runs) queue_rung_ = true;
  settings_ = settings;
  budget_.configure(settings.mutation_interval, settings.retry_delay * probe_factor);
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
  if (timers_.empty()) return std::nullopt;
  return timers_.begin()->first;
}

bool RunLoop::turn() {
  ++counters_.turns;
  resume_ready();
  store_turn();
  return !ready_.empty() || !adopted_.empty() || cancel_rung_ || (queue_rung_ && capacity() > 0);
}

// Resuming -----------------------------------------------------------------------------------------------------------

void RunLoop::resume_ready() {
  for (ClaimedRun& run : std::exchange(adopted_, {})) start_run(std::move(run));

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
  const PhaseEnvironment environment{clock_, random_, budget_, tokens_, files_, settings_.retry_delay};
  auto run = std::make_unique<RunExecution>(std::move(claimed), catalog_, environment, worker_id_);
  RunExecution& added = *run;
  runs_.emplace(run_id, std::move(run));
  touch(added);
  for (PhaseExecution* phase : added.advance()) resume(*phase);
}

void RunLoop::resume(PhaseExecution& phase) {
  RunExecution& run = phase.run();
  touch(run);
  unschedule(phase);
  phase.resume();
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

void RunLoop::store_turn() {
  const bool claims = queue_rung_ && capacity() > 0;
  std::vector<RunWrites> writes;
  bool collected = false;
  try {
    if (claims && careful_turns_ > 0) {
      const std::unique_ptr<StoreTransaction> transaction = store_.begin();
      take_claims(*transaction);
      transaction->commit(false);
      claimed_now_.clear();
    }
    std::unique_ptr<StoreTransaction> transaction;
    if ((claims && careful_turns_ == 0) || cancel_rung_) {
      transaction = store_.begin();
      if (careful_turns_ == 0) take_claims(*transaction);
      take_cancel_requests(*transaction);
    }
    writes = collect_writes();
    collected = true;
    if (!writes.empty()) {
      if (!transaction) transaction = store_.begin();
      for (const std::string& run_id : transaction->record(writes)) drop(run_id);
    }
    if (transaction) {
      transaction->commit(std::ranges::any_of(writes, &RunWrites::needs_flush));
      ++counters_.commits;
    }
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
  release();
}

void RunLoop::store_one_by_one(const std::vector<RunWrites>& writes, const std::string& why) {
  report_("a transaction failed and is redone run by run: " + redact(why));
  for (const RunWrites& write : writes) {
    try {
      const std::unique_ptr<StoreTransaction> transaction = store_.begin();
      const std::vector<RunWrites> single{write};
      for (const std::string& run_id : transaction->record(single)) drop(run_id);
      transaction->commit(write.needs_flush);
    } catch (const std::exception& error) {
      // Nothing of this run's turn can be stored. What it sent stays in its journal as intended; it is not sent again.
      report_("run " + write.run_id + " could not be recorded: " + redact(error.what()));
      drop(write.run_id);
      try {
        const std::unique_ptr<StoreTransaction> transaction = store_.begin();
        RunWrites ending;
        ending.run_id = write.run_id;
        ending.claim_token = write.claim_token;
        ending.status = RunStatus::failed;
        ending.needs_flush = true;
        ending.events.push_back(
            {Level::error,
             redact(std::string("run failed: its progress could not be recorded: ") + error.what()),
             {{"code", "internal_error"}, {"hint", "This is a fault of ops_runner; please report it with this event."}},
             {},
             {},
             clock_.now()});
        transaction->record({ending});
        transaction->commit(true);
      } catch (const std::exception& again) {
        report_("run " + write.run_id + " stays claimed until the worker can read it again: " + redact(again.what()));
      }
    }
  }
}

// Releasing ----------------------------------------------------------------------------------------------------------

void RunLoop::release() {
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
    for (const auto& phase : run.executions()) schedule(*phase);
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
