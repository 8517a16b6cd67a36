// All services of one simulated world, found by origin.
#pragma once

#include <map>
#include <string>

#include "bucket_model.hpp"
#include "digitalocean_model.hpp"
#include "github_model.hpp"
#include "registry_model.hpp"
#include "scene.hpp"

namespace ops::sim {

class Services {
 public:
  Services(Ground& ground, const Scene& scene);

  HttpResponse respond(const HttpRequest& request);
  /// Something that a phase with this token has begun is not over.
  bool is_going_on(const std::string& token) const {
    return github.is_going_on(token) || digitalocean.is_going_on(token);
  }
  int notices_of(const std::string& run_id) const {
    const auto found = notices_.find(run_id);
    return found == notices_.end() ? 0 : found->second;
  }
  /// Whether the Odoo of this environment would pass its checks now.
  bool odoo_is_well(const EnvironmentPlan& environment) const;

  RegistryModel registry;
  GithubModel github;
  DigitaloceanModel digitalocean;
  BucketModel bucket;

 private:
  Ground& ground_;
  const Scene& scene_;
  std::map<std::string, int> notices_;  ///< by run id
};

}  // namespace ops::sim
