// What operators do: queue runs, cancel and reset them at any moment, take secrets away and bring them back, decide.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "database.hpp"
#include "ground.hpp"
#include "inspector.hpp"
#include "services.hpp"

namespace ops::sim {

class People {
 public:
  /// @param reachable  whether the server takes connections now
  People(Ground& ground, Database& database, Services& services, Inspector& inspector, const Scene& scene,
         std::function<bool()> reachable);

  /// Enters into the agenda what they will do.
  void begin();
  bool have_queued_all() const { return queued_ == scene_.runs.size(); }
  const std::set<std::string>& secrets() const { return secrets_; }

 private:
  /// Now, or when the server is there again.
  void when_reachable(Micros delay, std::function<void()> act);
  void meddle(const std::string& run_id);
  void decide();

  Ground& ground_;
  Database& database_;
  Services& services_;
  Inspector& inspector_;
  const Scene& scene_;
  std::function<bool()> reachable_;
  std::set<std::string> secrets_{"github", "ghcr", "digitalocean", "spaces"};
  std::size_t queued_ = 0;
};

}  // namespace ops::sim
