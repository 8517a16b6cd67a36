// What a phase may await, and nothing else. A phase is a coroutine that reads top to bottom; after a restart it runs
// again from the top, and what it remembered or effected before returns at once.
//
//   const HttpResponse answer = co_await ctx.request(std::move(get));       // a read: repeated freely
//   const Json done = co_await ctx.effect(std::move(spec));                 // intent -> commit -> send -> outcome
//   co_await ctx.remember("digest", digest);                                // checkpoint
//   co_await ctx.sleep(10s);
//   ctx.event(Level::info, "image built", {{"digest", digest}}, "built");   // at most once per key
//
// g++ 12 destroys temporaries of co_await arguments twice in some forms: name an argument that owns memory
// (auto request = ...; co_await ctx.request(std::move(request));) and pass no braced list inside a co_await expression.
#pragma once

#include <coroutine>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/coroutine.hpp"
#include "core/http_message.hpp"
#include "core/phase_error.hpp"
#include "core/ports.hpp"
#include "core/run.hpp"

namespace ops {

class HostBudget;
class SessionTokens;

/// How often and how long a read is tried again. Waits: backoff with jitter, Retry-After, rate-limit reset.
struct RequestPolicy {
  int max_attempts = 8;                  ///< tries of one request, the first included; those in an outage do not count
  Millis give_up_after{15 * 60 * 1000};  ///< from the first try; waits for rate limits and outages count too
  bool retry_not_found = false;          ///< 404 is tried again (object may become visible late), then returned
};

/// What the answer to an effect's request means.
struct EffectVerdict {
  enum class Meaning { done, rejected, ambiguous };
  Meaning meaning = Meaning::ambiguous;
  Json outcome;                     ///< done
  std::optional<PhaseError> error;  ///< rejected: thrown from effect()

  static EffectVerdict done(Json outcome) { return {Meaning::done, std::move(outcome), {}}; }
  static EffectVerdict rejected(PhaseError error) { return {Meaning::rejected, {}, std::move(error)}; }
  static EffectVerdict ambiguous() { return {}; }
};

/// One request that changes something outside.
struct EffectSpec {
  std::string key;  ///< stable name within the phase; a changed meaning gets a new key
  EffectKind kind = EffectKind::keyed;
  HttpRequest request;
  /// Reads an answer that is neither throttled (429, rate-limited 403) nor lost (transport failure after sending, 408,
  /// 5xx): those are handled by effect() itself.
  std::function<EffectVerdict(const HttpResponse&)> interpret;
  /// Searches the service for the effect. Returns its outcome, or nothing when it is proven absent; waits by itself
  /// where the service shows objects late. Not called for kind `repeatable` (sent again) and `unkeyed`
  /// (the run waits for a person).
  std::function<Coroutine<std::optional<Json>>()> look;
  /// Puts a new session token into the request; called once, when the service answers 401 and so has done nothing.
  std::function<Coroutine<>(HttpRequest&)> renew;
};

/// Commands a phase hands to the loop; one at a time.
struct SendCommand {
  HttpRequest request;
};
struct SleepCommand {
  SteadyTime until;
};
struct CommitCommand {};  ///< go on when everything recorded so far is durable
using Command = std::variant<std::monostate, SendCommand, SleepCommand, CommitCommand>;

/// What the phases of one turn have produced for one run and not yet stored. Filled by PhaseContext, drained by the
/// loop.
struct PhaseWrites {
  std::vector<EventRecord> events;
  std::vector<EffectRecord> effects;  ///< last state wins per key
  std::vector<ArtifactRecord> artifacts;
  Json remembered = Json::object();  ///< keys added in this turn
};

/// Everything a PhaseContext needs from the worker that drives it.
struct PhaseEnvironment {
  Clock& clock;
  Random& random;
  HostBudget& budget;
  SessionTokens& tokens;
  Files& files;
  Millis retry_delay{1'000};  ///< wait before the first repetition; doubles up to 20 times this
};

class PhaseContext {
 public:
  /// @param phases   all phases of the run; outcomes of finished ones are read through outcome_of()
  /// @param effects  journal of this phase from earlier lives
  /// @param event_keys  `once` keys of events of this phase that are already stored
  PhaseContext(const RunFacts& run, PhaseFacts& phase, const std::vector<PhaseFacts>& phases,
               std::vector<EffectRecord> effects, std::set<std::string> event_keys, PhaseEnvironment environment);

  const RunFacts& run() const noexcept { return run_; }
  const PhaseFacts& phase() const noexcept { return phase_; }
  const Json& config() const noexcept { return phase_.config; }
  /// All phases of the run with their states and times, for reports.
  const std::vector<PhaseFacts>& phases() const noexcept { return phases_; }
  /// Outcome of the last succeeded phase of that kind; an empty object when there is none.
  const Json& outcome_of_kind(std::string_view kind) const;
  WallTime now() const;
  SteadyTime steady_now() const;

  /// A read. Retried by policy on lost connections, 408, 425, 429, 5xx and rate-limited 403; any other answer is
  /// returned as it is, whatever its status.
  /// @throws PhaseError  code service_unavailable (retries used up), refused_by_rule, tls_failed, bad_response (too
  ///                     large, not HTTP)
  /// @throws MustWait    the credential's secret does not exist
  Coroutine<HttpResponse> request(HttpRequest request, RequestPolicy policy = {});

  /// One try of a read without any retry: failures and all statuses are returned. For checks that are themselves
  /// retried.
  Coroutine<HttpResponse> request_once(HttpRequest request);

  /// Performs the effect at most once as far as the service can show it and returns its outcome; at once when an
  /// earlier life already did. Where run().look_first says so, it is looked for even before its first sending. The
  /// intent is committed before the request leaves, since the loop sends only after its commit.
  /// @throws PhaseError  what interpret() rejected with; MustWait("decision") when nobody can know
  Coroutine<Json> effect(EffectSpec spec);

  /// Journal entry of an effect of this phase, or null. For cancel coroutines: what is out there?
  const EffectRecord* effect_record(std::string_view key) const;
  /// What an effect has left outside cannot be told: a person decides (ops.resolve_effect), the run waits.
  /// @param outcome  what they may pass as its outcome, for the hint
  [[noreturn]] void await_decision(std::string_view key, const std::string& what, const Json& outcome);
  /// False when this effect was certainly never sent, or is proven absent.
  bool may_be_outside(std::string_view key) const;

  /// Checkpoint from this or an earlier life.
  std::optional<Json> recall(std::string_view key) const;
  /// Stores a checkpoint and returns what holds from now on: the older value if there is one.
  /// Durable with the turn's commit; no wait.
  Json remember(std::string key, Json value);

  /// Records an event. With `once`, a second event with that key in this phase is dropped, also after a restart.
  void event(Level level, std::string message, Json payload = Json::object(), std::string once = {});
  void artifact(ArtifactRecord record);

  /// Suspends to the loop, which carries out the pending command. Holds no memory of its own: g++ 12 destroys awaiters
  /// that are aggregates with members twice.
  class [[nodiscard]] CommandAwaiter {
   public:
    explicit CommandAwaiter(PhaseContext& context) noexcept : context_(context) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> caller) noexcept { context_.waiting_ = caller; }
    void await_resume() const noexcept {}

   private:
    PhaseContext& context_;
  };
  CommandAwaiter sleep(Millis duration) { return sleep_until(steady_now() + duration); }
  CommandAwaiter sleep_until(SteadyTime time) { return suspend_with(SleepCommand{time}); }
  /// Goes on when everything recorded so far is durable.
  CommandAwaiter committed() { return suspend_with(CommitCommand{}); }

  /// A new empty file that goes when its last holder does.
  std::shared_ptr<ScratchFile> scratch_file();
  SessionTokens& tokens() noexcept { return environment_.tokens; }
  /// Uniform in [0, 1).
  double random();

  // For the driver -----------------------------------------------------------------------------------------------
  Command take_command() { return std::exchange(pending_, Command{}); }
  /// The request that the loop is to send, where it changes nothing outside.
  const HttpRequest* pending_read() const;
  void deliver(HttpResponse response) { response_ = std::move(response); }
  std::coroutine_handle<> take_waiting() { return std::exchange(waiting_, {}); }
  PhaseWrites take_writes() { return std::exchange(writes_, PhaseWrites{}); }
  bool has_writes() const;
  /// Something of this phase is, or may be, outside: it must be stopped when the run is cancelled.
  bool has_begun_outside() const;
  /// A request that changes something is on the wire: its answer must be heard before the phase is dropped.
  bool effect_in_flight() const noexcept { return effect_in_flight_; }
  /// While set, effect() sends nothing new and waits to be dropped: the phase is about to be stopped.
  void refuse_effects(bool refuse) noexcept { refuse_effects_ = refuse; }

 private:
  CommandAwaiter suspend_with(Command command) {
    pending_ = std::move(command);
    return CommandAwaiter(*this);
  }
  /// Waits until the request may leave. @param mind_outages  during an outage of its service it waits to be the probe
  Coroutine<> admit(const HttpRequest& request, bool mind_outages);
  /// Waits while the service refuses the credential, at most until the secret is replaced.
  Coroutine<> await_credential(const HttpRequest& request);
  /// What an answer says about the health of its service. True while the service has an outage.
  bool learn_health(const HttpRequest& request, const HttpResponse& response);
  /// What it says about rate limits and the credential: until when the service takes nothing, if it was throttled.
  std::optional<SteadyTime> learn_limits(const HttpRequest& request, const HttpResponse& response);
  Coroutine<HttpResponse> send(HttpRequest request);
  Coroutine<std::optional<Json>> recover(EffectRecord& entry, const EffectSpec& spec, std::string why);
  Millis backoff(int attempt);
  void throw_if_permanent(const HttpRequest& request, const HttpResponse& response) const;
  void settle(EffectRecord& entry, EffectState state, Json outcome = nullptr);

  const RunFacts& run_;
  PhaseFacts& phase_;
  const std::vector<PhaseFacts>& phases_;
  std::map<std::string, EffectRecord, std::less<>> journal_;
  std::set<std::string> event_keys_;
  PhaseEnvironment environment_;

  Command pending_;
  std::coroutine_handle<> waiting_;
  HttpResponse response_;
  PhaseWrites writes_;
  bool effect_in_flight_ = false;
  bool refuse_effects_ = false;
  bool outage_told_ = false;
  bool refusal_told_ = false;
};

}  // namespace ops
