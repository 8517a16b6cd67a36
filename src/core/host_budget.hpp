// One budget per origin and credential, shared by all runs of the worker: rate limits told by the service, pauses asked
// for by it, and the pause between changing requests that GitHub wants (docs.github.com, "Best practices for using the
// REST API": serial requests, at least one second between changing ones).
#pragma once

#include <map>
#include <string>

#include "core/http_message.hpp"
#include "core/run.hpp"

namespace ops {

class HostBudget {
 public:
  /// @param mutation_interval  least time between the starts of two changing requests to one origin with one credential
  explicit HostBudget(Millis mutation_interval) : mutation_interval_(mutation_interval) {}

  /// When this request may leave; not after `now`: at once. Nothing is booked.
  SteadyTime earliest(const HttpRequest& request, SteadyTime now) const;
  /// Tells that the request leaves now.
  void sent(const HttpRequest& request, SteadyTime now);

  /// Learns from an answer. Returns until when the budget is closed if the answer says that this request was throttled
  /// (429, or 403 with a rate-limit sign); the request had no effect then.
  /// Order of evidence (docs.github.com, "Rate limits for the REST API"): Retry-After; x-ratelimit-remaining: 0 with
  /// x-ratelimit-reset; the text of a secondary limit (60 s, doubling). DigitalOcean: ratelimit-remaining, -reset.
  /// Waits are held inside 1 s .. 1 h.
  std::optional<SteadyTime> observe(const HttpRequest& request, const HttpResponse& response, SteadyTime now,
                                    WallTime wall_now);

  void set_mutation_interval(Millis interval) { mutation_interval_ = interval; }

 private:
  struct Account {
    SteadyTime closed_until{};
    SteadyTime next_mutation{};
    int secondary_limits_in_a_row = 0;
  };
  Millis mutation_interval_;
  std::map<std::string, Account> accounts_;
};

/// Value of a Retry-After header, in seconds or as an HTTP date, held inside 1 s .. 1 h; nothing when absent or
/// unreadable.
std::optional<Millis> retry_after(const HttpResponse& response, WallTime wall_now);

}  // namespace ops
