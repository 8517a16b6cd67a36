#include "pg/ready_floors.hpp"

#include <algorithm>
#include <utility>

#include "pg/shared_memory.hpp"

extern "C" {
OPS_SQL_FUNCTION(ops_note_ready);
OPS_SQL_FUNCTION(ops_note_later);
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
  floors.lowest = later;
  floors.highest = -1;
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
      if (!pending.is_noted[at]) continue;
      floors->arrived[at] = std::min(floors->arrived[at], pending.noted[at]);
      if (at == later) continue;
      floors->lowest = std::min(floors->lowest, at);
      floors->highest = std::max(floors->highest, at);
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

void lower_to_arrived(ReadyFloors& floors, int at) {
  floors.floor[at] = std::min(floors.floor[at], std::exchange(floors.arrived[at], DT_NOEND));
}

}  // namespace

void note_ready(int priority, TimestampTz since) {
  note(index_of(priority), since);
}

void note_later(TimestampTz since) {
  note(later, since);
}

void raise_ready_floor(int priority, TimestampTz since) {
  raise(index_of(priority), since);
}

void raise_later_floor(TimestampTz since) {
  raise(later, since);
}

ReadyLook look_for_ready(bool found_all, int* priority, TimestampTz* since) {
  watch();
  forget_raises();
  pending.look = 0;
  ReadyLook seen;
  if (shared_state() != nullptr) LWLockAcquire(shared_state()->lock, LW_EXCLUSIVE);
  ReadyFloors* floors = shared_floors();
  const bool known = floors != nullptr && floors->known;
  int lowest = 0;
  int highest = priorities - 1;
  if (known) {
    lower_to_arrived(*floors, later);
    // Grows with what arrives and shrinks to what is left: most servers use one priority or two.
    lowest = std::exchange(floors->lowest, later);
    highest = std::exchange(floors->highest, -1);
    for (int at = lowest; at <= highest; ++at) {
      lower_to_arrived(*floors, at);
      if (floors->floor[at] == DT_NOEND) continue;
      floors->lowest = std::min(floors->lowest, at);
      floors->highest = at;
    }
    for (int i = 0; i < pending.touched_count; ++i) {
      if (pending.touched[i] == later) continue;
      lowest = std::min(lowest, pending.touched[i]);
      highest = std::max(highest, pending.touched[i]);
    }
    pending.look = ++floors->looks;
    seen.raise_due = floors->looks % looks_between_raises == 0;
    seen.later_due = floors->floor[later] <= GetCurrentTimestamp();
  }
  int count = 0;
  for (int at = highest; (known || found_all) && at >= lowest; --at) {
    TimestampTz oldest = known ? floors->floor[at] : DT_NOEND;
    if (pending.is_noted[at]) oldest = std::min(oldest, pending.noted[at]);
    if (oldest == DT_NOEND) continue;
    priority[count] = at + lowest_priority;
    since[count++] = oldest;
  }
  if (shared_state() != nullptr) LWLockRelease(shared_state()->lock);
  pending.found_all |= found_all;
  if (known || found_all) seen.count = count;
  return seen;
}

}  // namespace ops::pg

// Server zone: these shells hold nothing with a destructor, so server errors may pass through them.

Datum ops_note_ready(PG_FUNCTION_ARGS) {
  ops::pg::note_ready(PG_GETARG_INT32(0), PG_GETARG_TIMESTAMPTZ(1));
  PG_RETURN_BOOL(true);
}

Datum ops_note_later(PG_FUNCTION_ARGS) {
  ops::pg::note_later(PG_GETARG_TIMESTAMPTZ(0));
  PG_RETURN_BOOL(true);
}
