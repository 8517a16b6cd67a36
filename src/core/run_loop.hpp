// The worker's loop, one turn at a time. A turn never blocks:
//
//   take finished transfers and due timers -> resume what can run -> ONE transaction that claims and records everything
//   this turn produced for ALL runs -> send the requests that this commit released
//
// So intent-before-effect and group commit are the same mechanism, and nothing is open while anybody waits. Only the
// first request of a run that is being claimed leaves before the commit if it changes nothing outside: see there. A
// transaction that fails is redone run by run, so that one bad run cannot hurt another. A run that cannot be gone on
// with is dropped from memory: the safety check finds it without a holder and takes it up again from its checkpoints.
//
// Lease: this worker may send only while its lease lasts, by the monotonic clock of this process. A worker that was
// stopped for longer asks the store what it still holds before it sends anything, and forgets the rest.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/host_budget.hpp"
#include "core/phase_catalog.hpp"
#include "core/ports.hpp"
#include "core/run_execution.hpp"
#include "core/session_tokens.hpp"

namespace ops {

struct LoopSettings {
  int max_concurrent_runs = 100;
  int claim_batch = 200;  ///< most runs taken in one turn
  Millis mutation_interval{1'000};
  Millis retry_delay{1'000};
  Millis lease{30'000};  ///< renewed after a third
};

struct LoopCounters {
  std::uint64_t claimed = 0;
  std::uint64_t finished = 0;
  std::uint64_t turns = 0;
  std::uint64_t commits = 0;
};

class RunLoop {
 public:
  /// @param report  told of every error that was survived, in words for the log and ops.worker_status
  RunLoop(Ports ports, const PhaseCatalog& catalog, std::string worker_id, LoopSettings settings,
          std::function<void(const std::string&)> report);
  ~RunLoop();

  void configure(LoopSettings settings);

  /// Runs taken over from a dead worker of this server; performed from the next turn on.
  void adopt(std::vector<ClaimedRun> runs);
  bool can_take_runs() const { return capacity() > 0; }
  /// Something may be in the queue.
  void ring_queue() noexcept { queue_rung_ = true; }
  /// A run of this worker may have a cancel request.
  void ring_cancel() noexcept { cancel_rung_ = true; }

  /// One turn. Returns true when another turn has work at once.
  /// @throws std::bad_alloc  what is in memory cannot be trusted any more
  bool turn();

  /// When turn() wants to be called at the latest; nothing: only a bell or a transfer brings work.
  std::optional<SteadyTime> next_deadline() const;

  std::size_t running() const noexcept { return runs_.size() + adopted_.size(); }
  std::vector<std::string> run_ids() const;
  const LoopCounters& counters() const noexcept { return counters_; }

 private:
  using Runs = std::map<std::string, std::unique_ptr<RunExecution>, std::less<>>;
  using Timer = std::pair<SteadyTime, PhaseExecution*>;
  /// By time; at the same moment by run and phase, so that the order never depends on addresses.
  struct Sooner {
    bool operator()(const Timer& one, const Timer& other) const;
  };

  void resume_ready();
  void take_claims(StoreTransaction& transaction);
  void take_cancel_requests(StoreTransaction& transaction);
  void send_reads_of_claims();
  void start_run(ClaimedRun claimed);
  void resume(PhaseExecution& phase);
  void touch(RunExecution& run) { touched_.insert(run.run_id()); }
  std::vector<RunWrites> collect_writes();
  void store_turn();
  bool record_again();
  void take_back_claims(std::vector<RunWrites>& writes);
  void pause_store(const char* what, const std::string& why);
  void store_one_by_one(const std::vector<RunWrites>& writes);
  void give_up(const RunWrites& write, const std::string& why);
  void renew_lease(StoreTransaction& transaction);
  void lease_renewed(SteadyTime began);
  bool lease_holds();
  void release();
  void schedule(PhaseExecution& phase);
  void unschedule(PhaseExecution& phase);
  void drop(const std::string& run_id);
  int capacity() const;

  HostBudget budget_;
  SessionTokens tokens_;
  Store& store_;
  Transport& transport_;
  Clock& clock_;
  CrashMark& crash_mark_;
  PhaseEnvironment environment_;
  const PhaseCatalog& catalog_;
  std::string worker_id_;
  LoopSettings settings_;
  std::function<void(const std::string&)> report_;
  LoopCounters counters_;

  Runs runs_;
  std::unordered_map<TransferId, PhaseExecution*> transfers_;
  std::set<Timer, Sooner> timers_;
  std::vector<ClaimedRun> adopted_;
  std::vector<PhaseExecution*> ready_;
  std::set<std::string> touched_;
  std::set<std::string> claimed_now_;  ///< claimed in this turn: gone again if its transaction fails
  TransferId last_transfer_ = 0;
  SteadyTime lease_end_{};  ///< nothing is sent from here on; renewed from renew_at_ on
  SteadyTime renew_at_{};
  bool queue_rung_ = true;
  bool cancel_rung_ = false;
  std::vector<RunWrites> unrecorded_;  ///< refused by a busy store; until they are stored nothing is released
  int store_failures_ = 0;             ///< in a row
  std::optional<SteadyTime> store_again_;
  bool transport_failed_ = false;  ///< for lack of memory
  int careful_turns_ = 0;          ///< after a failed transaction: claim one at a time, in a transaction of its own
};

}  // namespace ops
