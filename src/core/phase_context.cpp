#include "core/phase_context.hpp"

#include <algorithm>
#include <utility>

#include "core/crypto.hpp"
#include "core/host_budget.hpp"
#include "core/json.hpp"
#include "core/redact.hpp"
#include "core/session_tokens.hpp"
#include "core/url.hpp"

namespace ops {

namespace {

constexpr int most_sends_of_an_effect = 8;
constexpr int longest_backoff_factor = 20;
/// An effect is tried this long while its service has an outage.
constexpr Millis patience_with_outage = std::chrono::minutes{15};

/// Method and URL as they may be shown: without the query, which may hold a signature.
std::string shown(const HttpRequest& request) {
  const auto url = parse_url(request.url);
  return std::string(to_string(request.method)) + ' ' + (url ? url->without_query() : redact(request.url));
}

bool is_lost(TransportFailure failure) {
  switch (failure) {
    case TransportFailure::dns:
    case TransportFailure::connect:
    case TransportFailure::timeout:
    case TransportFailure::reset:
      return true;
    default:
      return false;
  }
}

bool is_transient_status(int status) {
  return status == 408 || status == 425 || (status >= 500 && status <= 599);
}

bool is_conflict(const HttpResponse& response) {
  return response.failure == TransportFailure::none && (response.status == 409 || response.status == 422);
}

std::string request_hash(const HttpRequest& request) {
  std::string text(to_string(request.method));
  text += '\n';
  text += request.url;
  text += '\n';
  text += request.body_file ? request.body_sha256 : request.body;
  return sha256_hex(text);
}

std::string what_came(const HttpResponse& response) {
  if (response.failure == TransportFailure::none) return "status " + std::to_string(response.status);
  return std::string(to_string(response.failure)) + ": " + response.failure_text;
}

std::string hint_for(const HttpResponse& response) {
  if (response.failure == TransportFailure::exhausted)
    return "Raise the limit of open files of the database server (ulimit -n, LimitNOFILE), then retry the run.";
  return "Look at the service's status page and at the network between this server and the service, then retry the "
         "run.";
}

}  // namespace

PhaseContext::PhaseContext(const RunFacts& run, PhaseFacts& phase, const std::vector<PhaseFacts>& phases,
                           std::vector<EffectRecord> effects, std::set<std::string> event_keys,
                           PhaseEnvironment environment)
    : run_(run), phase_(phase), phases_(phases), event_keys_(std::move(event_keys)), environment_(environment) {
  for (EffectRecord& effect : effects) {
    std::string key = effect.key;
    journal_.emplace(std::move(key), std::move(effect));
  }
}

const Json& PhaseContext::outcome_of_kind(std::string_view kind) const {
  static const Json nothing = Json::object();
  const Json* found = &nothing;
  for (const PhaseFacts& phase : phases_)
    if (phase.kind == kind && phase.state == PhaseState::succeeded) found = &phase.outcome;
  return *found;
}

WallTime PhaseContext::now() const {
  return environment_.clock.now();
}
SteadyTime PhaseContext::steady_now() const {
  return environment_.clock.steady_now();
}
double PhaseContext::random() {
  return environment_.random.uniform();
}
std::shared_ptr<ScratchFile> PhaseContext::scratch_file() {
  return environment_.files.create();
}

bool PhaseContext::has_writes() const {
  return !writes_.events.empty() || !writes_.effects.empty() || !writes_.artifacts.empty() ||
         !writes_.remembered.empty();
}

// Requests ---------------------------------------------------------------------------------------------------------

Coroutine<> PhaseContext::await_credential(const HttpRequest& request) {
  HostBudget& budget = environment_.budget;
  while (const auto refusal = budget.refusal(run_.project_id, request, steady_now())) {
    const std::string& name = request.credential->secret_name;
    if (!refusal->version.empty()) {
      HttpRequest look;
      look.url = request.url;
      look.credential = request.credential;
      look.only_resolve = true;
      HttpRequest sent = look;
      const HttpResponse resolved = co_await send(std::move(sent));
      throw_if_permanent(look, resolved);
      if (resolved.failure == TransportFailure::none && resolved.credential_version != refusal->version) {
        budget.forget_refusal(run_.project_id, request);
        break;
      }
    }
    if (!std::exchange(refusal_told_, true))
      event(Level::warn,
            shown(request) + " waits: the service has refused the secret \"" + name +
                "\" to a run of this project; it is tried again when it has been replaced, and now and then",
            {{"request", shown(request)}, {"secret", name}});
    co_await sleep_until(std::min(refusal->next_probe, steady_now() + budget.look_interval()));
  }
}

Coroutine<> PhaseContext::admit(const HttpRequest& request, bool mind_outages) {
  for (;;) {
    co_await await_credential(request);
    const SteadyTime now = steady_now();
    SteadyTime earliest = std::max(environment_.budget.earliest(request, now),
                                   environment_.budget.first_shown(run_.project_id, request, now));
    if (mind_outages) earliest = std::max(earliest, environment_.budget.next_probe(request, now));
    if (earliest <= now) break;
    if (mind_outages && environment_.budget.has_outage(request) && !std::exchange(outage_told_, true))
      event(Level::warn, shown(request) + " waits: its service fails for everybody and is tried now and then",
            {{"request", shown(request)}});
    co_await sleep_until(earliest);
  }
  environment_.budget.sent(request, steady_now());
  environment_.budget.credential_shown(run_.project_id, request, steady_now());
  if (mind_outages) environment_.budget.probe_sent(request, steady_now());
}

bool PhaseContext::learn_health(const HttpRequest& request, const HttpResponse& response) {
  const bool answered = response.failure == TransportFailure::none;
  if (answered || is_lost(response.failure)) {  // else it did not come as far as the service
    const bool failed = !answered || is_transient_status(response.status);
    environment_.budget.observe_health(request, failed, steady_now());
    if (!failed) outage_told_ = false;
  }
  return environment_.budget.has_outage(request);
}

std::optional<SteadyTime> PhaseContext::learn_limits(const HttpRequest& request, const HttpResponse& response) {
  const auto closed_until = environment_.budget.observe(request, response, steady_now(), now());
  if (!closed_until) environment_.budget.observe_credential(run_.project_id, request, response, steady_now());
  return closed_until;
}

Coroutine<HttpResponse> PhaseContext::send(HttpRequest request) {
  pending_ = SendCommand{std::move(request)};
  co_await CommandAwaiter(*this);
  co_return std::move(response_);
}

const HttpRequest* PhaseContext::pending_read() const {
  const auto* send = std::get_if<SendCommand>(&pending_);
  if (send == nullptr || effect_in_flight_ || is_changing(send->request.method)) return nullptr;
  return &send->request;
}

Millis PhaseContext::backoff(int attempt) {
  const int doubled = 1 << std::min(attempt - 1, 10);
  const Millis longest = environment_.retry_delay * std::min(doubled, longest_backoff_factor);
  return Millis{static_cast<Millis::rep>(static_cast<double>(longest.count()) * (0.5 + 0.5 * random()))};
}

void PhaseContext::throw_if_permanent(const HttpRequest& request, const HttpResponse& response) const {
  if (response.failure == TransportFailure::none) return;
  const std::string where = shown(request);
  switch (response.failure) {
    case TransportFailure::refused_by_rule:
      throw PhaseError("refused_by_rule", where + " was not sent: " + response.failure_text,
                       "List the host in ops_runner.allowed_hosts if it is meant to be called, or correct the "
                       "environment's config.");
    case TransportFailure::secret_missing:
      throw MustWait(
          "secret:" + (request.credential ? request.credential->secret_name : std::string()),
          where + " needs a secret that does not exist: " + response.failure_text,
          "Create it in the vault or as a file in ops_runner.secrets_directory; the run then goes on by itself.");
    case TransportFailure::secret_malformed:
      throw PhaseError("secret_malformed", where + " was not sent: " + response.failure_text,
                       "Store the secret in the form that the README gives for its kind, then retry the run.");
    case TransportFailure::tls:
      throw PhaseError(
          "tls_failed", where + " was not sent: " + response.failure_text,
          "The service's certificate must be valid for its name and issued by a CA of ops_runner.ca_file or "
          "of the system; where ops_runner.tls_pins names the host, its key must be one of those.");
    case TransportFailure::too_large:
      throw PhaseError("bad_response", where + " answered with too much: " + response.failure_text,
                       "Check that the URL is the service's API and not a download or a page.");
    case TransportFailure::protocol:
      throw PhaseError("bad_response", where + " did not answer in HTTP: " + response.failure_text,
                       "Check that the URL and port are those of the service.");
    case TransportFailure::scratch_file:
      throw PhaseError("disk_full", where + ": " + response.failure_text,
                       "Free space in the server's temporary directory, then retry the run.");
    default:
      return;
  }
}

Coroutine<HttpResponse> PhaseContext::request_once(HttpRequest request) {
  co_await admit(request, false);
  HttpRequest copy = request;
  HttpResponse response = co_await send(std::move(copy));
  learn_limits(request, response);
  co_return response;
}

Coroutine<HttpResponse> PhaseContext::request(HttpRequest request, RequestPolicy policy) {
  const SteadyTime give_up = steady_now() + policy.give_up_after;
  int tries = 0;
  for (int attempt = 1;;) {
    co_await admit(request, true);
    HttpRequest copy = request;
    HttpResponse response = co_await send(std::move(copy));
    ++tries;
    throw_if_permanent(request, response);
    const bool outage = learn_health(request, response);

    if (const auto closed_until = learn_limits(request, response)) {
      const auto wait = std::chrono::duration_cast<std::chrono::seconds>(*closed_until - steady_now()).count();
      if (*closed_until > give_up)
        throw PhaseError("rate_limited",
                         shown(request) + " is rate limited for another " + std::to_string(wait) +
                             " s, longer than this phase waits",
                         "Retry the run later, or give the credential a higher limit.");
      event(Level::warn, "rate limited by the service; going on in " + std::to_string(wait) + " s",
            {{"request", shown(request)}, {"status", response.status}, {"wait_s", wait}});
      continue;  // admit() waits; a throttled request had no effect and is no attempt
    }

    const bool transient = is_lost(response.failure) || response.failure == TransportFailure::exhausted ||
                           is_transient_status(response.status) || (policy.retry_not_found && response.status == 404);
    if (!transient) co_return response;

    Millis wait = backoff(attempt);
    if (const auto asked = retry_after(response, now())) wait = std::max(wait, *asked);
    if ((attempt >= policy.max_attempts && !outage) || steady_now() + wait > give_up) {
      if (response.failure == TransportFailure::none && response.status == 404) co_return response;
      throw PhaseError(
          "service_unavailable",
          shown(request) + " failed " + std::to_string(tries) + " times, the last time with " + what_came(response),
          hint_for(response), {{"attempts", tries}, {"status", response.status}});
    }
    event(Level::debug, shown(request) + " failed with " + what_came(response) + "; trying again",
          {{"attempt", tries}, {"wait_ms", wait.count()}});
    if (!outage) ++attempt;
    co_await sleep(wait);
  }
}

// Effects ----------------------------------------------------------------------------------------------------------

const EffectRecord* PhaseContext::effect_record(std::string_view key) const {
  const auto found = journal_.find(key);
  return found == journal_.end() ? nullptr : &found->second;
}

void PhaseContext::await_decision(std::string_view key, const std::string& what, const Json& outcome) {
  settle(journal_.find(key)->second, EffectState::needs_decision);
  throw MustWait("decision", what,
                 "Look at the service and decide with ops.resolve_effect(run, '" + std::string(key) +
                     "', 'done', reason, '" + dump_json(outcome) + "').");
}

bool PhaseContext::may_be_outside(std::string_view key) const {
  const EffectRecord* record = effect_record(key);
  return record == nullptr ? run_.look_first : record->state != EffectState::absent;
}

bool PhaseContext::has_begun_outside() const {
  return std::ranges::any_of(journal_, [](const auto& entry) { return entry.second.state != EffectState::absent; });
}

void PhaseContext::settle(EffectRecord& entry, EffectState state, Json outcome) {
  entry.state = state;
  entry.outcome = std::move(outcome);
  for (EffectRecord& written : writes_.effects)
    if (written.key == entry.key) {
      written = entry;
      return;
    }
  writes_.effects.push_back(entry);
}

/// What became of a request whose answer is unknown: its outcome, or nothing when it may be sent (again).
Coroutine<std::optional<Json>> PhaseContext::recover(EffectRecord& entry, const EffectSpec& spec, std::string why) {
  if (spec.kind == EffectKind::repeatable) co_return std::nullopt;
  if (spec.kind == EffectKind::unkeyed) {
    settle(entry, EffectState::needs_decision);
    throw MustWait("decision", "it is unknown whether " + entry.target + " (" + spec.key + ") took effect",
                   "Look at the service and decide with ops.resolve_effect(run, key, 'done' | 'absent', reason).");
  }
  if (entry.state != EffectState::uncertain) settle(entry, EffectState::uncertain);
  event(Level::warn, why + "; looking for its effect before anything is sent",
        {{"effect", spec.key}, {"attempt", entry.attempt}});
  std::optional<Json> found = co_await spec.look();
  if (found) {
    settle(entry, EffectState::done, *found);
    event(Level::info, "the effect of " + entry.target + " was found and adopted", {{"effect", spec.key}});
  } else {
    settle(entry, EffectState::absent);
    event(Level::info, "the effect of " + entry.target + " is proven absent", {{"effect", spec.key}});
  }
  co_return found;
}

Coroutine<Json> PhaseContext::effect(EffectSpec spec) {
  EffectRecord fresh{phase_.name, spec.key, spec.kind, EffectState::absent, 0, shown(spec.request), {}, {}};
  const auto [place, is_new] = journal_.try_emplace(spec.key, std::move(fresh));
  EffectRecord& entry = place->second;
  if (entry.state == EffectState::done) co_return entry.outcome;
  if (entry.state == EffectState::needs_decision)
    throw MustWait("decision", "it is unknown whether " + entry.target + " (" + spec.key + ") took effect",
                   "Look at the service and decide with ops.resolve_effect(run, key, 'done' | 'absent', reason).");
  const std::string unknown = "the answer to " + entry.target + " is unknown";
  if (entry.state == EffectState::intended || entry.state == EffectState::uncertain || (is_new && run_.look_first)) {
    std::string why =
        entry.attempt > 0 ? unknown : "the newest commits may be lost, and with them a record of " + entry.target;
    std::optional<Json> found = co_await recover(entry, spec, std::move(why));
    if (found) co_return *found;
  }

  const SteadyTime give_up = steady_now() + patience_with_outage;
  int tries = 0;
  bool renewed = false;
  for (int attempt = 1;;) {
    co_await admit(spec.request, true);
    if (refuse_effects_) co_await sleep_until(SteadyTime::max());
    entry.request_hash = request_hash(spec.request);
    entry.attempt += 1;
    settle(entry, EffectState::intended);
    effect_in_flight_ = true;
    HttpRequest copy = spec.request;
    HttpResponse response = co_await send(std::move(copy));  // leaves after the intent has committed
    effect_in_flight_ = false;
    ++tries;

    const bool outage = learn_health(spec.request, response);
    const bool never_left = response.failure != TransportFailure::none && !response.request_sent;
    if (never_left) settle(entry, EffectState::absent);
    if (never_left || response.failure == TransportFailure::secret_missing) throw_if_permanent(spec.request, response);

    if (response.failure == TransportFailure::none && response.status == 401 && spec.renew &&
        !std::exchange(renewed, true)) {
      settle(entry, EffectState::absent);
      co_await spec.renew(spec.request);
      continue;
    }
    const bool throttled = learn_limits(spec.request, response).has_value();
    if (throttled) {
      settle(entry, EffectState::absent);
      event(Level::warn, "rate limited by the service; " + spec.key + " is sent later",
            {{"request", entry.target}, {"status", response.status}});
    } else if (!never_left) {
      EffectVerdict verdict = EffectVerdict::ambiguous();
      if (response.failure == TransportFailure::none && !is_transient_status(response.status))
        verdict = spec.interpret(response);
      if (verdict.meaning == EffectVerdict::Meaning::done) {
        settle(entry, EffectState::done, verdict.outcome);
        co_return std::move(verdict.outcome);
      }
      const bool rejected = verdict.meaning == EffectVerdict::Meaning::rejected;
      // "It exists already" in answer to a repetition may speak of our own earlier try, seen late.
      const bool maybe_ours = spec.kind == EffectKind::keyed && entry.attempt > 1 && is_conflict(response);
      if (!rejected || maybe_ours) {
        std::string why = rejected ? entry.target + " was answered with " + what_came(response) : unknown;
        std::optional<Json> found = co_await recover(entry, spec, std::move(why));
        if (found) co_return *found;
      }
      if (rejected) {
        settle(entry, EffectState::absent);
        throw *verdict.error;
      }
    }

    if (outage ? steady_now() >= give_up : attempt >= most_sends_of_an_effect)
      throw PhaseError(
          "service_unavailable",
          entry.target + " failed " + std::to_string(tries) + " times, the last time with " + what_came(response),
          hint_for(response));
    if (!throttled) co_await sleep(backoff(attempt));
    if (!outage) ++attempt;
  }
}

// Records ----------------------------------------------------------------------------------------------------------

std::optional<Json> PhaseContext::recall(std::string_view key) const {
  const auto found = phase_.remembered.find(key);
  if (found == phase_.remembered.end()) return std::nullopt;
  return *found;
}

Json PhaseContext::remember(std::string key, Json value) {
  const auto found = phase_.remembered.find(key);
  if (found != phase_.remembered.end()) return *found;
  phase_.remembered[key] = value;
  writes_.remembered[std::move(key)] = value;
  return value;
}

void PhaseContext::event(Level level, std::string message, Json payload, std::string once) {
  if (!once.empty() && !event_keys_.insert(once).second) return;
  writes_.events.push_back({level, redact(message), redact_json(payload), phase_.name, std::move(once), now()});
}

void PhaseContext::artifact(ArtifactRecord record) {
  writes_.artifacts.push_back(std::move(record));
}

}  // namespace ops
