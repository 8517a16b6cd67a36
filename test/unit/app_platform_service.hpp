// App Platform with one app, as the deploying phase sees it; what it says can be changed by a test.
#pragma once

#include "registry_service.hpp"

namespace ops::test {

class AppPlatformWorld : public PhaseWorld {
 public:
  AppPlatformWorld() {
    services.on(Method::get, "/v2/apps/app-1$", [this](const HttpRequest&) { return answer(200, app_answer()); });
    services.on(Method::post, "/v2/apps/propose$", Json::object());
    services.on(Method::put, "/v2/apps/app-1$", [this](const HttpRequest& request) {
      if (lost_puts-- > 0) return lost(true);
      app_spec = Json::parse(request.body)["spec"];
      deployed = true;
      if (answer_to_put) return *answer_to_put;
      return answer(200, {{"app", {{"id", "app-1"}, {"pending_deployment", {{"id", "dep-1"}}}}}});
    });
    services.on(Method::get, "/deployments?", [this](const HttpRequest&) {
      const Json before{{"id", "dep-0"}, {"spec", spec()}};
      const Json ours{{"id", "dep-1"}, {"spec", app_spec}};
      const Json list = deployed ? Json::array({ours, before}) : Json::array({before});
      return answer(200, {{"deployments", list}});
    });
    services.on(Method::get, "/deployments/dep-1$", [this](const HttpRequest&) {
      const std::string phase = phases.front();
      if (phases.size() > 1) phases.erase(phases.begin());
      return answer(200, {{"deployment", {{"id", "dep-1"}, {"phase", phase}, {"progress", {{"steps", steps}}}}}});
    });
    services.on(Method::post, "/deployments/dep-1/cancel$", [this](const HttpRequest&) {
      phases = {"CANCELED"};
      return answer(200, Json::object());
    });
  }

  static Json spec() {
    return Json::parse(R"({"name": "acme", "region": "fra", "domains": [{"domain": "acme.example"}],
        "services": [{"name": "odoo", "http_port": 8069, "envs": [{"key": "A", "value": "EV[1:x]", "type": "SECRET"}],
                      "image": {"registry_type": "GHCR", "registry": "acme", "repository": "odoo", "tag": "19.0-old",
                                "registry_credentials": "EV[1:abc]"}}],
        "workers": [{"name": "cron"}], "jobs": [{"name": "migrate"}], "databases": [{"name": "db"}]})");
  }
  Json app_answer() const {
    Json app{{"id", "app-1"}, {"spec", app_spec}};
    if (deployed && shown_in_app)
      app["in_progress_deployment"] = {{"id", "dep-1"}, {"phase", "BUILDING"}, {"spec", app_spec}};
    return {{"app", app}};
  }
  static PhaseFacts phase_facts(const Json& changes = Json::object()) {
    Json config = Json::parse(R"({"digitalocean": {"app_id": "app-1", "components": ["odoo", "cron"]},
                                  "registry": {"image": "acme/odoo"}})");
    config.merge_patch(changes);
    return facts("digitalocean_app", config);
  }
  static PhaseFacts built() {
    return succeeded("github_workflow", {{"digest", some_digest('a')}, {"platform_digest", some_digest('b')}});
  }
  void deploy(const Json& changes = Json::object()) { perform(phase_facts(changes), {built()}); }

  Json app_spec = spec();
  bool deployed = false;
  bool shown_in_app = true;
  int lost_puts = 0;  ///< so many are lost before they arrive
  std::optional<HttpResponse> answer_to_put;
  std::vector<std::string> phases{"PENDING_BUILD", "BUILDING", "DEPLOYING", "ACTIVE"};
  Json steps = Json::parse(R"([{"name": "build", "status": "SUCCESS"}, {"name": "deploy", "status": "RUNNING"}])");
};

}  // namespace ops::test
