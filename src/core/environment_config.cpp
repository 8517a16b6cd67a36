// The schema of ops.environments.config, as a table: section, key, what it must be.
#include <algorithm>

#include "core/json.hpp"
#include "core/pipeline.hpp"
#include "core/git_names.hpp"
#include "core/redact.hpp"
#include "core/url.hpp"

namespace ops {

namespace {

/// Empty when the value is right, else what it must be.
using Rule = std::string (*)(const Json& value);

bool matches(const Json& value, std::size_t longest, std::string_view alphabet) {
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return !text.empty() && text.size() <= longest && text.find_first_not_of(alphabet) == std::string::npos;
}
constexpr std::string_view word_characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
constexpr std::string_view path_characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/";

bool is_plain_text(const Json& value, std::size_t longest) {
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return !text.empty() && text.size() <= longest &&
         std::ranges::none_of(text, [](char c) { return c >= 0 && c < ' '; });
}

std::string url(const Json& value) {
  std::string why;
  if (!value.is_string()) return "a URL";
  const auto parsed = parse_url(value.get_ref<const std::string&>(), &why);
  if (!parsed) return "a URL: " + why;
  return parsed->query.empty() ? "" : "a URL without a query";
}
std::string credential(const Json& value) {
  const bool good = matches(value, 64, word_characters) && value.get_ref<const std::string&>().front() != '.' &&
                    redact_json(value) == value;
  return good ? "" : "the name of a secret: at most 64 of A-Z a-z 0-9 _ . - (never the secret itself)";
}
/// A segment of a path: "." and ".." would lead elsewhere.
bool is_word(const Json& value) {
  return matches(value, 200, word_characters) &&
         value.get_ref<const std::string&>().find_first_not_of('.') != std::string::npos;
}
std::string workflow(const Json& value) {
  return is_word(value) ? "" : "the file name or number of a workflow, such as build.yml";
}
std::string git_ref(const Json& value) {
  return value.is_string() && is_git_ref(value.get_ref<const std::string&>())
             ? ""
             : "a branch or tag name of at most 255 bytes, without spaces, \"..\" and any of ~ ^ : ? * [ \\";
}
std::string inputs(const Json& value) {
  if (!value.is_object() || value.size() > 20) return "an object of at most 20 workflow inputs";
  for (const Json& input : value)
    if (!input.is_string() || input.get_ref<const std::string&>().size() > 10'000)
      return "an object whose values are texts";
  // What GitHub shows in its log is no place for a secret, and neither is this table (input I16).
  return redact_json(value) == value ? "" : "an object without secrets; the workflow reads those from its own store";
}
std::string duration(const Json& value) {
  return value.is_string() && parse_duration(value.get_ref<const std::string&>())
             ? ""
             : "a duration from 1 ms to 35 days, such as \"30 s\" or \"5 min\"";
}
std::string boolean(const Json& value) {
  return value.is_boolean() ? "" : "true or false";
}
std::string count(const Json& value) {
  return value.is_number_integer() && value >= 1 && value <= 100 ? "" : "a whole number from 1 to 100";
}
std::string positive(const Json& value) {
  return value.is_number_integer() && value >= 1 ? "" : "a whole number above 0";
}
std::string image(const Json& value) {
  constexpr std::string_view lower = "abcdefghijklmnopqrstuvwxyz0123456789._-/";
  const bool good = matches(value, 255, lower) && value.get_ref<const std::string&>().front() != '/' &&
                    value.get_ref<const std::string&>().find("//") == std::string::npos &&
                    value.get_ref<const std::string&>().find("..") == std::string::npos;
  return good ? "" : "an image name in lower case without host, tag and digest, such as acme/odoo";
}
std::string word(const Json& value) {
  return is_word(value) ? "" : "a name of A-Z a-z 0-9 _ . -";
}
std::string path_prefix(const Json& value) {
  return matches(value, 200, path_characters) && value.get_ref<const std::string&>().find("..") == std::string::npos
             ? ""
             : "a path of A-Z a-z 0-9 _ . - /";
}
std::string components(const Json& value) {
  if (!value.is_array() || value.empty() || value.size() > 50) return "a list of 1 to 50 component names";
  return std::ranges::all_of(value, [](const Json& name) { return matches(name, 32, word_characters); })
             ? ""
             : "a list of component names";
}
std::string auth(const Json& value) {
  return value == "token" || value == "app" ? "" : "\"token\" or \"app\"";
}
std::string role(const Json& value) {
  return value == "build" || value == "deploy" ? "" : "\"build\" or \"deploy\"";
}
std::string deploy_digest(const Json& value) {
  return value == "index" || value == "platform" ? "" : "\"index\" or \"platform\"";
}
std::string storage_kind(const Json& value) {
  return value == "s3" ? "" : "\"s3\"";
}
std::string checks(const Json& value) {
  return value.is_array() && value.size() <= 100 ? "" : "a list of at most 100 checks";
}
std::string check_path(const Json& value) {
  return is_plain_text(value, 2'000) && value.get_ref<const std::string&>().front() == '/'
             ? ""
             : "a path that begins with /";
}
std::string status(const Json& value) {
  return value.is_number_integer() && value >= 100 && value <= 599 ? "" : "an HTTP status";
}
std::string contains(const Json& value) {
  return is_plain_text(value, 2'000) ? "" : "a text of at most 2000 bytes";
}
std::string milliseconds(const Json& value) {
  return value.is_number_integer() && value >= 1 && value <= 600'000 ? "" : "milliseconds from 1 to 600000";
}

struct Key {
  std::string_view name;
  Rule rule;
};
struct Section {
  std::string_view name;
  std::vector<Key> keys;
};

const std::vector<Section>& sections() {
  static const std::vector<Section> all{
      {"github",
       {{"api_url", url},
        {"workflow", workflow},
        {"ref", git_ref},
        {"inputs", inputs},
        {"credential", credential},
        {"auth", auth},
        {"installation_id", positive},
        {"poll_interval", duration},
        {"search_window", duration},
        {"adopt", boolean},
        {"role", role}}},
      {"registry", {{"url", url}, {"image", image}, {"credential", credential}}},
      {"digitalocean",
       {{"api_url", url},
        {"app_id", word},
        {"components", components},
        {"credential", credential},
        {"poll_interval", duration},
        {"search_window", duration},
        {"deploy_digest", deploy_digest}}},
      {"smoke", {{"timeout", duration}, {"interval", duration}, {"consecutive_passes", count}, {"checks", checks}}},
      {"storage",
       {{"kind", storage_kind},
        {"endpoint", url},
        {"region", word},
        {"bucket", word},
        {"prefix", path_prefix},
        {"credential", credential}}},
  };
  return all;
}

const Section smoke_check{"checks",
                          {{"path", check_path}, {"status", status}, {"contains", contains}, {"max_ms", milliseconds}}};

DefinitionError unknown_key(const std::string& path, const std::string& name, const std::vector<std::string>& known) {
  std::string hint;
  if (const auto near = nearest_word(name, known)) {
    hint = "Did you mean \"" + *near + "\"?";
  } else {
    for (const std::string& word_known : known) hint += (hint.empty() ? "Known keys are " : ", ") + word_known;
    hint += ".";
  }
  const std::string shown = clean_text(name, 80);
  return {path + "." + shown, "unknown key \"" + shown + "\"", hint};
}

DefinitionError wrong_value(const std::string& path, const std::string& expected, const Json& found) {
  return {path, "must be " + expected, "Found " + clean_text(redact(dump_json(found)), 120) + "."};
}

/// Who writes the keys: in the config of a phase null takes a key of the environment away.
enum class Writer { environment, phase };

std::optional<DefinitionError> check_keys(const Json& value, const Section& section, const std::string& path,
                                          Writer writer) {
  if (!value.is_object())
    return DefinitionError{path, "must be an object", std::string("Found ") + value.type_name() + "."};
  std::vector<std::string> known;
  for (const Key& key : section.keys) known.emplace_back(key.name);
  for (const auto& [name, member] : value.items()) {
    const auto key = std::ranges::find(section.keys, name, &Key::name);
    if (key == section.keys.end()) return unknown_key(path, name, known);
    if (writer == Writer::phase && member.is_null()) continue;
    if (const std::string expected = key->rule(member); !expected.empty())
      return wrong_value(path + "." + name, expected, member);
  }
  return std::nullopt;
}

std::optional<DefinitionError> check_section(const std::string& name, const Json& value, const std::string& path,
                                             Writer writer) {
  const auto section = std::ranges::find(sections(), name, &Section::name);
  if (auto error = check_keys(value, *section, path, writer)) return error;
  if (name != "smoke" || !value_at(value, "/checks").is_array()) return std::nullopt;
  for (std::size_t i = 0; i < value["checks"].size(); ++i) {
    const std::string at = path + ".checks[" + std::to_string(i) + "]";
    if (auto error = check_keys(value["checks"][i], smoke_check, at, Writer::environment)) return error;
    if (!value["checks"][i].contains("path"))
      return DefinitionError{at + ".path", "is missing", "A check names the path it requests."};
  }
  return std::nullopt;
}

}  // namespace

std::optional<DefinitionError> check_phase_config(const Json& config, const std::vector<std::string>& known_sections,
                                                  const std::string& path) {
  if (!config.is_object())
    return DefinitionError{path, "must be an object", std::string("Found ") + config.type_name() + "."};
  std::vector<std::string> known{"url"};
  known.insert(known.end(), known_sections.begin(), known_sections.end());
  for (const auto& [name, value] : config.items()) {
    if (std::ranges::find(known, name) == known.end()) return unknown_key(path, name, known);
    if (value.is_null()) continue;
    if (name == "url") {
      if (const std::string expected = url(value); !expected.empty())
        return wrong_value(path + ".url", expected, value);
    } else if (auto error = check_section(name, value, path + "." + name, Writer::phase)) {
      return error;
    }
  }
  return std::nullopt;
}

std::optional<DefinitionError> check_environment_config(const Json& config, const PhaseCatalog& catalog) {
  if (!config.is_object())
    return DefinitionError{"$", "config must be an object", std::string("Found ") + config.type_name() + "."};
  std::vector<std::string> known{"url", "max_active_runs", "phases"};
  for (const Section& section : sections()) known.emplace_back(section.name);
  for (const auto& [name, value] : config.items()) {
    if (std::ranges::find(known, name) == known.end()) return unknown_key("$", name, known);
    const std::string at = "$." + name;
    if (name == "url" || name == "max_active_runs") {
      const std::string expected = name == "url" ? url(value) : count(value);
      if (!expected.empty()) return wrong_value(at, expected, value);
    } else if (name == "phases") {
      if (value.is_null()) continue;
      if (auto error = check_pipeline(value, at, catalog)) return error;
    } else if (auto error = check_section(name, value, at, Writer::environment)) {
      return error;
    }
  }
  return std::nullopt;
}

}  // namespace ops
