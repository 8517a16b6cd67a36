// How often something goes wrong. A seed draws one of these; when the world calms down all of it becomes zero.
#pragma once

#include "dice.hpp"

namespace ops::sim {

struct Weather {
  // Of a request
  double unreachable = 0;   ///< it never leaves
  double request_lost = 0;  ///< it leaves and does not arrive
  double answer_lost = 0;   ///< it takes effect and the answer does not come
  double effect_late = 0;   ///< the answer is lost first, the effect comes after
  double throttled = 0;     ///< 429, or 403 with one of GitHub's signs
  double server_error = 0;  ///< 5xx, before or after the effect
  double garbled = 0;       ///< the answer's body is cut
  double slow = 0;          ///< seconds instead of milliseconds
  // Of the worker and its server
  double worker_death = 0;  ///< per crash point; its session lock goes with it
  double server_crash = 0;  ///< per crash point; commits that were not flushed may go too
  double promoted = 0;      ///< of server crashes: a standby takes over, without the newest commits
  double stopped = 0;       ///< per stop point; goes on when others hold its runs
  double transaction_fails = 0;

  static Weather drawn(Dice& dice) {
    Weather weather;
    const double network = dice.one_of(std::vector<double>{0, 0.005, 0.02, 0.08});
    weather.unreachable = network * dice.uniform();
    weather.request_lost = network * dice.uniform();
    weather.answer_lost = network * dice.uniform();
    weather.effect_late = network * dice.uniform();
    weather.throttled = network * dice.uniform();
    weather.server_error = network * dice.uniform();
    weather.garbled = network * 0.02 * dice.uniform();
    weather.slow = network * dice.uniform();
    const double deaths = dice.one_of(std::vector<double>{0, 0.0003, 0.001, 0.004});
    weather.worker_death = deaths * dice.uniform();
    weather.server_crash = deaths * dice.uniform();
    weather.promoted = dice.chance(0.3) ? 0.5 : 0;
    weather.stopped = deaths * 0.5 * dice.uniform();
    weather.transaction_fails = dice.one_of(std::vector<double>{0, 0, 0.002, 0.02});
    return weather;
  }
};

}  // namespace ops::sim
