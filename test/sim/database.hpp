// The model of the database: rows of runs, commits that are visible at once and durable when they are flushed, locks
// that prove that a worker lives, and what ops.cancel_run and the like do. Rules as in sql/install and
// src/pg/run_store.cpp.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/ports.hpp"
#include "agenda.hpp"
#include "defects.hpp"
#include "scene.hpp"

namespace ops::sim {

struct StoredPhase {
  PhaseState state = PhaseState::pending;
  int attempt = 0;
  std::optional<WallTime> started_at;
  std::optional<WallTime> finished_at;
  Json remembered = Json::object();
  Json outcome = Json::object();
};

struct StoredEffect {
  EffectRecord record;
  std::uint64_t commit = 0;  ///< number of the commit that stored it
};

/// What changes of a run. A transaction works on a copy.
struct RunRow {
  std::vector<RunStatus> history{RunStatus::queued};  ///< every status so far
  std::string waiting_for;
  std::string claim_token;
  std::string worker_id;  ///< holder of the slot
  int attempt = 0;
  bool cancel_requested = false;
  int crashes = 0;
  bool look_first = false;
  bool cancel_rung = false;  ///< the holder has not been told yet
  std::size_t last_seq = 0;
  std::vector<StoredPhase> phases;
  std::vector<StoredEffect> effects;
  std::vector<ArtifactRecord> artifacts;

  RunStatus status() const { return history.back(); }
  bool is_active() const { return status() == RunStatus::claimed || status() == RunStatus::running; }
};

struct StoredRun {
  std::shared_ptr<const RunPlan> plan;
  RunRow row;
  std::vector<EventRecord> events;
};

/// Told of everything that is stored and given out; finds what must not be.
class Witness {
 public:
  virtual ~Witness() = default;
  virtual void committed(const std::string& run_id, const RunRow& before, const StoredRun& after) = 0;
  virtual void given_out(const std::string& run_id, const std::string& claim_token, const std::string& worker_id) = 0;
  virtual void accepted(const std::string& run_id, const std::string& claim_token) = 0;
  /// A run that was queued is not there any more: a promotion has lost it.
  virtual void lost(const std::string& run_id) = 0;
};

class Database {
 public:
  Database(Agenda& agenda, Dice& dice, const Defects& defects) : agenda_(agenda), dice_(dice), defects_(defects) {}
  void set_witness(Witness& witness) { witness_ = &witness; }

  // As people do it; each a transaction that is flushed. False: refused with an error.
  void queue(std::shared_ptr<const RunPlan> plan);
  bool cancel_run(const std::string& run_id);
  bool reset_run(const std::string& run_id);
  bool resolve_effect(const std::string& run_id, const std::string& key, EffectState state);

  // As the worker does it beside its turns.
  void register_life(const std::string& worker_id, Micros lease);
  /// Its session lock is gone.
  void end_life(const std::string& worker_id);
  /// The life before ended while it was resuming this run.
  void note_crash(const std::string& run_id);
  std::vector<ClaimedRun> take_over(const std::string& worker_id, const std::vector<std::string>& held);
  struct SafetyReport {
    bool queue = false;
    bool cancel = false;
    std::size_t runs = 0;
    std::set<std::string> missing_secrets;
  };
  SafetyReport safety_check(const std::string& worker_id);
  void requeue_waiting_for_secret(const std::string& name);

  /// The server goes down: of the commits that were not flushed, only the first ones survive.
  void crash();
  /// A standby takes its place, which lacks the newest commits, flushed or not.
  void promote();

  const std::map<std::string, StoredRun>& runs() const { return runs_; }
  bool is_durable(const StoredEffect& effect) const { return effect.commit <= flushed_; }
  /// Since when this worker is dead; nothing: it lives.
  std::optional<SteadyTime> dead_since(const std::string& worker_id) const;
  bool has_lease(const std::string& worker_id) const;
  std::size_t begun() const { return begun_; }
  int open_transactions() const { return open_; }
  int open_claims() const { return open_claims_; }  ///< open transactions that have claimed something

  /// Bells that a commit rings.
  std::function<void()> ring_queue = [] {};
  std::function<void()> ring_cancel = [] {};

 private:
  friend class Transaction;
  friend class Session;
  struct Life {
    SteadyTime lease_until;
    std::optional<SteadyTime> ended;
  };
  struct Before {
    std::string run_id;
    bool existed = true;
    RunRow row;
  };
  struct Commit {
    SteadyTime time;
    std::vector<Before> before;  ///< how to take it back
  };
  struct Change {
    RunRow row;
    std::vector<EventRecord> events;
  };
  using Changes = std::map<std::string, Change>;

  Change& changed(Changes& changes, const std::string& run_id) const;
  void write_event(Change& change, Level level, std::string message) const;
  void give_back(Change& change, const std::string& why) const;
  void rescue_expired_claims(const std::string& worker_id);
  void keep(Commit commit, bool flush);
  void apply(Changes changes, bool flush);
  void undo_newest();
  ClaimedRun claimed(const StoredRun& stored, const RunRow& row) const;
  std::string new_token();

  Agenda& agenda_;
  Dice& dice_;
  const Defects& defects_;
  Witness* witness_ = nullptr;
  std::map<std::string, StoredRun> runs_;
  std::map<std::string, Life> lives_;
  std::deque<Commit> newest_;  ///< commits that may still be lost, oldest first
  Changes late_;               ///< defect commits_late
  std::uint64_t commits_ = 0;
  std::uint64_t flushed_ = 0;
  std::size_t transactions_ = 0;
  std::size_t begun_ = 0;  ///< by workers
  int open_ = 0;
  int open_claims_ = 0;
  int tokens_ = 0;
};

/// The Store port for one life of the worker.
class Session final : public Store {
 public:
  /// @param at_point  called where the worker may die; the name tells where
  /// @param may_fail  throws where a transaction may fail
  Session(Database& database, std::string worker_id, std::function<void(const char*)> at_point,
          std::function<void()> may_fail)
      : database_(database),
        worker_id_(std::move(worker_id)),
        at_point_(std::move(at_point)),
        may_fail_(std::move(may_fail)) {}
  std::unique_ptr<StoreTransaction> begin() override;

 private:
  friend class Transaction;
  Database& database_;
  std::string worker_id_;
  std::function<void(const char*)> at_point_;
  std::function<void()> may_fail_;
};

}  // namespace ops::sim
