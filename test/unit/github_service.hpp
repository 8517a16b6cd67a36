// GitHub and the registry of one build that goes well; tests change one answer of it.
#pragma once

#include "registry_service.hpp"
#include "zip_archive.hpp"

namespace ops::test {

class BuildWorld : public PhaseWorld {
 public:
  static constexpr std::int64_t run_id = 41;

  explicit BuildWorld(PhaseCatalog catalog = default_catalog()) : PhaseWorld(std::move(catalog)) {
    services.on(Method::get, "/actions/workflows/build.yml$", {{"id", 5}, {"state", "active"}});
    services.on(Method::get, "/commits/", {{"sha", "0123456789abcdef0123456789abcdef01234567"}});
    services.on(Method::get, "/actions/workflows/build.yml/runs",
                [this](const HttpRequest&) { return answer(200, {{"workflow_runs", runs_listed}}); });
    services.on(Method::post, "/dispatches", [this](const HttpRequest& request) {
      token = Json::parse(request.body)["inputs"]["run_token"];
      return dispatch_answer;
    });
    services.on_each(
        Method::get, "/actions/runs/41$",
        {answer(200, run("queued")), answer(200, run("in_progress")), answer(200, run("completed", "success"))});
    services.on(Method::get, "/actions/runs/41/jobs", {{"jobs", {job("completed", "success")}}});
    services.on(Method::get, "/actions/runs/41/artifacts",
                [this](const HttpRequest&) { return answer(200, {{"artifacts", {artifact()}}}); });
    services.on(Method::get, "/actions/artifacts/7/zip",
                [](const HttpRequest&) { return redirect("https://blob.example/result.zip?sig=hidden"); });
    services.on(Method::get, "https://blob.example/result.zip", [this](const HttpRequest&) {
      HttpResponse response = answer(200);
      response.body = zip();
      return response;
    });
    services.on(Method::get, "/manifests/run-", [this](const HttpRequest&) { return served(index, index_type); });
  }

  static Json config() {
    return Json::parse(R"({"github": {"workflow": "build.yml", "poll_interval": "10 s"},
                           "registry": {"image": "acme/odoo"}})");
  }
  static PhaseFacts build_phase(const Json& changes = Json::object()) {
    Json changed = config();
    changed.merge_patch(changes);
    return facts("github_workflow", changed);
  }
  static Json run(const std::string& status, const Json& conclusion = nullptr, std::int64_t id = run_id) {
    return {{"id", id},
            {"status", status},
            {"conclusion", conclusion},
            {"html_url", "https://github.com/acme/odoo/actions/runs/" + std::to_string(id)}};
  }
  static Json job(const std::string& status, const Json& conclusion = nullptr, const Json& steps = Json::array()) {
    return {{"id", 77},
            {"run_id", run_id},
            {"name", "build"},
            {"status", status},
            {"conclusion", conclusion},
            {"html_url", "https://github.com/acme/odoo/actions/runs/41/job/77"},
            {"steps", steps}};
  }
  static Json step(int number, const std::string& name, const std::string& status, const Json& conclusion = nullptr) {
    return {{"number", number}, {"name", name}, {"status", status}, {"conclusion", conclusion}};
  }
  Json artifact(std::int64_t id = 7) const {
    return {{"id", id}, {"name", "build-result-" + token}, {"expired", false}, {"digest", digest_of(zip())}};
  }
  std::string zip() const { return zip_of({{"result.json", result.is_null() ? result_text : built().dump()}}); }
  /// What the workflow wrote, with the digest that it pushed unless the test says otherwise.
  Json built() const {
    Json written{{"image", "ghcr.io/acme/odoo"},
                 {"digest", digest_of(index)},
                 {"git_sha", "0123456789abcdef0123456789abcdef01234567"}};
    written.update(result);
    return written;
  }
  std::string built_digest() const { return digest_of(index); }

  std::string token;  ///< of the last dispatch
  HttpResponse dispatch_answer =
      answer(200, {{"workflow_run_id", run_id}, {"html_url", "https://github.com/acme/odoo/actions/runs/41"}});
  Json runs_listed = Json::array();
  Json result = Json::object();  ///< laid over what a good workflow writes; null: result_text instead
  std::string result_text;
  std::string index = image_index().dump();
};

}  // namespace ops::test
