// A world without a server: the real loop and phases over a store in memory, a scripted service and a clock that jumps
// from timer to timer. Everything a run does happens inside run_until_idle().
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/run_loop.hpp"
#include "memory_store.hpp"

namespace ops::test {

class VirtualClock final : public Clock {
 public:
  WallTime now() const override { return WallTime{std::chrono::seconds{1'800'000'000}} + elapsed_; }
  SteadyTime steady_now() const override { return SteadyTime{elapsed_}; }
  void advance_to(SteadyTime time) { elapsed_ = std::max(elapsed_, time.time_since_epoch()); }

 private:
  std::chrono::microseconds elapsed_{1'000'000};
};

class FixedRandom final : public Random {
 public:
  double uniform() override { return 0.5; }
};

class MemoryCrashMark final : public CrashMark {
 public:
  void set(std::string_view run_id) noexcept override { marked = run_id; }
  void clear() noexcept override { marked.clear(); }
  std::string marked;
};

class MemoryFiles final : public Files {
 public:
  std::shared_ptr<ScratchFile> create() override {
    class Named final : public ScratchFile {
     public:
      const std::string& path() const override { return path_; }

     private:
      std::string path_ = "scratch";
    };
    return std::make_shared<Named>();
  }
};

/// Answers requests by a function in the turn after they were sent; those to `held` URLs when they are let go.
class ScriptedTransport final : public Transport {
 public:
  using Service = std::function<HttpResponse(const HttpRequest&)>;
  explicit ScriptedTransport(Service service) : service_(std::move(service)) {}
  void start(TransferId id, HttpRequest request) override {
    sent.push_back(request);
    (held.contains(request.url) ? held_ : finished_).push_back({id, service_(request)});
  }
  bool can_start_in_transaction(const HttpRequest&) const override { return starts_in_transactions; }
  void advance() override {}
  void abandon(TransferId id) override {
    const auto is_it = [&](const FinishedTransfer& finished) { return finished.id == id; };
    abandoned += std::erase_if(finished_, is_it) + std::erase_if(held_, is_it);
  }
  void let_go() {
    held.clear();
    std::ranges::move(std::exchange(held_, {}), std::back_inserter(finished_));
  }
  std::vector<FinishedTransfer> take_finished() override { return std::exchange(finished_, {}); }
  std::size_t in_flight() const override { return finished_.size(); }

  std::vector<HttpRequest> sent;
  std::set<std::string> held;
  std::size_t abandoned = 0;
  bool starts_in_transactions = true;

 private:
  Service service_;
  std::vector<FinishedTransfer> finished_;
  std::vector<FinishedTransfer> held_;
};

inline HttpResponse answer(int status, const Json& body = nullptr) {
  HttpResponse response;
  response.request_sent = true;
  response.status = status;
  response.headers = {{"Content-Type", "application/json"}};
  if (!body.is_null()) response.body = body.dump();
  return response;
}

inline HttpResponse lost(bool sent) {
  HttpResponse response;
  response.failure = TransportFailure::reset;
  response.request_sent = sent;
  return response;
}

inline PhaseFacts phase(const std::string& name, const std::string& kind, std::vector<std::string> needs = {}) {
  PhaseFacts facts;
  facts.name = name;
  facts.kind = kind;
  facts.needs = std::move(needs);
  facts.timeout = std::chrono::hours{1};
  return facts;
}

class World {
 public:
  World(PhaseCatalog catalog, ScriptedTransport::Service service)
      : catalog_(std::move(catalog)), transport(std::move(service)) {
    restart();
  }

  /// A new life of the worker: everything in memory is gone.
  void restart() {
    LoopSettings settings;
    settings.mutation_interval = Millis{0};
    loop = std::make_unique<RunLoop>(Ports{store, transport, clock, random_, files_, crash_mark}, catalog_, "worker",
                                     settings, [this](const std::string& problem) { reports.push_back(problem); });
  }

  void queue(const std::string& run_id, std::vector<PhaseFacts> phases) {
    ClaimedRun run;
    run.facts.run_id = run_id;
    run.facts.repo_slug = "acme/odoo";
    int number = 0;
    for (PhaseFacts& facts : phases) facts.phase_no = ++number;
    run.phases = std::move(phases);
    store.queue(std::move(run));
    loop->ring_queue();
  }

  /// Turns the loop, jumping over waits, until nothing is left to do or `stop` says so. Bounded.
  void run_until_idle(const std::function<bool()>& stop = [] { return false; }) {
    for (int turns = 0; turns < 10'000 && !stop(); ++turns) {
      const bool more = loop->turn();
      if (more || transport.in_flight() > 0) continue;
      const auto next = loop->next_deadline();
      if (!next || stop()) return;
      clock.advance_to(*next);
    }
  }

  RunStatus status(const std::string& run_id) const { return store.runs.at(run_id).run.status; }
  std::vector<std::string> messages(const std::string& run_id) const {
    std::vector<std::string> texts;
    for (const EventRecord& event : store.runs.at(run_id).events) texts.push_back(event.message);
    return texts;
  }

 private:
  PhaseCatalog catalog_;
  FixedRandom random_;
  MemoryFiles files_;

 public:
  VirtualClock clock;
  MemoryStore store;
  ScriptedTransport transport;
  MemoryCrashMark crash_mark;
  std::unique_ptr<RunLoop> loop;
  std::vector<std::string> reports;
};

}  // namespace ops::test
