#include "pg/ready_runs.hpp"

#include <algorithm>
#include <cstring>

#include "pg/index_scan.hpp"

namespace ops::pg {

namespace {

/// Numbers of columns of ops.run_queue.
struct QueueColumns {
  int run_id;
  int env_id;
  int state;
};

const char* text_at(TupleTableSlot* row, int number) {
  bool is_null = false;
  return TextDatumGetCString(slot_getattr(row, number, &is_null));
}

}  // namespace

ReadyRuns lock_ready_runs(const ReadyPlace& place, const char* const* passed_over, std::size_t passed_over_count,
                          std::size_t limit) {
  const IndexKey keys[] = {
      {BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(place.priority)},
      {BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE, TimestampTzGetDatum(place.since)},
  };
  IndexScan scan = begin_index_scan("run_queue", "run_queue_ready", keys, 2, RowShareLock);
  TupleDesc columns = RelationGetDescr(scan.table);
  const QueueColumns number{column_number(scan.table, "run_id"), column_number(scan.table, "env_id"),
                            column_number(scan.table, "state")};
  TupleTableSlot* seen = MakeSingleTupleTableSlot(columns, &TTSOpsHeapTuple);
  TupleTableSlot* locked = table_slot_create(scan.table, nullptr);
  ReadyRuns found{nullptr, 0};
  std::size_t room = 0;
  const auto is_passed_over = [&](const char* env_id) {
    return std::binary_search(passed_over, passed_over + passed_over_count, env_id,
                              [](const char* one, const char* other) { return std::strcmp(one, other) < 0; });
  };
  while (found.count < limit) {
    HeapTuple tuple = next_row(scan, ForwardScanDirection);
    if (tuple == nullptr) break;
    ExecStoreHeapTuple(tuple, seen, false);
    const char* env_id = text_at(seen, number.env_id);
    if (is_passed_over(env_id)) continue;
    // The newest version may be blocked already.
    if (!lock_found_row(scan, tuple, LockTupleExclusive, LockWaitSkip, locked)) continue;
    if (std::strcmp(text_at(locked, number.state), "ready") != 0) continue;
    if (found.count == room) {
      room = std::max<std::size_t>(8, 2 * room);
      const Size bytes = sizeof(ReadyRun) * room;
      found.runs = static_cast<ReadyRun*>(found.runs == nullptr ? palloc(bytes) : repalloc(found.runs, bytes));
    }
    found.runs[found.count++] = {text_at(locked, number.run_id), env_id};
  }
  ExecDropSingleTupleTableSlot(locked);
  ExecDropSingleTupleTableSlot(seen);
  end_index_scan(scan);
  return found;
}

}  // namespace ops::pg
