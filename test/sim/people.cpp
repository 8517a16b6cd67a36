#include "people.hpp"

#include <utility>

namespace ops::sim {

namespace {
using std::chrono::minutes;
using std::chrono::seconds;
}  // namespace

People::People(Ground& ground, Database& database, Services& services, Inspector& inspector, const Scene& scene,
               std::function<bool()> reachable)
    : ground_(ground),
      database_(database),
      services_(services),
      inspector_(inspector),
      scene_(scene),
      reachable_(std::move(reachable)) {}

void People::when_reachable(Micros delay, std::function<void()> act) {
  ground_.agenda.after(delay, [this, act = std::move(act)]() mutable {
    if (reachable_()) return act();
    when_reachable(seconds{1}, std::move(act));
  });
}

void People::begin() {
  Dice& dice = ground_.dice;
  for (const auto& run : scene_.runs)
    when_reachable(run->queued_after, [this, run] {
      ground_.trace([&] { return "operator queues " + run->facts.run_id + " in " + run->facts.env_id; });
      inspector_.queued();
      ++queued_;
      database_.queue(run);
      meddle(run->facts.run_id);
    });
  if (dice.chance(0.2)) {
    const std::string name = dice.one_of(std::vector<std::string>{"github", "ghcr", "digitalocean", "spaces"});
    const Micros gone = dice.between(Micros{0}, scene_.calm_after);
    const Micros back = dice.between(gone, scene_.calm_after);
    ground_.agenda.after(gone, [this, name] {
      ground_.trace([&] { return "operator takes secret " + name + " away"; });
      secrets_.erase(name);
    });
    ground_.agenda.after(back, [this, name] {
      ground_.trace([&] { return "operator brings secret " + name + " back"; });
      secrets_.insert(name);
    });
  }
  decide();
}

void People::meddle(const std::string& run_id) {
  Dice& dice = ground_.dice;
  const Micros soon = dice.chance(0.5) ? Micros{minutes{2}} : scene_.calm_after;
  if (dice.chance(0.3))
    when_reachable(dice.between(Micros{0}, soon), [this, run_id] {
      const bool done = database_.cancel_run(run_id);
      ground_.trace([&] { return "operator cancels " + run_id + (done ? "" : ": refused"); });
    });
  const auto resets = dice.chance(0.25) ? dice.between(1, 3) : 0;
  for (int i = 0; i < resets; ++i)
    when_reachable(dice.between(Micros{0}, soon), [this, run_id] {
      const bool done = database_.reset_run(run_id);
      ground_.trace([&] { return "operator resets " + run_id + (done ? "" : ": refused"); });
    });
}

/// They look at the receiver of notices from time to time, and never before a late request could have arrived.
void People::decide() {
  when_reachable(minutes{2}, [this] {
    for (const auto& [run_id, stored] : std::map(database_.runs())) {
      if (stored.row.waiting_for == "poisoned") database_.reset_run(run_id);
      if (stored.row.waiting_for != "decision") continue;
      when_reachable(minutes{2}, [this, run_id = run_id, effects = stored.row.effects] {
        for (const StoredEffect& effect : effects) {
          if (effect.record.state != EffectState::needs_decision) continue;
          const auto state = services_.notices_of(run_id) > 0 ? EffectState::done : EffectState::absent;
          if (!database_.resolve_effect(run_id, effect.record.key, state)) continue;
          if (state == EffectState::absent) inspector_.decided(run_id, effect.record);
        }
      });
    }
    decide();
  });
}

}  // namespace ops::sim
