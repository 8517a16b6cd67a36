// Phase kind github_workflow: builds an image with GitHub Actions into the registry (role build), or deploys with a
// workflow (role deploy).
//
//   image of this commit already there? -> adopt
//   dispatch (effect) -> follow run, jobs and steps -> digest from the build result and the registry, both must agree
#include <algorithm>

#include "core/crypto.hpp"
#include "core/json.hpp"
#include "core/url.hpp"
#include "phases/github_client.hpp"
#include "phases/phase_kinds.hpp"
#include "phases/registry_client.hpp"
#include "phases/zip_entry.hpp"

namespace ops {

namespace {

using std::chrono::seconds;

constexpr Millis usual_poll = seconds{10};
constexpr Millis quick_polling = std::chrono::minutes{2};  // after that half as often
constexpr Millis usual_search = std::chrono::minutes{3};   // how late the run list may show a new run
constexpr Millis certain_search = std::chrono::minutes{10};
constexpr Millis patience_with_cancel = std::chrono::minutes{5};
constexpr std::int64_t largest_result_zip = 4 * 1024 * 1024;
constexpr std::size_t largest_result = 1024 * 1024;

std::string workflow_url(const PhaseContext& ctx, const GithubClient& github) {
  return github.repository_url() + "/actions/workflows/" + percent_encode(text_at(ctx.config(), "/github/workflow"));
}

std::string run_url(const GithubClient& github, std::int64_t run_id) {
  return github.repository_url() + "/actions/runs/" + std::to_string(run_id);
}

Millis search_window(const PhaseContext& ctx) {
  return config_duration(ctx, "/github/search_window", usual_search);
}

bool is_deploy(const PhaseContext& ctx) {
  return optional_text_at(ctx.config(), "/github/role").value_or("build") == "deploy" ||
         value_at(ctx.config(), "/registry/image").is_null();
}

std::string utc(WallTime time) {
  const std::time_t whole = std::chrono::system_clock::to_time_t(std::chrono::time_point_cast<seconds>(time));
  std::tm parts{};
  gmtime_r(&whole, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

/// Outcome fields of an image that is in the registry.
Coroutine<Json> image_outcome(PhaseContext& ctx, RegistryClient& registry, Manifest manifest) {
  Json outcome{{"image", registry.image_name()}, {"digest", manifest.digest}, {"platform_digest", manifest.digest}};
  if (manifest.is_index()) {
    const auto platform = platform_manifest(manifest.document);
    if (!platform)
      throw PhaseError("image_unusable", registry.image_name() + "@" + manifest.digest + " has no linux/amd64 image",
                       "Build for linux/amd64.");
    outcome["platform_digest"] = platform->digest;
  }
  (void)ctx;
  co_return outcome;
}

/// Since when a run of ours may have been created, with two minutes of slack for the difference of two clocks.
std::string created_since(const PhaseContext& ctx) {
  if (const auto asked = ctx.recall("dispatched_after")) return asked->get<std::string>();
  const RunFacts& run = ctx.run();
  return utc((run.look_first && run.queued_at ? *run.queued_at : ctx.now()) - std::chrono::minutes{2});
}

/// Runs of the workflow that carry our token in their name, oldest first.
Coroutine<Json::array_t> find_runs(PhaseContext& ctx, GithubClient& github, std::string token) {
  std::string url = workflow_url(ctx, github) +
                    "/runs?event=workflow_dispatch&per_page=100&created=" + percent_encode(">=" + created_since(ctx));
  Json::array_t runs = co_await github.get_list(std::move(url), "workflow_runs", "the workflow's runs");
  std::erase_if(runs, [&](const Json& run) {
    const Json& title = value_at(run, "/display_title");
    return !title.is_string() || title.get_ref<const std::string&>().find("[" + token + "]") == std::string::npos;
  });
  std::ranges::sort(runs, {}, [](const Json& run) { return integer_at(run, "/id"); });
  co_return runs;
}

/// The page for people. An odd one is no reason to let go of a run that exists.
Json page_of(const Json& answer) {
  const Json& page = value_at(answer, "/html_url");
  return page.is_string() ? page : Json("");
}

Json dispatched(const Json& run) {
  return {{"workflow_run_id", integer_at(run, "/id")}, {"html_url", page_of(run)}};
}

Coroutine<Json> stop_run(PhaseContext& ctx, GithubClient& github, std::int64_t run_id, std::string key);

/// What a person sees of a run.
std::string described(const Json& run) {
  return std::to_string(integer_at(run, "/id")) + " (" + optional_text_at(run, "/status").value_or("unknown") + ", " +
         optional_text_at(run, "/conclusion").value_or("no conclusion") + ")";
}

/// Whether stopping it, or its end, leaves nothing that counts: a build that did not succeed, a deployment that did not
/// begin.
bool leaves_nothing(const PhaseContext& ctx, const Json& run) {
  const std::string status = optional_text_at(run, "/status").value_or("");
  const std::string conclusion = optional_text_at(run, "/conclusion").value_or("");
  if (status == "in_progress") return !is_deploy(ctx);
  if (status != "completed") return true;
  if (conclusion == "cancelled" || conclusion == "skipped" || conclusion == "startup_failure") return true;
  return conclusion != "success" && !is_deploy(ctx);
}

/// Several runs carry our token. The oldest is kept where all others can be stopped and leave nothing; else nobody can
/// tell which of them counts.
Coroutine<Json> kept_of(PhaseContext& ctx, GithubClient& github, Json::array_t runs) {
  const auto decide_unless_harmless = [&] {
    if (std::all_of(runs.begin() + 1, runs.end(), [&](const Json& run) { return leaves_nothing(ctx, run); })) return;
    std::string all;
    for (const Json& run : runs) all += (all.empty() ? "" : ", ") + described(run);
    ctx.await_decision("dispatch", "GitHub shows several workflow runs with our token, which cannot be undone: " + all,
                       dispatched(runs[0]));
  };
  decide_unless_harmless();
  for (std::size_t i = 1; i < runs.size(); ++i) {
    const std::int64_t surplus = integer_at(runs[i], "/id");
    ctx.event(Level::warn, "GitHub shows a second run with our token; it is cancelled",
              {{"workflow_run_id", surplus}, {"kept", integer_at(runs[0], "/id")}},
              "surplus:" + std::to_string(surplus));
    std::string key = "cancel:" + std::to_string(surplus);
    runs[i] = co_await stop_run(ctx, github, surplus, std::move(key));
  }
  decide_unless_harmless();  // one may have ended well before it was stopped
  co_return dispatched(runs[0]);
}

/// Runs of a dispatch whose answer named none. @param patience  how long an absent run may still appear
Coroutine<Json::array_t> look_for_runs(PhaseContext& ctx, GithubClient& github, std::string token, Millis patience) {
  const SteadyTime end = ctx.steady_now() + patience;
  for (Millis pause = config_duration(ctx, "/github/poll_interval", seconds{5}) / 2;;
       pause = std::min<Millis>(pause * 2, seconds{40})) {
    const bool is_last = ctx.steady_now() >= end;
    Json::array_t runs = co_await find_runs(ctx, github, token);
    if (!runs.empty() || is_last) co_return runs;
    co_await ctx.sleep_until(std::max(ctx.steady_now(), std::min(ctx.steady_now() + pause, end)));
  }
}

Coroutine<std::optional<Json>> look_for_run(PhaseContext& ctx, GithubClient& github, std::string token,
                                            Millis patience) {
  Json::array_t runs = co_await look_for_runs(ctx, github, std::move(token), patience);
  if (runs.empty()) co_return std::nullopt;
  if (runs.size() == 1) co_return dispatched(runs[0]);
  Json kept = co_await kept_of(ctx, github, std::move(runs));
  co_return kept;
}

Coroutine<> check_workflow(PhaseContext& ctx, GithubClient& github) {
  const std::string name = text_at(ctx.config(), "/github/workflow");
  std::string url = workflow_url(ctx, github);
  std::string what = "workflow " + name;
  const Json workflow = co_await github.get_json(std::move(url), std::move(what));
  const std::string state = text_at(workflow, "/state");
  if (state != "active")
    throw PhaseError("workflow_disabled", "workflow " + name + " of " + ctx.run().repo_slug + " is " + state,
                     "Enable it on the repository's Actions page, then retry the run.");
  url = github.repository_url() + "/commits/" + ctx.run().git_sha;
  const HttpResponse commit = co_await github.get(std::move(url));
  if (commit.status == 404 || commit.status == 422)
    throw PhaseError("commit_unknown", "commit " + ctx.run().git_sha + " is not in " + ctx.run().repo_slug,
                     "Push it, or queue a run for a commit that exists.");
  if (commit.status != 200) throw github.unexpected(commit, "commit " + ctx.run().git_sha);
  // GitHub takes names there as well: a branch that looks like a commit must not stand for one.
  const std::string found = text_at(answer_json(commit, "GitHub", "commit " + ctx.run().git_sha), "/sha");
  const bool is_full =
      (found.size() == 40 || found.size() == 64) && found.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!is_full || !found.starts_with(ctx.run().git_sha))
    throw PhaseError("commit_unknown",
                     "GitHub knows " + ctx.run().git_sha + " of " + ctx.run().repo_slug + " as something else than a " +
                         "commit: it answered with " + clean_text(found, 80),
                     "A branch or tag may have that name. Queue a run with all digits of the commit.");
}

/// Dispatches the workflow once and returns {workflow_run_id, html_url}.
Coroutine<Json> dispatch(PhaseContext& ctx, GithubClient& github, std::string token) {
  ctx.remember("dispatched_after", created_since(ctx));
  Json inputs = value_at(ctx.config(), "/github/inputs");
  if (!inputs.is_object()) inputs = Json::object();
  inputs["run_token"] = token;
  inputs["git_sha"] = ctx.run().git_sha;
  inputs["phase_attempt"] = "1";
  if (is_deploy(ctx)) {
    const Json& built = ctx.outcome_of_kind("github_workflow");
    if (built.contains("digest")) inputs["digest"] = built["digest"];
  } else {
    inputs["image"] = RegistryClient(ctx).image_name();
  }
  const std::string ref = optional_text_at(ctx.config(), "/github/ref").value_or(ctx.run().git_ref);
  std::string body = dump_json({{"ref", ref}, {"inputs", inputs}, {"return_run_details", true}});
  std::string url = workflow_url(ctx, github) + "/dispatches";

  EffectSpec spec;
  spec.key = "dispatch";
  spec.kind = EffectKind::keyed;
  spec.request = co_await github.prepared(Method::post, std::move(url), std::move(body));
  spec.renew = github.renewal();
  spec.interpret = [&](const HttpResponse& response) {
    if (response.status == 204) return EffectVerdict::done(Json::object());
    if (response.status == 200) {
      const auto answer = parse_json(response.body);
      if (!answer || !value_at(*answer, "/workflow_run_id").is_number_integer()) return EffectVerdict::ambiguous();
      return EffectVerdict::done({{"workflow_run_id", (*answer)["workflow_run_id"]}, {"html_url", page_of(*answer)}});
    }
    return EffectVerdict::rejected(
        github.unexpected(response, "the dispatch of " + text_at(ctx.config(), "/github/workflow") + " on " + ref));
  };
  spec.look = [&ctx, &github, token] { return look_for_run(ctx, github, token, search_window(ctx)); };
  Json outcome = co_await ctx.effect(std::move(spec));
  if (outcome.contains("workflow_run_id")) co_return outcome;

  // Accepted without details (204): the run exists or soon will.
  if (const auto found = ctx.recall("dispatched_run")) co_return *found;
  const auto found = co_await look_for_run(ctx, github, token, certain_search);
  if (!found)
    throw PhaseError("run_not_found",
                     "GitHub accepted the dispatch and shows no run with token " + token + " after 10 minutes",
                     "The workflow's run-name must be \"build ${{ inputs.git_sha }} [${{ inputs.run_token }}]\".");
  co_return ctx.remember("dispatched_run", *found);
}

void tell_progress(PhaseContext& ctx, const Json::array_t& jobs) {
  for (const Json& job : jobs) {
    const std::string id = std::to_string(integer_at(job, "/id"));
    const std::string name = clean_text(text_at(job, "/name"), 200);
    const Json about{{"job", name}, {"url", optional_text_at(job, "/html_url").value_or("")}};
    const std::string status = text_at(job, "/status");
    if (status == "in_progress" || status == "completed")
      ctx.event(Level::info, "job " + name + " started", about, "job:" + id + ":started");
    const Json& steps = value_at(job, "/steps");
    for (const Json& step : steps.is_array() ? steps : Json::array()) {
      const std::string number = std::to_string(integer_at(step, "/number"));
      const std::string step_name = clean_text(text_at(step, "/name"), 200);
      const std::string step_status = text_at(step, "/status");
      const std::string key = "step:" + id + ":" + number;
      if (step_status == "in_progress" || step_status == "completed")
        ctx.event(Level::debug, "step " + step_name + " started", {{"job", name}}, key + ":started");
      if (step_status == "completed") {
        const std::string conclusion = optional_text_at(step, "/conclusion").value_or("unknown");
        ctx.event(conclusion == "failure" ? Level::warn : Level::info, "step " + step_name + ": " + conclusion,
                  {{"job", name}}, key + ":completed");
      }
    }
    if (status == "completed")
      ctx.event(Level::info, "job " + name + ": " + optional_text_at(job, "/conclusion").value_or("unknown"), about,
                "job:" + id + ":completed");
  }
}

PhaseError build_failure(const Json& run, const Json::array_t& jobs) {
  const std::string conclusion = optional_text_at(run, "/conclusion").value_or("unknown");
  std::string where = optional_text_at(run, "/html_url").value_or("");
  std::string what = "the workflow ended with " + conclusion;
  for (const Json& job : jobs) {
    const std::string job_conclusion = optional_text_at(job, "/conclusion").value_or("");
    if (job_conclusion == "success" || job_conclusion == "skipped" || job_conclusion.empty()) continue;
    what += ": job " + clean_text(text_at(job, "/name"), 200) + " " + job_conclusion;
    where = optional_text_at(job, "/html_url").value_or(where);
    const Json& steps = value_at(job, "/steps");
    for (const Json& step : steps.is_array() ? steps : Json::array())
      if (optional_text_at(step, "/conclusion").value_or("") == "failure") {
        what += " in step " + clean_text(text_at(step, "/name"), 200);
        break;
      }
    break;
  }
  return {"build_failed",
          what + " (" + where + ")",
          "Read the log at " + where + ", mend the cause, then queue a new run.",
          {{"conclusion", conclusion}, {"url", where}}};
}

bool is_known_status(std::string_view status) {
  constexpr std::string_view known[] = {"requested", "waiting", "pending", "queued", "in_progress", "completed"};
  return std::ranges::find(known, status) != std::end(known);
}

/// Follows the run to its end. Returns the jobs of its last attempt.
Coroutine<Json::array_t> follow(PhaseContext& ctx, GithubClient& github, std::int64_t run_id) {
  const Millis poll = config_duration(ctx, "/github/poll_interval", usual_poll);
  const SteadyTime slower_from = ctx.steady_now() + quick_polling;
  Conditional conditional;
  conditional.seen = ctx.recall("run_seen").has_value();
  for (;;) {
    std::string url = run_url(github, run_id);
    std::string what = "workflow run " + std::to_string(run_id);
    const auto changed = co_await github.get_if_changed(url, what, conditional);
    ctx.remember("run_seen", true);
    const Json run = conditional.last;
    if (integer_at(run, "/id") != run_id)
      throw PhaseError("bad_response", "GitHub answered with another run than " + std::to_string(run_id),
                       "Retry the run.");
    const std::string status = text_at(run, "/status");
    if (status == "waiting")
      ctx.event(Level::warn, "the workflow waits for an approval on GitHub",
                {{"url", optional_text_at(run, "/html_url").value_or("")}}, "waits_for_approval");
    if (!is_known_status(status))
      ctx.event(
          Level::warn,
          "the workflow run has the unknown status \"" + clean_text(status, 60) + "\"; it is taken as not finished",
          Json::object(), "status:" + clean_text(status, 60));
    Json::array_t jobs;
    // Steps move without the run changing, so the jobs are read each time while it runs.
    if (status == "in_progress" || status == "completed") {
      url += "/jobs?filter=latest&per_page=100";
      jobs = co_await github.get_list(std::move(url), "jobs", "jobs of " + what);
      for (const Json& job : jobs)
        if (optional_integer_at(job, "/run_id").value_or(run_id) != run_id)
          throw PhaseError("bad_response", "GitHub answered with jobs of another run than " + std::to_string(run_id),
                           "Retry the run.");
      tell_progress(ctx, jobs);
    }
    if (status == "completed") {
      if (optional_text_at(run, "/conclusion").value_or("") != "success") throw build_failure(run, jobs);
      co_return jobs;
    }
    co_await ctx.sleep(ctx.steady_now() < slower_from ? poll : poll * 2);
  }
}

/// result.json of the artifact, or nothing with a warning event.
Coroutine<std::optional<Json>> build_result(PhaseContext& ctx, GithubClient& github, std::int64_t run_id,
                                            std::string token) {
  const std::string name = "build-result-" + token;
  std::string url = run_url(github, run_id) + "/artifacts?name=" + percent_encode(name) + "&per_page=100";
  Json::array_t artifacts = co_await github.get_list(std::move(url), "artifacts", "artifacts of the workflow run");
  std::erase_if(artifacts, [&](const Json& artifact) {
    return text_at(artifact, "/name") != name || value_at(artifact, "/expired") == true;
  });
  if (artifacts.empty()) {
    ctx.event(Level::warn, "the workflow left no artifact " + name + "; the digest is taken from the registry alone");
    co_return std::nullopt;
  }
  // After a re-run the artifacts of several attempts may stand side by side: the newest counts.
  const Json artifact = *std::ranges::max_element(artifacts, {}, [](const Json& a) { return integer_at(a, "/id"); });
  HttpRequest options;
  options.max_body_bytes = largest_result_zip;
  url = github.repository_url() + "/actions/artifacts/" + std::to_string(integer_at(artifact, "/id")) + "/zip";
  const HttpResponse zip = co_await github.download(std::move(url), std::move(options));
  if (zip.status == 410 || zip.status == 404) {
    ctx.event(Level::warn, "artifact " + name + " has expired; the digest is taken from the registry alone");
    co_return std::nullopt;
  }
  if (zip.status != 200) throw github.unexpected(zip, "artifact " + name);
  const auto told = optional_text_at(artifact, "/digest");
  if (told && *told != "sha256:" + sha256_hex(zip.body))
    throw PhaseError("digest_mismatch", "artifact " + name + " does not have the digest that GitHub names",
                     "Retry the run.");
  const auto text = zip_entry(zip.body, "result.json", largest_result);
  const auto result = text ? parse_json(*text) : std::nullopt;
  if (!result || !result->is_object())
    throw PhaseError("bad_response", "artifact " + name + " holds no readable result.json",
                     "The workflow must upload result.json as in docs/workflows/ops-build.yml.");
  co_return *result;
}

/// Digest from the build's result and from the registry; both must agree and belong to this commit.
Coroutine<Json> verified_image(PhaseContext& ctx, GithubClient& github, std::int64_t run_id, std::string token) {
  RegistryClient registry(ctx);
  const auto result = co_await build_result(ctx, github, run_id, token);
  std::string tag = "run-" + token;
  const auto manifest = co_await registry.manifest(tag);
  if (!manifest)
    throw PhaseError("image_missing",
                     "the build succeeded and " + registry.image_name() + ":" + tag + " is not in the registry",
                     "The workflow must push the tag run-<run_token> as in docs/workflows/ops-build.yml.");
  if (result) {
    const std::string built_sha = text_at(*result, "/git_sha");
    if (built_sha != ctx.run().git_sha)
      throw PhaseError("wrong_commit",
                       "the workflow built commit " + clean_text(built_sha, 80) + " instead of " + ctx.run().git_sha,
                       "The workflow must check out inputs.git_sha.");
    const std::string digest = text_at(*result, "/digest");
    if (digest != manifest->digest)
      throw PhaseError("digest_mismatch",
                       "the build reports " + clean_text(digest, 80) + " and the registry holds " + manifest->digest +
                           " under " + tag,
                       "Somebody else pushed this tag, or the registry changed the image. Do not deploy it.");
  }
  Json outcome = co_await image_outcome(ctx, registry, *manifest);
  co_return outcome;
}

/// The image of this commit, when an earlier run has built it.
Coroutine<std::optional<Json>> adopted_image(PhaseContext& ctx) {
  if (is_deploy(ctx) || value_at(ctx.config(), "/github/adopt") == false) co_return std::nullopt;
  RegistryClient registry(ctx);
  std::string tag = "sha-" + ctx.run().git_sha;
  const auto manifest = co_await registry.manifest(tag);
  if (!manifest) co_return std::nullopt;
  Json outcome = co_await image_outcome(ctx, registry, *manifest);
  outcome["adopted"] = true;
  ctx.event(Level::info, "image " + registry.image_name() + ":" + tag + " exists and is adopted; nothing is built",
            {{"digest", manifest->digest}}, "adopted");
  co_return outcome;
}

Coroutine<> request_cancel(PhaseContext& ctx, GithubClient& github, std::int64_t run_id, std::string how) {
  EffectSpec spec;
  spec.key = how;
  spec.kind = EffectKind::repeatable;
  std::string url = run_url(github, run_id) + (how.starts_with("force") ? "/force-cancel" : "/cancel");
  spec.request = co_await github.prepared(Method::post, std::move(url), {});
  spec.renew = github.renewal();
  spec.interpret = [&github](const HttpResponse& response) {
    // 409: it has ended already; following it shows how.
    if (response.status == 202 || response.status == 409) return EffectVerdict::done({{"status", response.status}});
    return EffectVerdict::rejected(github.unexpected(response, "the cancellation of a workflow run"));
  };
  co_await ctx.effect(std::move(spec));
}

/// Cancels the run and follows it to its end.
Coroutine<Json> stop_run(PhaseContext& ctx, GithubClient& github, std::int64_t run_id, std::string key) {
  co_await request_cancel(ctx, github, run_id, key);
  const Millis poll = config_duration(ctx, "/github/poll_interval", usual_poll);
  SteadyTime force_at = ctx.steady_now() + patience_with_cancel;
  for (;;) {
    std::string url = run_url(github, run_id);
    Json run = co_await github.get_json(std::move(url), "workflow run " + std::to_string(run_id));
    if (text_at(run, "/status") == "completed") co_return run;
    if (ctx.steady_now() >= force_at) {
      force_at = SteadyTime::max();
      co_await request_cancel(ctx, github, run_id, "force-" + key);
    }
    co_await ctx.sleep(poll);
  }
}

}  // namespace

Coroutine<Json> perform_github_workflow(PhaseContext& ctx) {
  const std::string token = run_token(ctx);
  const bool dispatched_before = ctx.effect_record("dispatch") != nullptr;
  if (!dispatched_before) {
    auto adopted = co_await adopted_image(ctx);
    if (adopted) co_return *adopted;
  }
  GithubClient github(ctx);
  if (!dispatched_before) co_await check_workflow(ctx, github);
  Json outcome = co_await dispatch(ctx, github, token);
  const std::int64_t run_id = integer_at(outcome, "/workflow_run_id");
  ctx.event(Level::info, "workflow run " + std::to_string(run_id) + " dispatched", outcome, "dispatched");

  const Json::array_t jobs = co_await follow(ctx, github, run_id);
  outcome["jobs"] = Json::array();
  for (const Json& job : jobs)
    outcome["jobs"].push_back({{"id", integer_at(job, "/id")}, {"name", clean_text(text_at(job, "/name"), 200)}});
  outcome["run_token"] = token;
  outcome["adopted"] = false;
  if (is_deploy(ctx)) co_return outcome;

  const Json image = co_await verified_image(ctx, github, run_id, token);
  outcome.update(image);
  ctx.event(Level::info, "image built: " + text_at(outcome, "/image") + "@" + text_at(outcome, "/digest"),
            {{"digest", outcome["digest"]}, {"platform_digest", outcome["platform_digest"]}}, "built");
  co_return outcome;
}

Coroutine<std::string> cancel_github_workflow(PhaseContext& ctx) {
  if (!ctx.may_be_outside("dispatch")) co_return std::string();
  const EffectRecord* record = ctx.effect_record("dispatch");
  GithubClient github(ctx);
  std::vector<std::int64_t> ids;
  if (record != nullptr && record->state == EffectState::done && record->outcome.contains("workflow_run_id")) {
    ids.push_back(integer_at(record->outcome, "/workflow_run_id"));
  } else if (const auto remembered = ctx.recall("dispatched_run")) {
    ids.push_back(integer_at(*remembered, "/workflow_run_id"));
  } else {
    const std::string token = run_token(ctx);
    const Json::array_t runs = co_await look_for_runs(ctx, github, token, search_window(ctx));
    for (const Json& run : runs) ids.push_back(integer_at(run, "/id"));
  }
  if (ids.empty()) co_return std::string("GitHub shows no workflow run of this phase");

  std::string told;
  for (const std::int64_t run_id : ids) {
    std::string key = ids.size() == 1 ? "cancel" : "cancel:" + std::to_string(run_id);
    const Json run = co_await stop_run(ctx, github, run_id, std::move(key));
    told += (told.empty() ? "" : "; ") + ("workflow run " + std::to_string(run_id)) + " ended as " +
            optional_text_at(run, "/conclusion").value_or("unknown");
  }
  co_return told;
}

}  // namespace ops
