// What a run, its phases, effects and events are: plain values, shared by every layer.
// Words are those of the glossary in docs/architecture.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json_value.hpp"

namespace ops {

/// Wall clock, for what is recorded. Never used to measure a wait.
using WallTime = std::chrono::sys_time<std::chrono::microseconds>;
/// Monotonic clock of this process, for every wait and deadline. Has no meaning outside the process.
using SteadyTime = std::chrono::time_point<std::chrono::steady_clock, std::chrono::microseconds>;
using Millis = std::chrono::milliseconds;

enum class RunStatus { waiting, queued, claimed, running, success, failed, cancelled };
enum class PhaseState { pending, running, succeeded, failed, skipped, cancelled };
enum class Level { debug, info, warn, error };

/// How a request that changes something outside can be found again after its answer was lost.
enum class EffectKind {
  repeatable,  ///< the same request leaves the same state: may be sent again
  keyed,       ///< the service can be searched for our key: look, then send at most once
  unkeyed,     ///< cannot be told apart: a person decides
};
enum class EffectState { intended, done, absent, uncertain, needs_decision };

/// What the run was asked to do; fixed when it was queued.
struct RunFacts {
  std::string run_id;
  std::string project_id;
  std::string env_id;
  std::string env_type;
  std::string repo_slug;     ///< owner/name
  std::string odoo_version;  ///< such as 19.0
  std::string git_sha;       ///< 7 to 64 lower-case hex digits
  std::string git_ref;       ///< branch or tag, as given
  Json metadata = Json::object();
  int attempt = 0;  ///< counts claims, from 1
  std::optional<WallTime> queued_at;
  /// This database went on from a copy that may lack the newest commits: an effect without a record may be out there.
  bool look_first = false;
};

/// One row of ops.run_phases.
struct PhaseFacts {
  int phase_no = 0;  ///< position in the pipeline, from 1
  std::string name;
  std::string kind;
  std::vector<std::string> needs;
  Json config = Json::object();  ///< effective: environment sections with the phase's own keys laid over them
  Millis timeout{0};
  PhaseState state = PhaseState::pending;
  int attempt = 0;  ///< claims of the run in which this phase ran, from 1
  std::optional<WallTime> started_at;
  std::optional<WallTime> finished_at;
  Json remembered = Json::object();  ///< checkpoints by key
  Json outcome = Json::object();     ///< what later phases read
};

/// One row of ops.effects.
struct EffectRecord {
  std::string phase;
  std::string key;  ///< stable name of the effect within the phase
  EffectKind kind = EffectKind::keyed;
  EffectState state = EffectState::intended;
  int attempt = 0;           ///< how often it was sent, from 1
  std::string target;        ///< method and URL without query
  std::string request_hash;  ///< sha256 of method, URL and body, hex
  Json outcome;              ///< set when done
};

/// One row of ops.run_events; seq is given by the store.
struct EventRecord {
  Level level = Level::info;
  std::string message;
  Json payload = Json::object();
  std::string phase;  ///< empty: the run itself
  std::string once;   ///< not empty: at most one event of this phase carries this key, also across restarts
  WallTime created_at;
};

/// One row of ops.artifacts. The same (run, type, path) is written once.
struct ArtifactRecord {
  std::string artifact_type;  ///< image, sbom, provenance, build_log, evidence
  std::string storage_path;   ///< s3://bucket/key or registry/image@digest
  std::string digest;         ///< sha256:<hex>
  std::int64_t size_bytes = 0;
  Json metadata = Json::object();
};

std::string_view to_string(RunStatus);
std::string_view to_string(PhaseState);
std::string_view to_string(Level);
std::string_view to_string(EffectKind);
std::string_view to_string(EffectState);
std::optional<RunStatus> run_status_from(std::string_view);
std::optional<PhaseState> phase_state_from(std::string_view);
std::optional<EffectKind> effect_kind_from(std::string_view);
std::optional<EffectState> effect_state_from(std::string_view);
bool is_final(RunStatus);
bool is_final(PhaseState);
/// Allowed changes of a run's status. A final status has no way out.
bool transition_allowed(RunStatus from, RunStatus to);

}  // namespace ops
