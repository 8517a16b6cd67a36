#include "core/pipeline.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <utility>

#include "core/json.hpp"

namespace ops {

namespace {

constexpr std::size_t most_phases = 500;
constexpr std::size_t longest_name = 63;

std::string in_path(const std::string& path, std::string_view key) {
  return path + "." + clean_text(key, 80);
}

std::string type_hint(const Json& value) {
  return std::string("Found ") + value.type_name() + ".";
}

bool is_phase_name(std::string_view name) {
  if (name.empty() || name.size() > longest_name || name.front() < 'a' || name.front() > 'z') return false;
  return name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") == std::string_view::npos;
}

/// A value of `when`: one text or a list of texts.
std::optional<DefinitionError> check_when(const Json& when, const std::string& path) {
  if (!when.is_object()) return DefinitionError{path, "\"when\" must be an object", type_hint(when)};
  for (const auto& [key, value] : when.items()) {
    if (key != "env_type" && key != "git_ref")
      return DefinitionError{in_path(path, key), "unknown key \"" + clean_text(key, 80) + "\"",
                             "Known keys are env_type and git_ref."};
    const bool texts =
        value.is_string() ||
        (value.is_array() && std::ranges::all_of(value, [](const Json& element) { return element.is_string(); }));
    if (!texts) return DefinitionError{in_path(path, key), "must be a text or a list of texts", type_hint(value)};
  }
  return std::nullopt;
}

bool holds(const Json& when, std::string_view env_type, std::string_view git_ref) {
  for (const auto& [key, value] : when.items()) {
    const std::string_view actual = key == "env_type" ? env_type : git_ref;
    const auto equals = [&](const Json& element) { return element.get_ref<const std::string&>() == actual; };
    const bool met = value.is_array() ? std::ranges::any_of(value, equals) : equals(value);
    if (!met) return false;
  }
  return true;
}

struct Definition {
  std::vector<PhaseFacts> phases;
  Json::array_t when;
  std::optional<DefinitionError> error;
};

/// Orders phases so that each stands after what it needs. False on a cycle; then `stuck` names a phase of it.
bool order_by_needs(Definition& definition, std::string& stuck) {
  std::vector<PhaseFacts> ordered;
  Json::array_t ordered_when;
  std::set<std::string> placed;
  while (ordered.size() < definition.phases.size()) {
    bool progress = false;
    for (std::size_t i = 0; i < definition.phases.size(); ++i) {
      const PhaseFacts& phase = definition.phases[i];
      if (placed.contains(phase.name)) continue;
      if (!std::ranges::all_of(phase.needs, [&](const std::string& need) { return placed.contains(need); })) {
        stuck = phase.name;
        continue;
      }
      placed.insert(phase.name);
      ordered.push_back(phase);
      ordered_when.push_back(definition.when[i]);
      progress = true;
    }
    if (!progress) return false;
  }
  definition.phases = std::move(ordered);
  definition.when = std::move(ordered_when);
  return true;
}

Definition read_phases(const Json& list, const std::string& path, const PhaseCatalog& catalog) {
  Definition definition;
  const auto refuse = [&](std::string where, std::string message, std::string hint) {
    definition.error = DefinitionError{std::move(where), std::move(message), std::move(hint)};
    return definition;
  };
  if (!list.is_array()) return refuse(path, "must be a list of phases", type_hint(list));
  if (list.empty()) return refuse(path, "is empty", "Leave the key out for the default phases.");
  if (list.size() > most_phases)
    return refuse(path, "has " + std::to_string(list.size()) + " phases", "The limit is 500.");

  std::vector<std::string> kinds;
  for (const PhaseKind& kind : catalog.kinds()) kinds.push_back(kind.name);
  const std::vector<std::string> keys{"name", "kind", "needs", "config", "timeout", "when"};
  std::map<std::string, std::string> where_named;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Json& item = list[i];
    const std::string at = path + "[" + std::to_string(i) + "]";
    if (!item.is_object()) return refuse(at, "must be an object", type_hint(item));
    for (const auto& [key, value] : item.items())
      if (std::ranges::find(keys, key) == keys.end()) {
        const auto near = nearest_word(key, keys);
        return refuse(
            in_path(at, key), "unknown key \"" + clean_text(key, 80) + "\"",
            near ? "Did you mean \"" + *near + "\"?" : "Known keys are name, kind, needs, config, timeout, when.");
      }
    PhaseFacts phase;
    const Json name = item.value("name", Json());
    if (!name.is_string() || !is_phase_name(name.get_ref<const std::string&>()))
      return refuse(in_path(at, "name"), "must be a name of lower-case letters, digits, _ and -, at most 63 bytes",
                    name.is_string() ? "Found \"" + clean_text(name.get<std::string>(), 80) + "\"." : type_hint(name));
    phase.name = name.get<std::string>();
    if (!where_named.emplace(phase.name, at).second)
      return refuse(in_path(at, "name"), "the name \"" + phase.name + "\" is used twice",
                    "Names are unique in a pipeline.");
    const Json kind = item.value("kind", Json());
    const PhaseKind* known = kind.is_string() ? catalog.find(kind.get_ref<const std::string&>()) : nullptr;
    if (known == nullptr) {
      std::string hint = "Known kinds are";
      for (const std::string& word : kinds) hint += (word == kinds.front() ? " " : ", ") + word;
      const auto near = kind.is_string() ? nearest_word(kind.get<std::string>(), kinds) : std::nullopt;
      return refuse(
          in_path(at, "kind"),
          kind.is_string() ? "unknown kind \"" + clean_text(kind.get<std::string>(), 80) + "\"" : "must be a text",
          near ? "Did you mean \"" + *near + "\"?" : hint + ".");
    }
    phase.kind = known->name;
    phase.timeout = known->default_timeout;
    if (item.contains("timeout")) {
      const Json& timeout = item["timeout"];
      const auto parsed = timeout.is_string() ? parse_duration(timeout.get<std::string>()) : std::nullopt;
      if (!parsed) return refuse(in_path(at, "timeout"), "must be a duration such as \"30 min\"", type_hint(timeout));
      phase.timeout = *parsed;
    }
    if (item.contains("config")) {
      if (auto error = check_phase_config(item["config"], known->sections, in_path(at, "config")))
        return refuse(error->path, error->message, error->hint);
      phase.config = item["config"];
    }
    if (item.contains("needs")) {
      if (!item["needs"].is_array())
        return refuse(in_path(at, "needs"), "must be a list of phase names", type_hint(item["needs"]));
      for (const Json& need : item["needs"]) {
        if (!need.is_string()) return refuse(in_path(at, "needs"), "must be a list of phase names", type_hint(need));
        phase.needs.push_back(need.get<std::string>());
      }
    } else if (!definition.phases.empty()) {
      phase.needs.push_back(definition.phases.back().name);
    }
    Json when = item.value("when", Json::object());
    if (auto error = check_when(when, in_path(at, "when"))) return refuse(error->path, error->message, error->hint);
    definition.phases.push_back(std::move(phase));
    definition.when.push_back(std::move(when));
  }

  std::vector<std::string> names;
  for (const PhaseFacts& phase : definition.phases) names.push_back(phase.name);
  for (const PhaseFacts& phase : definition.phases)
    for (const std::string& need : phase.needs) {
      const std::string at = in_path(where_named[phase.name], "needs");
      if (need == phase.name) return refuse(at, "phase \"" + phase.name + "\" needs itself", "Remove it from needs.");
      if (where_named.contains(need)) continue;
      const auto near = nearest_word(need, names);
      return refuse(at, "unknown phase \"" + clean_text(need, 80) + "\"",
                    near ? "Did you mean \"" + *near + "\"?" : "needs names phases of the same pipeline.");
    }
  std::string stuck;
  if (!order_by_needs(definition, stuck))
    return refuse(in_path(where_named[stuck], "needs"), "the phases need each other in a circle",
                  "Phase \"" + stuck + "\" can never start.");
  return definition;
}

Json default_phases() {
  return Json::array({{{"name", "build_image"}, {"kind", "github_workflow"}},
                      {{"name", "deploy_runtime"}, {"kind", "digitalocean_app"}},
                      {{"name", "smoke_tests"}, {"kind", "odoo_smoke"}},
                      {{"name", "capture_artifacts"}, {"kind", "capture"}}});
}

/// What a kind cannot work without, so that the mistake is met when the run is queued and not on Friday evening.
struct RequiredKey {
  std::string_view kind;
  std::string_view section;  ///< not empty: only when this section is given
  std::string_view key;
};
constexpr RequiredKey required_keys[] = {
    {"github_workflow", "", "github.workflow"},
    {"digitalocean_app", "", "digitalocean.app_id"},
    {"digitalocean_app", "", "digitalocean.components"},
    {"digitalocean_app", "", "registry.image"},
    {"odoo_smoke", "", "url"},
    {"capture", "storage", "storage.endpoint"},
    {"capture", "storage", "storage.bucket"},
};

std::optional<DefinitionError> check_required_keys(const PhaseFacts& phase) {
  for (const RequiredKey& required : required_keys) {
    if (required.kind != phase.kind) continue;
    if (!required.section.empty() && !phase.config.contains(required.section)) continue;
    std::string pointer = "/" + std::string(required.key);
    std::ranges::replace(pointer, '.', '/');
    if (value_at(phase.config, pointer).is_null())
      return DefinitionError{
          "$." + std::string(required.key), "is missing",
          "Phase \"" + phase.name + "\" of kind " + phase.kind + " needs it in the environment's config."};
  }
  return std::nullopt;
}

}  // namespace

std::optional<Millis> parse_duration(std::string_view text) {
  struct Unit {
    std::string_view name;
    std::int64_t milliseconds;
  };
  static constexpr std::int64_t second = 1'000, minute = 60 * second, hour = 60 * minute, day = 24 * hour;
  static constexpr Unit units[] = {{"ms", 1},          {"s", second},       {"", second},    {"sec", second},
                                   {"second", second}, {"seconds", second}, {"min", minute}, {"m", minute},
                                   {"minute", minute}, {"minutes", minute}, {"h", hour},     {"hour", hour},
                                   {"hours", hour},    {"d", day},          {"day", day},    {"days", day}};
  constexpr std::int64_t longest = 35 * day;
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end == text.data()) return std::nullopt;
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  for (const Unit& known : units) {
    if (unit != known.name) continue;
    if (number < 1 || number > longest / known.milliseconds) return std::nullopt;
    return Millis{number * known.milliseconds};
  }
  return std::nullopt;
}

std::optional<std::string> nearest_word(std::string_view word, const std::vector<std::string>& known) {
  if (word.size() > 64) return std::nullopt;
  std::optional<std::string> best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : known) {
    // Edit distance with swapped neighbours as one edit, one row at a time.
    const std::size_t width = candidate.size() + 1;
    std::vector<std::size_t> before(width), last(width), row(width);
    for (std::size_t j = 0; j < width; ++j) row[j] = j;
    for (std::size_t i = 1; i <= word.size(); ++i) {
      before = std::exchange(last, row);
      row[0] = i;
      for (std::size_t j = 1; j < width; ++j) {
        const std::size_t replaced = last[j - 1] + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
        const bool swapped = i > 1 && j > 1 && word[i - 1] == candidate[j - 2] && word[i - 2] == candidate[j - 1];
        if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

std::optional<DefinitionError> check_run_metadata(const Json& metadata, const PhaseCatalog& catalog) {
  if (!metadata.is_object()) return DefinitionError{"$", "metadata must be an object", type_hint(metadata)};
  if (!metadata.contains("phases")) return std::nullopt;
  return read_phases(metadata["phases"], "$.phases", catalog).error;
}

Plan plan_phases(const Json& config, const Json& metadata, std::string_view env_type, std::string_view git_ref,
                 const PhaseCatalog& catalog) {
  const bool of_run = metadata.is_object() && metadata.contains("phases");
  const bool of_environment = config.contains("phases") && !config["phases"].is_null();
  Definition definition = of_run           ? read_phases(metadata["phases"], "$.phases", catalog)
                          : of_environment ? read_phases(config["phases"], "$.phases", catalog)
                                           : read_phases(default_phases(), "$.phases", catalog);
  Plan plan;
  plan.error = std::move(definition.error);
  if (plan.error) return plan;
  for (std::size_t i = 0; i < definition.phases.size(); ++i) {
    PhaseFacts& phase = definition.phases[i];
    phase.phase_no = static_cast<int>(i) + 1;
    Json effective = Json::object();
    if (config.contains("url")) effective["url"] = config["url"];
    for (const std::string& section : catalog.find(phase.kind)->sections)
      if (config.contains(section)) effective[section] = config[section];
    effective.merge_patch(phase.config);
    phase.config = std::move(effective);
    if (!holds(definition.when[i], env_type, git_ref)) {
      phase.state = PhaseState::skipped;
    } else if (auto missing = check_required_keys(phase)) {
      plan.error = std::move(missing);
      return plan;
    }
    plan.phases.push_back(std::move(phase));
  }
  return plan;
}

std::optional<DefinitionError> check_pipeline(const Json& phases, const std::string& path,
                                              const PhaseCatalog& catalog) {
  return read_phases(phases, path, catalog).error;
}

}  // namespace ops
