#include "pg/shared_memory.hpp"

#include <algorithm>
#include <cstring>

namespace ops::pg {

namespace {

constexpr const char* tranche_name = "ops_runner";

/// A worker that has not turned for so long has lost the caches of its processor to others.
constexpr TimestampTz cold_after = 5 * USECS_PER_SEC / 1000;

SharedState* state = nullptr;
shmem_request_hook_type previous_request_hook = nullptr;
shmem_startup_hook_type previous_startup_hook = nullptr;

// What the current transaction wants to tell when it commits.
Bell pending_bell;
bool pending_any = false;
bool pending_announcement = false;
bool callback_registered = false;

/// As many databases can have a worker as the server can have background workers.
int entry_count() {
  return max_worker_processes;
}

Size shared_size() {
  return add_size(offsetof(SharedState, entries), mul_size(sizeof(DatabaseEntry), static_cast<Size>(entry_count())));
}

void request_memory() {
  if (previous_request_hook != nullptr) previous_request_hook();
  RequestAddinShmemSpace(shared_size());
  RequestNamedLWLockTranche(tranche_name, 1);
}

void initialise_memory() {
  if (previous_startup_hook != nullptr) previous_startup_hook();
  bool found = false;
  LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
  state = static_cast<SharedState*>(ShmemInitStruct("ops_runner", shared_size(), &found));
  if (!found) {
    std::memset(static_cast<void*>(state), 0, shared_size());
    state->lock = &(GetNamedLWLockTranche(tranche_name))->lock;
    state->entry_count = entry_count();
    for (int i = 0; i < state->entry_count; ++i) ConditionVariableInit(&state->entries[i].changed);
  }
  LWLockRelease(AddinShmemInitLock);
}

void at_transaction_end(XactEvent event, void*) {
  if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_PARALLEL_COMMIT) {
    if (state != nullptr && ready_floors_changed()) {
      LWLockAcquire(state->lock, LW_EXCLUSIVE);
      DatabaseEntry* entry = find_entry(MyDatabaseId);
      apply_ready_floors(entry == nullptr ? nullptr : &entry->ready);
      LWLockRelease(state->lock);
    }
    if (pending_any) ring(MyDatabaseId, pending_bell);
    if (pending_announcement && state != nullptr) {
      LWLockAcquire(state->lock, LW_EXCLUSIVE);
      if (DatabaseEntry* entry = find_or_make_entry(MyDatabaseId)) entry->start_wanted = true;
      LWLockRelease(state->lock);
      wake_launcher();
    }
  }
  if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE) {
    // A prepared transaction is found by the safety check after COMMIT PREPARED.
    drop_ready_floors();
    pending_bell = Bell{};
    pending_any = false;
    pending_announcement = false;
  }
}

}  // namespace

void watch_transaction_end() {
  if (callback_registered) return;
  RegisterXactCallback(at_transaction_end, nullptr);
  callback_registered = true;
}

const char* to_string(WorkerState value) {
  switch (value) {
    case WorkerState::none:
      return "none";
    case WorkerState::starting:
      return "starting";
    case WorkerState::connecting:
      return "connecting";
    case WorkerState::disarmed:
      return "disarmed: this database is a copy; SELECT ops.arm() lets it act";
    case WorkerState::other_version:
      return "the library is " OPS_VERSION
             ", the extension is not: ALTER EXTENSION ops_runner UPDATE, or restart the server";
    case WorkerState::idle_standby:
      return "standby";
    case WorkerState::working:
      return "working";
    case WorkerState::held:
      return "stopped for a session that needs the database";
    case WorkerState::backing_off:
      return "backing off after an error: the server's log tells it";
    case WorkerState::no_free_process:
      return "no free background process: raise max_worker_processes";
  }
  return "?";
}

void install_shared_memory() {
  previous_request_hook = shmem_request_hook;
  shmem_request_hook = request_memory;
  previous_startup_hook = shmem_startup_hook;
  shmem_startup_hook = initialise_memory;
}

SharedState* shared_state() noexcept {
  return state;
}

DatabaseEntry* find_entry(Oid database) noexcept {
  for (int i = 0; i < state->entry_count; ++i)
    if (state->entries[i].database == database) return &state->entries[i];
  return nullptr;
}

DatabaseEntry* find_or_make_entry(Oid database) noexcept {
  if (DatabaseEntry* found = find_entry(database)) return found;
  DatabaseEntry* entry = find_entry(InvalidOid);
  if (entry == nullptr) return nullptr;
  const ConditionVariable changed = entry->changed;  // sessions may be waiting on it
  std::memset(static_cast<void*>(entry), 0, sizeof *entry);
  entry->changed = changed;
  forget_ready_floors(entry->ready);
  entry->database = database;
  return entry;
}

void wake_launcher() noexcept {
  if (state == nullptr) return;
  Latch* latch = state->launcher_latch;
  if (latch != nullptr) SetLatch(latch);
}

void ring(Oid database, Bell bell) noexcept {
  if (state == nullptr) return;
  LWLockAcquire(state->lock, LW_EXCLUSIVE);
  DatabaseEntry* entry = find_entry(database);
  Latch* latch = nullptr;
  bool news = bell.cancel || bell.check;
  if (entry != nullptr) {
    // A worker that can take no more runs leaves the bell rung: a thousand queued runs wake it once.
    news |= bell.queue && !entry->queue_rung;
    entry->queue_rung |= bell.queue;
    entry->cancel_rung |= bell.cancel;
    entry->check_wanted |= bell.check;
    latch = entry->latch;
  }
  LWLockRelease(state->lock);
  if (latch != nullptr && latch != MyLatch && news) SetLatch(latch);
  if (entry != nullptr) ConditionVariableBroadcast(&entry->changed);
}

void expect_run() noexcept {
  if (state == nullptr) return;
  const TimestampTz now = GetCurrentTimestamp();
  Latch* latch = nullptr;
  LWLockAcquire(state->lock, LW_EXCLUSIVE);
  DatabaseEntry* entry = find_entry(MyDatabaseId);
  // Where the bell is rung already, the worker is about to look or can take no more runs.
  const bool is_news = entry != nullptr && !entry->run_expected && !entry->queue_rung;
  if (is_news && now - entry->turned_at > cold_after) {
    entry->run_expected = true;
    latch = entry->latch;
  }
  LWLockRelease(state->lock);
  if (latch != nullptr) SetLatch(latch);
}

void ring_at_commit(Bell bell) {
  watch_transaction_end();
  pending_bell.queue |= bell.queue;
  pending_bell.cancel |= bell.cancel;
  pending_bell.check |= bell.check;
  pending_any = true;
}

void announce_extension_at_commit() {
  watch_transaction_end();
  pending_announcement = true;
}

void note_error(Oid database, std::string_view text) noexcept {
  if (state == nullptr) return;
  LWLockAcquire(state->lock, LW_EXCLUSIVE);
  if (DatabaseEntry* entry = find_entry(database)) {
    const std::size_t length = std::min(text.size(), sizeof(entry->last_error) - 1);
    std::memcpy(entry->last_error, text.data(), length);
    entry->last_error[length] = '\0';
    entry->last_error_at = GetCurrentTimestamp();
  }
  LWLockRelease(state->lock);
}

}  // namespace ops::pg
