// Virtual time: a clock that stands still until somebody moves it, and what shall happen at which moment.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "core/ports.hpp"
#include "dice.hpp"

namespace ops::sim {

class Agenda final : public Clock {
 public:
  WallTime now() const override { return WallTime{std::chrono::seconds{1'800'000'000}} + elapsed_; }
  SteadyTime steady_now() const override { return SteadyTime{elapsed_}; }

  void at(SteadyTime time, std::function<void()> act) {
    acts_.emplace(std::pair{std::max(time, steady_now()), ++last_}, std::move(act));
  }
  void after(Micros delay, std::function<void()> act) { at(steady_now() + delay, std::move(act)); }

  std::optional<SteadyTime> next() const {
    return acts_.empty() ? std::nullopt : std::optional(acts_.begin()->first.first);
  }
  /// Moves to the next act and performs it.
  void perform_next() {
    const auto first = acts_.begin();
    advance_to(first->first.first);
    const std::function<void()> act = std::move(first->second);
    acts_.erase(first);
    act();
  }
  void advance_to(SteadyTime time) { elapsed_ = std::max(elapsed_, Micros{time.time_since_epoch()}); }

 private:
  Micros elapsed_{1'000'000};
  std::uint64_t last_ = 0;
  std::map<std::pair<SteadyTime, std::uint64_t>, std::function<void()>> acts_;  ///< at equal times in order of entry
};

}  // namespace ops::sim
