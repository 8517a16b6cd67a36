// Short-lived tokens (GitHub App installation, registry bearer) shared by all runs of the worker. Memory only.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "core/run.hpp"
#include "core/secret.hpp"

namespace ops {

class SessionTokens {
 public:
  /// The token for that key if it stays valid for at least `margin` from `now`; null otherwise.
  std::shared_ptr<const SecretString> find(const std::string& key, SteadyTime now, Millis margin) const {
    const auto found = tokens_.find(key);
    if (found == tokens_.end() || found->second.expires - margin <= now) return nullptr;
    return found->second.token;
  }
  std::shared_ptr<const SecretString> keep(const std::string& key, std::string token, SteadyTime expires) {
    auto secret = std::make_shared<const SecretString>(std::move(token));
    tokens_.insert_or_assign(key, Entry{secret, expires});
    return secret;
  }
  /// The service has refused that token. What somebody else has put in its place meanwhile stays.
  void forget(const std::string& key, const std::shared_ptr<const SecretString>& token) {
    const auto found = tokens_.find(key);
    if (found != tokens_.end() && found->second.token == token) tokens_.erase(found);
  }

 private:
  struct Entry {
    std::shared_ptr<const SecretString> token;
    SteadyTime expires;
  };
  std::map<std::string, Entry> tokens_;
};

}  // namespace ops
