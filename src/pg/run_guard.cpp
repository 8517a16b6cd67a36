// What a row of ops.runs may hold and how it may change. In C++ because constraints and trigger functions of SQL are
// compiled anew by every statement: for a statement that changes one run that took a third of its time.
//
// Server zone: nothing here has a destructor, so server errors may pass through.
#include <optional>
#include <string_view>

#include "core/git_names.hpp"

#include "pg/run_row.hpp"

#include "pg/definition_functions.hpp"
#include "pg/jsonb_text.hpp"

extern "C" {
OPS_SQL_FUNCTION(ops_transition_allowed);
OPS_SQL_FUNCTION(ops_guard_run);
}

namespace ops::pg {

namespace {

using enum RunColumn;

bool only(std::string_view text, std::string_view allowed) {
  return text.find_first_not_of(allowed) == std::string_view::npos;
}

bool has_bytes(const RunRow& row, RunColumn column, std::size_t least, std::size_t most) {
  if (row.is_null(column)) return true;  // where it must not be null the table says so
  const std::size_t bytes = row.text_at(column).size();
  return bytes >= least && bytes <= most;
}

/// What is wrong with a new row, or nothing.
const char* problem_of_request(const RunRow& row) {
  const std::string_view id = row.text_at(run_id);
  if (!row.is_null(run_id) && (id.size() != 40 || !id.starts_with("run-") || !only(id.substr(4), "0123456789abcdef-")))
    return psprintf("run_id \"%s\" is not run-<uuid>.", shown(id));
  if (!row.is_null(git_sha) && !is_commit(row.text_at(git_sha)))
    return psprintf("git_sha \"%s\" is not 7 to 64 hexadecimal digits in lower case.", shown(row.text_at(git_sha)));
  if (!has_bytes(row, git_ref, 1, 255)) return "git_ref is not 1 to 255 bytes long.";
  const int given_priority = DatumGetInt32(row.at(priority));
  if (!row.is_null(priority) && (given_priority < -1000 || given_priority > 1000))
    return psprintf("priority %d is not between -1000 and 1000.", given_priority);
  if (!has_bytes(row, idempotency_key, 1, 200)) return "idempotency_key is not 1 to 200 bytes long.";
  const std::string_view kind = row.text_at(origin_kind);
  if (row.is_null(origin_run_id) != row.is_null(origin_kind) ||
      (!row.is_null(origin_kind) && kind != "retry" && kind != "rollback"))
    return "origin_run_id and origin_kind (retry or rollback) do not go together.";
  return nullptr;
}

/// What does not go together with the row's status, or nothing.
const char* problem_of_status(const RunRow& row, std::optional<RunStatus> now) {
  if (!now)
    return psprintf("status \"%s\" is none of waiting, queued, claimed, running, success, failed and cancelled.",
                    shown(row.text_at(status)));
  if ((*now == RunStatus::claimed || *now == RunStatus::running) &&
      (row.is_null(claimed_by) || row.is_null(claim_token)))
    return "A run that is claimed or running has claimed_by and claim_token.";
  if (is_final(*now) == row.is_null(finished_at))
    return "A run has finished_at when its status is final, and only then.";
  if ((*now == RunStatus::waiting) == row.is_null(waiting_for))
    return "A run has waiting_for when its status is waiting, and only then.";
  for (const RunColumn column : {available_at, queued_at})
    if (!row.is_null(column) && TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(row.at(column))))
      return "available_at and queued_at are times of a calendar, not infinity.";
  return nullptr;
}

/// The worker of this server writes a claim and what follows it in the same transaction as one change: both edges
/// count.
bool claims_and_goes_on(const RunRow& before, const RunRow& after, RunStatus from, RunStatus to) {
  return from == RunStatus::queued && DatumGetInt32(after.at(attempt)) == DatumGetInt32(before.at(attempt)) + 1 &&
         !before.same(after, claim_token) && transition_allowed(RunStatus::claimed, to);
}

void check_change(const RunRow& before, const RunRow& after) {
  const std::optional<RunStatus> from = before.status();
  const std::optional<RunStatus> to = after.status();
  if (from && is_final(*from))
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("run \"%s\" is already %s and does not change any more", shown(before.text_at(run_id)),
                           shown(before.text_at(status))),
                    errhint("Queue a new run, or repeat this one with ops.retry_run(run).")));
  if (from && to && *from != *to && !transition_allowed(*from, *to) && !claims_and_goes_on(before, after, *from, *to))
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("run \"%s\" cannot go from %s to %s", shown(before.text_at(run_id)),
                           shown(before.text_at(status)), shown(after.text_at(status))),
                    errhint("Use the functions of schema ops; docs/architecture.md shows the allowed changes.")));
  for (int i = 0; i < request_column_count; ++i)
    if (!before.same(after, static_cast<RunColumn>(i)))
      ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                      errmsg("what run \"%s\" was queued for does not change any more", shown(before.text_at(run_id))),
                      errhint("Cancel it with ops.cancel_run(run, reason) and queue another one.")));
}

void check_metadata(const RunRow& row) {
  if (row.is_null(metadata)) return;
  if (is_empty_object(DatumGetJsonbP(row.at(metadata)))) return;
  entry([&] { check_metadata_document(row.at(metadata)); });
}

Datum guard_run(FunctionCallInfo fcinfo) {
  if (!CALLED_AS_TRIGGER(fcinfo))
    ereport(ERROR,
            (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED), errmsg("this function is a trigger of ops.runs")));
  const auto* trigger = reinterpret_cast<TriggerData*>(fcinfo->context);
  TupleDesc columns = RelationGetDescr(trigger->tg_relation);
  const bool is_update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
  HeapTuple new_tuple = is_update ? trigger->tg_newtuple : trigger->tg_trigtuple;
  const RunRow after(new_tuple, columns);
  bool metadata_is_new = true;
  const char* problem = nullptr;
  if (is_update) {
    const RunRow before(trigger->tg_trigtuple, columns);
    check_change(before, after);
    metadata_is_new = !before.same(after, metadata);
  } else {
    problem = problem_of_request(after);
  }
  if (problem == nullptr && !after.is_null(status)) problem = problem_of_status(after, after.status());
  if (problem != nullptr)
    ereport(ERROR,
            (errcode(ERRCODE_CHECK_VIOLATION),
             errmsg("run \"%s\" cannot be %s", shown(after.text_at(run_id)), is_update ? "changed so" : "queued"),
             errdetail("%s", problem),
             errhint("%s", is_update ? "Use the functions of schema ops to change runs."
                                     : "Queue runs with ops.queue_run(project, environment, git_sha, git_ref).")));
  if (metadata_is_new) check_metadata(after);
  return PointerGetDatum(new_tuple);
}

std::optional<RunStatus> status_argument(FunctionCallInfo fcinfo, int number) {
  const struct varlena* value = PG_GETARG_TEXT_PP(number);
  return run_status_from({VARDATA_ANY(value), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(value))});
}

}  // namespace

}  // namespace ops::pg

Datum ops_transition_allowed(PG_FUNCTION_ARGS) {
  const auto from = ops::pg::status_argument(fcinfo, 0);
  const auto to = ops::pg::status_argument(fcinfo, 1);
  PG_RETURN_BOOL(from && to && ops::transition_allowed(*from, *to));
}

Datum ops_guard_run(PG_FUNCTION_ARGS) {
  return ops::pg::guard_run(fcinfo);
}
