#include "scene.hpp"

#include <stdexcept>

#include "core/pipeline.hpp"

namespace ops::sim {

namespace {

EnvironmentPlan environment(Dice& dice, int number) {
  const std::string name = "env-" + std::to_string(number);
  EnvironmentPlan plan;
  plan.env_id = name;
  plan.repo = "acme/odoo-" + std::to_string(number);
  plan.image = plan.repo;
  plan.app_id = "app-" + std::to_string(number);
  plan.odoo_url = "https://" + name + ".example";
  plan.max_active_runs = dice.chance(0.1) ? 2 : 1;
  plan.deploys_by_workflow = dice.chance(0.15);
  plan.odoo_is_broken = dice.chance(0.05);
  plan.config = {
      {"url", plan.odoo_url},
      {"github", {{"workflow", "build.yml"}, {"ref", "main"}, {"credential", "github"}, {"poll_interval", "10 s"}}},
      {"registry", {{"image", plan.image}, {"credential", "ghcr"}}},
      {"digitalocean",
       {{"app_id", plan.app_id},
        {"components", Json::array({"odoo"})},
        {"credential", "digitalocean"},
        {"poll_interval", "10 s"}}},
      {"smoke", {{"timeout", "3 min"}, {"interval", "5 s"}, {"consecutive_passes", 2}}},
      {"storage",
       {{"kind", "s3"},
        {"endpoint", storage_origin},
        {"region", "fra1"},
        {"bucket", "ops"},
        {"credential", "spaces"}}}};
  if (dice.chance(0.2)) plan.config["github"]["auth"] = "app";
  if (dice.chance(0.1)) plan.config.erase("storage");
  if (dice.chance(0.1)) plan.config["digitalocean"]["deploy_digest"] = "platform";
  return plan;
}

Json pipeline(Dice& dice, const EnvironmentPlan& environment) {
  Json phases = Json::array({{{"name", "build_image"}, {"kind", "github_workflow"}},
                             {{"name", "deploy_runtime"}, {"kind", "digitalocean_app"}},
                             {{"name", "smoke_tests"}, {"kind", "odoo_smoke"}},
                             {{"name", "capture_artifacts"}, {"kind", "capture"}}});
  if (environment.deploys_by_workflow)
    phases[1] = {{"name", "deploy_runtime"},
                 {"kind", "github_workflow"},
                 {"config", {{"github", {{"workflow", "deploy.yml"}, {"role", "deploy"}}}}}};
  if (dice.chance(0.1)) phases[0]["config"] = {{"github", {{"adopt", false}}}};
  // A time limit that may well be too short.
  if (dice.chance(0.15)) phases[static_cast<std::size_t>(dice.between(0, 2))]["timeout"] = "90 s";
  // Beside the others, or after the build.
  if (dice.chance(0.3))
    phases.push_back({{"name", "notice"},
                      {"kind", "notice"},
                      {"needs", dice.chance(0.5) ? Json::array() : Json::array({"build_image"})}});
  return phases;
}

}  // namespace

Scene Scene::drawn(Dice& dice, const PhaseCatalog& catalog) {
  Scene scene;
  const auto environments = dice.between(1, 3);
  for (int i = 1; i <= environments; ++i) scene.environments.push_back(environment(dice, i));
  const auto runs = dice.between(1, 6);
  for (int i = 1; i <= runs; ++i) {
    const EnvironmentPlan& chosen = dice.one_of(scene.environments);
    RunPlan run;
    run.facts.run_id = "run-" + std::to_string(i);
    run.facts.project_id = "acme";
    run.facts.env_id = chosen.env_id;
    run.facts.env_type = "staging";
    run.facts.repo_slug = chosen.repo;
    run.facts.odoo_version = "19.0";
    run.facts.git_sha = std::string(39, 'a') + static_cast<char>('0' + dice.between(1, 3));
    run.facts.git_ref = "main";
    run.facts.metadata = {{"phases", pipeline(dice, chosen)}};
    run.max_active_runs = chosen.max_active_runs;
    run.queued_after = dice.chance(0.5) ? Micros{0} : dice.between(Micros{0}, std::chrono::minutes{10});
    Plan plan = plan_phases(chosen.config, run.facts.metadata, run.facts.env_type, run.facts.git_ref, catalog);
    if (plan.error) throw std::logic_error(plan.error->path + ": " + plan.error->message);
    run.phases = std::move(plan.phases);
    scene.runs.push_back(std::make_shared<const RunPlan>(std::move(run)));
  }
  scene.calm_after = dice.between(std::chrono::minutes{5}, std::chrono::minutes{40});
  return scene;
}

}  // namespace ops::sim
