// What follows a new row of ops.runs and a change of its status, whoever writes them: phases, the queue, slots and the
// first event. Lock order everywhere: run, then slots, then queue, then events (rule R11).
//
// In C++ because PL/pgSQL took half of the time in which a run is queued, and most of the time in which one changes.
#include <chrono>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/json.hpp"
#include "core/pipeline.hpp"
#include "core/redact.hpp"

#include "pg/boundary.hpp"
#include "pg/insert.hpp"
#include "pg/jsonb_text.hpp"
#include "pg/ready_floors.hpp"
#include "pg/run_row.hpp"
#include "pg/server_time.hpp"
#include "pg/shared_memory.hpp"
#include "pg/statement.hpp"
#include "pg/stored_rows.hpp"

extern "C" {
OPS_SQL_FUNCTION(ops_queue_new_runs);
OPS_SQL_FUNCTION(ops_follow_status);
}

namespace ops::pg {

namespace {

/// Remembered by a session.
constexpr std::size_t most_plans = 64;
constexpr std::size_t largest_plan = 32 * 1024;  ///< bytes of its phases' configs

// Statements ---------------------------------------------------------------------------------------------------------
// Functions and operators are found in pg_catalog: the trigger functions pin the search_path.

enum EnvironmentFact { fact_xmin, fact_ctid, fact_project, fact_env_type, fact_config };
constexpr const char* environment_columns[] = {"xmin", "ctid", "project_id", "env_type", "config"};
const StoredTable environments_table("environments", environment_columns);
constexpr const char* version_columns[] = {"xmin", "ctid", "project_id"};
const StoredTable environment_versions("environments", version_columns);

constexpr const char* phase_columns[] = {"run_id",  "phase_no", "phase",   "kind",       "needs",  "config",
                                         "timeout", "state",    "attempt", "remembered", "outcome"};
Insert insert_phases("run_phases", phase_columns, R"sql(
  INSERT INTO ops.run_phases (run_id, phase_no, phase, kind, needs, config, timeout, state, attempt, remembered, outcome)
  SELECT u.run_id, u.phase_no, u.phase, u.kind, u.needs::text[], u.config::jsonb, u.timeout_ms * interval '1 ms', u.state,
         u.attempt, u.remembered::jsonb, u.outcome::jsonb
    FROM {u(run_id text, phase_no int, phase text, kind text, needs text, config text, timeout_ms bigint, state text,
            attempt int, remembered text, outcome text)})sql");

constexpr const char* added_queue_columns[] = {"run_id", "env_id", "priority", "available_at", "state"};
Insert insert_into_queue("run_queue", added_queue_columns, R"sql(
  INSERT INTO ops.run_queue (run_id, env_id, priority, available_at, state)
  SELECT u.run_id, u.env_id, u.priority, u.available_at, u.state
    FROM {u(run_id text, env_id text, priority int, available_at timestamptz, state text)})sql");

constexpr const char* event_columns[] = {"run_id", "seq", "level", "message", "payload", "created_at"};
Insert insert_events("run_events", event_columns, R"sql(
  INSERT INTO ops.run_events (run_id, seq, level, message, payload, created_at)
  SELECT u.run_id, u.seq, u.level, u.message, u.payload::jsonb, u.created_at
    FROM {u(run_id text, seq int, level text, message text, payload text, created_at timestamptz)})sql");

Statement disarm_statement(R"sql(
  UPDATE ops.armed_identity SET disarmed_because = 'history was restored into this database'
   WHERE disarmed_because IS NULL)sql");

constexpr const char* slot_columns[] = {"run_id"};
const StoredTable slots_of_runs("run_slots", slot_columns, "run_has_one_slot");
constexpr const char* queue_columns[] = {"run_id"};
const StoredTable blocked_runs("run_queue", queue_columns, "run_queue_blocked");

// Their runs are locked, so nobody else wants these slots.
Statement free_slots_statement("DELETE FROM ops.run_slots s WHERE s.run_id = ANY ($1) RETURNING s.env_id");

Statement leave_queue_statement(
    "DELETE FROM ops.run_queue q WHERE q.run_id = ANY ($1) RETURNING CASE q.state WHEN 'ready' THEN q.env_id END");

// Of each environment as many as slots were given back. Too many are harmless: what finds no slot is blocked again by
// the claim that examines it. Its snapshot sees what was committed while the runs were locked.
Statement unblock_statement(R"sql(
  UPDATE ops.run_queue q SET state = 'ready'
    FROM {f(env_id text, slots int)}
   CROSS JOIN LATERAL (
     SELECT b.run_id FROM ops.run_queue b WHERE b.env_id = f.env_id AND b.state = 'blocked'
      ORDER BY b.priority DESC, b.available_at, b.run_id LIMIT f.slots FOR UPDATE SKIP LOCKED) next_run
   WHERE q.run_id = next_run.run_id
  RETURNING q.priority, (extract(epoch FROM q.available_at) * 1000000)::bigint)sql");

// Rows of the statement ----------------------------------------------------------------------------------------------

/// A row of ops.runs, in memory of the server; text is null where the column is.
struct Row {
  const char* run_id;
  const char* project_id;
  const char* env_id;
  const char* git_sha;
  const char* git_ref;
  const char* requested_by;
  const char* metadata;  ///< null: empty, or not asked for
  RunStatus status;
  int priority;
  int attempt;
  TimestampTz available_at;
  TimestampTz queued_at;
  bool is_new;  ///< made by this transaction, not restored history
  bool has_available_at;
};

const char* copied(std::string_view text) {
  return pnstrdup(text.data(), text.size());
}

const char* metadata_text(const RunRow& row) {
  const Datum document = row.at(RunColumn::metadata);
  return is_empty_object(DatumGetJsonbP(document)) ? nullptr : jsonb_text(document);
}

/// @param with_metadata  it may be large, and only a new run's phases need it
Row row_of(TupleTableSlot* slot, bool with_metadata) {
  using enum RunColumn;
  const RunRow row(slot);
  Row result{};
  result.run_id = copied(row.text_at(run_id));
  result.project_id = copied(row.text_at(project_id));
  result.env_id = copied(row.text_at(env_id));
  result.git_sha = copied(row.text_at(git_sha));
  result.git_ref = copied(row.text_at(git_ref));
  result.requested_by = pstrdup(NameStr(*DatumGetName(row.at(requested_by))));
  result.status = row.status().value_or(RunStatus::failed);  // ops._guard_run lets none of another name through
  result.metadata = with_metadata ? metadata_text(row) : nullptr;
  result.priority = DatumGetInt32(row.at(priority));
  result.attempt = DatumGetInt32(row.at(attempt));
  result.has_available_at = !row.is_null(available_at);
  result.available_at = result.has_available_at ? DatumGetTimestampTz(row.at(available_at)) : 0;
  result.queued_at = DatumGetTimestampTz(row.at(queued_at));
  result.is_new = DatumGetTimestampTz(row.at(created_at)) == GetCurrentTransactionStartTimestamp();
  return result;
}

/// Rows of a transition table, one after the other.
class TransitionRows {
 public:
  TransitionRows(Tuplestorestate* rows, TupleDesc columns)
      : rows_(rows), slot_(MakeSingleTupleTableSlot(columns, &TTSOpsMinimalTuple)) {
    tuplestore_rescan(rows_);
  }
  /// Null when there are no more; then the slot is given back.
  TupleTableSlot* next() {
    if (tuplestore_gettupleslot(rows_, true, false, slot_)) return slot_;
    ExecDropSingleTupleTableSlot(slot_);
    return nullptr;
  }

 private:
  Tuplestorestate* rows_;
  TupleTableSlot* slot_;
};

struct RowList {
  Row* rows;
  std::size_t count;
};

void append(RowList& list, const Row& row) {
  // Room is doubled at each power of two.
  if ((list.count & (list.count - 1)) == 0) {
    const Size bytes = sizeof(Row) * (list.count == 0 ? 1 : 2 * list.count);
    list.rows = static_cast<Row*>(list.rows == nullptr ? palloc(bytes) : repalloc_huge(list.rows, bytes));
  }
  list.rows[list.count++] = row;
}

RowList inserted_rows(const TriggerData* trigger) {
  RowList list{};
  TransitionRows rows(trigger->tg_newtable, RelationGetDescr(trigger->tg_relation));
  while (TupleTableSlot* slot = rows.next()) append(list, row_of(slot, true));
  return list;
}

/// Rows whose status has changed, with the new status.
RowList changed_rows(const TriggerData* trigger) {
  RowList list{};
  TupleDesc columns = RelationGetDescr(trigger->tg_relation);
  // Both tables hold one row for each change, in the same order.
  TransitionRows before(trigger->tg_oldtable, columns);
  TransitionRows after(trigger->tg_newtable, columns);
  for (;;) {
    TupleTableSlot* old_slot = before.next();
    TupleTableSlot* new_slot = after.next();
    if (old_slot == nullptr || new_slot == nullptr) return list;
    if (!RunRow(old_slot).same(RunRow(new_slot), RunColumn::status)) append(list, row_of(new_slot, false));
  }
}

const TriggerData* trigger_of(FunctionCallInfo fcinfo) {
  if (!CALLED_AS_TRIGGER(fcinfo))
    throw SqlError(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, "this function is a trigger of ops.runs");
  return reinterpret_cast<TriggerData*>(fcinfo->context);
}

// Both ---------------------------------------------------------------------------------------------------------------

/// Puts runs into the queue, and tells claims and the worker of them when this transaction commits.
/// @return whether the time of one has not come
bool add_to_queue(const std::vector<const Row*>& rows) {
  if (rows.empty()) return false;
  TextColumn run_id, env_id, state;
  IntColumn priority;
  TimeColumn available_at;
  const TimestampTz now = GetCurrentTimestamp();
  bool one_is_later = false;
  for (const Row* row : rows) {
    const bool is_later = row->has_available_at && row->available_at > now;
    const TimestampTz since = row->has_available_at ? row->available_at : row->queued_at;
    run_id.emplace_back(row->run_id);
    env_id.emplace_back(row->env_id);
    priority.push_back(row->priority);
    available_at.emplace_back(wall_time(since));
    state.emplace_back(is_later ? "later" : "ready");
    guarded([&] { is_later ? note_later(since) : note_ready(row->priority, since); });
    one_is_later |= is_later;
  }
  insert_into_queue.run(
      {std::move(run_id), std::move(env_id), std::move(priority), std::move(available_at), std::move(state)});
  return one_is_later;
}

void ring_for_queue(bool check) {
  guarded([&] {
    Bell bell;
    bell.queue = true;
    bell.check = check;
    ring_at_commit(bell);
  });
}

// Insert -------------------------------------------------------------------------------------------------------------

/// Of an environment's row, which stands for its config: another version is another row in another place or of another
/// transaction.
struct EnvironmentVersion {
  std::string project_id;
  std::string version;
};

struct Environment {
  std::string version;
  std::string env_type;
  Json config;
};

std::string version_of(const Rows& rows) {
  return rows.text(0, fact_xmin) + rows.text(0, fact_ctid);
}

/// Empty where there is none; check_new_run refuses it.
EnvironmentVersion version_of_environment(const std::string& env_id) {
  const Rows found = environment_versions.rows(env_id);
  if (found.size() == 0) return {};
  return {found.text(0, fact_project), version_of(found)};
}

Environment environment_of(const std::string& env_id) {
  const Rows found = environments_table.rows(env_id);
  if (found.size() == 0) throw std::runtime_error("environment " + env_id + " cannot be read");
  return {version_of(found), found.text(0, fact_env_type),
          parse_json(found.text(0, fact_config), JsonLimits::none()).value_or(Json::object())};
}

void check_new_run(const Row& row, const std::string& project_of_environment) {
  const bool foreign = project_of_environment != row.project_id;
  if (!foreign && row.attempt == 0 && (row.status == RunStatus::queued || row.status == RunStatus::waiting)) return;
  throw SqlError(
      ERRCODE_INVALID_PARAMETER_VALUE, "run \"" + std::string(row.run_id) + "\" cannot be queued",
      foreign ? "Environment \"" + std::string(row.env_id) + "\" does not belong to project \"" + row.project_id + "\"."
              : "A new run is queued or waiting and has no attempts and no events; this one is " +
                    std::string(to_string(row.status)) + ".",
      "Queue runs with ops.queue_run(project, environment, git_sha, git_ref).");
}

/// A text array as the server reads it.
std::string array_text(const std::vector<std::string>& elements) {
  std::string text = "{";
  for (const std::string& element : elements) {
    text += text.size() == 1 ? "\"" : ",\"";
    for (const char c : element) {
      if (c == '"' || c == '\\') text += '\\';
      text += c;
    }
    text += '"';
  }
  return text + "}";
}

Plan plan_of(const Row& row, const Environment& environment) {
  const Json metadata =
      row.metadata == nullptr ? Json::object() : parse_json(row.metadata, JsonLimits::none()).value_or(Json::object());
  Plan plan = plan_phases(environment.config, metadata, environment.env_type, row.git_ref, default_catalog());
  if (plan.error)
    throw SqlError(ERRCODE_INVALID_PARAMETER_VALUE,
                   "phases of the run, " + plan.error->path + ": " + plan.error->message,
                   "JSON path: " + plan.error->path, plan.error->hint);
  return plan;
}

/// A phase as it is stored before its run begins.
struct NewPhase {
  std::int32_t phase_no;
  std::int64_t timeout_ms;
  std::string name, kind, needs, config, state;
};

using NewPhases = std::shared_ptr<const std::vector<NewPhase>>;

NewPhases new_phases(const Row& row, const Environment& environment) {
  std::vector<NewPhase> phases;
  for (const PhaseFacts& planned : plan_of(row, environment).phases)
    phases.push_back({planned.phase_no, planned.timeout.count(), planned.name, planned.kind, array_text(planned.needs),
                      dump_json(planned.config), std::string(to_string(planned.state))});
  return std::make_shared<const std::vector<NewPhase>>(std::move(phases));
}

bool is_small(const NewPhases& phases) {
  std::size_t bytes = 0;
  for (const NewPhase& phase : *phases) bytes += phase.config.size();
  return bytes <= largest_plan;
}

/// Plans of runs without metadata, by environment and ref, as long as the environment's row has that version. The
/// config is read, parsed and planned again only where it has changed: a seventh of the time in which a run is queued.
NewPhases remembered_phases(const Row& row, const EnvironmentVersion& known) {
  struct Remembered {
    std::string version;
    NewPhases phases;
  };
  static std::map<std::string, Remembered> plans;
  const std::string key = std::string(row.env_id) + '\n' + row.git_ref;
  const auto found = plans.find(key);
  if (found != plans.end() && found->second.version == known.version) return found->second.phases;
  const Environment environment = environment_of(row.env_id);
  NewPhases phases = new_phases(row, environment);
  if (found == plans.end() && plans.size() >= most_plans) plans.clear();
  if (is_small(phases)) plans.insert_or_assign(key, Remembered{environment.version, phases});
  return phases;
}

struct PhaseColumns {
  TextColumn run_id, name, kind, needs, config, state;
  IntColumn phase_no;
  BigintColumn timeout_ms;

  void add(const char* of_run, const NewPhases& phases) {
    for (const NewPhase& phase : *phases) {
      run_id.emplace_back(of_run);
      phase_no.push_back(phase.phase_no);
      name.emplace_back(phase.name);
      kind.emplace_back(phase.kind);
      needs.emplace_back(phase.needs);
      config.emplace_back(phase.config);
      timeout_ms.push_back(phase.timeout_ms);
      state.emplace_back(phase.state);
    }
  }
  void insert() {
    const std::size_t count = run_id.size();
    insert_phases.run({std::move(run_id), std::move(phase_no), std::move(name), std::move(kind), std::move(needs),
                       std::move(config), std::move(timeout_ms), std::move(state), IntColumn(count, 0),
                       TextColumn(count, "{}"), TextColumn(count, "{}")});
  }
};

void add_phases(const std::vector<const Row*>& rows) {
  std::map<std::string, EnvironmentVersion, std::less<>> versions;
  std::map<std::string, Environment, std::less<>> environments;
  PhaseColumns columns;
  for (const Row* row : rows) {
    auto version = versions.find(row->env_id);
    if (version == versions.end()) version = versions.emplace(row->env_id, version_of_environment(row->env_id)).first;
    check_new_run(*row, version->second.project_id);
    if (row->metadata == nullptr) {
      columns.add(row->run_id, remembered_phases(*row, version->second));
      continue;
    }
    auto environment = environments.find(row->env_id);
    if (environment == environments.end())
      environment = environments.emplace(row->env_id, environment_of(row->env_id)).first;
    columns.add(row->run_id, new_phases(*row, environment->second));
  }
  columns.insert();
}

void tell_queued(const std::vector<const Row*>& rows) {
  TextColumn run_id, message, payload;
  const WallTime now = wall_time(GetCurrentTimestamp());
  for (const Row* row : rows) {
    run_id.emplace_back(row->run_id);
    message.emplace_back(clean_text(redact(std::string(to_string(row->status)) + " by " + row->requested_by + ": " +
                                           row->git_ref + " for " + row->env_id)));
    payload.emplace_back(dump_json(Json{{"git_sha", row->git_sha}, {"git_ref", row->git_ref}}));
  }
  insert_events.run({std::move(run_id), IntColumn(rows.size(), 1), TextColumn(rows.size(), "info"), std::move(message),
                     std::move(payload), TimeColumn(rows.size(), now)});
}

void queue_new_runs(FunctionCallInfo fcinfo) {
  const TriggerData* trigger = trigger_of(fcinfo);
  const RowList list = guarded([&] {
    SPI_connect();
    return inserted_rows(trigger);
  });
  std::vector<const Row*> fresh, queued;
  bool restored_work = false;
  for (std::size_t i = 0; i < list.count; ++i) {
    const Row& row = list.rows[i];
    if (row.is_new)
      fresh.push_back(&row);
    else
      restored_work |= !is_final(row.status);
    if (row.is_new && row.status == RunStatus::queued) queued.push_back(&row);
  }
  if (!fresh.empty()) {
    add_phases(fresh);
    const bool one_is_later = add_to_queue(queued);
    tell_queued(fresh);
    // A check lets the worker learn when the next run is due.
    ring_for_queue(one_is_later);
    if (shared_state() == nullptr)
      guarded([] {
        ereport(WARNING, (errmsg("no worker of this server will claim this run"),
                          errhint("Add ops_runner to shared_preload_libraries and restart the server; the run stays "
                                  "queued until then.")));
      });
  }
  // History that is not over: this database was made from a dump. It shall not act by itself (ops.arm).
  if (restored_work) {
    disarm_statement.run({});
    guarded([] {
      Bell bell;
      bell.check = true;
      ring_at_commit(bell);
    });
  }
  guarded([] { SPI_finish(); });
}

// Update -------------------------------------------------------------------------------------------------------------

/// ops._take_slots has moved the queue row into a slot already.
void check_slots(const TextColumn& active) {
  for (const auto& run_id : active)
    if (!slots_of_runs.has(*run_id))
      throw SqlError(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "a run without a slot cannot be claimed", {},
                     "Claim runs with ops.claim_next_run(worker).");
}

/// Each time an environment is named, one of its blocked runs becomes ready.
void unblock(const Rows& freed, const Rows& unqueued) {
  std::map<std::string, int> slots;
  for (const Rows* rows : {&freed, &unqueued})
    for (std::size_t i = 0; i < rows->size(); ++i)
      if (rows->at(i, 0)) ++slots[*rows->at(i, 0)];
  TextColumn env_id;
  IntColumn count;
  for (const auto& [id, number] : slots) {
    if (!blocked_runs.has(id)) continue;
    env_id.emplace_back(id);
    count.push_back(number);
  }
  if (env_id.empty()) return;
  const Rows ready = unblock_statement.run({std::move(env_id), std::move(count)});
  for (std::size_t i = 0; i < ready.size(); ++i) {
    const int priority = static_cast<int>(ready.integer(i, 0));
    const TimestampTz since = server_time(WallTime{std::chrono::microseconds{ready.integer(i, 1)}});
    guarded([&] { note_ready(priority, since); });
  }
}

void follow_status(FunctionCallInfo fcinfo) {
  const TriggerData* trigger = trigger_of(fcinfo);
  const RowList list = guarded([&] {
    SPI_connect();
    return changed_rows(trigger);
  });
  TextColumn active, inactive, stopped;
  std::vector<const Row*> queued;
  for (std::size_t i = 0; i < list.count; ++i) {
    const Row& row = list.rows[i];
    if (row.status == RunStatus::claimed || row.status == RunStatus::running) {
      active.emplace_back(row.run_id);
      continue;
    }
    inactive.emplace_back(row.run_id);
    if (row.status == RunStatus::queued)
      queued.push_back(&row);
    else
      stopped.emplace_back(row.run_id);
  }
  if (!active.empty()) check_slots(active);
  if (!inactive.empty()) {
    const Rows freed = free_slots_statement.run({inactive});
    // A ready run that goes gives its turn to a blocked one.
    const Rows unqueued = stopped.empty() ? Rows() : leave_queue_statement.run({stopped});
    const bool one_is_later = add_to_queue(queued);
    unblock(freed, unqueued);
    ring_for_queue(one_is_later);
  }
  guarded([] { SPI_finish(); });
}

}  // namespace

}  // namespace ops::pg

Datum ops_queue_new_runs(PG_FUNCTION_ARGS) {
  return ops::pg::entry([&]() -> Datum {
    ops::pg::queue_new_runs(fcinfo);
    return PointerGetDatum(nullptr);
  });
}

Datum ops_follow_status(PG_FUNCTION_ARGS) {
  return ops::pg::entry([&]() -> Datum {
    ops::pg::follow_status(fcinfo);
    return PointerGetDatum(nullptr);
  });
}
