// One life of the worker: the real loop with its ports, and around it what src/pg/worker_main.cpp does.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <utility>

#include "core/run_loop.hpp"
#include "database.hpp"
#include "inspector.hpp"
#include "scratch_memory.hpp"
#include "wire.hpp"

namespace ops::sim {

/// The CrashMark port: what it holds outlives the worker.
class KeptMark final : public CrashMark {
 public:
  void set(std::string_view run_id) noexcept override { run_id_ = run_id; }
  void clear() noexcept override {
    if (!frozen_) run_id_.clear();
  }
  /// The worker dies: nobody clears the mark on the way out.
  void freeze() { frozen_ = true; }
  std::string left_behind() {
    frozen_ = false;
    return std::exchange(run_id_, {});
  }

 private:
  std::string run_id_;
  bool frozen_ = false;
};

class Worker {
 public:
  struct Hooks {
    std::function<void(Worker&, const char*)> at_point;  ///< may end or stop this life
    std::function<void()> may_fail;                      ///< may make a transaction fail
  };
  Worker(Ground& ground, Database& database, Services& services, Inspector& inspector,
         const std::set<std::string>& secrets, const PhaseCatalog& catalog, KeptMark& mark, std::string id,
         Hooks hooks);

  /// One pass of the worker's main loop.
  void step();
  /// When it wants to make its next pass.
  SteadyTime wakes() const;
  void ring_queue() { queue_rung_ = true; }
  void ring_cancel() { cancel_rung_ = true; }
  const std::string& id() const { return id_; }

  bool is_stopped = false;  ///< as by SIGSTOP
  bool is_dead = false;
  SteadyTime up_since;  ///< born, or going on after it was stopped

 private:
  class DiceRandom final : public Random {
   public:
    DiceRandom(Dice& dice, std::function<void(const char*)> at_point) : dice_(dice), at_point_(std::move(at_point)) {}
    double uniform() override {
      at_point_("resume");
      return dice_.uniform();
    }

   private:
    Dice& dice_;
    std::function<void(const char*)> at_point_;
  };
  void check_safety();
  LoopSettings settings() const;

  Ground& ground_;
  Database& database_;
  Inspector& inspector_;
  const std::set<std::string>& secrets_;
  std::string id_;
  std::function<void(const char*)> at_point_;
  KeptMark& mark_;
  Session session_;
  Wire wire_;
  DiceRandom random_;
  ScratchMemories files_;
  RunLoop loop_;
  SteadyTime next_check_{};
  bool started_ = false;
  bool more_ = true;
  bool queue_rung_ = true;
  bool cancel_rung_ = true;
};

}  // namespace ops::sim
