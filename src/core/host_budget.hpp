// One budget per origin and credential, shared by all runs of the worker: rate limits told by the service, pauses asked
// for by it, and the pause between changing requests that GitHub wants (docs.github.com, "Best practices for using the
// REST API": serial requests, at least one second between changing ones). And one eye per origin on outages: a service
// that fails everybody is asked by one request at a time until it answers again.
#pragma once

#include <map>
#include <string>

#include "core/http_message.hpp"
#include "core/run.hpp"

namespace ops {

class HostBudget {
 public:
  static constexpr int failures_until_outage = 5;

  /// @param mutation_interval  least time between the starts of two changing requests to one origin with one credential
  /// @param probe_interval     time between two requests to an origin that has an outage
  explicit HostBudget(Millis mutation_interval, Millis probe_interval = std::chrono::seconds{10})
      : mutation_interval_(mutation_interval), probe_interval_(probe_interval) {}
  void configure(Millis mutation_interval, Millis probe_interval) {
    mutation_interval_ = mutation_interval;
    probe_interval_ = probe_interval;
  }

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

  // Outages: after so many failed requests to an origin in a row, whoever sent them, one at a time goes out.
  /// When this request may leave as a probe; not after `now` while there is no outage. Nothing is booked.
  SteadyTime next_probe(const HttpRequest& request, SteadyTime now) const;
  /// Tells that the request leaves now: during an outage it is the probe of this interval.
  void probe_sent(const HttpRequest& request, SteadyTime now);
  /// Learns from an answer. @param failed  lost, or a status that speaks of the service's own trouble
  void observe_health(const HttpRequest& request, bool failed, SteadyTime now);
  bool has_outage(const HttpRequest& request) const;

 private:
  struct Account {
    SteadyTime closed_until{};
    SteadyTime next_mutation{};
    int secondary_limits_in_a_row = 0;
  };
  struct Health {
    int failures_in_a_row = 0;
    SteadyTime next_probe{};
  };
  Millis mutation_interval_;
  Millis probe_interval_;
  std::map<std::string, Account> accounts_;
  std::map<std::string, Health> troubled_;  ///< by origin; gone with the first answer
};

/// Value of a Retry-After header, in seconds or as an HTTP date, held inside 1 s .. 1 h; nothing when absent or
/// unreadable.
std::optional<Millis> retry_after(const HttpResponse& response, WallTime wall_now);

}  // namespace ops
