// A registry with ghcr.io's token flow: images as BuildKit pushes them, an index with linux/amd64 and attestations.
#pragma once

#include <map>
#include <set>
#include <string>

#include "ground.hpp"

namespace ops::sim {

class RegistryModel {
 public:
  explicit RegistryModel(Ground& ground) : ground_(ground) {}

  HttpResponse respond(const HttpRequest& request, const Url& url);
  /// Returns the digest of the index.
  std::string push(const std::string& image, const std::vector<std::string>& tags, const std::string& git_sha);
  /// Commit from which the image with that digest (of index or platform) was built; empty: there is none.
  std::string commit_of(const std::string& digest) const;

 private:
  Ground& ground_;
  std::map<std::string, std::string> manifests_;  ///< image@digest -> bytes
  std::map<std::string, std::string> tags_;       ///< image:tag -> digest
  std::map<std::string, std::string> commits_;    ///< digest -> git sha
  std::map<std::string, SteadyTime> tokens_;      ///< until when they are valid
  int last_token_ = 0;
};

}  // namespace ops::sim
