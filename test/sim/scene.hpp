// What a seed decides beforehand: environments with their services, and the runs that people will queue in them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/phase_catalog.hpp"
#include "dice.hpp"

namespace ops::sim {

struct EnvironmentPlan {
  std::string env_id;
  std::string repo;
  std::string image;
  std::string app_id;
  std::string odoo_url;
  Json config;
  int max_active_runs = 1;
  bool deploys_by_workflow = false;
  bool odoo_is_broken = false;
};

struct RunPlan {
  RunFacts facts;
  std::vector<PhaseFacts> phases;
  int max_active_runs = 1;
  Micros queued_after{0};
};

struct Scene {
  std::vector<EnvironmentPlan> environments;
  std::vector<std::shared_ptr<const RunPlan>> runs;
  Micros calm_after{0};  ///< from here on nothing fails and everything comes to an end

  static Scene drawn(Dice& dice, const PhaseCatalog& catalog);
};

inline constexpr const char* github_origin = "https://api.github.com";
inline constexpr const char* github_files_origin = "https://files.github.example";
inline constexpr const char* registry_origin = "https://ghcr.io";
inline constexpr const char* digitalocean_origin = "https://api.digitalocean.com";
inline constexpr const char* storage_origin = "https://storage.example";
inline constexpr const char* notice_url = "https://hooks.example/notice";

}  // namespace ops::sim
