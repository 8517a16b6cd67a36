// Phase kind digitalocean_app: runs the built image on App Platform.
//
//   GET app -> (wait for a deployment that is not ours) -> change only the image of the named components and our marker
//   -> propose -> PUT (effect, keyed by the marker) -> follow the deployment to its end
//
// PUT replaces the whole spec, so everything else goes back exactly as it came, encrypted secrets included.
#include <algorithm>

#include "core/json.hpp"
#include "core/url.hpp"
#include "phases/phase_kinds.hpp"

namespace ops {

namespace {

using std::chrono::seconds;

constexpr Millis usual_poll = seconds{10};
constexpr Millis usual_search =
    seconds{60};  // how late a request without an answer may still take effect and be listed
constexpr const char* marker = "OPS_RUN_TOKEN";
constexpr const char* component_lists[] = {"services", "workers", "jobs", "static_sites", "functions"};

class DigitaloceanClient {
 public:
  explicit DigitaloceanClient(PhaseContext& context)
      : context_(context),
        api_url_(optional_text_at(context.config(), "/digitalocean/api_url").value_or("https://api.digitalocean.com")),
        credential_(optional_text_at(context.config(), "/digitalocean/credential").value_or("digitalocean")),
        app_id_(text_at(context.config(), "/digitalocean/app_id")) {
    while (api_url_.ends_with('/')) api_url_.pop_back();
  }

  std::string apps_url() const { return api_url_ + "/v2/apps"; }
  std::string app_url() const { return apps_url() + "/" + percent_encode(app_id_); }
  std::string deployment_url(const std::string& id) const { return app_url() + "/deployments/" + percent_encode(id); }

  HttpRequest prepared(Method method, std::string url, std::string body) const {
    HttpRequest request;
    request.method = method;
    request.url = std::move(url);
    request.body = std::move(body);
    request.headers.push_back({"Accept", "application/json"});
    if (!request.body.empty()) request.headers.push_back({"Content-Type", "application/json"});
    request.credential = CredentialUse{CredentialScheme::bearer, credential_, api_url_, {}};
    return request;
  }

  Coroutine<Json> get(std::string url, std::string what) {
    HttpRequest request = prepared(Method::get, std::move(url), {});
    const HttpResponse response = co_await context_.request(std::move(request));
    if (response.status != 200) throw unexpected(response, what);
    co_return answer_json(response, "DigitalOcean", what);
  }

  /// A deployment that exists. It may appear late; once seen it may only vanish.
  Coroutine<Json> deployment(std::string id) {
    const bool seen = context_.recall("deployment_seen").has_value();
    HttpRequest request = prepared(Method::get, deployment_url(id), {});
    RequestPolicy policy;
    policy.retry_not_found = !seen;
    const HttpResponse response = co_await context_.request(std::move(request), policy);
    if (response.status == 404 && seen)
      throw PhaseError("gone", "DigitalOcean does not know deployment " + id + " any more",
                       "Somebody has deleted the app or the deployment. Look at the app, then queue a new run.");
    if (response.status != 200) throw unexpected(response, "deployment " + id);
    const Json answer = answer_json(response, "DigitalOcean", "deployment " + id);
    const Json& found = object_at(answer, "/deployment");
    if (text_at(found, "/id") != id)
      throw PhaseError("bad_response", "DigitalOcean answered with another deployment than " + id, "Retry the run.");
    context_.remember("deployment_seen", true);
    co_return found;
  }

  Coroutine<Json> app() {
    const Json answer = co_await get(app_url(), "app " + app_id_);
    const Json& found = object_at(answer, "/app");
    if (text_at(found, "/id") != app_id_)
      throw PhaseError("bad_response", "DigitalOcean answered with another app than " + app_id_,
                       "Check digitalocean.app_id.");
    co_return found;
  }

  PhaseError unexpected(const HttpResponse& response, const std::string& what) const {
    const Json body = parse_json(response.body).value_or(Json());
    const Json& said = value_at(body, "/message");
    const Json& request_id = value_at(body, "/request_id");
    const std::string text = "DigitalOcean answered " + std::to_string(response.status) + " for " + what +
                             (said.is_string() ? ": " + clean_text(said.get<std::string>(), 300) : "");
    Json payload{{"status", response.status}};
    if (request_id.is_string()) payload["request_id"] = request_id;
    if (response.status == 401 || response.status == 403)
      return {"digitalocean_denied", text + clock_remark(response, context_.now()),
              "Renew the secret \"" + credential_ + "\" (scopes app:read and app:update).", payload};
    if (response.status == 404)
      return {"digitalocean_not_found", text, "Check digitalocean.app_id of the environment.", payload};
    return {"digitalocean_rejected", text, "Look at DigitalOcean's message and at the app's spec.", payload};
  }

 private:
  PhaseContext& context_;
  std::string api_url_;
  std::string credential_;
  std::string app_id_;
};

bool is_final_phase(const std::string& phase) {
  return phase == "ACTIVE" || phase == "ERROR" || phase == "CANCELED" || phase == "SUPERSEDED";
}

/// True when a deployment's or app's spec carries our marker.
bool is_ours(const Json& spec, const std::string& token) {
  for (const char* list : component_lists) {
    const Json& components = value_at(spec, std::string("/") + list);
    if (!components.is_array()) continue;
    for (const Json& component : components) {
      const Json& envs = value_at(component, "/envs");
      if (!envs.is_array()) continue;
      for (const Json& env : envs)
        if (value_at(env, "/key") == marker && value_at(env, "/value") == token) return true;
    }
  }
  return false;
}

/// The app's deployments that may be under way, newest first.
Json::array_t current_deployments(const Json& app) {
  Json::array_t found;
  for (const char* member : {"pending_deployment", "in_progress_deployment", "active_deployment"})
    if (app.contains(member) && app[member].is_object()) found.push_back(app[member]);
  return found;
}

struct ChangedSpec {
  Json spec;
  Json previous = Json::object();  ///< digest or tag by component
};

/// The spec with the new image in the named components and nothing else changed but our marker.
ChangedSpec with_image(const PhaseContext& ctx, const Json& spec, const std::string& digest, const std::string& token) {
  const std::string image = text_at(ctx.config(), "/registry/image");
  const std::size_t slash = image.find('/');
  const std::string owner = slash == std::string::npos ? std::string() : image.substr(0, slash);
  const std::string repository = slash == std::string::npos ? image : image.substr(slash + 1);

  ChangedSpec changed{spec, Json::object()};
  std::vector<std::string> present;
  std::vector<std::string> wanted;
  for (const Json& name : array_at(ctx.config(), "/digitalocean/components")) wanted.push_back(name.get<std::string>());
  std::size_t found = 0;
  for (const char* list : component_lists) {
    if (!changed.spec.contains(list) || !changed.spec[list].is_array()) continue;
    for (Json& component : changed.spec[list]) {
      const std::string name = text_at(component, "/name");
      present.push_back(name);
      if (std::ranges::find(wanted, name) == wanted.end()) continue;
      ++found;
      Json& target = component["image"];
      if (!target.is_object()) target = Json::object();
      changed.previous[name] = target.contains("digest") ? target["digest"] : target.value("tag", Json());
      target["registry_type"] = "GHCR";
      target["registry"] = owner;
      target["repository"] = repository;
      target["digest"] = digest;
      target.erase("tag");  // tag and digest exclude each other
      Json& envs = component["envs"];
      if (!envs.is_array()) envs = Json::array();
      auto ours = std::ranges::find_if(envs, [](const Json& env) { return value_at(env, "/key") == marker; });
      if (ours == envs.end()) {
        envs.push_back({{"key", marker}, {"value", token}, {"scope", "RUN_TIME"}, {"type", "GENERAL"}});
      } else {
        (*ours)["value"] = token;
      }
    }
  }
  if (found != wanted.size()) {
    std::string names;
    for (const std::string& name : present) names += (names.empty() ? "" : ", ") + name;
    throw PhaseError("component_unknown", "the app has not all components that digitalocean.components names",
                     "The app's components are: " + names + ".");
  }
  return changed;
}

Coroutine<> wait_for_others(PhaseContext& ctx, DigitaloceanClient& client, std::string token) {
  const Millis poll = config_duration(ctx, "/digitalocean/poll_interval", usual_poll);
  for (;;) {
    const Json app = co_await client.app();
    bool other = false;
    for (const char* member : {"pending_deployment", "in_progress_deployment"}) {
      const Json& deployment = value_at(app, std::string("/") + member);
      if (!deployment.is_object() || is_ours(value_at(deployment, "/spec"), token)) continue;
      const std::string phase = optional_text_at(deployment, "/phase").value_or("UNKNOWN");
      if (is_final_phase(phase)) continue;
      other = true;
      ctx.event(Level::info, "waiting for another deployment of this app to end",
                {{"deployment_id", text_at(deployment, "/id")}, {"phase", phase}},
                "waits_for:" + text_at(deployment, "/id"));
    }
    if (!other) co_return;
    co_await ctx.sleep(poll);
  }
}

/// The deployments that carry our marker, newest first; none when the app does not show any in time.
Coroutine<Json::array_t> look_for_deployments(PhaseContext& ctx, DigitaloceanClient& client, std::string token,
                                              std::string digest) {
  const SteadyTime end = ctx.steady_now() + config_duration(ctx, "/digitalocean/search_window", usual_search);
  const Millis pause = config_duration(ctx, "/digitalocean/poll_interval", usual_poll);
  for (;;) {
    const bool is_last = ctx.steady_now() >= end;
    const Json app = co_await client.app();
    Json::array_t shown = current_deployments(app);
    const Json list = co_await client.get(client.app_url() + "/deployments?per_page=50", "the app's deployments");
    for (const Json& deployment : array_at(list, "/deployments")) shown.push_back(deployment);
    Json::array_t ours;
    for (const Json& deployment : shown)
      if (is_ours(value_at(deployment, "/spec"), token) && std::ranges::none_of(ours, [&](const Json& known) {
            return text_at(known, "/id") == text_at(deployment, "/id");
          }))
        ours.push_back(deployment);
    if (!ours.empty()) co_return ours;
    if (is_last) {
      const bool accepted =
          is_ours(value_at(app, "/spec"), token) && dump_json(value_at(app, "/spec")).find(digest) != std::string::npos;
      if (accepted)
        throw PhaseError("deployment_not_found", "the app's spec is ours and no deployment of it can be found",
                         "Look at the app's activity at DigitalOcean, then queue a new run.");
      co_return ours;
    }
    co_await ctx.sleep_until(std::max(ctx.steady_now(), std::min(ctx.steady_now() + pause, end)));
  }
}

/// {deployment_id} of the one that counts; nothing when there is none.
Coroutine<std::optional<Json>> look_for_deployment(PhaseContext& ctx, DigitaloceanClient& client, std::string token,
                                                   std::string digest) {
  const Json::array_t ours = co_await look_for_deployments(ctx, client, std::move(token), std::move(digest));
  if (ours.empty()) co_return std::nullopt;
  const auto counts = [](const Json& deployment) {
    const std::string phase = optional_text_at(deployment, "/phase").value_or("UNKNOWN");
    return phase == "ACTIVE" || !is_final_phase(phase);
  };
  const auto counting = std::ranges::find_if(ours, counts);
  const Json newest{{"deployment_id", text_at(counting == ours.end() ? ours.front() : *counting, "/id")}};
  if (std::ranges::count_if(ours, counts) > 1) {
    std::string all;
    for (const Json& deployment : ours)
      all += (all.empty() ? "" : ", ") + text_at(deployment, "/id") + " (" +
             optional_text_at(deployment, "/phase").value_or("UNKNOWN") + ")";
    ctx.await_decision("put_app", "DigitalOcean shows several deployments with our marker: " + all, newest);
  }
  co_return newest;
}

Coroutine<> propose(PhaseContext& ctx, DigitaloceanClient& client, const Json& spec) {
  HttpRequest request =
      client.prepared(Method::post, client.apps_url() + "/propose",
                      dump_json({{"spec", spec}, {"app_id", text_at(ctx.config(), "/digitalocean/app_id")}}));
  const HttpResponse response = co_await ctx.request(std::move(request));  // a dry run: changes nothing
  if (response.status != 200) throw client.unexpected(response, "the check of the changed spec");
}

Coroutine<Json> put_app(PhaseContext& ctx, DigitaloceanClient& client, std::string digest, std::string token) {
  EffectSpec spec;
  spec.key = "put_app";
  spec.kind = EffectKind::keyed;
  const EffectRecord* before = ctx.effect_record("put_app");
  if (before == nullptr || before->state != EffectState::done) {
    co_await wait_for_others(ctx, client, token);
    const Json app = co_await client.app();
    const ChangedSpec changed = with_image(ctx, object_at(app, "/spec"), digest, token);
    ctx.remember("previous", changed.previous);
    co_await propose(ctx, client, changed.spec);
    spec.request = client.prepared(Method::put, client.app_url(), dump_json({{"spec", changed.spec}}));
  }
  spec.interpret = [&client](const HttpResponse& response) {
    if (response.status != 200) return EffectVerdict::rejected(client.unexpected(response, "the new spec"));
    const Json answer = parse_json(response.body).value_or(Json());
    const Json& id = value_at(answer, "/app/pending_deployment/id");
    return id.is_string() ? EffectVerdict::done({{"deployment_id", id}}) : EffectVerdict::ambiguous();
  };
  spec.look = [&ctx, &client, token, digest] { return look_for_deployment(ctx, client, token, digest); };
  Json outcome = co_await ctx.effect(std::move(spec));
  co_return outcome;
}

/// Events for steps that began or ended; the deepest failing step with a reason, for the error.
void tell_steps(PhaseContext& ctx, const Json& steps, const std::string& parent, std::string& reason) {
  if (!steps.is_array()) return;
  for (const Json& step : steps) {
    const std::string name = clean_text(optional_text_at(step, "/name").value_or("step"), 120);
    const std::string path = parent.empty() ? name : parent + "/" + name;
    const std::string status = optional_text_at(step, "/status").value_or("UNKNOWN");
    const std::string component = optional_text_at(step, "/component_name").value_or("");
    if (status == "ERROR") {
      const std::string code = optional_text_at(step, "/reason/code").value_or("");
      const std::string message = optional_text_at(step, "/reason/message").value_or("");
      if (!code.empty() || !message.empty() || reason.empty())
        reason = path + (code.empty() ? "" : ": " + code) + (message.empty() ? "" : ": " + clean_text(message, 500));
    }
    if (status == "RUNNING" || status == "SUCCESS" || status == "ERROR")
      ctx.event(status == "ERROR" ? Level::warn : Level::info, "deployment step " + path + ": " + status,
                {{"component", component}}, "step:" + path + ":" + status);
    tell_steps(ctx, value_at(step, "/steps"), path, reason);
  }
}

struct Ending {
  std::string phase;
  std::string reason;
};

Coroutine<Ending> follow(PhaseContext& ctx, DigitaloceanClient& client, std::string deployment_id) {
  const Millis poll = config_duration(ctx, "/digitalocean/poll_interval", usual_poll);
  for (;;) {
    const Json deployment = co_await client.deployment(deployment_id);
    Ending ending;
    ending.phase = text_at(deployment, "/phase");
    ctx.event(Level::info, "deployment is " + ending.phase, {{"deployment_id", deployment_id}},
              "deployment:" + ending.phase);
    tell_steps(ctx, value_at(deployment, "/progress/steps"), "", ending.reason);
    if (ending.phase == "ACTIVE") ctx.remember("was_active", true);
    if (is_final_phase(ending.phase)) co_return ending;
    co_await ctx.sleep(poll);
  }
}

/// Cancels it unless it has ended, and follows it to its end. Returns the phase in which it ended.
Coroutine<std::string> stop_deployment(PhaseContext& ctx, DigitaloceanClient& client, std::string deployment_id,
                                       std::string key) {
  const Json deployment = co_await client.deployment(deployment_id);
  if (!is_final_phase(text_at(deployment, "/phase"))) {
    EffectSpec spec;
    spec.key = std::move(key);
    spec.kind = EffectKind::repeatable;
    spec.request = client.prepared(Method::post, client.deployment_url(deployment_id) + "/cancel", {});
    spec.interpret = [&client](const HttpResponse& response) {
      // A deployment that has just ended cannot be cancelled; following it shows how it ended.
      const bool told = response.ok() || response.status == 400 || response.status == 409 || response.status == 422;
      return told ? EffectVerdict::done({{"status", response.status}})
                  : EffectVerdict::rejected(client.unexpected(response, "the cancellation of a deployment"));
    };
    co_await ctx.effect(std::move(spec));
  }
  const Ending ending = co_await follow(ctx, client, deployment_id);
  co_return ending.phase;
}

std::string built_digest(const PhaseContext& ctx) {
  const bool platform = optional_text_at(ctx.config(), "/digitalocean/deploy_digest").value_or("index") == "platform";
  const Json& built = ctx.outcome_of_kind("github_workflow");
  const Json& digest = value_at(built, platform ? "/platform_digest" : "/digest");
  const Json& given = value_at(ctx.run().metadata, "/digest");
  if (digest.is_string()) return digest.get<std::string>();
  if (given.is_string() && given.get_ref<const std::string&>().starts_with("sha256:") &&
      given.get_ref<const std::string&>().size() == 71)
    return given.get<std::string>();
  throw PhaseError(
      "digest_unknown", "no phase before this one has built an image, and metadata.digest names none",
      "Put a phase of kind github_workflow before, or queue the run with metadata {\"digest\": \"sha256:…\"}.");
}

}  // namespace

Coroutine<Json> perform_digitalocean_app(PhaseContext& ctx) {
  const std::string token = run_token(ctx);
  const std::string digest = built_digest(ctx);
  DigitaloceanClient client(ctx);
  const Json put = co_await put_app(ctx, client, digest, token);
  const std::string deployment_id = text_at(put, "/deployment_id");
  ctx.event(Level::info, "deployment " + deployment_id + " started",
            {{"deployment_id", deployment_id}, {"digest", digest}}, "deployment_started");
  const Ending ending = co_await follow(ctx, client, deployment_id);
  const bool was_active = ctx.recall("was_active").has_value();
  if (ending.phase == "ERROR")
    throw PhaseError("deployment_failed",
                     "deployment " + deployment_id + " failed" + (ending.reason.empty() ? "" : " in " + ending.reason),
                     "The version before keeps serving. Look at the component's logs at DigitalOcean, mend the cause, "
                     "then queue a new run.",
                     {{"deployment_id", deployment_id}});
  if (ending.phase == "CANCELED")
    throw PhaseError("deployment_cancelled", "deployment " + deployment_id + " was cancelled at DigitalOcean",
                     "Queue a new run when it shall be deployed after all.", {{"deployment_id", deployment_id}});
  if (ending.phase == "SUPERSEDED" && !was_active)
    throw PhaseError(
        "deployment_superseded", "deployment " + deployment_id + " was replaced by a newer one before it became active",
        "Somebody else deployed this app. Look at its activity at DigitalOcean.", {{"deployment_id", deployment_id}});
  co_return Json{{"deployment_id", deployment_id},
                 {"digest", digest},
                 {"previous", ctx.recall("previous").value_or(Json::object())},
                 {"run_token", token}};
}

Coroutine<std::string> cancel_digitalocean_app(PhaseContext& ctx) {
  if (!ctx.may_be_outside("put_app")) co_return std::string();
  const EffectRecord* record = ctx.effect_record("put_app");
  DigitaloceanClient client(ctx);
  std::vector<std::string> ids;
  if (record != nullptr && record->state == EffectState::done) {
    ids.push_back(text_at(record->outcome, "/deployment_id"));
  } else {
    const std::string token = run_token(ctx);
    const Json::array_t ours = co_await look_for_deployments(ctx, client, token, std::string());
    for (const Json& deployment : ours) ids.push_back(text_at(deployment, "/id"));
  }
  if (ids.empty()) co_return std::string("DigitalOcean shows no deployment of this phase");

  std::string told;
  for (const std::string& id : ids) {
    std::string key = ids.size() == 1 ? "cancel" : "cancel:" + id;
    const std::string phase = co_await stop_deployment(ctx, client, id, std::move(key));
    told += (told.empty() ? "" : "; ") + ("deployment " + id) + " ended as " + phase +
            (phase == "ACTIVE" ? "; the new version is live" : "");
  }
  co_return told;
}

}  // namespace ops
