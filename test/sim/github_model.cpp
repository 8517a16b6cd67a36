#include "github_model.hpp"

#include <ctime>

#include "scene.hpp"
#include "zip_file.hpp"

namespace ops::sim {

namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr Micros longest_listing_lag = minutes{2};  // the phase looks for three
constexpr Micros log_lag = seconds{8};

std::string utc(WallTime time) {
  const std::time_t whole = std::chrono::system_clock::to_time_t(std::chrono::time_point_cast<seconds>(time));
  std::tm parts{};
  gmtime_r(&whole, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

std::string parameter(const std::string& query, const std::string& name) {
  const std::size_t at = ("&" + query).find("&" + name + "=");
  if (at == std::string::npos) return {};
  const std::size_t begin = at + name.size() + 1;
  return query.substr(begin, query.find('&', begin) - begin);
}

}  // namespace

bool GithubModel::is_going_on(const std::string& token) const {
  for (const auto& [id, run] : runs_)
    if (run.token() == token && !run.ended) return true;
  return false;
}

HttpResponse GithubModel::respond(const HttpRequest& request, const Url& url) {
  const std::vector<std::string> parts = path_parts(url.path);
  const auto part = [&](std::size_t i) { return i < parts.size() ? parts[i] : std::string(); };
  if (part(0) == "app") {
    const std::string token = "ghs_" + std::to_string(ground_.dice.next());
    installation_tokens_.insert(token);
    return answer(201, {{"token", token}, {"expires_at", utc(ground_.agenda.now() + minutes{60})}});
  }
  if (part(3) == "installation") return answer(200, {{"id", 77}});
  if (request.session_token && !installation_tokens_.contains(std::string(request.session_token->reveal())))
    return answer(401, {{"message", "Bad credentials"}});
  if (part(3) == "commits") return answer(200, {{"sha", part(4)}});
  if (part(3) != "actions") return answer(404, {{"message", "Not Found"}});
  if (part(4) == "workflows") return of_workflow(request, url, parts);
  if (part(4) == "runs") return of_run(request, parts);
  if (part(4) == "artifacts") {
    const WorkflowRun& run = runs_.at(std::stoll(part(5)));
    return signed_url(
        zip_file("result.json",
                 Json{{"digest", run.digest}, {"git_sha", run.inputs["git_sha"]}, {"run_token", run.token()}}.dump()));
  }
  const WorkflowRun& run = runs_.at(std::stoll(part(5)) / 10);  // jobs/<id>/logs
  if (!run.ended || ground_.agenda.steady_now() < *run.ended + log_lag) return answer(404, {{"message", "Not Found"}});
  return signed_url("log of run " + std::to_string(run.id) + "\n");
}

HttpResponse GithubModel::of_workflow(const HttpRequest& request, const Url& url,
                                      const std::vector<std::string>& parts) {
  const std::string repo = parts[1] + "/" + parts[2];
  const std::string& workflow = parts[5];
  if (parts.size() == 6) return answer(200, {{"id", 1}, {"state", "active"}});
  if (parts[6] == "dispatches") return dispatch(request, repo, workflow);
  return list(url, repo, workflow);
}

HttpResponse GithubModel::dispatch(const HttpRequest& request, const std::string& repo, const std::string& workflow) {
  Dice& dice = ground_.dice;
  const SteadyTime now = ground_.agenda.steady_now();
  WorkflowRun run;
  run.id = ++last_id_;
  run.repo = repo;
  run.workflow = workflow;
  run.inputs = Json::parse(request.body)["inputs"];
  run.created = now;
  run.created_at = ground_.agenda.now();
  run.listed = now + (dice.chance(0.5) ? Micros{0} : dice.between(Micros{0}, longest_listing_lag));
  run.started = now + dice.between(seconds{1}, seconds{20});
  run.ignores_cancel = dice.chance(0.1);
  const SteadyTime ends = run.started + dice.between(seconds{10}, dice.chance(0.8) ? minutes{2} : minutes{8});
  const std::string conclusion = dice.chance(0.1) ? "failure" : "success";
  const bool tells_id = dice.chance(0.7);
  const std::int64_t id = run.id;
  ground_.trace([&] { return "github: run " + std::to_string(id) + " of " + run.token() + " begins"; });
  ground_.took_effect("dispatch " + run.token());
  ground_.agenda.at(ends, [this, id, conclusion] { end(id, conclusion); });
  runs_.emplace(id, std::move(run));
  if (!tells_id) return answer(204);
  return answer(200, {{"workflow_run_id", id}, {"html_url", "https://github.example/runs/" + std::to_string(id)}});
}

void GithubModel::end(std::int64_t run_id, const std::string& conclusion) {
  WorkflowRun& run = runs_.at(run_id);
  if (run.ended) return;
  run.ended = ground_.agenda.steady_now();
  run.conclusion = conclusion;
  if (conclusion == "success" && run.inputs.contains("image")) {
    const std::string sha = run.inputs["git_sha"];
    const std::string image = run.inputs["image"].get<std::string>().substr(std::string("ghcr.io/").size());
    run.digest = registry_.push(image, {"run-" + run.token(), "sha-" + sha}, sha);
  }
  ground_.trace([&] { return "github: run " + std::to_string(run_id) + " ends with " + conclusion; });
}

HttpResponse GithubModel::list(const Url& url, const std::string& repo, const std::string& workflow) const {
  const std::string created = parameter(url.query, "created");  // %3E%3D2027-01-15T08%3A00%3A00Z
  std::tm parts{};
  WallTime since{};
  if (strptime(created.c_str(), "%%3E%%3D%Y-%m-%dT%H%%3A%M%%3A%SZ", &parts) != nullptr)
    since = WallTime{seconds{timegm(&parts)}};
  Json found = Json::array();
  for (const auto& [id, run] : runs_)
    if (run.repo == repo && run.workflow == workflow && run.created_at >= since &&
        run.listed <= ground_.agenda.steady_now() && !ground_.defects.finds_nothing)
      found.push_back(view(run));
  return answer(200, {{"total_count", found.size()}, {"workflow_runs", found}});
}

Json GithubModel::view(const WorkflowRun& run) const {
  const bool queued = ground_.agenda.steady_now() < run.started;
  return {{"id", run.id},
          {"display_title", "build " + run.inputs.value("git_sha", "") + " [" + run.token() + "]"},
          {"status", run.ended ? "completed"
                     : queued  ? "queued"
                               : "in_progress"},
          {"conclusion", run.ended ? Json(run.conclusion) : Json()},
          {"html_url", "https://github.example/runs/" + std::to_string(run.id)},
          {"created_at", utc(run.created_at)}};
}

Json GithubModel::jobs(const WorkflowRun& run) const {
  const Json conclusion = run.ended ? Json(run.conclusion) : Json();
  const char* status = run.ended ? "completed" : "in_progress";
  const Json first{{"number", 1}, {"name", "Check out"}, {"status", "completed"}, {"conclusion", "success"}};
  const Json second{{"number", 2}, {"name", "Build and push"}, {"status", status}, {"conclusion", conclusion}};
  return Json::array({{{"id", run.id * 10},
                       {"name", "build"},
                       {"status", status},
                       {"conclusion", conclusion},
                       {"steps", Json::array({first, second})}}});
}

HttpResponse GithubModel::of_run(const HttpRequest& request, const std::vector<std::string>& parts) {
  const auto found = runs_.find(std::stoll(parts[5]));
  if (found == runs_.end()) return answer(404, {{"message", "Not Found"}});
  WorkflowRun& run = found->second;
  if (parts.size() == 6) {
    const Json shown = view(run);
    const std::string etag = "\"" + shown["status"].get<std::string>() + "\"";
    for (const Header& header : request.headers)
      if (header.name == "If-None-Match" && header.value == etag) return answer(304);
    HttpResponse response = answer(200, shown);
    response.headers.push_back({"ETag", etag});
    return response;
  }
  if (parts[6] == "jobs") return answer(200, {{"total_count", 1}, {"jobs", jobs(run)}});
  if (parts[6] == "artifacts") {
    Json artifacts = Json::array();
    if (!run.digest.empty())
      artifacts.push_back({{"id", run.id}, {"name", "build-result-" + run.token()}, {"expired", false}});
    return answer(200, {{"total_count", artifacts.size()}, {"artifacts", artifacts}});
  }
  return cancel(run, parts[6] == "force-cancel");
}

HttpResponse GithubModel::cancel(WorkflowRun& run, bool force) {
  if (run.ended) return answer(409, {{"message", "Cannot cancel a workflow run that is completed"}});
  if (force || !run.ignores_cancel)
    ground_.agenda.after(ground_.dice.between(seconds{1}, seconds{30}), [this, id = run.id] { end(id, "cancelled"); });
  return answer(202, Json::object());
}

HttpResponse GithubModel::signed_url(std::string bytes) {
  const std::string path = "/signed/" + std::to_string(files_.size() + 1);
  files_[path] = std::move(bytes);
  HttpResponse response = answer(302);
  response.headers.push_back({"Location", github_files_origin + path});
  return response;
}

HttpResponse GithubModel::file(const Url& url) const {
  const auto found = files_.find(url.path);
  if (found == files_.end()) return answer(404);
  HttpResponse response = answer(200);
  response.headers = {{"Content-Type", "application/octet-stream"}};
  response.body = found->second;
  response.body_bytes = static_cast<std::int64_t>(response.body.size());
  return response;
}

}  // namespace ops::sim
