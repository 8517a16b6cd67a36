#include "pg/ready_floors.hpp"

#include <algorithm>
#include <utility>

#include "pg/shared_memory.hpp"

extern "C" {
OPS_SQL_FUNCTION(ops_note_ready);
OPS_SQL_FUNCTION(ops_ready_floors);
OPS_SQL_FUNCTION(ops_raise_ready_floor);
OPS_SQL_FUNCTION(ops_note_later);
OPS_SQL_FUNCTION(ops_raise_later_floor);
}

namespace ops::pg {

namespace {

constexpr int priorities = highest_priority - lowest_priority + 1;
constexpr int later = priorities;

/// A claim that leaves the floors alone costs nothing but some dead index entries for the next one.
constexpr uint64 looks_between_raises = 16;

// What the current transaction does to the floors when it commits. By priority, with the touched ones listed.
struct Pending {
  TimestampTz noted[ready_floor_count];
  TimestampTz raised[ready_floor_count];
  bool is_noted[ready_floor_count];
  bool is_raised[ready_floor_count];
  int touched[ready_floor_count];
  int touched_count;
  bool found_all;  ///< what the transaction has noted is all that was ready
  uint64 look;     ///< of the transaction's newest look; 0: none
};
Pending pending;

int index_of(int priority) {
  if (priority < lowest_priority || priority > highest_priority)
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("priority %d is not between %d and %d", priority, lowest_priority, highest_priority)));
  return priority - lowest_priority;
}

ReadyFloors* shared_floors() {
  DatabaseEntry* entry = shared_state() == nullptr ? nullptr : find_entry(MyDatabaseId);
  return entry == nullptr ? nullptr : &entry->ready;
}

/// What a subtransaction that is rolled back has raised would hide the runs that it had claimed.
void at_subtransaction_end(SubXactEvent event, SubTransactionId, SubTransactionId, void*) {
  if (event == SUBXACT_EVENT_ABORT_SUB) pending.look = 0;
}

void watch() {
  static bool watching = false;
  if (!std::exchange(watching, true)) RegisterSubXactCallback(at_subtransaction_end, nullptr);
  watch_transaction_end();
}

}  // namespace

void forget_ready_floors(ReadyFloors& floors) noexcept {
  floors.known = false;
  std::ranges::fill(floors.floor, DT_NOEND);
  std::ranges::fill(floors.arrived, DT_NOEND);
}

bool ready_floors_changed() noexcept {
  return pending.touched_count > 0 || pending.found_all;
}

void apply_ready_floors(ReadyFloors* floors) noexcept {
  if (floors != nullptr) {
    const bool may_raise = pending.look != 0 && pending.look == floors->looks;
    for (int i = 0; i < pending.touched_count; ++i) {
      const int at = pending.touched[i];
      if (pending.is_raised[at] && may_raise) floors->floor[at] = std::max(floors->floor[at], pending.raised[at]);
      if (pending.is_noted[at]) floors->arrived[at] = std::min(floors->arrived[at], pending.noted[at]);
    }
    if (pending.found_all) floors->known = true;
  }
  drop_ready_floors();
}

void drop_ready_floors() noexcept {
  for (int i = 0; i < pending.touched_count; ++i) {
    const int at = pending.touched[i];
    pending.is_noted[at] = pending.is_raised[at] = false;
  }
  pending.touched_count = 0;
  pending.found_all = false;
  pending.look = 0;
}

namespace {

void touch(int at) {
  if (!pending.is_noted[at] && !pending.is_raised[at]) pending.touched[pending.touched_count++] = at;
}

void note(int at, TimestampTz since) {
  watch();
  touch(at);
  pending.noted[at] = std::exchange(pending.is_noted[at], true) ? std::min(pending.noted[at], since) : since;
}

void raise(int at, TimestampTz since) {
  // A snapshot that is older than the look does not see all that the floors have been lowered for.
  if (pending.look == 0 || IsolationUsesXactSnapshot()) return;
  touch(at);
  pending.is_raised[at] = true;
  pending.raised[at] = since;
}

void forget_raises() {
  int kept = 0;
  for (int i = 0; i < pending.touched_count; ++i) {
    const int at = pending.touched[i];
    if (pending.is_noted[at]) pending.touched[kept++] = at;
    pending.is_raised[at] = false;
  }
  pending.touched_count = kept;
}

struct Look {
  int count = -1;  ///< of the priorities; -1: nobody knows yet
  bool raise_due = false;
  bool later_due = false;
};

/// Fills both arrays with the priorities that have something ready, the highest first.
Look look(bool found_all, Datum* of_priority, Datum* since) {
  watch();
  forget_raises();
  pending.look = 0;
  Look seen;
  if (shared_state() != nullptr) LWLockAcquire(shared_state()->lock, LW_EXCLUSIVE);
  ReadyFloors* floors = shared_floors();
  const bool known = floors != nullptr && floors->known;
  if (known) {
    for (int at = 0; at < ready_floor_count; ++at)
      floors->floor[at] = std::min(floors->floor[at], std::exchange(floors->arrived[at], DT_NOEND));
    pending.look = ++floors->looks;
    seen.raise_due = floors->looks % looks_between_raises == 0;
    seen.later_due = floors->floor[later] <= GetCurrentTimestamp();
  }
  int count = 0;
  for (int at = priorities - 1; (known || found_all) && at >= 0; --at) {
    TimestampTz oldest = known ? floors->floor[at] : DT_NOEND;
    if (pending.is_noted[at]) oldest = std::min(oldest, pending.noted[at]);
    if (oldest == DT_NOEND) continue;
    of_priority[count] = Int32GetDatum(at + lowest_priority);
    since[count++] = TimestampTzGetDatum(oldest);
  }
  if (shared_state() != nullptr) LWLockRelease(shared_state()->lock);
  pending.found_all |= found_all;
  if (known || found_all) seen.count = count;
  return seen;
}

Datum array_of(Datum* values, int count, Oid type) {
  int16 length = 0;
  bool by_value = false;
  char align = 0;
  get_typlenbyvalalign(type, &length, &by_value, &align);
  return PointerGetDatum(construct_array(values, count, type, length, by_value, align));
}

Datum ready_floors(PG_FUNCTION_ARGS) {
  TupleDesc columns = nullptr;
  if (get_call_result_type(fcinfo, nullptr, &columns) != TYPEFUNC_COMPOSITE)
    elog(ERROR, "return type must be a row type");
  Datum* of_priority = static_cast<Datum*>(palloc(sizeof(Datum) * priorities));
  Datum* since = static_cast<Datum*>(palloc(sizeof(Datum) * priorities));
  const Look seen = look(PG_GETARG_BOOL(0), of_priority, since);
  Datum values[] = {0, 0, BoolGetDatum(seen.raise_due), BoolGetDatum(seen.later_due)};
  bool nulls[] = {seen.count < 0, seen.count < 0, false, false};
  if (seen.count >= 0) {
    values[0] = array_of(of_priority, seen.count, INT4OID);
    values[1] = array_of(since, seen.count, TIMESTAMPTZOID);
  }
  return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(columns), values, nulls));
}

}  // namespace

void note_ready(int priority, TimestampTz since) {
  note(index_of(priority), since);
}

void note_later(TimestampTz since) {
  note(later, since);
}

}  // namespace ops::pg

// Server zone: these shells hold nothing with a destructor, so server errors may pass through them.

Datum ops_note_ready(PG_FUNCTION_ARGS) {
  ops::pg::note_ready(PG_GETARG_INT32(0), PG_GETARG_TIMESTAMPTZ(1));
  PG_RETURN_BOOL(true);
}

Datum ops_ready_floors(PG_FUNCTION_ARGS) {
  return ops::pg::ready_floors(fcinfo);
}

Datum ops_raise_ready_floor(PG_FUNCTION_ARGS) {
  ops::pg::raise(ops::pg::index_of(PG_GETARG_INT32(0)), PG_GETARG_TIMESTAMPTZ(1));
  PG_RETURN_VOID();
}

Datum ops_note_later(PG_FUNCTION_ARGS) {
  ops::pg::note_later(PG_GETARG_TIMESTAMPTZ(0));
  PG_RETURN_BOOL(true);
}

Datum ops_raise_later_floor(PG_FUNCTION_ARGS) {
  ops::pg::raise(ops::pg::later, PG_GETARG_TIMESTAMPTZ(0));
  PG_RETURN_VOID();
}
