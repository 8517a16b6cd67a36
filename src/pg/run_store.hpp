// The Store port on top of SPI: claims, records and reads runs in set-based statements.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/ports.hpp"

namespace ops::pg {

/// seq of the newest event of a run, as long as its row has this version (xmin). Everybody who tells an event of an
/// active run changes its row in the same transaction, so an unchanged row means that nobody else has told anything.
struct KnownEvents {
  std::string row_version;
  std::int64_t last_event;
};

class RunStore final : public Store {
 public:
  /// @param worker_id  identity of this worker's life, as registered in ops.workers
  explicit RunStore(std::string worker_id) : worker_id_(std::move(worker_id)) {}
  std::unique_ptr<StoreTransaction> begin() override;

  /// Takes, at once, the runs of workers of this server whose session lock is gone, and those of this worker that it
  /// does not have in memory (their progress could not be stored). One transaction.
  /// @param held  runs of this worker that go on as they are
  std::vector<ClaimedRun> take_over(const std::vector<std::string>& held);

  struct SafetyReport {
    bool registered = true;                    ///< this worker's row is still there
    bool queue = false;                        ///< something may be claimed
    bool cancel = false;                       ///< a run of this worker has a cancel request
    std::size_t runs = 0;                      ///< claimed by this worker or by dead ones
    std::vector<std::string> missing_secrets;  ///< names that waiting runs wait for
    std::optional<Millis> next_due;            ///< until the next run with a later start may be claimed
  };
  /// The slow check for what no bell announced: slots given back unseen, runs that became due.
  SafetyReport safety_check();

  /// Reads and locks what the claim of one run does, for a run that does not exist: what the claim that follows needs
  /// is in the caches of the processor then.
  void rehearse_claim();

  /// Runs that wait for this secret go back to the queue.
  void requeue_waiting_for_secret(const std::string& name);

 private:
  /// Whether runs of workers that show no sign of life went back to the queue.
  bool rescue_expired_claims();

  std::string worker_id_;
  std::unordered_map<std::string, KnownEvents> known_;  ///< of runs of this worker
};

}  // namespace ops::pg
