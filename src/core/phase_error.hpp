// How a phase says that it cannot go on. Everything thrown out of a phase that is not one of these is a bug
// and is reported as code "internal_error".
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "core/run.hpp"

namespace ops {

/// The phase fails. Written as one error event: message says what and where, hint says what to do.
class PhaseError : public std::runtime_error {
 public:
  /// @param code  stable, snake_case, documented in docs/errors.md (for example build_failed, bad_response)
  PhaseError(std::string code, const std::string& message, std::string hint, Json payload = Json::object())
      : std::runtime_error(message), code_(std::move(code)), hint_(std::move(hint)), payload_(std::move(payload)) {}
  const std::string& code() const noexcept { return code_; }
  const std::string& hint() const noexcept { return hint_; }
  const Json& payload() const noexcept { return payload_; }

 private:
  std::string code_;
  std::string hint_;
  Json payload_;
};

/// The run cannot go on without somebody's act and is parked in `waiting`. Replayed from the top when it goes on.
class MustWait : public std::runtime_error {
 public:
  /// @param waiting_for  decision, secret:<name>, approval, freeze
  MustWait(std::string waiting_for, const std::string& message, std::string hint)
      : std::runtime_error(message), waiting_for_(std::move(waiting_for)), hint_(std::move(hint)) {}
  const std::string& waiting_for() const noexcept { return waiting_for_; }
  const std::string& hint() const noexcept { return hint_; }

 private:
  std::string waiting_for_;
  std::string hint_;
};

}  // namespace ops
