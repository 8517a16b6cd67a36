#include "core/run_loop.hpp"

#include <algorithm>
#include <utility>

#include "core/redact.hpp"
#include "core/stop_point.hpp"

namespace ops {

namespace {

constexpr int careful_turns_after_failure = 20;
constexpr Millis first_store_pause{50};
constexpr Millis longest_store_pause{10'000};
/// An origin with an outage is asked every so many retry delays: often enough to notice its recovery within 30 s.
constexpr int probe_factor = 10;
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
    : budget_(settings.mutation_interval, settings.retry_delay * probe_factor),
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
  if (settings.lease < settings_.lease) renew_at_ = SteadyTime{};  // the longer one must not hold runs any more
  settings_ = settings;
  environment_.retry_delay = settings.retry_delay;
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
  std::optional<SteadyTime> next = store_again_;
  if (!next && !runs_.empty()) next = renew_at_;  // the store that cannot be asked yet renews no lease either
  if (!timers_.empty()) next = next ? std::min(*next, timers_.begin()->first) : timers_.begin()->first;
  return next;
}

bool RunLoop::turn() {
  ++counters_.turns;
  resume_ready();
  store_turn();
  if (std::exchange(transport_failed_, false)) throw std::bad_alloc();
  if (store_again_) return false;
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
  send_reads_of_claims();
}

/// What only reads needs no record before it, and here no lease either: as long as this transaction is open, its locks
/// keep everybody else from these runs. Of a claim that fails nothing is left outside, drop() forgets the answer, and
/// the next attempts do not ask again before they have succeeded.
void RunLoop::send_reads_of_claims() {
  if (store_failures_ > 0 || careful_turns_ > 0) return;
  bool sent = false;
  for (const std::string& run_id : claimed_now_)
    for (const auto& phase : runs_.at(run_id)->executions()) {
      const HttpRequest* read = phase->context().pending_read();
      if (read == nullptr || !transport_.can_start_in_transaction(*read)) continue;
      schedule(*phase);
      sent = true;
    }
  if (!sent) return;
  try {
    transport_.advance();
  } catch (const std::bad_alloc&) {
    transport_failed_ = true;  // it may have lost transfers of others: no matter of this transaction
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
  if (store_again_ && clock_.steady_now() < *store_again_) return;
  store_again_.reset();
  if (!record_again()) return;
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
    store_failures_ = 0;
  } catch (const StoreBusy& busy) {
    take_back_claims(writes);
    unrecorded_ = std::move(writes);
    pause_store("the store is busy", busy.what());
    return;
  } catch (const std::exception& error) {
    take_back_claims(writes);
    careful_turns_ = careful_turns_after_failure;
    if (!collected) writes = collect_writes();
    pause_store("a transaction failed and is redone run by run", error.what());
    store_one_by_one(writes);
  }
  claimed_now_.clear();
  for (const std::string& run_id : claimed) OPS_STOP_POINT("after_claim", run_id);
  if (stored) {
    stop_where(writes, EffectState::done, "after_result_commit");
    stop_where(writes, EffectState::intended, "after_intent_commit");
  }
  if (unrecorded_.empty()) release();
}

/// Claims of a failed transaction are undone with it: those runs are queued again and have sent nothing.
void RunLoop::take_back_claims(std::vector<RunWrites>& writes) {
  for (const std::string& run_id : std::exchange(claimed_now_, {})) {
    drop(run_id);
    std::erase_if(writes, [&](const RunWrites& write) { return write.run_id == run_id; });
    queue_rung_ = true;
  }
}

/// What a busy store has refused comes before anything new of the same runs.
bool RunLoop::record_again() {
  if (unrecorded_.empty()) return true;
  try {
    const std::unique_ptr<StoreTransaction> transaction = store_.begin();
    const std::set<std::string> lost = transaction->record(unrecorded_);
    transaction->commit(std::ranges::any_of(unrecorded_, &RunWrites::needs_flush));
    ++counters_.commits;
    unrecorded_.clear();
    for (const std::string& run_id : lost) drop(run_id);
  } catch (const StoreBusy& busy) {
    pause_store("the store is busy", busy.what());
    return false;
  } catch (const std::exception& error) {
    pause_store("a transaction failed and is redone run by run", error.what());
    store_one_by_one(std::exchange(unrecorded_, {}));
  }
  return unrecorded_.empty();
}

/// The next attempt comes after a pause that doubles, with jitter, so that two who hinder each other part.
void RunLoop::pause_store(const char* what, const std::string& why) {
  report_(std::string(what) + ": " + redact(why));
  const Millis longest = std::min(longest_store_pause, first_store_pause * (1 << std::min(store_failures_++, 10)));
  const double part = 0.5 + environment_.random.uniform() / 2;
  store_again_ = clock_.steady_now() + std::chrono::duration_cast<Millis>(longest * part);
}

void RunLoop::store_one_by_one(const std::vector<RunWrites>& writes) {
  for (const RunWrites& write : writes) {
    try {
      const std::unique_ptr<StoreTransaction> transaction = store_.begin();
      const std::vector<RunWrites> single{write};
      for (const std::string& run_id : transaction->record(single)) drop(run_id);
      transaction->commit(write.needs_flush);
    } catch (const StoreBusy&) {
      unrecorded_.push_back(write);
    } catch (const std::exception& error) {
      give_up(write, error.what());
    }
  }
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
    const std::unique_ptr<StoreTransaction> transaction = store_.begin();
    transaction->record({ending});
    transaction->commit(true);
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
  touched_.erase(run_id);
  const auto found = runs_.find(run_id);
  if (found == runs_.end()) return;
  std::erase_if(unrecorded_, [&](const RunWrites& write) { return write.run_id == run_id; });
  for (const auto& phase : found->second->executions()) {
    unschedule(*phase);
    std::erase(ready_, phase.get());
  }
  runs_.erase(found);
}

}  // namespace ops
