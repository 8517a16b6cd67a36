#include "core/run.hpp"

#include <array>
#include <span>
#include <utility>

namespace ops {

namespace {

template <class Enum>
struct Word {
  Enum value;
  std::string_view text;
};

constexpr std::array run_statuses{
    Word{RunStatus::waiting, "waiting"},     Word{RunStatus::queued, "queued"},   Word{RunStatus::claimed, "claimed"},
    Word{RunStatus::running, "running"},     Word{RunStatus::success, "success"}, Word{RunStatus::failed, "failed"},
    Word{RunStatus::cancelled, "cancelled"},
};
constexpr std::array phase_states{
    Word{PhaseState::pending, "pending"},     Word{PhaseState::running, "running"},
    Word{PhaseState::succeeded, "succeeded"}, Word{PhaseState::failed, "failed"},
    Word{PhaseState::skipped, "skipped"},     Word{PhaseState::cancelled, "cancelled"},
};
constexpr std::array levels{
    Word{Level::debug, "debug"},
    Word{Level::info, "info"},
    Word{Level::warn, "warn"},
    Word{Level::error, "error"},
};
constexpr std::array effect_kinds{
    Word{EffectKind::repeatable, "repeatable"},
    Word{EffectKind::keyed, "keyed"},
    Word{EffectKind::unkeyed, "unkeyed"},
};
constexpr std::array effect_states{
    Word{EffectState::intended, "intended"},
    Word{EffectState::done, "done"},
    Word{EffectState::absent, "absent"},
    Word{EffectState::uncertain, "uncertain"},
    Word{EffectState::needs_decision, "needs_decision"},
};

template <class Enum>
std::string_view text_of(std::span<const Word<Enum>> words, Enum value) {
  for (const auto& word : words)
    if (word.value == value) return word.text;
  return "?";
}

template <class Enum>
std::optional<Enum> value_of(std::span<const Word<Enum>> words, std::string_view text) {
  for (const auto& word : words)
    if (word.text == text) return word.value;
  return std::nullopt;
}

}  // namespace

std::string_view to_string(RunStatus value) {
  return text_of<RunStatus>(run_statuses, value);
}
std::string_view to_string(PhaseState value) {
  return text_of<PhaseState>(phase_states, value);
}
std::string_view to_string(Level value) {
  return text_of<Level>(levels, value);
}
std::string_view to_string(EffectKind value) {
  return text_of<EffectKind>(effect_kinds, value);
}
std::string_view to_string(EffectState value) {
  return text_of<EffectState>(effect_states, value);
}
std::optional<RunStatus> run_status_from(std::string_view text) {
  return value_of<RunStatus>(run_statuses, text);
}
std::optional<PhaseState> phase_state_from(std::string_view text) {
  return value_of<PhaseState>(phase_states, text);
}
std::optional<EffectKind> effect_kind_from(std::string_view text) {
  return value_of<EffectKind>(effect_kinds, text);
}
std::optional<EffectState> effect_state_from(std::string_view text) {
  return value_of<EffectState>(effect_states, text);
}

bool is_final(RunStatus status) {
  return status == RunStatus::success || status == RunStatus::failed || status == RunStatus::cancelled;
}
bool is_final(PhaseState state) {
  return state != PhaseState::pending && state != PhaseState::running;
}

bool transition_allowed(RunStatus from, RunStatus to) {
  using enum RunStatus;
  switch (from) {
    case waiting:
      return to == queued || to == cancelled || to == failed;
    case queued:
      return to == claimed || to == cancelled || to == waiting;
    case claimed:
      return to == running || to == queued || to == waiting || is_final(to);
    case running:
      return to == queued || to == waiting || is_final(to);
    case success:
    case failed:
    case cancelled:
      return false;
  }
  return false;
}

}  // namespace ops
