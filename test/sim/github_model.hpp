// GitHub Actions: dispatches, runs that take their time, jobs, artifacts, logs, cancellation. The run list lags.
#pragma once

#include <map>
#include <set>
#include <string>

#include "ground.hpp"
#include "registry_model.hpp"

namespace ops::sim {

struct WorkflowRun {
  std::int64_t id = 0;
  std::string repo;
  std::string workflow;
  Json inputs;
  SteadyTime created{};
  SteadyTime listed{};   ///< when the run list shows it
  SteadyTime started{};  ///< until then it is queued
  WallTime created_at{};
  std::optional<SteadyTime> ended;
  std::string conclusion;
  bool ignores_cancel = false;  ///< until it is forced
  std::string digest;

  std::string token() const { return inputs.value("run_token", ""); }
};

class GithubModel {
 public:
  GithubModel(Ground& ground, RegistryModel& registry) : ground_(ground), registry_(registry) {}

  HttpResponse respond(const HttpRequest& request, const Url& url);
  /// The other origin, to which signed URLs lead.
  HttpResponse file(const Url& url) const;

  const std::map<std::int64_t, WorkflowRun>& runs() const { return runs_; }
  /// @param token  run token of a phase
  bool is_going_on(const std::string& token) const;

 private:
  HttpResponse of_workflow(const HttpRequest& request, const Url& url, const std::vector<std::string>& parts);
  HttpResponse of_run(const HttpRequest& request, const std::vector<std::string>& parts);
  HttpResponse dispatch(const HttpRequest& request, const std::string& repo, const std::string& workflow);
  HttpResponse list(const Url& url, const std::string& repo, const std::string& workflow) const;
  HttpResponse cancel(WorkflowRun& run, bool force);
  Json view(const WorkflowRun& run) const;
  Json jobs(const WorkflowRun& run) const;
  HttpResponse signed_url(std::string bytes);
  void end(std::int64_t run_id, const std::string& conclusion);

  Ground& ground_;
  RegistryModel& registry_;
  std::map<std::int64_t, WorkflowRun> runs_;
  std::map<std::string, std::string> files_;
  std::set<std::string> installation_tokens_;
  std::int64_t last_id_ = 9'007'199'254;
};

}  // namespace ops::sim
