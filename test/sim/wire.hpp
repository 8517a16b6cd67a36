// The Transport port of one life of the worker, over a network that loses, delays, refuses and repeats.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/ports.hpp"
#include "ground.hpp"
#include "services.hpp"

namespace ops::sim {

class Wire final : public Transport {
 public:
  struct Hooks {
    std::function<void(const char*)> at_point;                           ///< the worker may die here
    std::function<void(const HttpRequest&)> sends;                       ///< before anything else
    std::function<void(const HttpRequest&, const HttpResponse&)> hears;  ///< the worker gets the answer
  };
  Wire(Ground& ground, Services& services, const std::set<std::string>& secrets, Hooks hooks);

  void start(TransferId id, HttpRequest request) override;
  bool can_start_in_transaction(const HttpRequest&) const override { return true; }
  void advance() override {}
  void abandon(TransferId id) override { pending_->erase(id); }
  std::vector<FinishedTransfer> take_finished() override;
  std::size_t in_flight() const override { return pending_->size(); }
  bool has_finished() const { return !finished_->empty(); }

 private:
  using Request = std::shared_ptr<const HttpRequest>;
  void travel(TransferId id, const Request& request);
  void arrive(TransferId id, const Request& request, Micros way_back);
  void deliver(TransferId id, Micros delay, HttpResponse response);
  HttpResponse lost(bool sent) const;
  HttpResponse throttled(const HttpRequest& request) const;

  Ground& ground_;
  Services& services_;
  const std::set<std::string>& secrets_;
  Hooks hooks_;
  // Shared with acts of the agenda, which may outlive this life.
  std::shared_ptr<std::map<TransferId, Request>> pending_ = std::make_shared<std::map<TransferId, Request>>();
  std::shared_ptr<std::vector<FinishedTransfer>> finished_ = std::make_shared<std::vector<FinishedTransfer>>();
};

/// Method and URL, for traces.
std::string shown(const HttpRequest& request);

}  // namespace ops::sim
