#include "pg/run_store.hpp"

#include <map>
#include <stdexcept>
#include <utility>

#include "core/json.hpp"

#include "pg/definition_functions.hpp"
#include "pg/insert.hpp"
#include "pg/stored_rows.hpp"
#include "pg/take_slots.hpp"
#include "pg/transaction.hpp"

#include "pg/boundary.hpp"

namespace ops::pg {

namespace {

// Statements ---------------------------------------------------------------------------------------------------------
// Every operator and function is found in pg_catalog first: the worker pins its search_path. {u(…)}: see Statement.

// For claims of a transaction that records nothing of them.
StoreStatement complete_claims_statement(R"sql(
  UPDATE ops.runs r
     SET status = 'claimed', claimed_by = $3, claim_token = u.claim_token::uuid, claimed_at = clock_timestamp(),
         attempt = r.attempt + 1, started_at = coalesce(r.started_at, clock_timestamp())
    FROM {u(run_id text, claim_token text)} WHERE r.run_id = u.run_id)sql");

StoreStatement bury_statement(R"sql(
  UPDATE ops.workers w SET stopped_at = clock_timestamp()
   WHERE w.kind = 'server' AND w.stopped_at IS NULL AND w.worker_id <> $1 AND pg_try_advisory_xact_lock(w.lock_key))sql");

// Runs before their slots, as operators lock them. After bury_statement: a dead worker's last commit may be newer than
// the snapshot that found its lock free.
StoreStatement lock_orphans_statement(R"sql(
  SELECT r.run_id FROM ops.runs r
   WHERE r.run_id <> ALL ($2)
     AND r.run_id IN (SELECT s.run_id FROM ops.run_slots s JOIN ops.workers w ON w.worker_id = s.worker_id
                       WHERE w.kind = 'server' AND (w.stopped_at IS NOT NULL OR w.worker_id = $1))
   ORDER BY r.run_id FOR UPDATE OF r)sql");

StoreStatement take_over_slots_statement(R"sql(
  UPDATE ops.run_slots s SET worker_id = $1, cancel_requested = false
   WHERE s.run_id = ANY ($2)
     AND s.worker_id IN (SELECT w.worker_id FROM ops.workers w
                          WHERE w.kind = 'server' AND (w.stopped_at IS NOT NULL OR w.worker_id = $1))
  RETURNING s.run_id)sql");

StoreStatement take_over_runs_statement(R"sql(
  UPDATE ops.runs r
     SET claimed_by = $1, claim_token = gen_random_uuid(), claimed_at = clock_timestamp(), attempt = r.attempt + 1
    FROM unnest($2::text[]) AS u(run_id) WHERE r.run_id = u.run_id AND r.status IN ('claimed', 'running')
  RETURNING r.run_id)sql");

StoreStatement effects_statement(R"sql(
  SELECT run_id, phase, effect_key, kind, state, attempt, target, request_hash, outcome
    FROM ops.effects WHERE run_id = ANY($1))sql");

StoreStatement event_keys_statement(R"sql(
  SELECT run_id, phase, event_key FROM ops.run_events WHERE run_id = ANY($1) AND event_key IS NOT NULL)sql");

// Fenced by the claim token: a run that was taken away is not touched and not returned. A run that this transaction
// claims is locked by it, and its claim is recorded here too.
StoreStatement record_runs_statement(R"sql(
  UPDATE ops.runs r
     SET status = coalesce(i.status, CASE WHEN i.claims THEN 'claimed' ELSE r.status END),
         waiting_for = i.waiting_for,
         finished_at = CASE WHEN i.status IN ('success', 'failed', 'cancelled') THEN clock_timestamp() END,
         claim_token = CASE WHEN i.status = 'waiting' THEN NULL ELSE i.claim_token END,
         claimed_by = CASE WHEN i.status = 'waiting' THEN NULL WHEN i.claims THEN $7 ELSE r.claimed_by END,
         claimed_at = CASE WHEN i.claims THEN clock_timestamp() ELSE r.claimed_at END,
         started_at = CASE WHEN i.claims THEN coalesce(r.started_at, clock_timestamp()) ELSE r.started_at END,
         attempt = CASE WHEN i.claims THEN r.attempt + 1 ELSE r.attempt END,
         metadata = CASE WHEN i.metadata IS NULL THEN r.metadata ELSE r.metadata || i.metadata::jsonb END
    FROM (SELECT u.run_id, u.claim_token::uuid AS claim_token, u.status, u.waiting_for, u.metadata, u.claims = 1 AS claims
            FROM {u(run_id text, claim_token text, status text, waiting_for text, metadata text, claims int)}) i
   WHERE r.run_id = i.run_id
     AND CASE WHEN i.claims THEN r.status = 'queued'
              ELSE r.claim_token = i.claim_token AND r.status IN ('claimed', 'running') END
  RETURNING r.run_id)sql");

// The same fence for runs that only tell something: locking a row costs a third of changing it.
enum RunFence { fence_token, fence_status, fence_version };
constexpr const char* run_fence[] = {"claim_token", "status", "xmin"};
const StoredTable fenced_runs("runs", run_fence);

// After the runs are locked: nobody else writes events of theirs, and this snapshot sees all that others wrote.
StoreStatement last_events_statement(R"sql(
  SELECT u.run_id, (SELECT coalesce(max(e.seq), 0) FROM ops.run_events e WHERE e.run_id = u.run_id)
    FROM {u(run_id text)})sql");

constexpr const char* event_columns[] = {"run_id",  "seq",   "level",      "message",
                                         "payload", "phase", "created_at", "event_key"};
Insert insert_events("run_events", event_columns, R"sql(
  INSERT INTO ops.run_events (run_id, seq, level, message, payload, phase, created_at, event_key)
  SELECT u.run_id, u.seq, u.level, u.message, u.payload::jsonb, u.phase, u.created_at, u.event_key
    FROM {u(run_id text, seq int, level text, message text, payload text, phase text, created_at timestamptz,
           event_key text)})sql");

StoreStatement record_phases_statement(R"sql(
  UPDATE ops.run_phases p
     SET state = u.state, attempt = u.attempt, started_at = u.started_at, finished_at = u.finished_at,
         remembered = CASE WHEN u.remembered IS NULL THEN p.remembered ELSE p.remembered || u.remembered::jsonb END,
         outcome = CASE WHEN u.outcome IS NULL THEN p.outcome ELSE u.outcome::jsonb END
    FROM {u(run_id text, phase_no int, state text, attempt int, started_at timestamptz, finished_at timestamptz,
           remembered text, outcome text)}
   WHERE p.run_id = u.run_id AND p.phase_no = u.phase_no)sql");

StoreStatement record_effects_statement(R"sql(
  INSERT INTO ops.effects AS e (run_id, phase, effect_key, kind, state, attempt, target, request_hash, outcome, settled_at)
  SELECT u.run_id, u.phase, u.effect_key, u.kind, u.state, u.attempt, u.target, u.request_hash, u.outcome::jsonb,
         CASE WHEN u.state IN ('done', 'absent') THEN clock_timestamp() END
    FROM {u(run_id text, phase text, effect_key text, kind text, state text, attempt int, target text,
           request_hash text, outcome text)}
  ON CONFLICT (run_id, phase, effect_key) DO UPDATE
     SET state = EXCLUDED.state, attempt = EXCLUDED.attempt, target = EXCLUDED.target,
         request_hash = EXCLUDED.request_hash, outcome = EXCLUDED.outcome, settled_at = EXCLUDED.settled_at,
         intended_at = CASE WHEN EXCLUDED.attempt > e.attempt THEN EXCLUDED.intended_at ELSE e.intended_at END)sql");

StoreStatement record_artifacts_statement(R"sql(
  INSERT INTO ops.artifacts (run_id, artifact_type, storage_path, digest, size_bytes, metadata)
  SELECT u.run_id, u.artifact_type, u.storage_path, u.digest, u.size_bytes, u.metadata::jsonb
    FROM {u(run_id text, artifact_type text, storage_path text, digest text, size_bytes bigint, metadata text)}
  ON CONFLICT (run_id, artifact_type, storage_path) DO UPDATE
     SET digest = EXCLUDED.digest, size_bytes = EXCLUDED.size_bytes, metadata = EXCLUDED.metadata)sql");

StoreStatement renew_statement(R"sql(
  WITH renewed AS (
    UPDATE ops.workers SET lease_until = clock_timestamp() + $2 * interval '1 millisecond' WHERE worker_id = $1)
  SELECT run_id FROM ops.run_slots WHERE worker_id = $1)sql");

// Runs before their slots, as operators lock them.
StoreStatement cancel_statement(R"sql(
  WITH asked AS MATERIALIZED (
    SELECT r.run_id, r.cancel_reason FROM ops.runs r
     WHERE r.run_id IN (SELECT s.run_id FROM ops.run_slots s WHERE s.worker_id = $1 AND s.cancel_requested)
     ORDER BY r.run_id FOR UPDATE OF r)
  UPDATE ops.run_slots s SET cancel_requested = false FROM asked a WHERE s.run_id = a.run_id AND s.worker_id = $1
  RETURNING s.run_id, a.cancel_reason)sql");

// In a transaction of its own: it locks runs first, as TRUNCATE of the tables does.
StoreStatement rescue_statement("SELECT EXISTS (SELECT FROM ops._rescue_expired_claims($1, '0'))");

StoreStatement safety_statement(R"sql(
  SELECT EXISTS (SELECT FROM ops.workers WHERE worker_id = $1),
         ops._promote_free_slots() > 0 OR ops._find_ready()
           OR EXISTS (SELECT FROM ops.run_queue WHERE state = 'later' AND available_at <= clock_timestamp()),
         EXISTS (SELECT FROM ops.run_slots WHERE worker_id = $1 AND cancel_requested),
         (SELECT greatest(0, ceil(extract(epoch FROM min(available_at) - clock_timestamp()) * 1000))::bigint
            FROM ops.run_queue WHERE state = 'later'),
         (SELECT count(*) FROM ops.run_slots s JOIN ops.workers w USING (worker_id)
           WHERE w.kind = 'server' AND (w.stopped_at IS NOT NULL OR w.worker_id = $1)),
         EXISTS (SELECT FROM ops.run_slots WHERE worker_id <> $1))sql");

StoreStatement missing_secrets_statement(R"sql(
  SELECT DISTINCT substr(waiting_for, 8) FROM ops.runs WHERE waiting_for LIKE 'secret:%')sql");

StoreStatement requeue_statement(R"sql(
  UPDATE ops.runs SET status = 'queued', waiting_for = NULL WHERE waiting_for = 'secret:' || $1)sql");

// Rows to values -----------------------------------------------------------------------------------------------------

Json json_of(const std::optional<std::string>& text) {
  if (!text) return nullptr;
  return parse_json(*text, JsonLimits::none()).value_or(Json());
}

std::optional<WallTime> time_of(const std::optional<std::string>& microseconds) {
  if (!microseconds) return std::nullopt;
  return WallTime{std::chrono::microseconds{std::stoll(*microseconds)}};
}

/// seq of the newest event of a run.
using LastEvents = std::map<std::string, std::int64_t>;

// What phases need to know of a run, read by key.
enum RunFact {
  fact_token,
  fact_attempt,
  fact_status,
  fact_project,
  fact_env,
  fact_sha,
  fact_ref,
  fact_metadata,
  fact_cancel_at,
  fact_cancel_reason,
  fact_look_first,
  fact_queued_at
};
constexpr const char* run_facts[] = {"claim_token", "attempt",  "status",   "project_id",          "env_id",
                                     "git_sha",     "git_ref",  "metadata", "cancel_requested_at", "cancel_reason",
                                     "look_first",  "queued_at"};
constexpr const char* environment_facts[] = {"env_type"};
constexpr const char* project_facts[] = {"repo_slug", "odoo_version"};
enum PhaseFact {
  fact_phase_no,
  fact_phase,
  fact_kind,
  fact_needs,
  fact_config,
  fact_timeout,
  fact_state,
  fact_phase_attempt,
  fact_started_at,
  fact_finished_at,
  fact_remembered,
  fact_outcome
};
constexpr const char* phase_facts[] = {"phase_no", "phase",   "kind",       "needs",       "config",     "timeout",
                                       "state",    "attempt", "started_at", "finished_at", "remembered", "outcome"};
const StoredTable runs_table("runs", run_facts);
const StoredTable environments_table("environments", environment_facts);
const StoredTable projects_table("projects", project_facts);
const StoredTable phases_table("run_phases", phase_facts);
constexpr const char* event_facts[] = {"seq"};
const StoredTable events_table("run_events", event_facts);

/// Of the environment or project of several runs, read once.
const Rows& read_once(std::map<std::string, Rows>& known, const StoredTable& table, const std::string& key) {
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  const Rows& rows = known.emplace(key, table.rows(key)).first->second;
  if (rows.size() == 0) throw std::runtime_error("environment or project " + key + " of a claimed run cannot be read");
  return rows;
}

/// Runs that were locked, with what their phases need to know. Their rows are read after the lock, so that the snapshot
/// is newer than every run that was claimed, and sees the environment that was made together with the run. Runs that
/// were claimed are locked; their rows change once, when this transaction records what they have done
/// (record_runs_statement), so that their new token and attempt are in no table yet.
/// @param claimed  of a new claim: each run gets a claim token and another attempt, which are in no table yet; filled
std::vector<ClaimedRun> read_runs(const TextColumn& locked, LastEvents* claimed) {
  std::vector<ClaimedRun> runs(locked.size());
  std::map<std::string, Rows> environments, projects;
  for (std::size_t i = 0; i < locked.size(); ++i) {
    ClaimedRun& run = runs[i];
    run.facts.run_id = *locked[i];
    const Rows row = runs_table.rows(run.facts.run_id);
    // A claim without its facts would be held for ever and performed by nobody: better none at all.
    if (row.size() == 0) throw std::runtime_error("claimed run " + run.facts.run_id + " cannot be read");
    run.facts.attempt = static_cast<int>(row.integer(0, fact_attempt));
    if (claimed != nullptr) {
      run.claim_token = new_uuid();
      ++run.facts.attempt;
      run.status = RunStatus::claimed;
      claimed->emplace(run.facts.run_id, events_table.largest(run.facts.run_id));
    } else {
      run.claim_token = row.text(0, fact_token);
      run.status = run_status_from(row.text(0, fact_status)).value_or(RunStatus::claimed);
    }
    run.facts.project_id = row.text(0, fact_project);
    run.facts.env_id = row.text(0, fact_env);
    run.facts.env_type = read_once(environments, environments_table, run.facts.env_id).text(0, 0);
    const Rows& project = read_once(projects, projects_table, run.facts.project_id);
    run.facts.repo_slug = project.text(0, 0);
    run.facts.odoo_version = project.text(0, 1);
    run.facts.git_sha = row.text(0, fact_sha);
    run.facts.git_ref = row.text(0, fact_ref);
    run.facts.metadata = json_of(row.at(0, fact_metadata));
    run.cancel_requested = row.at(0, fact_cancel_at).has_value();
    run.cancel_reason = row.text(0, fact_cancel_reason);
    run.facts.look_first = row.is_true(0, fact_look_first);
    run.facts.queued_at = time_of(row.at(0, fact_queued_at));
  }
  return runs;
}

/// Adds phases, and for runs with an earlier life effects and event keys.
void read_history(std::vector<ClaimedRun>& runs) {
  if (runs.empty()) return;
  std::map<std::string, ClaimedRun*> by_id;
  TextColumn with_history;
  for (ClaimedRun& run : runs) {
    by_id.emplace(run.facts.run_id, &run);
    if (run.facts.attempt > 1) with_history.emplace_back(run.facts.run_id);
  }
  for (ClaimedRun& run : runs) {
    const Rows phases = phases_table.rows(run.facts.run_id);
    for (std::size_t i = 0; i < phases.size(); ++i) {
      PhaseFacts phase;
      phase.phase_no = static_cast<int>(phases.integer(i, fact_phase_no));
      phase.name = phases.text(i, fact_phase);
      phase.kind = phases.text(i, fact_kind);
      for (const Json& need : json_of(phases.at(i, fact_needs))) phase.needs.push_back(need.get<std::string>());
      phase.config = json_of(phases.at(i, fact_config));
      phase.timeout = Millis{phases.integer(i, fact_timeout) / 1000};
      phase.state = phase_state_from(phases.text(i, fact_state)).value_or(PhaseState::pending);
      phase.attempt = static_cast<int>(phases.integer(i, fact_phase_attempt));
      phase.started_at = time_of(phases.at(i, fact_started_at));
      phase.finished_at = time_of(phases.at(i, fact_finished_at));
      phase.remembered = json_of(phases.at(i, fact_remembered));
      phase.outcome = json_of(phases.at(i, fact_outcome));
      run.phases.push_back(std::move(phase));
    }
  }
  if (with_history.empty()) return;
  const Rows effects = effects_statement.run({with_history});
  for (std::size_t i = 0; i < effects.size(); ++i) {
    EffectRecord effect;
    effect.phase = effects.text(i, 1);
    effect.key = effects.text(i, 2);
    effect.kind = effect_kind_from(effects.text(i, 3)).value_or(EffectKind::unkeyed);
    effect.state = effect_state_from(effects.text(i, 4)).value_or(EffectState::uncertain);
    effect.attempt = static_cast<int>(effects.integer(i, 5));
    effect.target = effects.text(i, 6);
    effect.request_hash = effects.text(i, 7);
    effect.outcome = json_of(effects.at(i, 8));
    by_id.at(effects.text(i, 0))->effects.push_back(std::move(effect));
  }
  const Rows keys = event_keys_statement.run({with_history});
  for (std::size_t i = 0; i < keys.size(); ++i)
    by_id.at(keys.text(i, 0))->event_keys.emplace_back(keys.text(i, 1), keys.text(i, 2));
}

// Values to columns --------------------------------------------------------------------------------------------------

std::optional<std::string> or_null(const std::string& text) {
  return text.empty() ? std::nullopt : std::optional(text);
}
std::optional<std::string> or_null(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(dump_json(json));
}

struct EventColumns {
  TextColumn run_id, level, message, payload, phase, event_key;
  IntColumn seq;
  TimeColumn created_at;

  void add(const std::string& of_run, std::int64_t number, const EventRecord& event) {
    run_id.emplace_back(of_run);
    seq.push_back(static_cast<std::int32_t>(number));
    level.emplace_back(std::string(to_string(event.level)));
    message.emplace_back(clean_text(event.message));
    payload.emplace_back(dump_json(event.payload));
    phase.push_back(or_null(event.phase));
    created_at.emplace_back(event.created_at);
    event_key.push_back(or_null(event.once));
  }
  void insert() {
    if (run_id.empty()) return;
    try {
      insert_events.run({std::move(run_id), std::move(seq), std::move(level), std::move(message), std::move(payload),
                         std::move(phase), std::move(created_at), std::move(event_key)});
    } catch (const PgError&) {
      throw_as_store_failure();
    }
  }
};

class RunTransaction final : public StoreTransaction {
 public:
  RunTransaction(const std::string& worker_id, std::unordered_map<std::string, KnownEvents>& known,
                 const char* what = "recording runs")
      : worker_id_(worker_id), known_(known), transaction_(what) {}
  ~RunTransaction() override {
    for (const std::string& run_id : told_) known_.erase(run_id);  // not committed: nothing was told
  }

  std::vector<ClaimedRun> claim(int limit) override {
    LastEvents last;
    std::vector<ClaimedRun> runs;
    try {
      runs = read_runs(take_slots(worker_id_, limit), &last);
      read_history(runs);
    } catch (const std::exception&) {
      throw_as_store_failure();
    }
    for (const ClaimedRun& run : runs)
      open_claims_.emplace(run.facts.run_id, OpenClaim{run.claim_token, last.at(run.facts.run_id)});
    return runs;
  }

  void rehearse_claim() {
    rehearse_take_slots();
    const std::string nobody;
    for (const StoredTable* table : {&runs_table, &environments_table, &projects_table, &phases_table})
      (void)table->rows(nobody);
    (void)events_table.largest(nobody);
  }

  std::set<std::string> record(const std::vector<RunWrites>& writes) override {
    Ours ours = change_runs(writes);
    ours.merge(lock_runs(writes));
    std::set<std::string> lost;
    for (const RunWrites& write : writes)
      if (!ours.contains(write.run_id)) {
        known_.erase(write.run_id);
        lost.insert(write.run_id);
      }
    record_events(writes, ours);
    record_phases(writes, ours);
    record_effects(writes, ours);
    record_artifacts(writes, ours);
    for (const RunWrites& write : writes) open_claims_.erase(write.run_id);
    return lost;
  }

  std::set<std::string> renew_lease(Millis lease) override {
    return renew_statement.run({worker_id_, static_cast<std::int64_t>(lease.count())}).first_column();
  }

  std::vector<CancelRequest> cancel_requests() override {
    const Rows rows = cancel_statement.run({worker_id_});
    std::vector<CancelRequest> requests;
    for (std::size_t i = 0; i < rows.size(); ++i) requests.push_back({rows.text(i, 0), rows.text(i, 1)});
    return requests;
  }

  void commit(bool flush) override {
    complete_claims();
    transaction_.commit(flush);
    told_.clear();
  }

 private:
  struct OpenClaim {
    std::string token;
    std::int64_t last_event;
  };
  /// Runs whose claim token is valid; they are locked. With the version of their row, empty where it has changed here.
  using Ours = std::map<std::string, std::string>;

  void complete_claims() {
    if (open_claims_.empty()) return;
    TextColumn run_id, claim_token;
    for (const auto& [id, claim] : open_claims_) {
      run_id.emplace_back(id);
      claim_token.emplace_back(claim.token);
    }
    complete_claims_statement.run({std::move(run_id), std::move(claim_token), worker_id_});
    open_claims_.clear();
  }

  /// Whether the row of the run changes, and not only what belongs to it.
  bool changes(const RunWrites& write) const {
    return write.status || !write.metadata.is_null() || open_claims_.contains(write.run_id);
  }

  Ours change_runs(const std::vector<RunWrites>& writes) const {
    TextColumn run_id, claim_token, status, waiting_for, metadata;
    IntColumn claims;
    for (const RunWrites& write : writes) {
      if (!changes(write)) continue;
      run_id.emplace_back(write.run_id);
      claim_token.emplace_back(write.claim_token);
      status.push_back(write.status ? std::optional(std::string(to_string(*write.status))) : std::nullopt);
      waiting_for.push_back(write.status == RunStatus::waiting ? or_null(write.waiting_for) : std::nullopt);
      metadata.push_back(or_null(write.metadata));
      claims.push_back(open_claims_.contains(write.run_id) ? 1 : 0);
    }
    if (run_id.empty()) return {};
    const Rows rows =
        record_runs_statement.run({std::move(run_id), std::move(claim_token), std::move(status), std::move(waiting_for),
                                   std::move(metadata), std::move(claims), worker_id_});
    Ours changed;
    for (std::size_t i = 0; i < rows.size(); ++i) changed.emplace(rows.text(i, 0), std::string());
    return changed;
  }

  Ours lock_runs(const std::vector<RunWrites>& writes) const {
    Ours locked;
    for (const RunWrites& write : writes) {
      if (changes(write)) continue;
      const Rows run = locked_run(write.run_id);
      if (run.size() == 0 || run.text(0, fence_token) != write.claim_token) continue;
      const auto status = run_status_from(run.text(0, fence_status));
      if (status == RunStatus::claimed || status == RunStatus::running)
        locked.emplace(write.run_id, run.text(0, fence_version));
    }
    return locked;
  }
  static Rows locked_run(const std::string& run_id) {
    try {
      return fenced_runs.lock(run_id, RowLock::no_key_update, RowWait::block);
    } catch (const PgError&) {
      throw_as_store_failure();
    }
  }

  /// Of each run that has told something.
  LastEvents last_events(const std::vector<RunWrites>& writes, const Ours& ours) const {
    TextColumn run_id;
    LastEvents last;
    for (const RunWrites& write : writes) {
      const auto held = ours.find(write.run_id);
      if (write.events.empty() || held == ours.end()) continue;
      const auto claim = open_claims_.find(write.run_id);
      const auto known = known_.find(write.run_id);
      if (claim != open_claims_.end())
        last.emplace(write.run_id, claim->second.last_event);
      else if (known != known_.end() && known->second.row_version == held->second)
        last.emplace(write.run_id, known->second.last_event);
      else
        run_id.emplace_back(write.run_id);
    }
    if (run_id.empty()) return last;
    const Rows rows = last_events_statement.run({std::move(run_id)});
    for (std::size_t i = 0; i < rows.size(); ++i) last.emplace(rows.text(i, 0), rows.integer(i, 1));
    return last;
  }

  void record_events(const std::vector<RunWrites>& writes, const Ours& ours) {
    const LastEvents last = last_events(writes, ours);
    EventColumns columns;
    for (const RunWrites& write : writes) {
      const auto found = last.find(write.run_id);
      if (found == last.end()) continue;
      std::int64_t number = found->second;
      for (const EventRecord& event : write.events) columns.add(write.run_id, ++number, event);
      remember(write, ours.at(write.run_id), number);
    }
    columns.insert();
  }

  /// For the next turn of this run.
  void remember(const RunWrites& write, const std::string& row_version, std::int64_t last_event) {
    if (write.status && *write.status != RunStatus::running) {
      known_.erase(write.run_id);  // it leaves this worker
      return;
    }
    told_.push_back(write.run_id);
    known_.insert_or_assign(write.run_id, KnownEvents{row_version.empty() ? own_version() : row_version, last_event});
  }
  static std::string own_version() {
    return std::to_string(guarded([] { return GetCurrentTransactionId(); }));
  }

  static void record_phases(const std::vector<RunWrites>& writes, const Ours& ours) {
    TextColumn run_id, state, remembered, outcome;
    IntColumn phase_no, attempt;
    TimeColumn started_at, finished_at;
    for (const RunWrites& write : writes) {
      if (!ours.contains(write.run_id)) continue;
      for (const PhaseWrite& change : write.phases) {
        run_id.emplace_back(write.run_id);
        phase_no.push_back(change.phase_no);
        state.emplace_back(std::string(to_string(change.state)));
        attempt.push_back(change.attempt);
        started_at.push_back(change.started_at);
        finished_at.push_back(change.finished_at);
        remembered.push_back(or_null(change.remembered));
        outcome.push_back(or_null(change.outcome));
      }
    }
    if (run_id.empty()) return;
    record_phases_statement.run({std::move(run_id), std::move(phase_no), std::move(state), std::move(attempt),
                                 std::move(started_at), std::move(finished_at), std::move(remembered),
                                 std::move(outcome)});
  }

  static void record_effects(const std::vector<RunWrites>& writes, const Ours& ours) {
    TextColumn run_id, phase, effect_key, kind, state, target, request_hash, outcome;
    IntColumn attempt;
    for (const RunWrites& write : writes) {
      if (!ours.contains(write.run_id)) continue;
      for (const EffectRecord& effect : write.effects) {
        run_id.emplace_back(write.run_id);
        phase.emplace_back(effect.phase);
        effect_key.emplace_back(effect.key);
        kind.emplace_back(std::string(to_string(effect.kind)));
        state.emplace_back(std::string(to_string(effect.state)));
        attempt.push_back(effect.attempt);
        target.emplace_back(effect.target);
        request_hash.emplace_back(effect.request_hash);
        outcome.push_back(or_null(effect.outcome));
      }
    }
    if (run_id.empty()) return;
    record_effects_statement.run({std::move(run_id), std::move(phase), std::move(effect_key), std::move(kind),
                                  std::move(state), std::move(attempt), std::move(target), std::move(request_hash),
                                  std::move(outcome)});
  }

  static void record_artifacts(const std::vector<RunWrites>& writes, const Ours& ours) {
    TextColumn run_id, artifact_type, storage_path, digest, metadata;
    BigintColumn size_bytes;
    for (const RunWrites& write : writes) {
      if (!ours.contains(write.run_id)) continue;
      for (const ArtifactRecord& artifact : write.artifacts) {
        run_id.emplace_back(write.run_id);
        artifact_type.emplace_back(artifact.artifact_type);
        storage_path.emplace_back(artifact.storage_path);
        digest.emplace_back(artifact.digest);
        size_bytes.push_back(artifact.size_bytes);
        metadata.emplace_back(dump_json(artifact.metadata));
      }
    }
    if (run_id.empty()) return;
    record_artifacts_statement.run({std::move(run_id), std::move(artifact_type), std::move(storage_path),
                                    std::move(digest), std::move(size_bytes), std::move(metadata)});
  }

  const std::string& worker_id_;
  std::unordered_map<std::string, KnownEvents>& known_;
  std::vector<std::string> told_;                 ///< runs whose entry in known_ holds only when this is committed
  std::map<std::string, OpenClaim> open_claims_;  ///< by run: claimed here and not yet recorded
  Transaction transaction_;
};

}  // namespace

std::unique_ptr<StoreTransaction> RunStore::begin() {
  return std::make_unique<RunTransaction>(worker_id_, known_);
}

std::vector<ClaimedRun> RunStore::take_over(const std::vector<std::string>& held) {
  TextColumn known;
  for (const std::string& run_id : held) known.emplace_back(run_id);
  Transaction transaction("taking over runs");
  bury_statement.run({worker_id_});
  const Rows orphans = lock_orphans_statement.run({worker_id_, std::move(known)});
  const Rows slots = take_over_slots_statement.run({worker_id_, column_of(orphans.first_column())});
  const Rows taken = take_over_runs_statement.run({worker_id_, column_of(slots.first_column())});
  std::vector<ClaimedRun> runs;
  try {
    runs = read_runs(column_of(taken.first_column()), nullptr);
    read_history(runs);
  } catch (const std::exception&) {
    throw_as_store_failure();
  }
  transaction.commit(true);  // the attempt is counted before it is made
  return runs;
}

bool RunStore::rescue_expired_claims() {
  Transaction transaction("safety check");
  const bool rescued = rescue_statement.run({worker_id_}).is_true(0, 0);
  transaction.commit(false);
  return rescued;
}

RunStore::SafetyReport RunStore::safety_check() {
  SafetyReport report;
  Transaction transaction("safety check");
  const Rows rows = safety_statement.run({worker_id_});
  report.registered = rows.is_true(0, 0);
  report.queue = rows.is_true(0, 1);
  report.cancel = rows.is_true(0, 2);
  if (rows.at(0, 3)) report.next_due = Millis{rows.integer(0, 3)};
  report.runs = static_cast<std::size_t>(rows.integer(0, 4));
  const Rows secrets = missing_secrets_statement.run({});
  for (std::size_t i = 0; i < secrets.size(); ++i) report.missing_secrets.push_back(secrets.text(i, 0));
  const bool others_hold_runs = rows.is_true(0, 5);
  transaction.commit(false);
  if (others_hold_runs) report.queue |= rescue_expired_claims();
  return report;
}

void RunStore::rehearse_claim() {
  RunTransaction transaction(worker_id_, known_, "getting ready for a run");
  transaction.rehearse_claim();
  transaction.commit(false);
}

void RunStore::requeue_waiting_for_secret(const std::string& name) {
  Transaction transaction("requeueing runs");
  requeue_statement.run({name});
  transaction.commit(false);
}

}  // namespace ops::pg
