#include "pg/database_hold.hpp"

#include "pg/boundary.hpp"
#include "pg/shared_memory.hpp"

// Server zone: plain C in C++ clothes. Nothing here has a destructor, so errors may jump through every frame.

namespace ops::pg {

namespace {

constexpr int longest_stop_ms = 5'000;
constexpr int stop_check_ms = 20;

ProcessUtility_hook_type previous_hook = nullptr;
bool holds_databases = false;

bool may_create_databases() {
  if (superuser()) return true;
  HeapTuple role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
  if (!HeapTupleIsValid(role)) return false;
  const bool may = reinterpret_cast<Form_pg_authid>(GETSTRUCT(role))->rolcreatedb;
  ReleaseSysCache(role);
  return may;
}

/// Its locks are taken one by one, in another order than the worker's statements take theirs.
bool changes_this_extension(Node* statement) {
  if (IsA(statement, AlterExtensionStmt))
    return strcmp(reinterpret_cast<AlterExtensionStmt*>(statement)->extname, "ops_runner") == 0;
  const DropStmt* drop = reinterpret_cast<DropStmt*>(statement);
  if (drop->removeType != OBJECT_EXTENSION) return false;
  for (int i = 0; i < list_length(drop->objects); ++i)
    if (strcmp(strVal(list_nth(drop->objects, i)), "ops_runner") == 0) return true;
  return false;
}

/// The database that the statement wants without connections, or without the worker, and that this user may ask for;
/// InvalidOid: none.
Oid database_to_hold(Node* statement) {
  switch (nodeTag(statement)) {
    case T_DropdbStmt: {
      const Oid database = get_database_oid(reinterpret_cast<DropdbStmt*>(statement)->dbname, true);
      return OidIsValid(database) && compat::owns_database(database, GetUserId()) ? database : InvalidOid;
    }
    case T_CreatedbStmt: {
      if (!may_create_databases()) return InvalidOid;
      const List* options = reinterpret_cast<CreatedbStmt*>(statement)->options;
      for (int i = 0; i < list_length(options); ++i) {
        DefElem* option = static_cast<DefElem*>(list_nth(options, i));
        if (strcmp(option->defname, "template") == 0 && option->arg != nullptr)
          return get_database_oid(defGetString(option), true);
      }
      return InvalidOid;
    }
    case T_RenameStmt: {
      RenameStmt* rename = reinterpret_cast<RenameStmt*>(statement);
      if (rename->renameType != OBJECT_DATABASE) return InvalidOid;
      const Oid database = get_database_oid(rename->subname, true);
      return OidIsValid(database) && compat::owns_database(database, GetUserId()) ? database : InvalidOid;
    }
    case T_AlterDatabaseStmt: {
      AlterDatabaseStmt* alter = reinterpret_cast<AlterDatabaseStmt*>(statement);
      for (int i = 0; i < list_length(alter->options); ++i) {
        DefElem* option = static_cast<DefElem*>(list_nth(alter->options, i));
        if (strcmp(option->defname, "tablespace") != 0) continue;
        const Oid database = get_database_oid(alter->dbname, true);
        return OidIsValid(database) && compat::owns_database(database, GetUserId()) ? database : InvalidOid;
      }
      return InvalidOid;
    }
    case T_DropStmt:
    case T_AlterExtensionStmt:
      return superuser() && changes_this_extension(statement) ? MyDatabaseId : InvalidOid;
    default:
      return InvalidOid;
  }
}

/// Keeps the launcher from starting a worker until the transaction ends. False when there is none to stop.
bool hold(Oid database) {
  SharedState* state = shared_state();
  LWLockAcquire(state->lock, LW_EXCLUSIVE);
  DatabaseEntry* entry = find_entry(database);
  const bool has_worker = entry != nullptr && entry->held_by == 0;
  if (has_worker) {
    entry->held_by = MyProcPid;
    holds_databases = true;
  }
  LWLockRelease(state->lock);
  return has_worker;
}

void wait_until_stopped(Oid database) {
  SharedState* state = shared_state();
  for (int waited_ms = 0; waited_ms < longest_stop_ms; waited_ms += stop_check_ms) {
    LWLockAcquire(state->lock, LW_SHARED);
    DatabaseEntry* entry = find_entry(database);
    const pid_t pid = entry != nullptr ? entry->pid : 0;
    const bool starting = entry != nullptr && entry->state == WorkerState::starting;
    LWLockRelease(state->lock);
    if (pid == 0 && !starting) return;
    if (pid != 0) kill(pid, SIGTERM);
    (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, stop_check_ms,
                    compat::wait_event("OpsRunnerDatabaseHold"));
    ResetLatch(MyLatch);
    CHECK_FOR_INTERRUPTS();
  }
}

/// At the end of the transaction, when others see what it did: a worker that came earlier would meet its locks.
void release_at_transaction_end(XactEvent event, void*) {
  if (!holds_databases || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE))
    return;
  holds_databases = false;
  SharedState* state = shared_state();
  LWLockAcquire(state->lock, LW_EXCLUSIVE);
  for (int i = 0; i < state->entry_count; ++i) {
    DatabaseEntry& entry = state->entries[i];
    if (entry.held_by != MyProcPid) continue;
    entry.held_by = 0;
    entry.start_wanted = true;
  }
  LWLockRelease(state->lock);
  wake_launcher();
}

bool drops_an_extension(Node* statement) {
  if (nodeTag(statement) != T_DropStmt) return false;
  const ObjectType type = reinterpret_cast<DropStmt*>(statement)->removeType;
  return type == OBJECT_EXTENSION || type == OBJECT_SCHEMA;
}

void run_utility(PlannedStmt* statement, const char* query, bool read_only_tree, ProcessUtilityContext context,
                 ParamListInfo parameters, QueryEnvironment* environment, DestReceiver* destination,
                 QueryCompletion* completion) {
  const auto next = previous_hook != nullptr ? previous_hook : standard_ProcessUtility;
  if (shared_state() == nullptr) {
    next(statement, query, read_only_tree, context, parameters, environment, destination, completion);
    return;
  }
  if (drops_an_extension(statement->utilityStmt)) {
    Bell bell;
    bell.check = true;
    ring_at_commit(bell);
  }
  const Oid database = context == PROCESS_UTILITY_TOPLEVEL ? database_to_hold(statement->utilityStmt) : InvalidOid;
  if (OidIsValid(database) && hold(database)) wait_until_stopped(database);
  next(statement, query, read_only_tree, context, parameters, environment, destination, completion);
}

}  // namespace

void install_database_hold() {
  RegisterXactCallback(release_at_transaction_end, nullptr);
  previous_hook = ProcessUtility_hook;
  ProcessUtility_hook = run_utility;
}

}  // namespace ops::pg
