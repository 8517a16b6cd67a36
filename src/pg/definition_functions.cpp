// SQL functions over definitions: names, run ids, checks of config and metadata, redaction.
#include "pg/definition_functions.hpp"

#include <sys/random.h>

#include <chrono>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "core/pipeline.hpp"
#include "core/redact.hpp"

#include "pg/boundary.hpp"
#include "pg/jsonb_text.hpp"

extern "C" {
OPS_SQL_FUNCTION(ops_is_name);
OPS_SQL_FUNCTION(ops_new_run_id);
OPS_SQL_FUNCTION(ops_caller);
OPS_SQL_FUNCTION(ops_check_environment_config);
OPS_SQL_FUNCTION(ops_redact);
OPS_SQL_FUNCTION(ops_redact_json);
}

namespace ops::pg {

namespace {

constexpr std::size_t largest_document = 1024 * 1024;

std::string_view jsonb_view(Datum value) {
  return guarded([&] { return jsonb_text(value); });
}

std::string_view text_view(Datum value) {
  const text* packed = guarded([&] { return static_cast<const text*>(DatumGetTextPP(value)); });
  return {VARDATA_ANY(packed), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(packed))};
}

[[noreturn]] void refuse(const char* what, const DefinitionError& error) {
  throw SqlError(ERRCODE_INVALID_PARAMETER_VALUE, std::string(what) + ", " + error.path + ": " + error.message,
                 "JSON path: " + error.path, error.hint);
}

Json parse_document(const char* what, std::string_view text) {
  JsonLimits limits;
  limits.max_bytes = largest_document;
  std::string why;
  auto parsed = parse_json(text, limits, &why);
  if (!parsed)
    throw SqlError(ERRCODE_INVALID_PARAMETER_VALUE, std::string(what) + ": " + why, "JSON path: $",
                   "Limits: 1 MB, 64 levels, 1000 keys in an object, 256 bytes in a key.");
  return std::move(*parsed);
}

Datum new_text(const std::string& value) {
  const char* bytes = value.data();
  const int length = static_cast<int>(value.size());
  return guarded([&] { return PointerGetDatum(cstring_to_text_with_len(bytes, length)); });
}

}  // namespace

std::string new_uuid() {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes))
    throw SqlError(ERRCODE_INTERNAL_ERROR, "no random bytes for a new id");
  const auto milliseconds = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
  for (int i = 0; i < 6; ++i) bytes[i] = static_cast<unsigned char>(milliseconds >> (8 * (5 - i)));
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | 0x70);
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);
  std::string text;
  for (int i = 0; i < 16; ++i) {
    constexpr char digits[] = "0123456789abcdef";
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += digits[bytes[i] >> 4];
    text += digits[bytes[i] & 15];
  }
  return text;
}

void check_metadata_document(Datum metadata) {
  const Json document = parse_document("metadata", jsonb_view(metadata));
  if (const auto error = check_run_metadata(document, default_catalog())) refuse("metadata of the run", *error);
}

}  // namespace ops::pg

using namespace ops;
using namespace ops::pg;

Datum ops_is_name(PG_FUNCTION_ARGS) {
  return entry([&]() -> Datum {
    const std::string_view name = text_view(PG_GETARG_DATUM(0));
    const auto is_first = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
    const bool good = !name.empty() && name.size() <= 63 && is_first(name.front()) &&
                      name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._-") == std::string_view::npos;
    PG_RETURN_BOOL(good);
  });
}

Datum ops_new_run_id(PG_FUNCTION_ARGS) {
  (void)fcinfo;
  return entry([]() -> Datum { return new_text("run-" + new_uuid()); });
}

Datum ops_caller(PG_FUNCTION_ARGS) {
  (void)fcinfo;
  Name name = static_cast<Name>(palloc0(NAMEDATALEN));
  namestrcpy(name, GetUserNameFromId(GetOuterUserId(), false));
  PG_RETURN_NAME(name);
}

Datum ops_check_environment_config(PG_FUNCTION_ARGS) {
  return entry([&]() -> Datum {
    const Json config = parse_document("config", jsonb_view(PG_GETARG_DATUM(0)));
    if (const auto error = check_environment_config(config, default_catalog()))
      refuse("config of the environment", *error);
    PG_RETURN_BOOL(true);
  });
}

Datum ops_redact(PG_FUNCTION_ARGS) {
  return entry(
      [&]() -> Datum { return new_text(clean_text(redact(text_view(PG_GETARG_DATUM(0))), largest_document)); });
}

Datum ops_redact_json(PG_FUNCTION_ARGS) {
  return entry([&]() -> Datum {
    const Json value = parse_document("payload", jsonb_view(PG_GETARG_DATUM(0)));
    const Json masked = redact_json(value);
    // Numbers keep all their digits where nothing is masked.
    if (masked == value) return PG_GETARG_DATUM(0);
    const std::string masked_text = dump_json(masked);
    const char* text_form = masked_text.c_str();
    return guarded([&] {
      Oid input = InvalidOid;
      Oid parameter = InvalidOid;
      getTypeInputInfo(JSONBOID, &input, &parameter);
      return OidInputFunctionCall(input, const_cast<char*>(text_form), parameter, -1);
    });
  });
}
