// ops.queue_run. What follows the new row does a trigger (queue_triggers.cpp), whoever writes it.
#include <optional>
#include <string>
#include <utility>

#include "core/crypto.hpp"
#include "core/git_names.hpp"
#include "core/json.hpp"
#include "core/redact.hpp"

#include "pg/boundary.hpp"
#include "pg/definition_functions.hpp"
#include "pg/jsonb_text.hpp"
#include "pg/ready_floors.hpp"
#include "pg/run_row.hpp"
#include "pg/server_time.hpp"
#include "pg/shared_memory.hpp"
#include "pg/statement.hpp"
#include "pg/stored_rows.hpp"

extern "C" {
OPS_SQL_FUNCTION(ops_queue_run);
}

namespace ops::pg {

namespace {

constexpr std::size_t most_key_bytes = 200;

// Statements ---------------------------------------------------------------------------------------------------------

/// By the environment's type, or an error that says which there are.
Statement find_environment_statement("SELECT ops._find_environment($1, $2)");

Statement insert_statement(R"sql(
  INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref, metadata, requested_by, priority, available_at)
  SELECT u.project_id, u.env_id, u.git_sha, u.git_ref, u.metadata::jsonb, u.requested_by::name, u.priority, u.available_at
    FROM {u(project_id text, env_id text, git_sha text, git_ref text, metadata text, requested_by text, priority int,
            available_at timestamptz)}
  RETURNING run_id, status, (extract(epoch FROM queued_at) * 1000000)::bigint)sql");

Statement insert_with_key_statement(R"sql(
  INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref, metadata, requested_by, priority, available_at,
                        idempotency_key, request_hash)
  SELECT u.project_id, u.env_id, u.git_sha, u.git_ref, u.metadata::jsonb, u.requested_by::name, u.priority, u.available_at,
         u.idempotency_key, decode(u.request_hash, 'hex')
    FROM {u(project_id text, env_id text, git_sha text, git_ref text, metadata text, requested_by text, priority int,
            available_at timestamptz, idempotency_key text, request_hash text)}
  ON CONFLICT (project_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
  RETURNING run_id, status, (extract(epoch FROM queued_at) * 1000000)::bigint)sql");

Statement find_by_key_statement(R"sql(
  SELECT run_id, status, (extract(epoch FROM queued_at) * 1000000)::bigint, encode(request_hash, 'hex')
    FROM ops.runs WHERE project_id = $1 AND idempotency_key = $2)sql");

constexpr const char* environment_columns[] = {"project_id"};
const StoredTable environments_table("environments", environment_columns);

// Arguments ----------------------------------------------------------------------------------------------------------

[[noreturn]] void refuse(std::string message, std::string hint) {
  throw SqlError(ERRCODE_INVALID_PARAMETER_VALUE, std::move(message), {}, std::move(hint));
}

struct Request {
  std::optional<std::string> project_id, env, git_sha, git_ref, metadata, key;
  std::optional<std::int32_t> priority;
  std::optional<TimestampTz> not_before;
  bool has_metadata = false;  ///< and it is not empty
  std::string env_id;
  std::string caller;
};

std::optional<std::string> text_argument(FunctionCallInfo fcinfo, int number) {
  if (PG_ARGISNULL(number)) return std::nullopt;
  const struct varlena* value = guarded([&] { return PG_GETARG_TEXT_PP(number); });
  return std::string(VARDATA_ANY(value), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(value)));
}

/// As text; checked where it is not empty.
std::optional<std::string> metadata_argument(FunctionCallInfo fcinfo, int number, bool& is_filled) {
  if (PG_ARGISNULL(number)) return std::nullopt;
  return guarded([&] {
    is_filled = !is_empty_object(PG_GETARG_JSONB_P(number));
    return jsonb_text(PG_GETARG_DATUM(number));
  });
}

Request request_of(FunctionCallInfo fcinfo) {
  Request request;
  request.project_id = text_argument(fcinfo, 0);
  request.env = text_argument(fcinfo, 1);
  request.git_sha = text_argument(fcinfo, 2);
  request.git_ref = text_argument(fcinfo, 3);
  request.metadata = metadata_argument(fcinfo, 4, request.has_metadata);
  request.key = text_argument(fcinfo, 5);
  if (!PG_ARGISNULL(6)) request.priority = PG_GETARG_INT32(6);
  if (!PG_ARGISNULL(7)) request.not_before = PG_GETARG_TIMESTAMPTZ(7);
  // Who calls this function with definer rights.
  request.caller = guarded([] { return static_cast<const char*>(GetUserNameFromId(GetOuterUserId(), false)); });
  return request;
}

std::string find_environment(const Request& request) {
  if (request.project_id && request.env) {
    const Rows found = environments_table.rows(*request.env);
    if (found.size() > 0 && found.at(0, 0) == request.project_id) return *request.env;
  }
  for (const auto& [value, name] : {std::pair(&request.project_id, "p_project_id"), std::pair(&request.env, "p_env")})
    if (!*value) throw SqlError(ERRCODE_NULL_VALUE_NOT_ALLOWED, std::string(name) + " must not be null");
  return find_environment_statement.run({std::string(*request.project_id), std::string(*request.env)}).text(0, 0);
}

std::string begin_of(const std::string& text) {
  return guarded([&] { return shown(text, 80); });
}

void check(Request& request, FunctionCallInfo fcinfo) {
  const std::pair<bool, const char*> given[] = {{request.git_sha.has_value(), "p_git_sha"},
                                                {request.git_ref.has_value(), "p_git_ref"},
                                                {request.metadata.has_value(), "p_metadata"},
                                                {request.priority.has_value(), "p_priority"}};
  for (const auto& [is_given, name] : given)
    if (!is_given) throw SqlError(ERRCODE_NULL_VALUE_NOT_ALLOWED, std::string(name) + " must not be null");
  std::string commit = *request.git_sha;
  for (char& c : commit)
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
  if (!is_commit(commit))
    refuse("p_git_sha \"" + begin_of(*request.git_sha) + "\" is not a commit",
           "A commit is written with 7 to 64 hexadecimal digits.");
  request.git_sha = std::move(commit);
  if (!is_git_ref(*request.git_ref))
    refuse("p_git_ref \"" + begin_of(*request.git_ref) + "\" is not the name of a branch or tag",
           "It has 1 to 255 bytes, no spaces, none of ~ ^ : ? * [ \\ and no \"..\", and does not begin with \"-\", "
           "\"/\" or "
           "\".\".");
  if (*request.priority < lowest_priority || *request.priority > highest_priority)
    refuse("p_priority is " + std::to_string(*request.priority), "It must lie between -1000 and 1000.");
  if (request.key &&
      (request.key->empty() || request.key->size() > most_key_bytes || has_control_characters(*request.key)))
    refuse("p_idempotency_key is empty, too long or not plain text",
           "It must have 1 to 200 bytes and no control characters.");
  if (request.not_before) {
    const TimestampTz given_time = *request.not_before;
    const TimestampTz last = GetCurrentTransactionStartTimestamp() + 366 * USECS_PER_DAY;
    if (TIMESTAMP_NOT_FINITE(given_time) || given_time >= last)
      refuse(std::string("p_not_before is ") + guarded([&] { return timestamptz_to_str(given_time); }),
             "It must lie within one year from now.");
  }
  if (request.has_metadata) {
    check_metadata_document(PG_GETARG_DATUM(4));  // the guard would do it later, but first what is too deep to be read
    const Json metadata = parse_json(*request.metadata, JsonLimits::none()).value_or(Json::object());
    if (redact_json(metadata) != metadata)
      refuse("p_metadata holds what looks like a secret",
             "Store it in the vault or in ops_runner.secrets_directory and give its name only.");
  }
}

// The run ------------------------------------------------------------------------------------------------------------

/// What an idempotency key stands for. Lengths keep the parts apart.
std::string hash_of(const Request& request) {
  std::string all;
  for (const std::string& part : {request.env_id, *request.git_sha, *request.git_ref, *request.metadata})
    all += std::to_string(part.size()) + ":" + part;
  return sha256_hex(all);
}

template <class T>
std::vector<T> column(T value) {
  std::vector<T> one;
  one.push_back(std::move(value));
  return one;
}
TextColumn text_column(const std::string& value) {
  return column<std::optional<std::string>>(value);
}

Rows insert(const Request& request) {
  TimeColumn available_at = column<std::optional<WallTime>>(
      request.not_before ? std::optional(wall_time(*request.not_before)) : std::nullopt);
  if (!request.key)
    return insert_statement.run({text_column(*request.project_id), text_column(request.env_id),
                                 text_column(*request.git_sha), text_column(*request.git_ref),
                                 text_column(*request.metadata), text_column(request.caller), column(*request.priority),
                                 std::move(available_at)});
  const std::string hash = hash_of(request);
  for (;;) {
    Rows run = insert_with_key_statement.run(
        {text_column(*request.project_id), text_column(request.env_id), text_column(*request.git_sha),
         text_column(*request.git_ref), text_column(*request.metadata), text_column(request.caller),
         column(*request.priority), TimeColumn(available_at), text_column(*request.key), text_column(hash)});
    if (run.size() > 0) return run;
    run = find_by_key_statement.run({std::string(*request.project_id), std::string(*request.key)});
    if (run.size() == 0) continue;  // deleted in between
    if (run.text(0, 3) != hash)
      throw SqlError(ERRCODE_UNIQUE_VIOLATION,
                     "idempotency key \"" + *request.key + "\" was used with different content",
                     "It belongs to run \"" + run.text(0, 0) + "\".", "Use a new key for a new request.");
    return run;
  }
}

}  // namespace

}  // namespace ops::pg

Datum ops_queue_run(PG_FUNCTION_ARGS) {
  using namespace ops::pg;
  expect_run();
  InitMaterializedSRF(fcinfo, 0);
  return entry([&]() -> Datum {
    guarded([] { SPI_connect(); });
    Request request = request_of(fcinfo);
    request.env_id = find_environment(request);
    check(request, fcinfo);
    const Rows run = insert(request);
    const std::string run_id = run.text(0, 0);
    const std::string status = run.text(0, 1);
    const TimestampTz queued_at = server_time(ops::WallTime{std::chrono::microseconds{run.integer(0, 2)}});
    guarded([&] {
      SPI_finish();
      auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
      Datum values[] = {CStringGetTextDatum(run_id.c_str()), CStringGetTextDatum(status.c_str()),
                        TimestampTzGetDatum(queued_at)};
      bool nulls[] = {false, false, false};
      tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
    });
    return Datum{0};
  });
}
