// States of a database as the launcher sees it:
//
//   unknown --probe--> worker runs (the extension is there)
//                  \-> none: the worker left with exit code 0, no extension; looked at again after CREATE EXTENSION
//   worker runs --ended with an error--> backing off, 0 s, 1 s, 2 s .. 60 s --> started again
//   worker runs --held by a session (DROP DATABASE, CREATE DATABASE .. TEMPLATE)--> started again when the session is
//   done
//
// A probe is the worker itself: it connects, looks for the extension and stays or leaves. Whether a database exists is
// read from the shared catalog each poll interval, so a database created or dropped later needs nothing from anybody.
#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "pg/settings.hpp"

#include "pg/identity.hpp"
#include "pg/launcher.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
PGDLLEXPORT void ops_runner_launcher_main(Datum argument);
}

namespace ops::pg {

namespace {

struct DatabaseRow {
  Oid oid;
  char name[NAMEDATALEN];
};

using Steady = std::chrono::steady_clock;

struct Known {
  BackgroundWorkerHandle* handle = nullptr;
  bool has_extension = true;  ///< until a probe has said no
  int failures = 0;
  Steady::time_point start_after{};  ///< not the wall clock: that may jump
};

constexpr std::chrono::seconds longest_backoff{60};
constexpr long standby_check_ms = 500;

bool is_wanted(const char* name) {
  if (settings.databases[0] == '\0') return true;
  char* copy = pstrdup(settings.databases);
  List* names = NIL;
  bool listed = false;
  if (SplitIdentifierString(copy, ',', &names)) {
    for (int i = 0; i < list_length(names); ++i)
      if (strcmp(static_cast<char*>(list_nth(names, i)), name) == 0) listed = true;
  }
  return listed;
}

/// Databases that may have a worker, as a palloc'd array. Runs in a transaction of its own.
int read_databases(DatabaseRow** rows, Oid* worker_role) {
  MemoryContext caller = CurrentMemoryContext;
  StartTransactionCommand();
  (void)GetTransactionSnapshot();
  *worker_role = get_role_oid("ops_runner_worker", true);
  int count = 0;
  int room = 16;
  *rows = static_cast<DatabaseRow*>(MemoryContextAlloc(caller, sizeof(DatabaseRow) * room));
  if (OidIsValid(*worker_role)) {
    Relation relation = table_open(DatabaseRelationId, AccessShareLock);
    TableScanDesc scan = table_beginscan_catalog(relation, 0, nullptr);
    HeapTuple tuple = nullptr;
    while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection))) {
      Form_pg_database form = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));
      if (!form->datallowconn || form->datistemplate || form->datconnlimit == -2) continue;
      if (!is_wanted(NameStr(form->datname))) continue;
      if (!compat::may_connect(form->oid, *worker_role)) continue;
      if (count == room) {
        room *= 2;
        *rows = static_cast<DatabaseRow*>(repalloc(*rows, sizeof(DatabaseRow) * room));
      }
      (*rows)[count].oid = form->oid;
      strlcpy((*rows)[count].name, NameStr(form->datname), NAMEDATALEN);
      ++count;
    }
    table_endscan(scan);
    table_close(relation, AccessShareLock);
  }
  CommitTransactionCommand();
  MemoryContextSwitchTo(caller);
  return count;
}

bool register_worker(const DatabaseRow& database, Oid role, BackgroundWorkerHandle** handle) {
  BackgroundWorker worker{};
  worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
  worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
  worker.bgw_restart_time = BGW_NEVER_RESTART;
  strlcpy(worker.bgw_library_name, "ops_runner", sizeof worker.bgw_library_name);
  strlcpy(worker.bgw_function_name, "ops_runner_worker_main", sizeof worker.bgw_function_name);
  snprintf(worker.bgw_name, sizeof worker.bgw_name, "ops_runner worker for %s", database.name);
  strlcpy(worker.bgw_type, "ops_runner worker", sizeof worker.bgw_type);
  worker.bgw_main_arg = ObjectIdGetDatum(database.oid);
  memcpy(worker.bgw_extra, &role, sizeof role);
  worker.bgw_notify_pid = MyProcPid;
  return RegisterDynamicBackgroundWorker(&worker, handle);
}

class Launcher {
 public:
  /// One look at every database. Returns how long the launcher may sleep, in milliseconds.
  long look() {
    DatabaseRow* rows = nullptr;
    Oid worker_role = InvalidOid;
    const int count = guarded([&] { return read_databases(&rows, &worker_role); });
    worker_role_ = worker_role;
    if (!OidIsValid(worker_role) && !known_.empty() && !std::exchange(said_no_role_, true))
      guarded([] {
        ereport(LOG, (errmsg("ops_runner: role \"ops_runner_worker\" is missing: no worker is started"),
                      errhint("If it was renamed, rename it back.")));
      });
    if (OidIsValid(worker_role)) said_no_role_ = false;
    forget_dropped(rows, count);
    long sleep_ms = settings.poll_interval_ms;
    for (int i = 0; i < count; ++i) sleep_ms = std::min(sleep_ms, look_at(rows[i]));
    return sleep_ms;
  }

 private:
  void forget_dropped(const DatabaseRow* rows, int count) {
    const auto exists = [&](Oid oid) {
      return std::any_of(rows, rows + count, [&](const DatabaseRow& row) { return row.oid == oid; });
    };
    std::erase_if(known_, [&](const auto& item) { return !exists(item.first) && !is_alive(item.second); });
    SharedState* state = shared_state();
    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    for (int i = 0; i < state->entry_count; ++i) {
      DatabaseEntry& entry = state->entries[i];
      // Also one for which a start is wanted, as after DROP DATABASE; a database newer than `rows` is probed anyway.
      if (OidIsValid(entry.database) && entry.pid == 0 && entry.held_by == 0 && !exists(entry.database))
        entry.database = InvalidOid;
    }
    LWLockRelease(state->lock);
  }

  static bool is_alive(const Known& known) {
    if (known.handle == nullptr) return false;
    pid_t pid = 0;
    const BgwHandleStatus status = GetBackgroundWorkerPid(known.handle, &pid);
    return status == BGWH_STARTED || status == BGWH_NOT_YET_STARTED;
  }

  /// Starts, restarts or leaves alone. Returns after how many milliseconds this database wants to be looked at again.
  long look_at(const DatabaseRow& database) {
    const long poll_ms = settings.poll_interval_ms;
    Known& known = known_[database.oid];
    SharedState* state = shared_state();

    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    DatabaseEntry* entry = find_entry(database.oid);
    const bool runs = entry != nullptr && entry->pid != 0;
    int held_by = entry != nullptr ? entry->held_by : 0;
    const bool ended_empty = entry != nullptr && entry->state == WorkerState::none && !entry->start_wanted;
    const bool start_wanted = entry != nullptr && entry->start_wanted;
    LWLockRelease(state->lock);

    if (start_wanted) {
      known.has_extension = true;
      known.failures = 0;
      known.start_after = {};
    }
    if (runs) {
      if (start_wanted) clear_start_wanted(database.oid);
      if (Steady::now() > known.start_after + longest_backoff) known.failures = 0;
      return poll_ms;
    }
    if (is_alive(known)) return poll_ms;  // between registration and its first sign of life, or on its way out
    if (known.handle != nullptr) {
      pfree(known.handle);
      known.handle = nullptr;
      if (ended_empty) {
        known.has_extension = false;  // it looked and found no extension
        release_entry(database.oid);
      } else if (!start_wanted) {
        note_failure(database.oid, known);
      }
    }
    if (!known.has_extension) return poll_ms;
    if (held_by != 0 && BackendPidGetProc(held_by) == nullptr) {
      release_hold(database.oid);
      held_by = 0;
    }
    if (held_by != 0) return poll_ms;
    const Steady::time_point now = Steady::now();
    if (known.start_after > now)
      return std::min<long>(poll_ms, std::chrono::ceil<std::chrono::milliseconds>(known.start_after - now).count());
    start(database, known);
    return poll_ms;
  }

  static void note_failure(Oid database, Known& known) {
    ++known.failures;
    const std::chrono::seconds wait{known.failures == 1 ? 0 : 1 << std::min(known.failures - 2, 10)};
    known.start_after = Steady::now() + std::min(wait, longest_backoff);
    set_state(database, WorkerState::backing_off);
  }

  void start(const DatabaseRow& database, Known& known) {
    SharedState* state = shared_state();
    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    DatabaseEntry* entry = find_or_make_entry(database.oid);
    if (entry != nullptr) {
      entry->state = WorkerState::starting;
      entry->since = GetCurrentTimestamp();
      entry->start_wanted = false;
    }
    LWLockRelease(state->lock);
    const bool registered = entry != nullptr && guarded([&] {
                              MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
                              const bool done = register_worker(database, worker_role_, &known.handle);
                              MemoryContextSwitchTo(caller);
                              return done;
                            });
    if (registered) {
      known.start_after = Steady::now();
      return;
    }
    note_failure(database.oid, known);
    set_state(database.oid, WorkerState::no_free_process);
    if (known.failures == 1)
      ereport(LOG,
              (errmsg("ops_runner: no free background process for database \"%s\"", database.name),
               errhint("Raise max_worker_processes. The queue is kept; the worker starts when a process is free.")));
  }

  static void set_state(Oid database, WorkerState worker_state) {
    LWLockAcquire(shared_state()->lock, LW_EXCLUSIVE);
    if (DatabaseEntry* entry = find_entry(database)) {
      entry->state = worker_state;
      entry->since = GetCurrentTimestamp();
    }
    LWLockRelease(shared_state()->lock);
  }
  static void clear_start_wanted(Oid database) {
    LWLockAcquire(shared_state()->lock, LW_EXCLUSIVE);
    if (DatabaseEntry* entry = find_entry(database)) entry->start_wanted = false;
    LWLockRelease(shared_state()->lock);
  }
  static void release_entry(Oid database) {
    LWLockAcquire(shared_state()->lock, LW_EXCLUSIVE);
    if (DatabaseEntry* entry = find_entry(database); entry != nullptr && entry->pid == 0 && entry->held_by == 0)
      entry->database = InvalidOid;
    LWLockRelease(shared_state()->lock);
  }
  static void release_hold(Oid database) {
    LWLockAcquire(shared_state()->lock, LW_EXCLUSIVE);
    if (DatabaseEntry* entry = find_entry(database)) entry->held_by = 0;
    LWLockRelease(shared_state()->lock);
  }

  std::map<Oid, Known> known_;
  Oid worker_role_ = InvalidOid;
  bool said_no_role_ = false;
};

void forget_launcher(int, Datum) {
  SharedState* state = shared_state();
  LWLockAcquire(state->lock, LW_EXCLUSIVE);
  if (state->launcher_pid == MyProcPid) {
    state->launcher_pid = 0;
    state->launcher_latch = nullptr;
  }
  LWLockRelease(state->lock);
}

/// On a standby the launcher only waits. It starts at the first consistent moment, to leave its note (pg/identity.hpp).
void wait_for_promotion() {
  while (RecoveryInProgress()) {
    note_standby();
    guarded([] {
      (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, standby_check_ms,
                      compat::wait_event("OpsRunnerStandby"));
      ResetLatch(MyLatch);
      CHECK_FOR_INTERRUPTS();
    });
  }
  note_promotion();
}

void run_launcher() {
  Launcher launcher;
  MemoryContext turn_context = guarded(
      [] { return AllocSetContextCreate(TopMemoryContext, "ops_runner launcher turn", ALLOCSET_DEFAULT_SIZES); });
  for (;;) {
    long sleep_ms = settings.poll_interval_ms;
    MemoryContextSwitchTo(turn_context);
    try {
      sleep_ms = launcher.look();
    } catch (const PgError& error) {
      guarded([&] {
        ereport(LOG, (errmsg("ops_runner launcher: %s", error.what())));
        AbortCurrentTransaction();
      });
    }
    MemoryContextReset(turn_context);
    guarded([&] {
      (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, sleep_ms,
                      compat::wait_event("OpsRunnerLauncher"));
      ResetLatch(MyLatch);
      CHECK_FOR_INTERRUPTS();
      if (ConfigReloadPending) {
        ConfigReloadPending = false;
        ProcessConfigFile(PGC_SIGHUP);
      }
    });
  }
}

}  // namespace

void register_launcher() {
  BackgroundWorker worker{};
  worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
  worker.bgw_start_time = BgWorkerStart_ConsistentState;
  worker.bgw_restart_time = 1;
  strlcpy(worker.bgw_library_name, "ops_runner", sizeof worker.bgw_library_name);
  strlcpy(worker.bgw_function_name, "ops_runner_launcher_main", sizeof worker.bgw_function_name);
  strlcpy(worker.bgw_name, "ops_runner launcher", sizeof worker.bgw_name);
  strlcpy(worker.bgw_type, "ops_runner launcher", sizeof worker.bgw_type);
  RegisterBackgroundWorker(&worker);
}

}  // namespace ops::pg

void ops_runner_launcher_main(Datum) {
  using namespace ops::pg;
  pqsignal(SIGHUP, SignalHandlerForConfigReload);
  pqsignal(SIGTERM, die);
  BackgroundWorkerUnblockSignals();
  entry([] { wait_for_promotion(); });
  BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
  before_shmem_exit(forget_launcher, 0);
  SharedState* state = shared_state();
  LWLockAcquire(state->lock, LW_EXCLUSIVE);
  const pid_t other = state->launcher_pid;
  if (other == 0) {
    state->launcher_pid = MyProcPid;
    state->launcher_latch = MyLatch;
  }
  LWLockRelease(state->lock);
  if (other != 0) {
    ereport(LOG, (errmsg("ops_runner launcher: process %d is the launcher already, this one ends",
                         static_cast<int>(other))));
    proc_exit(0);
  }
  entry([] { run_launcher(); });
}
