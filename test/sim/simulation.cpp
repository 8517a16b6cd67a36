#include "simulation.hpp"

#include <algorithm>
#include <stdexcept>

#include "kinds.hpp"

namespace ops::sim {

namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr Micros longest_calm = hours{24};  ///< from the end of all faults to the end of the last run
constexpr Micros aftermath = minutes{5};    ///< in which late requests still arrive
constexpr std::uint64_t most_steps = 2'000'000;

}  // namespace

void Tally::add(const Tally& other) {
  runs += other.runs;
  succeeded += other.succeeded;
  failed += other.failed;
  cancelled += other.cancelled;
  deaths += other.deaths;
  crashes += other.crashes;
  stops += other.stops;
  steps += other.steps;
}

std::string Tally::text() const {
  return std::to_string(runs) + " runs: " + std::to_string(succeeded) + " succeeded, " + std::to_string(failed) +
         " failed, " + std::to_string(cancelled) + " cancelled; " + std::to_string(deaths) + " deaths, " +
         std::to_string(crashes) + " of them of the server, " + std::to_string(stops) + " stops; " +
         std::to_string(steps) + " steps";
}

Simulation::Simulation(std::uint64_t seed, const Defects& defects, Trace::Mode mode)
    : ground_(seed, defects, mode),
      catalog_(catalog_with(defects)),
      scene_(Scene::drawn(ground_.dice, catalog_)),
      services_(ground_, scene_),
      database_(ground_.agenda, ground_.dice, ground_.defects),
      inspector_(ground_, database_, services_, scene_),
      people_(ground_, database_, services_, inspector_, scene_, [this] { return server_is_up_; }) {
  ground_.weather = Weather::drawn(ground_.dice);
  ground_.took_effect = [this](const std::string& key) { inspector_.took_effect(key); };
  database_.set_witness(inspector_);
  database_.ring_queue = [this] {
    for (const auto& worker : workers_) worker->ring_queue();
  };
  database_.ring_cancel = [this] {
    for (const auto& worker : workers_) worker->ring_cancel();
  };
}

std::optional<Broken> Simulation::run() {
  try {
    people_.begin();
    start_worker();
    ground_.agenda.after(scene_.calm_after, [this] { calm_down(); });
    run_until(ground_.agenda.steady_now() + scene_.calm_after + longest_calm, true);
    run_until(ground_.agenda.steady_now() + minutes{1}, false);
    const std::size_t begun = database_.begun();
    run_until(ground_.agenda.steady_now() + aftermath, false);
    if (database_.begun() != begun) throw Broken{"idle", "a worker with nothing to do asks the database"};
    inspector_.look_at_end();
  } catch (const Broken& broken) {
    ground_.trace([&] { return "BROKEN " + broken.invariant + ": " + broken.what; });
    return broken;
  }
  for (const auto& [run_id, stored] : database_.runs()) {
    ++tally_.runs;
    if (stored.row.status() == RunStatus::success) ++tally_.succeeded;
    if (stored.row.status() == RunStatus::failed) ++tally_.failed;
    if (stored.row.status() == RunStatus::cancelled) ++tally_.cancelled;
  }
  return std::nullopt;
}

void Simulation::calm_down() {
  ground_.trace([] { return std::string("from here on nothing fails"); });
  ground_.weather = Weather{};
  is_calm_ = true;
}

bool Simulation::all_ended() const {
  return is_calm_ && people_.have_queued_all() &&
         std::ranges::all_of(database_.runs(), [](const auto& entry) { return is_final(entry.second.row.status()); });
}

Worker* Simulation::next_worker() const {
  Worker* next = nullptr;
  for (const auto& worker : workers_) {
    if (worker->is_stopped || worker->is_dead) continue;
    if (next == nullptr || worker->wakes() < next->wakes()) next = worker.get();
  }
  return next;
}

void Simulation::run_until(SteadyTime end, bool until_all_ended) {
  while (!(until_all_ended && all_ended())) {
    if (++tally_.steps > most_steps) throw Broken{"end", "the world does not come to rest"};
    Worker* const worker = next_worker();
    const auto act = ground_.agenda.next();
    const SteadyTime wakes = worker != nullptr ? worker->wakes() : SteadyTime::max();
    if (act && *act <= wakes && *act <= end) {
      ground_.agenda.perform_next();
    } else if (wakes <= end) {
      ground_.agenda.advance_to(wakes);
      step(*worker);
    } else {
      ground_.agenda.advance_to(end);
      return;
    }
    inspector_.look();
  }
}

// Lives --------------------------------------------------------------------------------------------------------------

void Simulation::start_worker() {
  const std::string id = "worker-" + std::to_string(++last_life_);
  ground_.trace([&] { return id + " starts"; });
  Worker::Hooks hooks;
  hooks.at_point = [this](Worker& worker, const char* point) { at_point(worker, point); };
  hooks.may_fail = [this] {
    if (!ground_.dice.chance(ground_.weather.transaction_fails)) return;
    if (ground_.dice.chance(0.9)) throw StoreBusy("could not serialize access");
    throw std::runtime_error("value out of range");
  };
  workers_.push_back(std::make_unique<Worker>(ground_, database_, services_, inspector_, people_.secrets(), catalog_,
                                              mark_, id, std::move(hooks)));
}

void Simulation::step(Worker& worker) {
  try {
    worker.step();
  } catch (const Death& death) {
    bury(worker, death);
  }
}

void Simulation::at_point(Worker& worker, const std::string& point) {
  Dice& dice = ground_.dice;
  if (dice.chance(ground_.weather.worker_death)) die(false, point);
  if (dice.chance(ground_.weather.server_crash)) die(true, point);
  const bool stoppable = point == "turn" || point == "begin" || point == "after commit";
  if (stoppable && !is_stopping_ && dice.chance(ground_.weather.stopped)) stop(worker);
}

void Simulation::die(bool of_server, const std::string& point) {
  mark_.freeze();
  throw Death{of_server, point};
}

/// The others live on meanwhile. Beyond the lease one more worker is there, as one outside the server may be.
void Simulation::stop(Worker& worker) {
  ++tally_.stops;
  const Micros pause = ground_.dice.between(seconds{1}, minutes{10});
  ground_.trace([&] { return worker.id() + " is stopped for " + std::to_string(pause.count() / 1'000'000) + " s"; });
  is_stopping_ = true;
  worker.is_stopped = true;
  const Micros lease = LoopSettings{}.lease;
  ground_.agenda.after(lease + ground_.dice.between(Micros{0}, seconds{20}), [this] {
    if (is_stopping_ && next_worker() == nullptr && server_is_up_) start_worker();
  });
  run_until(ground_.agenda.steady_now() + pause, false);
  worker.is_stopped = false;
  worker.up_since = ground_.agenda.steady_now();
  is_stopping_ = false;
  ground_.trace([&] { return worker.id() + (worker.is_dead ? " is dead" : " goes on"); });
  if (worker.is_dead) throw Death{};
}

void Simulation::bury(Worker& worker, const Death& death) {
  if (!worker.is_dead) {
    ++tally_.deaths;
    ground_.trace(
        [&] { return worker.id() + (death.of_server ? " and its server die" : " dies") + " at: " + death.where; });
    for (const auto& each : workers_) {
      if (each.get() != &worker && !death.of_server) continue;
      each->is_dead = true;
      database_.end_life(each->id());
    }
    if (death.of_server) {
      ++tally_.crashes;
      const bool promotes = ground_.dice.chance(ground_.weather.promoted);
      ground_.trace([&] { return std::string(promotes ? "a standby is promoted" : "the server starts again"); });
      promotes ? database_.promote() : database_.crash();
      server_is_up_ = false;
    }
    ground_.agenda.after(ground_.dice.between(Micros{0}, seconds{death.of_server ? 20 : 5}), [this] {
      server_is_up_ = true;
      const bool somebody_lives = std::ranges::any_of(workers_, [](const auto& each) { return !each->is_dead; });
      if (!somebody_lives) start_worker();
    });
  }
  std::erase_if(workers_, [](const auto& each) { return each->is_dead && !each->is_stopped; });
}

}  // namespace ops::sim
