// One budget per origin and credential, shared by all runs of the worker: rate limits told by the service, pauses asked
// for by it, and the pause between changing requests that GitHub wants (docs.github.com, "Best practices for using the
// REST API": serial requests, at least one second between changing ones). One eye per origin on outages: a service that
// fails everybody is asked by one request at a time until it answers again. And one per project, origin and credential
// on refusals: a bad token is shown to the service now and then only, or its owner's account may be locked.
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

  // Credentials: after a refusal one request at a time shows the credential, after a pause that doubles, until the
  // service takes it. One that has not been shown lately is shown by one request first.
  struct Refusal {
    std::string version;  ///< of the secret that was refused; empty: unknown
    SteadyTime next_probe;
  };
  /// The refusal that this request has to wait for; nothing when it may leave. Nothing is booked.
  std::optional<Refusal> refusal(const std::string& project, const HttpRequest& request, SteadyTime now) const;
  /// When a request that no refusal holds up may leave; not after `now`: at once. Nothing is booked.
  SteadyTime first_shown(const std::string& project, const HttpRequest& request, SteadyTime now) const;
  /// Tells that the request leaves now.
  void credential_shown(const std::string& project, const HttpRequest& request, SteadyTime now);
  /// Learns from an answer that is no rate limit.
  void observe_credential(const std::string& project, const HttpRequest& request, const HttpResponse& response,
                          SteadyTime now);
  /// The secret has another value than the one that was refused.
  void forget_refusal(const std::string& project, const HttpRequest& request);
  /// How often a run that waits looks whether the secret has been replaced.
  Millis look_interval() const noexcept { return probe_interval_; }

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
  struct Standing {
    bool refused = false;
    bool probing = false;
    std::string version;
    Millis pause{0};           ///< until the next probe
    SteadyTime next_probe{};   ///< refused: nobody goes before
    SteadyTime taken_until{};  ///< not refused: everybody goes, since the service has taken it lately
    SteadyTime shown_until{};  ///< not refused: the others wait for the answer to the one that went
  };
  Millis mutation_interval_;
  Millis probe_interval_;
  std::map<std::string, Account> accounts_;
  std::map<std::string, Health> troubled_;  ///< by origin; gone with the first answer
  std::map<std::string, Standing> credentials_;
};

/// Value of a Retry-After header, in seconds or as an HTTP date, held inside 1 s .. 1 h; nothing when absent or
/// unreadable.
std::optional<Millis> retry_after(const HttpResponse& response, WallTime wall_now);

}  // namespace ops
