#include "services.hpp"

#include "odoo_model.hpp"

namespace ops::sim {

Services::Services(Ground& ground, const Scene& scene)
    : registry(ground), github(ground, registry), digitalocean(ground), bucket(ground), ground_(ground), scene_(scene) {
  for (const EnvironmentPlan& environment : scene.environments) digitalocean.add_app(environment.app_id);
}

bool Services::odoo_is_well(const EnvironmentPlan& environment) const {
  if (environment.odoo_is_broken) return false;
  if (!environment.deploys_by_workflow) return digitalocean.is_serving(environment.app_id);
  for (const auto& [id, run] : github.runs())
    if (run.repo == environment.repo && run.workflow == "deploy.yml" && run.conclusion == "success") return true;
  return false;
}

HttpResponse Services::respond(const HttpRequest& request) {
  const Url url = *parse_url(request.url);
  const auto at = [&](std::string_view origin) { return request.url.starts_with(origin); };
  if (at(github_origin)) return github.respond(request, url);
  if (at(github_files_origin)) return github.file(url);
  if (at(registry_origin)) return registry.respond(request, url);
  if (at(digitalocean_origin)) return digitalocean.respond(request, url);
  if (at(storage_origin)) return bucket.respond(request, url);
  if (request.url == notice_url) {
    ++notices_[request.body];
    ground_.took_effect("notice " + request.body);
    return answer(200, Json::object());
  }
  for (const EnvironmentPlan& environment : scene_.environments)
    if (at(environment.odoo_url)) return odoo_answer(url, odoo_is_well(environment));
  return answer(404);
}

}  // namespace ops::sim
