// What launcher, workers and sessions share: one entry per database with a worker, holding counters, flags and the
// address of a latch in the server's process array. Never descriptors, never heap pointers: an entry outlives the
// process it speaks of.
#pragma once

#include <optional>
#include <string_view>

#include "pg/boundary.hpp"
#include "pg/ready_floors.hpp"

namespace ops::pg {

enum class WorkerState : int {
  none,           ///< no worker; the entry is free
  starting,       ///< registered with the postmaster
  connecting,     ///< has its process, not yet its place in the database
  disarmed,       ///< this database is a copy: idle until ops.arm()
  other_version,  ///< idle: this library is not made for the extension's objects
  idle_standby,   ///< in recovery
  working,
  held,             ///< stopped for a session that needs the database without connections
  backing_off,      ///< ended with an error; the launcher starts it again
  no_free_process,  ///< max_worker_processes is used up
};
const char* to_string(WorkerState);

struct DatabaseEntry {
  Oid database;
  WorkerState state;
  pid_t pid;
  Latch* latch;       ///< of the worker; null when there is none
  int held_by;        ///< backend pid of the session, 0: nobody
  bool start_wanted;  ///< CREATE EXTENSION was committed: the launcher looks at this database again
  bool queue_rung;
  bool cancel_rung;
  bool run_expected;      ///< a run is about to be queued
  bool check_wanted;      ///< the worker shall see whether its extension is still there and armed
  TimestampTz since;      ///< of the state
  TimestampTz turned_at;  ///< end of the worker's last turn
  int running_runs;
  int requests_in_flight;
  int64 claimed;
  int64 finished;
  TimestampTz last_error_at;
  char last_error[512];
  char worker_id[128];
  ReadyFloors ready;
  ConditionVariable changed;  ///< broadcast when runs or events of this database changed
};

struct SharedState {
  LWLock* lock;  ///< guards every field of every entry but `changed`
  Latch* launcher_latch;
  pid_t launcher_pid;
  int entry_count;
  DatabaseEntry entries[FLEXIBLE_ARRAY_MEMBER];
};

/// Installs the hooks that reserve and initialise the memory. Only while shared_preload_libraries are loaded.
void install_shared_memory();

/// Null where the library was not preloaded.
SharedState* shared_state() noexcept;

/// Under the lock: the entry of a database, or null.
DatabaseEntry* find_entry(Oid database) noexcept;
/// Under the exclusive lock: the entry, made if needed; null when all are taken.
DatabaseEntry* find_or_make_entry(Oid database) noexcept;

void wake_launcher() noexcept;

/// What a bell says; rung at once.
struct Bell {
  bool queue = false;
  bool cancel = false;
  bool check = false;
};
/// Wakes the worker of the database and everybody who waits for a change in it.
void ring(Oid database, Bell bell) noexcept;
/// The same when the current transaction commits; nothing when it does not.
void ring_at_commit(Bell bell);
/// A run is about to be queued: a worker that has idled for a while gets ready for it meanwhile.
void expect_run() noexcept;
/// What the current transaction has told is kept until it ends, and then applied or dropped.
void watch_transaction_end();
/// When the current transaction commits, the launcher looks at this database.
void announce_extension_at_commit();

/// Copies a text for ops.worker_status.
void note_error(Oid database, std::string_view text) noexcept;

}  // namespace ops::pg
