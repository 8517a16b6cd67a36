#include "core/json.hpp"

#include <algorithm>
#include <vector>

#include "core/redact.hpp"

namespace ops {

namespace {

/// Most of what is stored and read: payloads, checkpoints and outcomes that say nothing.
constexpr std::string_view empty_object = "{}";

/// Builds a document while the limits hold; the first violation ends the parse.
class LimitedBuilder : public nlohmann::json_sax<Json> {
 public:
  explicit LimitedBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return fail("binary value"); }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (name.size() > limits_.max_key_bytes)
      return fail("a key is longer than " + std::to_string(limits_.max_key_bytes) + " bytes");
    if (static_cast<int>(open_.back()->size()) >= limits_.max_keys)
      return fail("an object has more than " + std::to_string(limits_.max_keys) + " keys");
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return fail("not valid JSON at byte " + std::to_string(position));
  }

  Json root;
  std::string problem;

 private:
  Json* place(Json value) {
    if (++values_ > reserved_) reserve_teardown(reserved_ = 2 * values_);
    if (open_.empty()) {
      root = std::move(value);
      return &root;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    Json& member = parent[key_];
    member = std::move(value);
    return &member;
  }
  bool add(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (static_cast<int>(open_.size()) >= limits_.max_depth)
      return fail("nested deeper than " + std::to_string(limits_.max_depth) + " levels");
    open_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }
  bool fail(std::string why) {
    if (problem.empty()) problem = std::move(why);
    return false;
  }

  JsonLimits limits_;
  std::vector<Json*> open_;  ///< stable: only the innermost value grows
  std::string key_;
  std::size_t values_ = 0;
  std::size_t reserved_ = 0;
};

/// Length of the UTF-8 sequence at `at`, 0 when it is not a valid one (over-long, surrogate, above U+10FFFF, cut).
std::size_t sequence_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u; };
  const auto follows = [&](std::size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return follows(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    if (!follows(1) || !follows(2)) return 0;
    if (first == 0xe0 && byte(1) < 0xa0) return 0;
    if (first == 0xed && byte(1) > 0x9f) return 0;
    return 3;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if (!follows(1) || !follows(2) || !follows(3)) return 0;
    if (first == 0xf0 && byte(1) < 0x90) return 0;
    if (first == 0xf4 && byte(1) > 0x8f) return 0;
    return 4;
  }
  return 0;
}

Json without_nul(const Json& value) {
  if (value.is_string()) {
    std::string text = value.get<std::string>();
    std::erase(text, '\0');
    return text;
  }
  if (value.is_array()) {
    Json result = Json::array();
    for (const Json& element : value) result.push_back(without_nul(element));
    return result;
  }
  if (value.is_object()) {
    Json result = Json::object();
    for (const auto& [key, member] : value.items()) {
      std::string name = key;
      std::erase(name, '\0');
      result[name] = without_nul(member);
    }
    return result;
  }
  return value;
}

[[noreturn]] void bad_field(std::string_view pointer, const char* expected, const Json& found) {
  throw PhaseError(
      "bad_response",
      "the answer's field " + std::string(pointer) + " should be " + expected + " and is " +
          (found.is_null() ? "missing" : found.type_name()),
      "Check that the configured URL is the service's API; if it is, the service may have changed its answers.",
      {{"field", pointer}});
}

}  // namespace

std::optional<Json> parse_json(std::string_view text, const JsonLimits& limits, std::string* why) {
  const auto refuse = [&](std::string problem) {
    if (why != nullptr) *why = std::move(problem);
    return std::nullopt;
  };
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
  // The parser would skip another one.
  if (text.starts_with(byte_order_mark)) return refuse("not valid JSON at byte 3");
  if (text.size() > limits.max_bytes) return refuse("larger than " + std::to_string(limits.max_bytes) + " bytes");
  if (text == empty_object) return Json::object();
  LimitedBuilder builder(limits);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) return refuse(builder.problem);
  return std::move(builder.root);
}

std::string dump_json(const Json& value) {
  if (value.is_object() && value.empty()) return std::string(empty_object);
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.find("\\u0000") == std::string::npos) return text;
  return without_nul(value).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string clean_text(std::string_view text, std::size_t max_bytes) {
  std::string result;
  for (std::size_t i = 0; i < text.size() && result.size() < max_bytes;) {
    const std::size_t length = sequence_length(text, i);
    if (length == 0) {
      constexpr std::string_view replacement = "\xEF\xBF\xBD";
      if (result.size() + replacement.size() > max_bytes) break;
      result += replacement;
      ++i;
      continue;
    }
    const auto c = static_cast<unsigned char>(text[i]);
    const bool control = length == 1 && ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f);
    const bool control_c1 = length == 2 && c == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (!control && !control_c1) {
      if (result.size() + length > max_bytes) break;
      result.append(text.substr(i, length));
    }
    i += length;
  }
  return result;
}

Json answer_json(const HttpResponse& response, std::string_view service, std::string_view what,
                 const JsonLimits& limits) {
  const auto refuse = [&](const std::string& problem) {
    throw PhaseError(
        "bad_response",
        std::string(service) + " answered " + std::string(what) + " with status " + std::to_string(response.status) +
            ": " + problem,
        "Check that the configured URL is the service's API; if it is, look at the service's status page.",
        {{"status", response.status}, {"body_start", redact(clean_text(response.body.substr(0, 200), 200))}});
  };
  const std::string_view type = response.header("content-type");
  if (type.find("json") == std::string_view::npos)
    refuse("the content type is \"" + std::string(type.substr(0, 100)) + "\" instead of JSON");
  std::string why;
  auto parsed = parse_json(response.body, limits, &why);
  if (!parsed) refuse(why);
  return std::move(*parsed);
}

const Json& value_at(const Json& value, std::string_view pointer) {
  static const Json nothing = nullptr;
  const Json* current = &value;
  while (!pointer.empty()) {
    pointer.remove_prefix(1);  // the slash
    const std::size_t end = std::min(pointer.find('/'), pointer.size());
    const std::string_view step = pointer.substr(0, end);
    if (current->is_object()) {
      const auto member = current->find(step);
      if (member == current->end()) return nothing;
      current = &*member;
    } else if (current->is_array() && !step.empty() && step.find_first_not_of("0123456789") == std::string_view::npos &&
               step.size() < 9) {
      const auto index = static_cast<std::size_t>(std::stoul(std::string(step)));
      if (index >= current->size()) return nothing;
      current = &(*current)[index];
    } else {
      return nothing;
    }
    pointer.remove_prefix(end);
  }
  return *current;
}

std::string text_at(const Json& value, std::string_view pointer) {
  const Json& found = value_at(value, pointer);
  if (!found.is_string()) bad_field(pointer, "text", found);
  return found.get<std::string>();
}

std::int64_t integer_at(const Json& value, std::string_view pointer) {
  const Json& found = value_at(value, pointer);
  if (found.is_number_unsigned() && found.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX))
    bad_field(pointer, "an integer of 64 bits", found);
  if (!found.is_number_integer()) bad_field(pointer, "an integer", found);
  return found.get<std::int64_t>();
}

const Json& array_at(const Json& value, std::string_view pointer) {
  const Json& found = value_at(value, pointer);
  if (!found.is_array()) bad_field(pointer, "a list", found);
  return found;
}

const Json& object_at(const Json& value, std::string_view pointer) {
  const Json& found = value_at(value, pointer);
  if (!found.is_object()) bad_field(pointer, "an object", found);
  return found;
}

std::optional<std::string> optional_text_at(const Json& value, std::string_view pointer) {
  const Json& found = value_at(value, pointer);
  if (found.is_null()) return std::nullopt;
  if (!found.is_string()) bad_field(pointer, "text", found);
  return found.get<std::string>();
}

std::optional<std::int64_t> optional_integer_at(const Json& value, std::string_view pointer) {
  if (value_at(value, pointer).is_null()) return std::nullopt;
  return integer_at(value, pointer);
}

}  // namespace ops
