// Server zone: the runs that a claim looks at, in its order. Without planner and executor: of an idle system the
// statement took half of the time of a claim.
#pragma once

#include <cstddef>

#include "pg/compat.hpp"

namespace ops::pg {

/// Where a claim begins to look.
struct ReadyPlace {
  int priority;
  TimestampTz since;
};

struct ReadyRun {
  const char* run_id;
  const char* env_id;
};

struct ReadyRuns {
  ReadyRun* runs;
  std::size_t count;
};

/// Rows of ops.run_queue that are ready, of this priority and since this time, the oldest first, at most `limit`. They
/// are locked FOR UPDATE; those that another session holds are skipped. Raises 40001 in a transaction of higher
/// isolation where one of them has changed.
/// @param passed_over  environments whose runs are skipped, sorted
ReadyRuns lock_ready_runs(const ReadyPlace& place, const char* const* passed_over, std::size_t passed_over_count,
                          std::size_t limit);

}  // namespace ops::pg
