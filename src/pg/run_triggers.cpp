// Triggers of ops.runs that every change of a run passes. In C++ because a turn that changes one run spends more time on
// starting expressions and functions of SQL than on the row itself.
//
// Server zone: nothing here has a destructor, so server errors may pass through.
#include <cstring>
#include <optional>
#include <string_view>

#include "core/run.hpp"

#include "pg/boundary.hpp"

extern "C" {
OPS_SQL_FUNCTION(ops_transition_allowed);
OPS_SQL_FUNCTION(ops_guard_run);
OPS_SQL_FUNCTION(ops_follow_status);
// src/pg/definition_functions.cpp
PGDLLEXPORT Datum ops_check_run_metadata(PG_FUNCTION_ARGS);
}

namespace ops::pg {

namespace {

// The row -----------------------------------------------------------------------------------------------------------

enum Column : int {
  run_id,
  project_id,
  env_id,
  git_sha,
  git_ref,
  priority,
  idempotency_key,
  origin_run_id,
  origin_kind,
  request_columns,  ///< all before are what the run was queued for
  status = request_columns,
  waiting_for,
  claimed_by,
  claim_token,
  finished_at,
  attempt,
  metadata,
  column_count,
};

constexpr const char* column_names[column_count] = {
    "run_id", "project_id",  "env_id",     "git_sha",     "git_ref",     "priority", "idempotency_key", "origin_run_id",
    "origin_kind", "status", "waiting_for", "claimed_by", "claim_token", "finished_at", "attempt", "metadata"};

/// Number of the column in the table, remembered as long as the table has it there.
int number_of(TupleDesc columns, int column) {
  static int known[column_count];
  int& number = known[column];
  if (number <= 0 || number > columns->natts ||
      std::strcmp(NameStr(TupleDescAttr(columns, number - 1)->attname), column_names[column]) != 0)
    number = SPI_fnumber(columns, column_names[column]);
  if (number <= 0)
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN), errmsg("ops.runs has no column \"%s\"", column_names[column]),
                    errhint("The tables of ops_runner keep their columns; create the extension anew.")));
  return number;
}

struct RunRow {
  Datum values[column_count];
  bool nulls[column_count];
};

RunRow read_row(HeapTuple tuple, TupleDesc columns) {
  Datum* values = static_cast<Datum*>(palloc(sizeof(Datum) * static_cast<Size>(columns->natts)));
  bool* nulls = static_cast<bool*>(palloc(sizeof(bool) * static_cast<Size>(columns->natts)));
  heap_deform_tuple(tuple, columns, values, nulls);
  RunRow row;
  for (int i = 0; i < column_count; ++i) {
    const int number = number_of(columns, i);
    row.values[i] = values[number - 1];
    row.nulls[i] = nulls[number - 1];
  }
  return row;
}

/// Empty for null.
std::string_view text_at(const RunRow& row, Column column) {
  if (row.nulls[column]) return {};
  const text* value = DatumGetTextPP(row.values[column]);
  return {VARDATA_ANY(value), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(value))};
}

bool same_value(const RunRow& one, const RunRow& other, Column column, TupleDesc columns) {
  if (one.nulls[column] != other.nulls[column]) return false;
  if (one.nulls[column]) return true;
  const auto* type = TupleDescAttr(columns, number_of(columns, column) - 1);
  return datum_image_eq(one.values[column], other.values[column], type->attbyval, type->attlen);
}

/// As text of the server, at most 100 bytes.
const char* shown(std::string_view text) {
  const int length = static_cast<int>(text.size());
  return pnstrdup(text.data(), static_cast<Size>(pg_mbcliplen(text.data(), length, 100)));
}

// Rules -------------------------------------------------------------------------------------------------------------

constexpr std::string_view hex_digits = "0123456789abcdef";

bool only(std::string_view text, std::string_view allowed) {
  return text.find_first_not_of(allowed) == std::string_view::npos;
}

bool has_bytes(const RunRow& row, Column column, std::size_t least, std::size_t most) {
  if (row.nulls[column]) return true;  // where it must not be null the table says so
  const std::size_t bytes = text_at(row, column).size();
  return bytes >= least && bytes <= most;
}

/// What is wrong with a new row, or nothing.
const char* problem_of_request(const RunRow& row) {
  const std::string_view id = text_at(row, run_id);
  if (!row.nulls[run_id] && (id.size() != 40 || !id.starts_with("run-") || !only(id.substr(4), "0123456789abcdef-")))
    return psprintf("run_id \"%s\" is not run-<uuid>.", shown(id));
  if (!has_bytes(row, git_sha, 7, 64) || !only(text_at(row, git_sha), hex_digits))
    return psprintf("git_sha \"%s\" is not 7 to 64 hexadecimal digits in lower case.", shown(text_at(row, git_sha)));
  if (!has_bytes(row, git_ref, 1, 255)) return "git_ref is not 1 to 255 bytes long.";
  const int given_priority = DatumGetInt32(row.values[priority]);
  if (!row.nulls[priority] && (given_priority < -1000 || given_priority > 1000))
    return psprintf("priority %d is not between -1000 and 1000.", given_priority);
  if (!has_bytes(row, idempotency_key, 1, 200)) return "idempotency_key is not 1 to 200 bytes long.";
  const std::string_view kind = text_at(row, origin_kind);
  if (row.nulls[origin_run_id] != row.nulls[origin_kind] ||
      (!row.nulls[origin_kind] && kind != "retry" && kind != "rollback"))
    return "origin_run_id and origin_kind (retry or rollback) do not go together.";
  return nullptr;
}

/// What does not go together with the row's status, or nothing.
const char* problem_of_status(const RunRow& row, std::optional<RunStatus> now) {
  if (!now)
    return psprintf("status \"%s\" is none of waiting, queued, claimed, running, success, failed and cancelled.",
                    shown(text_at(row, status)));
  if ((*now == RunStatus::claimed || *now == RunStatus::running) && (row.nulls[claimed_by] || row.nulls[claim_token]))
    return "A run that is claimed or running has claimed_by and claim_token.";
  if (is_final(*now) == row.nulls[finished_at]) return "A run has finished_at when its status is final, and only then.";
  if ((*now == RunStatus::waiting) == row.nulls[waiting_for])
    return "A run has waiting_for when its status is waiting, and only then.";
  return nullptr;
}

/// The worker of this server writes a claim and what follows it in the same transaction as one change: both edges count.
bool claims_and_goes_on(const RunRow& before, const RunRow& after, RunStatus from, RunStatus to, TupleDesc columns) {
  return from == RunStatus::queued &&
         DatumGetInt32(after.values[attempt]) == DatumGetInt32(before.values[attempt]) + 1 &&
         !same_value(before, after, claim_token, columns) && transition_allowed(RunStatus::claimed, to);
}

void check_change(const RunRow& before, const RunRow& after, std::optional<RunStatus> to, TupleDesc columns) {
  const std::optional<RunStatus> from = run_status_from(text_at(before, status));
  if (from && is_final(*from))
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("run \"%s\" is already %s and does not change any more", shown(text_at(before, run_id)),
                           shown(text_at(before, status))),
                    errhint("Queue a new run, or repeat this one with ops.retry_run(run).")));
  if (from && to && *from != *to && !transition_allowed(*from, *to) &&
      !claims_and_goes_on(before, after, *from, *to, columns))
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("run \"%s\" cannot go from %s to %s", shown(text_at(before, run_id)),
                           shown(text_at(before, status)), shown(text_at(after, status))),
                    errhint("Use the functions of schema ops; docs/architecture.md shows the allowed changes.")));
  for (int i = 0; i < request_columns; ++i)
    if (!same_value(before, after, static_cast<Column>(i), columns))
      ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                      errmsg("what run \"%s\" was queued for does not change any more", shown(text_at(before, run_id))),
                      errhint("Cancel it with ops.cancel_run(run, reason) and queue another one.")));
}

void check_metadata(const RunRow& row) {
  if (row.nulls[metadata]) return;
  const Jsonb* document = DatumGetJsonbP(row.values[metadata]);
  if (JB_ROOT_IS_OBJECT(document) && JB_ROOT_COUNT(document) == 0) return;
  (void)DirectFunctionCall1(ops_check_run_metadata, row.values[metadata]);
}

TriggerData* trigger_of(FunctionCallInfo fcinfo) {
  if (!CALLED_AS_TRIGGER(fcinfo))
    ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED), errmsg("this function is a trigger of ops.runs")));
  return reinterpret_cast<TriggerData*>(fcinfo->context);
}

Datum guard_run(FunctionCallInfo fcinfo) {
  const TriggerData* trigger = trigger_of(fcinfo);
  TupleDesc columns = RelationGetDescr(trigger->tg_relation);
  const bool is_update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
  HeapTuple new_tuple = is_update ? trigger->tg_newtuple : trigger->tg_trigtuple;
  const RunRow after = read_row(new_tuple, columns);
  const std::optional<RunStatus> to = run_status_from(text_at(after, status));
  bool metadata_is_new = true;
  const char* problem = nullptr;
  if (is_update) {
    const RunRow before = read_row(trigger->tg_trigtuple, columns);
    check_change(before, after, to, columns);
    metadata_is_new = !same_value(before, after, metadata, columns);
  } else {
    problem = problem_of_request(after);
  }
  if (problem == nullptr && !after.nulls[status]) problem = problem_of_status(after, to);
  if (problem != nullptr)
    ereport(ERROR,
            (errcode(ERRCODE_CHECK_VIOLATION),
             errmsg("run \"%s\" cannot be %s", shown(text_at(after, run_id)), is_update ? "changed so" : "queued"),
             errdetail("%s", problem),
             errhint(is_update ? "Use the functions of schema ops to change runs."
                               : "Queue runs with ops.queue_run(project, environment, git_sha, git_ref).")));
  if (metadata_is_new) check_metadata(after);
  return PointerGetDatum(new_tuple);
}

// What follows a status ---------------------------------------------------------------------------------------------

/// A statement, planned once per session for any number of keys.
struct KeptPlan {
  const char* sql;
  SPIPlanPtr plan;
};
KeptPlan count_slots{
    "SELECT pg_catalog.count(*) FROM ops.run_slots s WHERE s.run_id OPERATOR(pg_catalog.=) ANY ($1)", nullptr};
KeptPlan leave_slots{"SELECT ops._leave_slots($1, $2)", nullptr};

void execute(KeptPlan& kept, int count, Datum* values) {
  if (kept.plan == nullptr) {
    Oid types[] = {TEXTARRAYOID, TEXTARRAYOID};
    SPIPlanPtr plan = SPI_prepare_cursor(kept.sql, count, types, CURSOR_OPT_GENERIC_PLAN);
    if (plan == nullptr) elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
    SPI_keepplan(plan);
    kept.plan = plan;
  }
  const int result = SPI_execute_plan(kept.plan, values, nullptr, false, 0);
  if (result != SPI_OK_SELECT) elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
}

struct RunIds {
  ArrayBuildState* ids;
  int64 count;
};

void add(RunIds& runs, Datum id) {
  runs.ids = accumArrayResult(runs.ids, id, false, TEXTOID, CurrentMemoryContext);
  ++runs.count;
}

Datum array_of(const RunIds& runs) {
  return runs.ids == nullptr ? PointerGetDatum(construct_empty_array(TEXTOID))
                             : makeArrayResult(runs.ids, CurrentMemoryContext);
}

Datum follow_status(FunctionCallInfo fcinfo) {
  const TriggerData* trigger = trigger_of(fcinfo);
  TupleDesc columns = RelationGetDescr(trigger->tg_relation);
  RunIds active{}, queued{}, stopped{};
  // Both tables hold one row for each change, in the same order.
  TupleTableSlot* before = MakeSingleTupleTableSlot(columns, &TTSOpsMinimalTuple);
  TupleTableSlot* after = MakeSingleTupleTableSlot(columns, &TTSOpsMinimalTuple);
  tuplestore_rescan(trigger->tg_oldtable);
  tuplestore_rescan(trigger->tg_newtable);
  while (tuplestore_gettupleslot(trigger->tg_oldtable, true, false, before) &&
         tuplestore_gettupleslot(trigger->tg_newtable, true, false, after)) {
    const auto status_in = [&](TupleTableSlot* slot) {
      bool is_null = false;
      const text* value = DatumGetTextPP(slot_getattr(slot, number_of(columns, status), &is_null));
      return run_status_from({VARDATA_ANY(value), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(value))});
    };
    const std::optional<RunStatus> to = status_in(after);
    if (!to || to == status_in(before)) continue;
    bool is_null = false;
    const Datum id = slot_getattr(after, number_of(columns, run_id), &is_null);
    add(*to == RunStatus::queued                                      ? queued
        : *to == RunStatus::claimed || *to == RunStatus::running ? active
                                                                      : stopped,
        id);
  }
  ExecDropSingleTupleTableSlot(before);
  ExecDropSingleTupleTableSlot(after);
  if (active.count + queued.count + stopped.count == 0) return PointerGetDatum(nullptr);

  SPI_connect();
  if (active.count > 0) {
    // ops._take_slots has moved the queue row into a slot already.
    Datum ids = array_of(active);
    execute(count_slots, 1, &ids);
    bool is_null = false;
    if (DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null)) != active.count)
      ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("a run without a slot cannot be claimed"),
                      errhint("Claim runs with ops.claim_next_run(worker).")));
  }
  if (queued.count + stopped.count > 0) {
    Datum ids[] = {array_of(queued), array_of(stopped)};
    execute(leave_slots, 2, ids);
  }
  SPI_finish();
  return PointerGetDatum(nullptr);
}

}  // namespace

}  // namespace ops::pg

Datum ops_transition_allowed(PG_FUNCTION_ARGS) {
  const auto status_at = [&](int argument) {
    const text* value = PG_GETARG_TEXT_PP(argument);
    return ops::run_status_from({VARDATA_ANY(value), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(value))});
  };
  const std::optional<ops::RunStatus> from = status_at(0);
  const std::optional<ops::RunStatus> to = status_at(1);
  PG_RETURN_BOOL(from && to && ops::transition_allowed(*from, *to));
}

Datum ops_guard_run(PG_FUNCTION_ARGS) {
  return ops::pg::guard_run(fcinfo);
}

Datum ops_follow_status(PG_FUNCTION_ARGS) {
  return ops::pg::follow_status(fcinfo);
}
