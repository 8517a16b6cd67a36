// Where claims begin to read the queue. Index entries of runs that left the queue cannot be removed while somebody's
// snapshot still sees them; a claim that began at the head of the index would walk over all of them (fault F25). So the
// server's memory holds, for each priority, a floor: no run that is ready became available before it.
//
// A transaction that makes a run ready lowers the floor when it commits. A claim raises it, when it commits, to the
// oldest run that it still saw, but never over what became ready since it looked at the floors. After a restart of the
// server nothing is known, and the first claim reads the whole index; the safety check lowers what was lost (a prepared
// transaction, a superuser's hand).
#pragma once

#include "pg/boundary.hpp"

namespace ops::pg {

constexpr int lowest_priority = -1000;
constexpr int highest_priority = 1000;

/// One for each priority, and one for runs whose time has not come.
constexpr int ready_floor_count = highest_priority - lowest_priority + 2;

/// Of one database, in shared memory, guarded by SharedState::lock. Arrays by priority - lowest_priority, the last one
/// for runs whose time has not come; DT_NOEND: there is none.
struct ReadyFloors {
  bool known;
  uint64 looks;         ///< how often a claim has looked: the newest look alone may raise
  int lowest, highest;  ///< all priorities of which floor or arrived tells something lie between, as places
  TimestampTz floor[ready_floor_count];
  TimestampTz arrived[ready_floor_count];  ///< became ready since the newest look
};

void forget_ready_floors(ReadyFloors&) noexcept;

/// When the current transaction commits, claims look for runs of this priority that became available then or later.
/// Server zone.
void note_ready(int priority, TimestampTz since);
/// The same for a run whose time has not come.
void note_later(TimestampTz since);

/// What a claim sees when it looks at the floors.
struct ReadyLook {
  int count = -1;          ///< priorities that have something ready; -1: nobody knows
  bool raise_due = false;  ///< floors have not been raised for some claims
  bool later_due = false;  ///< a run's time has come
};
/// Server zone.
/// @param found_all  what this transaction has noted is all that is ready
/// @param priority   filled with the priorities that have something ready, the highest first; room for
/// ready_floor_count
/// @param since      filled with where their ready runs begin
ReadyLook look_for_ready(bool found_all, int* priority, TimestampTz* since);
/// When the current transaction commits: nothing of this priority is ready that became available earlier, but what was
/// committed since it has looked. Server zone.
void raise_ready_floor(int priority, TimestampTz since);
/// The same for runs whose time has not come.
void raise_later_floor(TimestampTz since);

bool ready_floors_changed() noexcept;
/// What the current transaction has noted, when it commits; under the lock. Before anybody is woken by it.
/// @param floors  null where there is no shared memory
void apply_ready_floors(ReadyFloors* floors) noexcept;
/// The same when it does not commit.
void drop_ready_floors() noexcept;

}  // namespace ops::pg
