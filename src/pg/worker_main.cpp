// The worker of one database. Its main function reads like a table of contents:
//
//   connect as ops_runner_worker -> is the extension here? is this database armed? -> register this life
//   -> take over runs of dead workers -> turn, publish, wait, for ever
//
// One wait for everything: this process's latch, the postmaster's death, one epoll descriptor that holds all of curl's
// sockets, and the nearest timer. No transaction is open during the wait.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "core/redact.hpp"
#include "core/run_loop.hpp"
#include "http/http_client.hpp"
#include "http/scratch_files.hpp"
#include "pg/crash_mark.hpp"
#include "pg/identity.hpp"
#include "pg/run_store.hpp"
#include "pg/secret_store.hpp"
#include "pg/settings.hpp"
#include "pg/transaction.hpp"

#include "pg/boundary.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
PGDLLEXPORT void ops_runner_worker_main(Datum argument);
}

namespace ops::pg {

namespace {

/// Prefix of the server's own temporary files: what a crash leaves behind is removed when the server starts.
constexpr const char* scratch_prefix = "base/pgsql_tmp/pgsql_tmp_ops";

/// A wait of at least this long counts as idle.
constexpr Millis idle_enough{100};

class ServerClock final : public Clock {
 public:
  WallTime now() const override {
    return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
  }
  SteadyTime steady_now() const override {
    return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::steady_clock::now());
  }
};

class ServerRandom final : public Random {
 public:
  double uniform() override { return distribution_(engine_); }

 private:
  std::mt19937_64 engine_{std::random_device{}()};
  std::uniform_real_distribution<double> distribution_{0.0, 1.0};
};

// Start --------------------------------------------------------------------------------------------------------------

/// How ended, for the launcher: `none` says that there is no extension here.
WorkerState end_state = WorkerState::backing_off;

void forget_worker(int, Datum) {
  SharedState* state = shared_state();
  LWLockAcquire(state->lock, LW_EXCLUSIVE);
  if (DatabaseEntry* entry = find_entry(MyDatabaseId); entry != nullptr && entry->pid == MyProcPid) {
    entry->pid = 0;
    entry->latch = nullptr;
    entry->state = entry->held_by != 0 ? WorkerState::held : end_state;
    entry->since = GetCurrentTimestamp();
    entry->running_runs = 0;
    entry->requests_in_flight = 0;
  }
  LWLockRelease(state->lock);
}

void set_state(WorkerState worker_state) {
  LWLockAcquire(shared_state()->lock, LW_EXCLUSIVE);
  if (DatabaseEntry* entry = find_entry(MyDatabaseId); entry != nullptr && entry->state != worker_state) {
    entry->state = worker_state;
    entry->since = GetCurrentTimestamp();
  }
  LWLockRelease(shared_state()->lock);
}

/// Leaves when another worker of this database is there already.
void enter_shared_memory() {
  SharedState* state = shared_state();
  LWLockAcquire(state->lock, LW_EXCLUSIVE);
  DatabaseEntry* entry = find_or_make_entry(MyDatabaseId);
  const bool free = entry != nullptr && entry->pid == 0 && entry->held_by == 0;
  const pid_t other = entry != nullptr ? entry->pid : 0;
  if (free) {
    entry->pid = MyProcPid;
    entry->latch = MyLatch;
    entry->state = WorkerState::connecting;
    entry->since = GetCurrentTimestamp();
    entry->queue_rung = true;
    entry->cancel_rung = true;
    entry->check_wanted = false;
  }
  LWLockRelease(state->lock);
  if (other != 0)
    ereport(LOG, (errmsg("ops_runner worker: process %d works in database %u already, this one ends",
                         static_cast<int>(other), MyDatabaseId)));
  if (!free) proc_exit(0);
  before_shmem_exit(forget_worker, 0);
}

/// What roles and databases may have set must not change what the worker does (fault F29, F30).
void pin_session_settings() {
  const char* const pinned[][2] = {
      {"search_path", "pg_catalog, pg_temp"},
      {"statement_timeout", "0"},
      {"idle_in_transaction_session_timeout", "0"},
      {"lock_timeout", "2s"},
      {"default_transaction_isolation", "read committed"},
      {"default_transaction_read_only", "off"},
      {"default_transaction_deferrable", "off"},
      {"session_replication_role", "origin"},
      {"row_security", "on"},
      {"client_encoding", "UTF8"},
      {"DateStyle", "ISO, YMD"},
      {"IntervalStyle", "postgres"},
      {"extra_float_digits", "1"},
      {"bytea_output", "hex"},
      {"check_function_bodies", "on"},
      {"jit", "off"},
      // Each statement finds rows of large tables by lists of their keys. A plan made when a table was small must not
      // read it whole later, and planning anew for each list would cost more than the statement.
      {"plan_cache_mode", "force_generic_plan"},
      {"enable_seqscan", "off"},
      {"enable_bitmapscan", "off"},
      {"enable_hashjoin", "off"},
      {"enable_mergejoin", "off"},
      {"enable_material", "off"},
  };
  for (const auto& [name, value] : pinned) SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

StoreStatement extension_statement("SELECT extversion FROM pg_extension WHERE extname = 'ops_runner'");
StoreStatement armed_statement("SELECT ops._is_armed()");
StoreStatement adopt_statement("SELECT ops._adopt_identity()");
StoreStatement note_crash_statement("SELECT ops._note_crash($1)");
StoreStatement register_statement(R"sql(
  INSERT INTO ops.workers (worker_id, kind, lock_key, pid, lease_until)
  VALUES ($1, 'server', $2, $3, clock_timestamp() + $4 * interval '1 second'))sql");
StoreStatement lock_statement("SELECT pg_advisory_lock($1)");
StoreStatement forget_old_workers_statement(R"sql(
  DELETE FROM ops.workers w WHERE w.stopped_at < clock_timestamp() - interval '7 days'
     AND NOT EXISTS (SELECT FROM ops.run_slots s WHERE s.worker_id = w.worker_id))sql");

enum class Standing { absent, other_version, disarmed, armed };

/// A patch release keeps the meaning of every object.
bool fits_library(std::string_view version) {
  const std::string_view library = OPS_VERSION;
  return version.starts_with(library.substr(0, library.rfind('.') + 1));
}

Standing look_at_database() {
  Transaction transaction("looking for the extension");
  Standing standing = Standing::absent;
  bool adopted = false;
  const Rows extension = extension_statement.run({});
  if (extension.size() == 1 && !fits_library(extension.text(0, 0))) {
    standing = Standing::other_version;
  } else if (extension.size() == 1) {
    bool armed = armed_statement.run({}).is_true(0, 0);
    if (!armed && was_promoted()) armed = adopted = adopt_statement.run({}).is_true(0, 0);
    standing = armed ? Standing::armed : Standing::disarmed;
  }
  transaction.commit(adopted);
  if (adopted)
    guarded([] {
      ereport(LOG, (errmsg("ops_runner worker: database %u goes on in this promoted standby", MyDatabaseId),
                    errdetail("What its runs have done outside is looked for before anything is sent again.")));
    });
  return standing;
}

/// Counts the death of the life before to the run that it was resuming.
void account_for_crash(MappedCrashMark& mark) {
  const std::string run_id = mark.left_behind();
  if (run_id.empty()) return;
  Transaction transaction("accounting for a crash");
  note_crash_statement.run({run_id});
  transaction.commit(true);
  mark.clear();
}

std::string crash_mark_path() {
  return "pg_stat_tmp/ops_runner." + std::to_string(MyDatabaseId);
}

std::string new_worker_id(ServerRandom& random) {
  char host[64] = "localhost";
  gethostname(host, sizeof host - 1);
  const std::string name = settings.worker_name[0] != '\0' ? settings.worker_name : host;
  char life[32];
  snprintf(life, sizeof life, "%d/%08x", MyProcPid, static_cast<unsigned>(random.uniform() * 4294967295.0));
  return name.substr(0, 64) + "/" + std::to_string(MyDatabaseId) + "/" + life;
}

/// Registers this life: a row and a session lock that proves it. The lock is taken before the row can be seen.
void register_life(const std::string& worker_id, ServerRandom& random) {
  const auto lock_key = static_cast<std::int64_t>(random.uniform() * 9.0e18);
  Transaction transaction("registering");
  lock_statement.run({lock_key});
  register_statement.run({worker_id, lock_key, static_cast<std::int32_t>(MyProcPid), settings.lease_s});
  forget_old_workers_statement.run({});
  transaction.commit(true);
}

HttpClient::Settings http_settings() {
  HttpClient::Settings http;
  http.rules = HostRules::parse(settings.allowed_hosts).value_or(HostRules{});
  http.ca_file = settings.ca_file;
  http.pins = TlsPins::parse(settings.tls_pins).value_or(TlsPins{});
  http.user_agent = "ops_runner/0.1";
  http.max_connections_per_host = static_cast<std::size_t>(settings.max_connections_per_host);
  return http;
}

// Work ---------------------------------------------------------------------------------------------------------------

class Worker {
 public:
  explicit Worker(std::string worker_id)
      : worker_id_(std::move(worker_id)),
        store_(worker_id_),
        scratch_files_(scratch_prefix),
        http_(http_settings(), secrets_, clock_),
        crash_mark_(crash_mark_path()),
        loop_({store_, http_, clock_, random_, scratch_files_, crash_mark_}, default_catalog(), worker_id_,
              loop_settings(), [](const std::string& problem) { report(problem); }) {}

  ~Worker() {
    MemoryContextSwitchTo(TopMemoryContext);
    MemoryContextDelete(turn_context_);
    if (events_ != nullptr) FreeWaitEventSet(events_);
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  bool has_turned() const { return has_turned_; }

  /// Returns when the extension is gone or disarmed. @throws std::bad_alloc  what it has in memory cannot be trusted
  void run() {
    events_ = guarded([&] {
      WaitEventSet* events = compat::create_wait_event_set(3);
      AddWaitEventToSet(events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
      AddWaitEventToSet(events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
      AddWaitEventToSet(events, WL_SOCKET_READABLE, http_.wait_descriptor(), nullptr, nullptr);
      return events;
    });
    account_for_crash(crash_mark_);
    loop_.adopt(store_.take_over({}));
    while (still_wanted()) {
      take_bells();
      if (std::exchange(run_expected_, false)) get_ready();
      http_.advance();
      bool more = false;
      try {
        more = loop_.turn();
        http_.advance();
        has_turned_ = true;
      } catch (const std::bad_alloc&) {
        throw;  // the loop may have lost what it was about to do
      } catch (const std::exception& error) {
        abort_open_transaction();
        report(error.what());
      }
      publish();
      guarded([this] { MemoryContextReset(turn_context_); });
      wait(more ? Millis{0} : time_to_wait());
    }
  }

 private:
  static void report(const std::string& problem) {
    const std::string text = redact(problem);
    note_error(MyDatabaseId, text);
    const char* shown = text.c_str();
    guarded([shown] { ereport(LOG, (errmsg("ops_runner worker: %s", shown))); });
  }

  void take_bells() {
    SharedState* state = shared_state();
    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    DatabaseEntry* entry = find_entry(MyDatabaseId);
    if (loop_.can_take_runs() && std::exchange(entry->queue_rung, false)) loop_.ring_queue();
    if (std::exchange(entry->cancel_rung, false)) loop_.ring_cancel();
    if (std::exchange(entry->check_wanted, false)) next_check_ = SteadyTime{};
    run_expected_ = std::exchange(entry->run_expected, false) && loop_.can_take_runs();
    LWLockRelease(state->lock);
  }

  /// While the session that queues a run is still at it. What is wrong here the claim will say.
  void get_ready() {
    try {
      store_.rehearse_claim();
    } catch (const std::exception&) {
      abort_open_transaction();
    }
  }

  /// The slow safety check, each poll_interval, and at once when a bell asked for it.
  bool still_wanted() {
    const SteadyTime now = clock_.steady_now();
    if (now < next_check_) {
      if (next_due_ && *next_due_ <= now) {
        next_due_.reset();
        loop_.ring_queue();
      }
      return true;
    }
    next_check_ = now + Millis{settings.poll_interval_ms};
    try {
      if (look_at_database() != Standing::armed) return false;
      secrets_.look_for_vault();
      const RunStore::SafetyReport report = store_.safety_check();
      if (!report.registered) return false;
      if (report.queue) loop_.ring_queue();
      if (report.cancel) loop_.ring_cancel();
      if (report.runs != loop_.running()) loop_.adopt(store_.take_over(loop_.run_ids()));
      next_due_.reset();
      if (report.next_due) next_due_ = now + *report.next_due;
      for (const std::string& name : report.missing_secrets)
        if (secrets_.find(name)) store_.requeue_waiting_for_secret(name);
      if (!report.missing_secrets.empty()) loop_.ring_queue();
    } catch (const std::exception& error) {
      abort_open_transaction();
      Worker::report(error.what());
    }
    return true;
  }

  void publish() {
    const bool changed = loop_.counters().commits != published_commits_;
    published_commits_ = loop_.counters().commits;
    SharedState* state = shared_state();
    LWLockAcquire(state->lock, LW_EXCLUSIVE);
    DatabaseEntry* entry = find_entry(MyDatabaseId);
    entry->turned_at = GetCurrentTimestamp();
    entry->running_runs = static_cast<int>(loop_.running());
    entry->requests_in_flight = static_cast<int>(http_.in_flight());
    entry->claimed = static_cast<int64>(loop_.counters().claimed);
    entry->finished = static_cast<int64>(loop_.counters().finished);
    ConditionVariable* waiting = &entry->changed;
    LWLockRelease(state->lock);
    if (changed) ConditionVariableBroadcast(waiting);

    char activity[96];
    snprintf(activity, sizeof activity, "idle: %zu runs, %zu requests in flight", loop_.running(), http_.in_flight());
    if (activity == shown_activity_) return;
    shown_activity_ = activity;
    guarded([&] {
      pgstat_report_activity(STATE_IDLE, nullptr);
      set_ps_display(activity);
    });
  }

  Millis time_to_wait() const {
    const SteadyTime now = clock_.steady_now();
    SteadyTime until = next_check_;
    if (next_due_) until = std::min(until, *next_due_);
    if (const auto deadline = loop_.next_deadline()) until = std::min(until, *deadline);
    // Rounded up: waking a moment early would only turn the loop for nothing.
    Millis wait = until <= now ? Millis{0} : std::chrono::ceil<Millis>(until - now);
    if (const auto timeout = http_.timeout()) wait = std::min(wait, *timeout);
    return wait;
  }

  void wait(Millis longest) {
    guarded([&] {
      // What statements have counted goes to the server's statistics when there is time, and by itself each second.
      pgstat_report_stat(longest >= idle_enough);
      WaitEvent happened[3];
      (void)WaitEventSetWait(events_, static_cast<long>(longest.count()), happened, 3,
                             compat::wait_event("OpsRunnerWorker"));
      ResetLatch(MyLatch);
    });
    try {
      guarded([] {
        CHECK_FOR_INTERRUPTS();
        if (ConfigReloadPending) {
          ConfigReloadPending = false;
          ProcessConfigFile(PGC_SIGHUP);
          reload_wanted = true;
        }
      });
    } catch (const std::exception& error) {
      report(error.what());  // pg_cancel_backend: there is no statement to cancel
    }
    if (std::exchange(reload_wanted, false)) {
      loop_.configure(loop_settings());
      http_.configure(http_settings());
    }
  }

  static inline bool reload_wanted = false;

  std::string worker_id_;
  ServerClock clock_;
  ServerRandom random_;
  SecretStore secrets_;
  RunStore store_;
  ScratchFiles scratch_files_;
  HttpClient http_;
  MappedCrashMark crash_mark_;
  RunLoop loop_;
  WaitEventSet* events_ = nullptr;
  MemoryContext turn_context_ = guarded([] {
    MemoryContext context = AllocSetContextCreate(TopMemoryContext, "ops_runner worker turn", ALLOCSET_DEFAULT_SIZES);
    MemoryContextSwitchTo(context);
    return context;
  });
  SteadyTime next_check_{};
  std::optional<SteadyTime> next_due_;
  std::uint64_t published_commits_ = 0;
  std::string shown_activity_;
  bool has_turned_ = false;
  bool run_expected_ = false;
};

/// Where memory runs out, the runs are dropped from it and taken up again, as after a restart. The process ends only
/// when that comes to nothing: then the launcher waits longer and longer.
void work(const std::string& worker_id) {
  for (bool done = false; !done;) {
    Worker worker(worker_id);
    try {
      worker.run();
      done = true;
    } catch (const std::bad_alloc&) {
      abort_open_transaction();
      if (!worker.has_turned()) throw;
      note_error(MyDatabaseId, "out of memory");
      guarded([] { ereport(LOG, (errmsg("ops_runner worker: out of memory; its runs are taken up again"))); });
    }
  }
}

/// Sleeps until a bell asks for a look or the poll interval is over.
void wait_for_look() {
  guarded([] {
    (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, settings.poll_interval_ms,
                    compat::wait_event("OpsRunnerWorkerDisarmed"));
    ResetLatch(MyLatch);
    CHECK_FOR_INTERRUPTS();
    if (ConfigReloadPending) {
      ConfigReloadPending = false;
      ProcessConfigFile(PGC_SIGHUP);
    }
  });
}

/// Returns when the extension is gone.
void run_worker() {
  bool said = false;
  for (;;) {
    switch (look_at_database()) {
      case Standing::absent:
        end_state = WorkerState::none;
        return;
      case Standing::other_version:
        set_state(WorkerState::other_version);
        if (!std::exchange(said, true))
          guarded([] {
            ereport(LOG,
                    (errmsg("ops_runner worker: database %u has another version of the extension than " OPS_VERSION,
                            MyDatabaseId),
                     errhint("ALTER EXTENSION ops_runner UPDATE there, or restart the server with the new library.")));
          });
        wait_for_look();
        break;
      case Standing::disarmed:
        set_state(WorkerState::disarmed);
        if (!std::exchange(said, true))
          guarded([] {
            ereport(LOG, (errmsg("ops_runner worker: database %u is disarmed and stays idle", MyDatabaseId),
                          errdetail("It is a copy or was restored: its stored identity is another one."),
                          errhint("If it shall build and deploy, a superuser calls ops.arm() in it.")));
          });
        wait_for_look();
        break;
      case Standing::armed: {
        said = false;
        ServerRandom random;
        const std::string worker_id = new_worker_id(random);
        register_life(worker_id, random);
        {
          SharedState* state = shared_state();
          LWLockAcquire(state->lock, LW_EXCLUSIVE);
          strlcpy(find_entry(MyDatabaseId)->worker_id, worker_id.c_str(), sizeof(DatabaseEntry::worker_id));
          LWLockRelease(state->lock);
        }
        set_state(WorkerState::working);
        work(worker_id);
        // A new life has a new identity: leave, and let the launcher start one if it is still wanted.
        end_state = look_at_database() == Standing::absent ? WorkerState::none : WorkerState::backing_off;
        return;
      }
    }
  }
}

}  // namespace

}  // namespace ops::pg

void ops_runner_worker_main(Datum argument) {
  using namespace ops::pg;
  pqsignal(SIGHUP, SignalHandlerForConfigReload);
  pqsignal(SIGTERM, die);
  BackgroundWorkerUnblockSignals();
  Oid role = InvalidOid;
  memcpy(&role, MyBgworkerEntry->bgw_extra, sizeof role);
  BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(argument), role, 0);
  enter_shared_memory();
  pin_session_settings();
  entry([] { run_worker(); });
  proc_exit(0);
}
