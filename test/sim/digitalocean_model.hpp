// App Platform: apps whose spec is replaced as a whole, deployments that supersede each other. Lists lag a little.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ground.hpp"

namespace ops::sim {

struct Deployment {
  std::string id;
  Json spec;
  std::string token;   ///< OPS_RUN_TOKEN of the spec
  std::string digest;  ///< of component odoo
  SteadyTime listed{};
  std::string phase = "PENDING_DEPLOY";
  bool was_active = false;

  bool is_over() const { return phase == "ACTIVE" || phase == "ERROR" || phase == "CANCELED" || phase == "SUPERSEDED"; }
};

class DigitaloceanModel {
 public:
  explicit DigitaloceanModel(Ground& ground) : ground_(ground) {}

  void add_app(const std::string& app_id);
  HttpResponse respond(const HttpRequest& request, const Url& url);
  const std::vector<Deployment>& deployments(const std::string& app_id) const { return apps_.at(app_id).deployments; }
  bool is_going_on(const std::string& token) const;
  /// A deployment is active, and since then it had time to start.
  bool is_serving(const std::string& app_id) const;

 private:
  struct App {
    std::string id;
    Json spec;
    std::vector<Deployment> deployments;  ///< oldest first
    std::optional<SteadyTime> serves_from;
  };
  HttpResponse put(App& app, const HttpRequest& request);
  HttpResponse of_deployment(App& app, const HttpRequest& request, const std::vector<std::string>& parts);
  void go_to(App& app, const std::string& deployment_id, const std::string& phase);
  Json view(const App& app) const;
  static Json view(const Deployment& deployment);

  Ground& ground_;
  std::map<std::string, App> apps_;
};

}  // namespace ops::sim
