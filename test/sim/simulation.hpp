// One simulated world, from its seed to the end of its last run.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "database.hpp"
#include "ground.hpp"
#include "inspector.hpp"
#include "outcome.hpp"
#include "people.hpp"
#include "services.hpp"
#include "worker.hpp"

namespace ops::sim {

/// What happened in it, summed up.
struct Tally {
  std::uint64_t runs = 0;
  std::uint64_t succeeded = 0;
  std::uint64_t failed = 0;
  std::uint64_t cancelled = 0;
  std::uint64_t deaths = 0;   ///< of workers, with and without their server
  std::uint64_t crashes = 0;  ///< of the server
  std::uint64_t stops = 0;
  std::uint64_t steps = 0;

  void add(const Tally& other);
  std::string text() const;
};

class Simulation {
 public:
  Simulation(std::uint64_t seed, const Defects& defects, Trace::Mode mode);

  /// Nothing: every invariant held.
  std::optional<Broken> run();
  const Tally& tally() const { return tally_; }
  std::uint64_t trace_hash() const { return ground_.trace.hash(); }

 private:
  void run_until(SteadyTime end, bool until_all_ended);
  void step(Worker& worker);
  void start_worker();
  void at_point(Worker& worker, const std::string& point);
  [[noreturn]] void die(bool of_server, const std::string& point);
  void stop(Worker& worker);
  void bury(Worker& worker, const Death& death);
  void calm_down();
  bool all_ended() const;
  Worker* next_worker() const;

  Ground ground_;
  const PhaseCatalog& catalog_;
  Scene scene_;
  Services services_;
  Database database_;
  Inspector inspector_;
  People people_;
  KeptMark mark_;
  std::vector<std::unique_ptr<Worker>> workers_;
  bool server_is_up_ = true;
  bool is_calm_ = false;
  bool is_stopping_ = false;  ///< somebody is stopped: one is enough
  int last_life_ = 0;
  Tally tally_;
};

}  // namespace ops::sim
