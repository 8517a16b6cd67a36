// JSON from outside: parsed under limits, read through checked accessors, written so that PostgreSQL takes it.
#pragma once

#include <climits>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/http_message.hpp"
#include "core/phase_error.hpp"
#include "core/run.hpp"

namespace ops {

struct JsonLimits {
  std::size_t max_bytes = 4 * 1024 * 1024;
  int max_depth = 64;
  int max_keys = 1'000;  ///< per object
  std::size_t max_key_bytes = 256;

  /// For what this extension itself has stored.
  static JsonLimits none() { return {SIZE_MAX, INT_MAX, INT_MAX, SIZE_MAX}; }
};

/// Parses one document and nothing after it; a leading byte-order mark is skipped. Nothing on any violation of syntax,
/// UTF-8 or limits; `why` then says which, in words for people. Never throws on input.
std::optional<Json> parse_json(std::string_view text, const JsonLimits& limits = {}, std::string* why = nullptr);

/// Compact text that jsonb accepts: invalid UTF-8 replaced by U+FFFD, NUL characters inside strings dropped.
std::string dump_json(const Json& value);

/// `text` as valid UTF-8 without NUL and terminal control codes, cut to max_bytes at a character boundary.
std::string clean_text(std::string_view text, std::size_t max_bytes = 8'192);

/// The JSON body of an answer. `service` and `what` name it in the error ("GitHub", "the workflow run").
/// @throws PhaseError code bad_response: content type is not JSON, body does not parse; the payload keeps at most
///         200 masked bytes of it.
Json answer_json(const HttpResponse& response, std::string_view service, std::string_view what,
                 const JsonLimits& limits = {});

// Checked accessors. `pointer` is a JSON pointer (RFC 6901). A missing member and a null are the same.
// @throws PhaseError code bad_response naming the pointer and the type found.
std::string text_at(const Json& value, std::string_view pointer);
std::int64_t integer_at(const Json& value, std::string_view pointer);
const Json& array_at(const Json& value, std::string_view pointer);
const Json& object_at(const Json& value, std::string_view pointer);
std::optional<std::string> optional_text_at(const Json& value, std::string_view pointer);
std::optional<std::int64_t> optional_integer_at(const Json& value, std::string_view pointer);
/// Null when missing.
const Json& value_at(const Json& value, std::string_view pointer);

}  // namespace ops
