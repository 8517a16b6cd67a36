// Named places where a test build can be made to stop, fail or die. Release builds contain nothing of them.
#pragma once

#include <string_view>

namespace ops {

#ifdef OPS_FAULTS

/// Decides what happens at a stop point; set by the program that hosts the core.
using StopPointAction = void (*)(std::string_view point, std::string_view run_id);
inline StopPointAction stop_point_action = nullptr;

/// @param point   after_claim, before_resume, after_intent_commit, after_send, before_result_commit,
/// after_result_commit
/// @param run_id  the run it concerns; empty at after_send: an answer to a changing request begins to arrive
inline void stop_point(std::string_view point, std::string_view run_id) {
  if (stop_point_action != nullptr) stop_point_action(point, run_id);
}

#define OPS_STOP_POINT(point, run_id) ::ops::stop_point(point, run_id)
#else
#define OPS_STOP_POINT(point, run_id) static_cast<void>(run_id)
#endif

}  // namespace ops
