#include "inspector.hpp"

#include <algorithm>

#include "core/crypto.hpp"

namespace ops::sim {

namespace {

/// The transition table, written down a second time.
bool may_follow(RunStatus from, RunStatus to) {
  using enum RunStatus;
  switch (from) {
    case waiting:
      return to == queued || to == cancelled || to == failed;
    case queued:
      return to == claimed || to == cancelled || to == waiting;
    case claimed:
      return to == running || is_final(to) || to == queued || to == waiting;
    case running:
      return is_final(to) || to == queued || to == waiting;
    default:
      return false;
  }
}

bool changes_something(const HttpRequest& request) {
  if (request.method == Method::get || request.method == Method::head) return false;
  for (const char* read : {"/access_tokens", "/apps/propose", "/version_info"})
    if (request.url.ends_with(read)) return false;
  return true;
}

std::string hash_of(const HttpRequest& request) {
  return sha256_hex(std::string(to_string(request.method)) + "\n" + request.url + "\n" +
                    (request.body_file ? request.body_sha256 : request.body));
}

std::string text_of(RunStatus status) {
  return std::string(to_string(status));
}

constexpr std::uint64_t most_turns_to_obey = 20;
constexpr Micros longest_to_obey = std::chrono::minutes{1};
constexpr Micros longest_orphan = std::chrono::seconds{12};  // two safety checks

const PhaseFacts& planned(const StoredRun& run, const StoredPhase& phase) {
  return run.plan->phases[static_cast<std::size_t>(&phase - run.row.phases.data())];
}

}  // namespace

// Database -----------------------------------------------------------------------------------------------------------

void Inspector::given_out(const std::string& run_id, const std::string& claim_token, const std::string& worker_id) {
  ground_.trace([&] { return run_id + " given to " + worker_id + " with " + claim_token; });
  if (!all_tokens_.insert(claim_token).second)
    throw Broken{"claim", run_id + " is given out with a claim token that was given out before"};
  tokens_[run_id] = claim_token;
}

void Inspector::accepted(const std::string& run_id, const std::string& claim_token) {
  if (tokens_[run_id] != claim_token)
    throw Broken{"fence", "a write to " + run_id + " with an old claim token is taken"};
}

void Inspector::lost(const std::string& run_id) {
  ground_.trace([&] { return run_id + " is lost with its request"; });
  --queued_;
}

void Inspector::check_path(const std::string& run_id, const RunRow& before, const RunRow& after) const {
  if (after.history.size() < before.history.size() ||
      !std::equal(before.history.begin(), before.history.end(), after.history.begin()))
    throw Broken{"transition", "the history of " + run_id + " was rewritten"};
  for (std::size_t i = before.history.size(); i < after.history.size(); ++i) {
    const RunStatus from = after.history[i - 1];
    const RunStatus to = after.history[i];
    ground_.trace([&] { return run_id + ": " + text_of(from) + " -> " + text_of(to); });
    if (is_final(from)) throw Broken{"final", run_id + " was " + text_of(from) + " and becomes " + text_of(to)};
    if (!may_follow(from, to))
      throw Broken{"transition", run_id + " goes from " + text_of(from) + " to " + text_of(to)};
  }
}

void Inspector::check_claim(const std::string& run_id, const RunRow& before, const RunRow& after) {
  if (after.claim_token.empty()) tokens_[run_id].clear();
  const bool taken = before.is_active() && after.is_active() && before.worker_id != after.worker_id;
  if (taken && !database_.dead_since(before.worker_id))
    throw Broken{"living", run_id + " is taken from " + before.worker_id + ", which lives"};
  if (after.cancel_requested) cancels_.try_emplace(run_id, ground_.agenda.steady_now(), turns_);
  if (after.status() != RunStatus::success || !after.cancel_requested) return;
  const Cancel& cancel = cancels_.at(run_id);
  if (turns_ > cancel.turn + most_turns_to_obey && ground_.agenda.steady_now() > cancel.time + longest_to_obey)
    throw Broken{"obeyed", run_id + " was to be cancelled and succeeds"};
}

void Inspector::check_events(const std::string& run_id, const StoredRun& run) {
  if (run.events.size() != run.row.last_seq)
    throw Broken{"events", run_id + " has " + std::to_string(run.events.size()) + " events and counts " +
                               std::to_string(run.row.last_seq)};
  std::set<std::pair<std::string, std::string>> keys;
  for (const EventRecord& event : run.events)
    if (!event.once.empty() && !keys.emplace(event.phase, event.once).second)
      throw Broken{"once", run_id + " has told twice: " + event.message};
}

void Inspector::committed(const std::string& run_id, const RunRow& before, const StoredRun& after) {
  for (std::size_t i = before.last_seq; i < after.events.size(); ++i)
    ground_.trace([&] {
      const EventRecord& event = after.events[i];
      return run_id + " | " + event.message + (event.phase.empty() ? "" : " [" + event.phase + "]");
    });
  check_claim(run_id, before, after.row);
  check_path(run_id, before, after.row);
  check_events(run_id, after);
  if (before.history.size() == after.row.history.size()) return;

  std::map<std::string, int> active;
  for (const auto& [id, run] : database_.runs())
    if (run.row.is_active() && ++active[run.plan->facts.env_id] > run.plan->max_active_runs)
      throw Broken{"slots", "too many active runs in " + run.plan->facts.env_id};

  const RunStatus status = after.row.status();
  if (status == RunStatus::waiting && after.row.waiting_for.empty())
    throw Broken{"waiting", run_id + " waits for nothing in particular"};
  if (!is_final(status)) return;
  for (const StoredPhase& phase : after.row.phases)
    if (!is_final(phase.state))
      throw Broken{"phases", run_id + " is over and its phase " + planned(after, phase).name + " is not"};
  if (status == RunStatus::success) check_success(after);
  if (status == RunStatus::cancelled) check_stopped(run_id);
}

void Inspector::check_stopped(const std::string& run_id) const {
  for (const auto& [token, owner] : run_of_token_)
    if (owner == run_id && services_.is_going_on(token))
      throw Broken{"cancel", run_id + " is cancelled and something of it is going on outside"};
}

void Inspector::check_success(const StoredRun& run) const {
  for (const StoredPhase& phase : run.row.phases) {
    const PhaseFacts& facts = planned(run, phase);
    if (phase.state == PhaseState::skipped) continue;
    if (phase.state != PhaseState::succeeded)
      throw Broken{"success", run.plan->facts.run_id + " succeeded without its phase " + facts.name};
    if (facts.kind == "github_workflow") check_built(run, phase);
    if (facts.kind == "digitalocean_app") check_deployed(run, phase);
    if (facts.kind == "notice" && services_.notices_of(run.plan->facts.run_id) != 1)
      throw Broken{"success", run.plan->facts.run_id + " succeeded and its notice was not given once"};
  }
  for (const ArtifactRecord& artifact : run.row.artifacts) {
    if (!artifact.storage_path.starts_with("s3:/")) continue;
    const std::string* bytes = services_.bucket.object(artifact.storage_path.substr(4));
    if (bytes == nullptr || digest_of(*bytes) != artifact.digest)
      throw Broken{"success", artifact.storage_path + " does not hold what its row says"};
  }
}

void Inspector::check_built(const StoredRun& run, const StoredPhase& phase) const {
  const std::string& run_id = run.plan->facts.run_id;
  const bool deploys = planned(run, phase).name == "deploy_runtime";
  if (!deploys && services_.registry.commit_of(phase.outcome.value("digest", "")) != run.plan->facts.git_sha)
    throw Broken{"success", run_id + " succeeded and its digest is not an image of its commit"};
  if (phase.outcome.value("adopted", false)) return;
  const auto found = services_.github.runs().find(phase.outcome.value("workflow_run_id", std::int64_t{0}));
  if (found == services_.github.runs().end() || found->second.conclusion != "success")
    throw Broken{"success", run_id + " succeeded and its workflow did not"};
  const auto owner = run_of_token_.find(found->second.token());
  if (owner == run_of_token_.end() || owner->second != run_id)
    throw Broken{"success", run_id + " succeeded with the workflow run of another"};
}

void Inspector::check_deployed(const StoredRun& run, const StoredPhase& phase) const {
  const std::string& run_id = run.plan->facts.run_id;
  const auto environment = std::ranges::find(scene_.environments, run.plan->facts.env_id, &EnvironmentPlan::env_id);
  const auto& deployments = services_.digitalocean.deployments(environment->app_id);
  const auto found = std::ranges::find(deployments, phase.outcome.value("deployment_id", ""), &Deployment::id);
  if (found == deployments.end() || !found->was_active)
    throw Broken{"success", run_id + " succeeded and its deployment never was active"};
  const auto owner = run_of_token_.find(found->token);
  if (owner == run_of_token_.end() || owner->second != run_id)
    throw Broken{"success", run_id + " succeeded with the deployment of another"};
  if (services_.registry.commit_of(found->digest) != run.plan->facts.git_sha)
    throw Broken{"success", run_id + " succeeded and another digest is deployed"};
}

// Wire ---------------------------------------------------------------------------------------------------------------

void Inspector::sends(const std::string& worker_id, const HttpRequest& request) {
  // The read of a run that is being claimed may be: see RunLoop::send_reads_of_claims().
  if (database_.open_transactions() > (changes_something(request) ? 0 : database_.open_claims()))
    throw Broken{"open", "a request is sent while a transaction is open"};
  if (!changes_something(request)) return;
  if (!database_.has_lease(worker_id)) throw Broken{"lease", worker_id + " sends and its lease is over"};
  const std::string hash = hash_of(request);
  const StoredEffect* intent = nullptr;
  const StoredRun* run = nullptr;
  for (const auto& [run_id, stored] : database_.runs())
    for (const StoredEffect& effect : stored.row.effects)
      if (effect.record.request_hash == hash && effect.record.state == EffectState::intended) {
        intent = &effect;
        run = &stored;
      }
  if (intent == nullptr || !database_.is_durable(*intent))
    throw Broken{"intent", std::string(to_string(request.method)) + " " + request.url +
                               (intent == nullptr ? " is sent without a committed intent"
                                                  : " is sent and its intent is not flushed")};
  const std::string& run_id = run->plan->facts.run_id;
  Effect& effect = effects_[name(run_id, intent->record)];
  effect.run_id = run_id;
  effect.kind = intent->record.kind;
  if (effect.open && effect.kind == EffectKind::unkeyed)
    throw Broken{"unkeyed", run_id + " sends " + intent->record.key + " again, and nobody knows what became of it"};
  if (effect.open && effect.kind == EffectKind::keyed && !effect.searched)
    throw Broken{"search", run_id + " sends " + intent->record.key + " again and has not looked for it"};
  effect.open = true;
  effect.searched = false;
  effect_of_hash_[hash] = name(run_id, intent->record);
  for (const StoredPhase& phase : run->row.phases)
    if (phase.remembered.contains("run_token")) run_of_token_[phase.remembered["run_token"]] = run_id;
}

void Inspector::hears(const HttpRequest& request, const HttpResponse& response) {
  const bool throttled = response.status == 429 || response.status == 403;
  if (changes_something(request)) {
    const auto found = effect_of_hash_.find(hash_of(request));
    if (found == effect_of_hash_.end()) return;
    const bool never_left = response.failure != TransportFailure::none && !response.request_sent;
    const bool told = response.failure == TransportFailure::none && response.status < 500 && response.status != 408;
    if (never_left || throttled || told) effects_[found->second].open = false;
    return;
  }
  if (response.status != 200) return;
  // Each environment has a repository and an app of its own, and keys that are looked for carry the run's token.
  const bool run_list = request.url.find("/runs?event=") != std::string::npos;
  const bool app = request.url.find("/v2/apps/") != std::string::npos;
  if (!run_list && !app) return;
  for (auto& [named, effect] : effects_) {
    const auto run = database_.runs().find(effect.run_id);
    if (run == database_.runs().end()) continue;
    const auto environment =
        std::ranges::find(scene_.environments, run->second.plan->facts.env_id, &EnvironmentPlan::env_id);
    const bool here =
        request.url.find(run_list ? "/" + environment->repo + "/" : "/" + environment->app_id) != std::string::npos;
    if (here && named.ends_with(run_list ? "dispatch" : "put_app")) effect.searched = true;
  }
}

void Inspector::took_effect(const std::string& key) {
  if (++performed_[key] > 1) throw Broken{"double", "a service has performed twice: " + key};
  const auto owner = run_of_token_.find(key.substr(key.find(' ') + 1));
  if (owner == run_of_token_.end()) return;
  const auto run = database_.runs().find(owner->second);
  if (run != database_.runs().end() && run->second.row.status() == RunStatus::cancelled)
    throw Broken{"cancel", owner->second + " is cancelled, and now a service performs: " + key};
}

// Whole world --------------------------------------------------------------------------------------------------------

void Inspector::turns(const std::string& worker_id, SteadyTime up_since) {
  ++turns_;
  const SteadyTime before = ground_.agenda.steady_now() - longest_orphan;
  if (up_since > before) return;
  for (const auto& [run_id, run] : database_.runs()) {
    const auto dead_since = run.row.is_active() ? database_.dead_since(run.row.worker_id) : std::nullopt;
    if (dead_since && *dead_since < before)
      throw Broken{"orphan", run_id + " is held by a dead worker while " + worker_id + " lives"};
  }
}

void Inspector::look() const {
  if (database_.runs().size() != queued_)
    throw Broken{"count", std::to_string(queued_) + " requests were committed and there are " +
                              std::to_string(database_.runs().size()) + " runs"};
}

void Inspector::look_at_end() const {
  look();
  for (const auto& [run_id, run] : database_.runs()) {
    check_events(run_id, run);
    if (!is_final(run.row.status())) throw Broken{"end", run_id + " is " + text_of(run.row.status()) + " for ever"};
    const std::string& last = run.events.back().message;
    const bool fits = last.find(run.row.status() == RunStatus::success  ? "succeeded"
                                : run.row.status() == RunStatus::failed ? "failed"
                                                                        : "cancelled") != std::string::npos;
    if (!fits) throw Broken{"events", run_id + " is " + text_of(run.row.status()) + " and ends with: " + last};
    if (run.row.status() == RunStatus::cancelled) check_stopped(run_id);
  }
}

}  // namespace ops::sim
