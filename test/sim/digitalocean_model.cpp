#include "digitalocean_model.hpp"

#include <algorithm>

namespace ops::sim {

namespace {

using std::chrono::seconds;

constexpr Micros longest_listing_lag = seconds{10};

HttpResponse not_found() {
  return answer(404, {{"id", "not_found"}, {"message", "The resource you were accessing could not be found."}});
}

}  // namespace

void DigitaloceanModel::add_app(const std::string& app_id) {
  const Json odoo{
      {"name", "odoo"},
      {"image", {{"registry_type", "GHCR"}, {"registry", "acme"}, {"repository", "odoo"}, {"tag", "before"}}},
      {"envs", Json::array({{{"key", "ADMIN_PASSWORD"}, {"value", "EV[1:sim]"}, {"type", "SECRET"}}})}};
  apps_[app_id] = {app_id, {{"name", app_id}, {"services", Json::array({odoo})}}, {}, {}};
}

bool DigitaloceanModel::is_going_on(const std::string& token) const {
  for (const auto& [id, app] : apps_)
    for (const Deployment& deployment : app.deployments)
      if (deployment.token == token && !deployment.is_over()) return true;
  return false;
}

bool DigitaloceanModel::is_serving(const std::string& app_id) const {
  const App& app = apps_.at(app_id);
  return app.serves_from && *app.serves_from <= ground_.agenda.steady_now();
}

HttpResponse DigitaloceanModel::respond(const HttpRequest& request, const Url& url) {
  const std::vector<std::string> parts = path_parts(url.path);  // v2 apps <id> deployments <id> cancel
  if (parts.size() < 3) return not_found();
  if (parts[2] == "propose") return answer(200, {{"spec", Json::parse(request.body)["spec"]}});
  const auto found = apps_.find(parts[2]);
  if (found == apps_.end()) return not_found();
  App& app = found->second;
  if (parts.size() >= 5) return of_deployment(app, request, parts);
  if (parts.size() == 4) {
    Json list = Json::array();
    for (auto at = app.deployments.rbegin(); at != app.deployments.rend(); ++at)
      if (at->listed <= ground_.agenda.steady_now() && !ground_.defects.finds_nothing) list.push_back(view(*at));
    return answer(200, {{"deployments", list}});
  }
  return request.method == Method::put ? put(app, request) : answer(200, {{"app", view(app)}});
}

HttpResponse DigitaloceanModel::put(App& app, const HttpRequest& request) {
  Dice& dice = ground_.dice;
  const SteadyTime now = ground_.agenda.steady_now();
  Deployment created;
  created.id = app.id + "-deployment-" + std::to_string(app.deployments.size() + 1);
  created.spec = Json::parse(request.body)["spec"];
  const Json& odoo = created.spec["services"][0];
  created.digest = odoo["image"].value("digest", "");
  for (const Json& env : odoo["envs"])
    if (env["key"] == "OPS_RUN_TOKEN") created.token = env["value"];
  created.listed = now + (dice.chance(0.7) ? Micros{0} : dice.between(Micros{0}, longest_listing_lag));
  ground_.trace([&] { return "digitalocean: " + created.id + " of " + created.token + " begins"; });
  ground_.took_effect("put " + created.token);
  for (Deployment& before : app.deployments)
    if (!before.is_over()) go_to(app, before.id, "SUPERSEDED");
  app.spec = created.spec;
  const std::string id = created.id;
  app.deployments.push_back(created);
  const SteadyTime deploys = now + dice.between(seconds{2}, seconds{20});
  ground_.agenda.at(deploys, [this, &app, id] { go_to(app, id, "DEPLOYING"); });
  const std::string ending = dice.chance(0.08) ? "ERROR" : "ACTIVE";
  ground_.agenda.at(deploys + dice.between(seconds{5}, seconds{100}),
                    [this, &app, id, ending] { go_to(app, id, ending); });
  Json shown = view(app);
  shown["pending_deployment"] = view(created);  // guaranteed in the answer
  return answer(200, {{"app", shown}});
}

void DigitaloceanModel::go_to(App& app, const std::string& deployment_id, const std::string& phase) {
  Deployment& deployment = *std::ranges::find(app.deployments, deployment_id, &Deployment::id);
  if (deployment.is_over()) return;
  if (phase == "ACTIVE") {
    for (Deployment& before : app.deployments)
      if (before.phase == "ACTIVE") before.phase = "SUPERSEDED";
    deployment.was_active = true;
    app.serves_from = ground_.agenda.steady_now() + ground_.dice.between(seconds{0}, seconds{40});
  }
  deployment.phase = phase;
  ground_.trace([&] { return "digitalocean: " + deployment_id + " is " + phase; });
}

HttpResponse DigitaloceanModel::of_deployment(App& app, const HttpRequest& request,
                                              const std::vector<std::string>& parts) {
  const auto found = std::ranges::find(app.deployments, parts[4], &Deployment::id);
  if (found == app.deployments.end()) return not_found();
  if (request.method == Method::post && !found->is_over())
    ground_.agenda.after(ground_.dice.between(seconds{0}, seconds{5}),
                         [this, &app, id = found->id] { go_to(app, id, "CANCELED"); });
  return answer(200, {{"deployment", view(*found)}});
}

Json DigitaloceanModel::view(const Deployment& deployment) {
  const char* status = deployment.phase == "ACTIVE" ? "SUCCESS" : deployment.phase == "ERROR" ? "ERROR" : "RUNNING";
  return {{"id", deployment.id},
          {"spec", deployment.spec},
          {"phase", deployment.phase},
          {"progress", {{"steps", Json::array({{{"name", "deploy"}, {"status", status}}})}}}};
}

Json DigitaloceanModel::view(const App& app) const {
  Json shown{{"id", app.id}, {"spec", app.spec}};
  for (const Deployment& deployment : app.deployments) {
    if (deployment.listed > ground_.agenda.steady_now() || ground_.defects.finds_nothing) continue;
    if (deployment.phase == "PENDING_DEPLOY") shown["pending_deployment"] = view(deployment);
    if (deployment.phase == "DEPLOYING") shown["in_progress_deployment"] = view(deployment);
    if (deployment.phase == "ACTIVE") shown["active_deployment"] = view(deployment);
  }
  return shown;
}

}  // namespace ops::sim
