// Definitions: what an environment's config and a pipeline may say. Checked completely when written or queued; every
// refusal names the JSON path, what was found and what is allowed, with the nearest known key for a typo (input I09).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/phase_catalog.hpp"
#include "core/run.hpp"

namespace ops {

struct DefinitionError {
  std::string path;     ///< $.github.workflow
  std::string message;  ///< unknown key "workflw"
  std::string hint;     ///< did you mean "workflow"?
};

/// Checks ops.environments.config (design §4): known sections and keys, types, ranges, URLs, credential names
/// ([A-Za-z0-9_.-]{1,64}), durations ("5 min"), phases when given.
std::optional<DefinitionError> check_environment_config(const Json& config, const PhaseCatalog& catalog);

/// Checks the `config` of a phase that stands at `path`: `url` and the sections that its kind reads, with the rules of
/// the environment's config; null takes a key of the environment away.
std::optional<DefinitionError> check_phase_config(const Json& config, const std::vector<std::string>& known_sections,
                                                  const std::string& path);

/// Checks a list of phases that stands at `path`.
std::optional<DefinitionError> check_pipeline(const Json& phases, const std::string& path, const PhaseCatalog& catalog);

/// Checks run metadata (object, size, depth; `phases` when given).
std::optional<DefinitionError> check_run_metadata(const Json& metadata, const PhaseCatalog& catalog);

/// The phases of a run: metadata.phases, else config.phases, else the default four; in dependency order, each with its
/// effective config (the environment's sections that its kind reads, its own keys laid over them, `url` always).
/// A phase is {"name","kind","needs":[],"config":{},"timeout":"30 min","when":{}}; without `needs` it needs the phase
/// before it. `when` is an object of equalities over env_type and git_ref ({"env_type": ["staging","prod"]}); a phase
/// whose `when` does not hold begins as skipped.
struct Plan {
  std::vector<PhaseFacts> phases;
  std::optional<DefinitionError> error;
};
Plan plan_phases(const Json& config, const Json& metadata, std::string_view env_type, std::string_view git_ref,
                 const PhaseCatalog& catalog);

/// "90", "90 s", "5 min", "1 h", "250 ms", "2 d". Nothing when malformed or outside 1 ms .. 35 days.
std::optional<Millis> parse_duration(std::string_view text);

/// The known word nearest to `word` by edit distance, when it is near enough to be a typo.
std::optional<std::string> nearest_word(std::string_view word, const std::vector<std::string>& known);

}  // namespace ops
