// SQL functions that wake and wait: the bells, ops.wait_for_run, ops.tail, and what the worker is doing.
#include <algorithm>
#include <chrono>

#include "pg/boundary.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
OPS_SQL_FUNCTION(ops_ring);
OPS_SQL_FUNCTION(ops_extension_created);
OPS_SQL_FUNCTION(ops_worker_present);
OPS_SQL_FUNCTION(ops_worker_status);
OPS_SQL_FUNCTION(ops_wait_for_run);
OPS_SQL_FUNCTION(ops_tail);
}

namespace ops::pg {

namespace {

/// Longest sleep without a look, so that a lost wake-up delays nobody for long.
constexpr long longest_sleep_ms = 1'000;

// Waiting ------------------------------------------------------------------------------------------------------------

DatabaseEntry* own_entry() {
  SharedState* state = shared_state();
  if (state == nullptr) return nullptr;
  LWLockAcquire(state->lock, LW_SHARED);
  DatabaseEntry* entry = find_entry(MyDatabaseId);
  LWLockRelease(state->lock);
  return entry;
}

/// From here until stop_watching() a change in this database ends sleep_until_change().
DatabaseEntry* start_watching() {
  DatabaseEntry* entry = own_entry();
  if (entry != nullptr) ConditionVariablePrepareToSleep(&entry->changed);
  return entry;
}

void stop_watching() {
  ConditionVariableCancelSleep();
}

/// Sleeps until something changed or the time is up; a statement or session that is cancelled leaves by an error.
void sleep_until_change(DatabaseEntry* entry, long longest_ms) {
  const long sleep_ms = std::clamp<long>(longest_ms, 1, longest_sleep_ms);
  if (entry != nullptr) {
    (void)ConditionVariableTimedSleep(&entry->changed, sleep_ms, compat::wait_event("OpsRunnerWaitForRun"));
    return;
  }
  (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, sleep_ms,
                  compat::wait_event("OpsRunnerWaitForRun"));
  ResetLatch(MyLatch);
  CHECK_FOR_INTERRUPTS();
}

// wait_for_run -------------------------------------------------------------------------------------------------------

struct OnlyCallSearch {
  Oid function;
};

bool has_other_work(Node* node, void* context) {
  if (node == nullptr) return false;
  switch (nodeTag(node)) {
    case T_FuncExpr:
      if (reinterpret_cast<FuncExpr*>(node)->funcid != static_cast<OnlyCallSearch*>(context)->function) return true;
      break;
    case T_List:
    case T_TargetEntry:
    case T_Var:
    case T_Const:
    case T_Param:
    case T_RelabelType:
    case T_FieldSelect:
    case T_NamedArgExpr:
    case T_RangeTblFunction:
      break;
    default:
      return true;
  }
  return compat::walk_expression(node, has_other_work, context);
}

/// True when the statement that runs is this call and nothing else, so that nobody will use its snapshot again. Only
/// then may it be given up for the time of the sleep; otherwise vacuum is held back, as by any long statement.
bool is_alone(Oid function) {
  if (ActivePortal == nullptr || ActivePortal->queryDesc == nullptr) return false;
  PlannedStmt* statement = ActivePortal->queryDesc->plannedstmt;
  if (statement->commandType != CMD_SELECT || statement->subplans != NIL || statement->rowMarks != NIL) return false;
  for (int i = 0; i < list_length(statement->rtable); ++i) {
    const RangeTblEntry* entry = static_cast<RangeTblEntry*>(list_nth(statement->rtable, i));
    if (entry->rtekind != RTE_FUNCTION && entry->rtekind != RTE_RESULT) return false;
  }
  Plan* plan = statement->planTree;
  if (plan->lefttree != nullptr || plan->righttree != nullptr || plan->initPlan != NIL || plan->qual != NIL)
    return false;
  OnlyCallSearch search{function};
  if (has_other_work(reinterpret_cast<Node*>(plan->targetlist), &search)) return false;
  if (IsA(plan, FunctionScan)) {
    if (has_other_work(reinterpret_cast<Node*>(reinterpret_cast<FunctionScan*>(plan)->functions), &search))
      return false;
  } else if (!IsA(plan, Result) && !IsA(plan, ProjectSet)) {
    return false;
  }
  InvalidateCatalogSnapshot();
  return ThereAreNoPriorRegisteredSnapshots();
}

/// Whole-row value of the run and whether it has ended. Raises when there is no such run.
struct FoundRun {
  Datum row;
  bool ended;
};

FoundRun find_run(Datum run_id) {
  SPI_connect();
  Oid types[] = {TEXTOID};
  const int result = SPI_execute_with_args(
      "SELECT r, r.status OPERATOR(pg_catalog.=) ANY (ARRAY['success', 'failed', 'cancelled'])"
      "  FROM ops.runs r WHERE r.run_id OPERATOR(pg_catalog.=) $1",
      1, types, &run_id, nullptr, false, 1);
  if (result != SPI_OK_SELECT) elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(result));
  if (SPI_processed == 0)
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("run \"%s\" does not exist", TextDatumGetCString(run_id)),
                    errhint("Run ids are in ops.runs.run_id and look like run-<uuid>.")));
  bool is_null = false;
  FoundRun found;
  found.ended = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &is_null));
  found.row = SPI_datumTransfer(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null), false, -1);
  SPI_finish();
  return found;
}

void refuse_fixed_snapshot(const char* what) {
  if (!IsolationUsesXactSnapshot()) return;
  ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
                  errmsg("%s cannot see a change in a %s transaction", what,
                         XactIsoLevel == XACT_SERIALIZABLE ? "SERIALIZABLE" : "REPEATABLE READ"),
                  errhint("Call it outside of a transaction or in a READ COMMITTED one.")));
}

/// Milliseconds of the interval, months counted as 30 days; raises outside 0 .. 35 days.
int64 bounded_milliseconds(const Interval* interval) {
  const double milliseconds = static_cast<double>(interval->time) / 1000.0 +
                              (static_cast<double>(interval->day) + 30.0 * interval->month) * 86'400'000.0;
  if (milliseconds < 0 || milliseconds > 35.0 * 86'400'000.0)
    ereport(ERROR,
            (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
             errmsg("p_timeout is %s", DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)))),
             errhint("It must lie between 0 and 35 days.")));
  return static_cast<int64>(milliseconds);
}

Datum wait_for_run(FunctionCallInfo fcinfo) {
  if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
    ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                    errmsg("%s must not be null", PG_ARGISNULL(0) ? "p_run_id" : "p_timeout")));
  refuse_fixed_snapshot("ops.wait_for_run");
  const Datum run_id = PG_GETARG_DATUM(0);
  const int64 timeout_ms = bounded_milliseconds(PG_GETARG_INTERVAL_P(1));
  // Not the wall clock, which may jump.
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds{timeout_ms};
  DatabaseEntry* entry = start_watching();
  for (;;) {
    const FoundRun found = find_run(run_id);
    if (found.ended) {
      stop_watching();
      return found.row;
    }
    const long left_ms = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    if (left_ms <= 0) {
      stop_watching();
      ereport(ERROR, (errcode(MAKE_SQLSTATE('O', 'P', '0', '0', '1')),
                      errmsg("run \"%s\" has not ended within the time to wait", TextDatumGetCString(run_id)),
                      errhint("The run goes on. Wait again, or look at SELECT * FROM ops.timeline('%s').",
                              TextDatumGetCString(run_id))));
    }
    // Nothing of this statement reads with its snapshot again, so vacuum need not wait for it.
    if (is_alone(fcinfo->flinfo->fn_oid)) MyProc->xmin = InvalidTransactionId;
    sleep_until_change(entry, left_ms);
  }
}

// tail ---------------------------------------------------------------------------------------------------------------

struct TailPosition {
  int32 last_seq;
  bool ended;
};

/// Prints the events after `position` and moves it; tells whether the run has ended and all of it is printed.
TailPosition print_new_events(Datum run_id, TailPosition position) {
  Oid types[] = {TEXTOID, INT4OID};
  Datum values[] = {run_id, Int32GetDatum(position.last_seq)};
  const int result = SPI_execute_with_args(
      "SELECT e.seq, pg_catalog.to_char(e.created_at, 'HH24:MI:SS.MS'), e.level, coalesce(e.phase, '-'), e.message,"
      "       r.status OPERATOR(pg_catalog.=) ANY (ARRAY['success', 'failed', 'cancelled'])"
      "  FROM ops.runs r LEFT JOIN ops.run_events e"
      "    ON e.run_id OPERATOR(pg_catalog.=) r.run_id AND e.seq OPERATOR(pg_catalog.>) $2"
      " WHERE r.run_id OPERATOR(pg_catalog.=) $1 ORDER BY e.seq",
      2, types, values, nullptr, false, 0);
  if (result != SPI_OK_SELECT) elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(result));
  if (SPI_processed == 0)
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("run \"%s\" does not exist", TextDatumGetCString(run_id)),
                    errhint("Run ids are in ops.runs.run_id and look like run-<uuid>.")));
  for (uint64 i = 0; i < SPI_processed; ++i) {
    HeapTuple row = SPI_tuptable->vals[i];
    TupleDesc columns = SPI_tuptable->tupdesc;
    bool is_null = false;
    const Datum seq = SPI_getbinval(row, columns, 1, &is_null);
    if (!is_null) {
      position.last_seq = DatumGetInt32(seq);
      ereport(INFO, (errmsg_internal("%s %-5s %-18s %s", SPI_getvalue(row, columns, 2), SPI_getvalue(row, columns, 3),
                                     SPI_getvalue(row, columns, 4), SPI_getvalue(row, columns, 5))));
    }
    position.ended = DatumGetBool(SPI_getbinval(row, columns, 6, &is_null));
  }
  SPI_freetuptable(SPI_tuptable);
  return position;
}

Datum tail(FunctionCallInfo fcinfo) {
  if (PG_ARGISNULL(0)) ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("p_run_id must not be null")));
  refuse_fixed_snapshot("ops.tail");
  const bool atomic = fcinfo->context == nullptr || !IsA(fcinfo->context, CallContext) ||
                      castNode(CallContext, fcinfo->context)->atomic;
  // Outlives the commits below.
  MemoryContext caller = MemoryContextSwitchTo(PortalContext);
  const Datum run_id = PointerGetDatum(DatumGetTextPCopy(PG_GETARG_DATUM(0)));
  MemoryContextSwitchTo(caller);

  SPI_connect_ext(atomic ? 0 : SPI_OPT_NONATOMIC);
  DatabaseEntry* entry = start_watching();
  TailPosition position{0, false};
  for (;;) {
    position = print_new_events(run_id, position);
    if (position.ended) break;
    if (!atomic) SPI_commit();  // nothing stays open while it sleeps
    sleep_until_change(entry, longest_sleep_ms);
  }
  stop_watching();
  SPI_finish();
  PG_RETURN_VOID();
}

// Status -------------------------------------------------------------------------------------------------------------

Datum worker_status(FunctionCallInfo fcinfo) {
  InitMaterializedSRF(fcinfo, 0);
  ReturnSetInfo* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
  SharedState* state = shared_state();
  DatabaseEntry copy{};
  bool found = false;
  if (state != nullptr) {
    LWLockAcquire(state->lock, LW_SHARED);
    if (const DatabaseEntry* entry = find_entry(MyDatabaseId)) {
      copy = *entry;
      found = true;
    }
    LWLockRelease(state->lock);
  }
  Datum values[11];
  bool nulls[11] = {};
  const char* state_text = RecoveryInProgress() ? "standby: the worker starts after a promotion"
                           : state == nullptr
                               ? "no worker: add ops_runner to shared_preload_libraries and restart the server"
                           : copy.pid == 0 && !OidIsValid(get_role_oid("ops_runner_worker", true))
                               ? "no worker: role ops_runner_worker is missing"
                           : !found ? "no worker: the launcher has not started one in this database"
                                    : to_string(copy.state);
  nulls[0] = copy.worker_id[0] == '\0';
  values[0] = CStringGetTextDatum(copy.worker_id);
  nulls[1] = copy.pid == 0;
  values[1] = Int32GetDatum(copy.pid);
  values[2] = DirectFunctionCall1(namein, CStringGetDatum(get_database_name(MyDatabaseId)));
  values[3] = CStringGetTextDatum(state_text);
  nulls[4] = copy.since == 0;
  values[4] = TimestampTzGetDatum(copy.since);
  values[5] = Int32GetDatum(copy.running_runs);
  values[6] = Int32GetDatum(copy.requests_in_flight);
  values[7] = Int64GetDatum(copy.claimed);
  values[8] = Int64GetDatum(copy.finished);
  nulls[9] = copy.last_error[0] == '\0';
  values[9] = CStringGetTextDatum(copy.last_error);
  nulls[10] = copy.last_error_at == 0;
  values[10] = TimestampTzGetDatum(copy.last_error_at);
  tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
  return Datum{0};
}

}  // namespace

}  // namespace ops::pg

// Server zone: these shells hold nothing with a destructor, so server errors may pass through them.

Datum ops_ring(PG_FUNCTION_ARGS) {
  ops::pg::Bell bell;
  bell.queue = PG_GETARG_BOOL(0);
  bell.cancel = PG_GETARG_BOOL(1);
  bell.check = PG_GETARG_BOOL(2);
  ops::pg::ring_at_commit(bell);
  PG_RETURN_VOID();
}

Datum ops_extension_created(PG_FUNCTION_ARGS) {
  (void)fcinfo;
  ops::pg::announce_extension_at_commit();
  PG_RETURN_VOID();
}

Datum ops_worker_present(PG_FUNCTION_ARGS) {
  (void)fcinfo;
  PG_RETURN_BOOL(ops::pg::shared_state() != nullptr);
}

Datum ops_worker_status(PG_FUNCTION_ARGS) {
  return ops::pg::worker_status(fcinfo);
}
Datum ops_wait_for_run(PG_FUNCTION_ARGS) {
  return ops::pg::wait_for_run(fcinfo);
}
Datum ops_tail(PG_FUNCTION_ARGS) {
  return ops::pg::tail(fcinfo);
}
