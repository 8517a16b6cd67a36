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
  uint64 looks;  ///< how often a claim has looked: the newest look alone may raise
  TimestampTz floor[ready_floor_count];
  TimestampTz arrived[ready_floor_count];  ///< became ready since the newest look
};

void forget_ready_floors(ReadyFloors&) noexcept;

/// When the current transaction commits, claims look for runs of this priority that became available then or later.
/// Server zone.
void note_ready(int priority, TimestampTz since);
/// The same for a run whose time has not come.
void note_later(TimestampTz since);

bool ready_floors_changed() noexcept;
/// What the current transaction has noted, when it commits; under the lock. Before anybody is woken by it.
/// @param floors  null where there is no shared memory
void apply_ready_floors(ReadyFloors* floors) noexcept;
/// The same when it does not commit.
void drop_ready_floors() noexcept;

}  // namespace ops::pg
