// What the core needs from outside. The server, the unit tests and the simulation each bring their own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/http_message.hpp"
#include "core/run.hpp"

namespace ops {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime now() const = 0;
  virtual SteadyTime steady_now() const = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  /// Uniform in [0, 1).
  virtual double uniform() = 0;
};

class Files {
 public:
  virtual ~Files() = default;
  virtual std::shared_ptr<ScratchFile> create() = 0;
};

/// Secret values by name, read when a request is sent and not kept.
class SecretSource {
 public:
  virtual ~SecretSource() = default;
  /// Nothing when there is none of that name.
  /// @throws std::runtime_error  it cannot be known now
  virtual std::optional<SecretString> find(std::string_view name) = 0;
  /// find() begins a transaction of the store.
  virtual bool reads_store() const { return false; }
};

using TransferId = std::uint64_t;

struct FinishedTransfer {
  TransferId id;
  HttpResponse response;
};

class Transport {
 public:
  virtual ~Transport() = default;
  /// Begins to send. The answer, also a refusal, comes through take_finished(); never from inside start().
  virtual void start(TransferId id, HttpRequest request) = 0;
  /// Whether it can be started while a transaction of the store is open.
  virtual bool can_start_in_transaction(const HttpRequest& request) const = 0;
  /// Sends what was started, as far as that goes without waiting.
  /// @throws std::bad_alloc  transfers may be lost
  virtual void advance() = 0;
  /// Forgets the transfer; its answer will not come.
  virtual void abandon(TransferId id) = 0;
  virtual std::vector<FinishedTransfer> take_finished() = 0;
  virtual std::size_t in_flight() const = 0;
};

/// A run as it was claimed, with what earlier lives left behind.
struct ClaimedRun {
  RunFacts facts;
  std::string claim_token;
  RunStatus status = RunStatus::claimed;  ///< running when taken over
  std::vector<PhaseFacts> phases;
  std::vector<EffectRecord> effects;
  std::vector<std::pair<std::string, std::string>> event_keys;  ///< phase, once
  bool cancel_requested = false;
  std::string cancel_reason;
};

struct PhaseWrite {
  int phase_no = 0;
  std::string name;
  PhaseState state = PhaseState::running;
  int attempt = 1;
  std::optional<WallTime> started_at;
  std::optional<WallTime> finished_at;
  Json remembered;  ///< keys to add; null: none
  Json outcome;     ///< null: unchanged
};

/// Everything one turn has produced for one run. Stored together or not at all.
struct RunWrites {
  std::string run_id;
  std::string claim_token;
  std::optional<RunStatus> status;  ///< new status, when it changes
  std::string waiting_for;          ///< with status waiting
  Json metadata;                    ///< to merge; null: nothing
  std::vector<EventRecord> events;
  std::vector<PhaseWrite> phases;
  std::vector<EffectRecord> effects;
  std::vector<ArtifactRecord> artifacts;
  bool needs_flush = false;  ///< an intent or a final status: commit synchronously
};

struct CancelRequest {
  std::string run_id;
  std::string reason;
};

/// Thrown by a store that cannot do it now, whatever it was asked: a deadlock, a lock that somebody holds, a full disk.
class StoreBusy : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// One transaction. Destroyed without commit() it leaves nothing behind. Any call may throw.
class StoreTransaction {
 public:
  virtual ~StoreTransaction() = default;
  /// Takes at most `limit` runs that may start now.
  virtual std::vector<ClaimedRun> claim(int limit) = 0;
  /// Stores the writes of several runs; returns the runs whose claim token is no longer valid (nothing of them stored).
  virtual std::set<std::string> record(const std::vector<RunWrites>& writes) = 0;
  /// Makes this worker's lease end `lease` from now and returns the runs that it still holds.
  virtual std::set<std::string> renew_lease(Millis lease) = 0;
  /// Cancel requests for runs of this worker that it has not been told of.
  virtual std::vector<CancelRequest> cancel_requests() = 0;
  virtual void commit(bool flush) = 0;
};

class Store {
 public:
  virtual ~Store() = default;
  virtual std::unique_ptr<StoreTransaction> begin() = 0;
};

/// Remembers outside of this process which run is being resumed: a run that takes the process down is known to its next
/// life.
class CrashMark {
 public:
  virtual ~CrashMark() = default;
  virtual void set(std::string_view run_id) noexcept = 0;
  virtual void clear() noexcept = 0;
};

/// All of them, for the loop.
struct Ports {
  Store& store;
  Transport& transport;
  Clock& clock;
  Random& random;
  Files& files;
  CrashMark& crash_mark;
};

}  // namespace ops
