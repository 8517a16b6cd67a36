// The transport: libcurl's multi interface behind the Transport port. All its sockets are in one epoll descriptor, so
// that the owner can wait for it together with everything else. Nothing here blocks, and nothing the network sends can
// throw.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/host_rules.hpp"
#include "core/ports.hpp"
#include "core/tls_pins.hpp"
#include "core/url.hpp"

namespace ops {

class HttpClient final : public Transport {
 public:
  struct Settings {
    HostRules rules;
    std::string ca_file;  ///< empty: the system's authorities
    TlsPins pins;
    std::string user_agent;
    std::size_t max_connections_per_host = 50;
  };

  /// Initialises libcurl: only in the process that uses it, never before a fork.
  HttpClient(Settings settings, SecretSource& secrets, const Clock& clock);
  ~HttpClient() override;
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// After a change of settings; transfers in flight keep theirs.
  void configure(Settings settings);

  /// One epoll descriptor; readable when advance() has something to do.
  int wait_descriptor() const noexcept { return epoll_; }
  /// When advance() wants to be called at the latest; nothing: only the descriptor brings work.
  std::optional<Millis> timeout() const;
  /// Does what is ready.
  void advance() override;

  void start(TransferId id, HttpRequest request) override;
  bool can_start_in_transaction(const HttpRequest& request) const override {
    return !request.credential || !secrets_.reads_store();
  }
  void abandon(TransferId id) override;
  std::vector<FinishedTransfer> take_finished() override;
  std::size_t in_flight() const override { return transfers_.size(); }

  /// Of how many origins something is remembered: no more than have transfers or open connections, and one.
  std::size_t known_origins() const noexcept { return origins_.size(); }

 private:
  class Transfer;
  struct Callbacks;

  /// What is open to a scheme, host and port. libcurl looks through all connections to a host for each request, and at
  /// the end of each through those that nobody uses: with thousands of them that is most of its time.
  struct Origin {
    explicit Origin(const Url& url) : may_multiplex(url.scheme == "https") {}

    std::size_t sockets = 0;
    std::size_t transfers = 0;
    bool may_multiplex;  ///< several transfers on one connection; of TLS known after the first answer only
  };

  /// Adds the credential; a refusal when it cannot be.
  std::optional<HttpResponse> authorize(HttpRequest& request);
  Origin& origin_of(const Url& url);
  void finish(TransferId id, HttpResponse response);
  void collect();
  void end(Transfer& transfer, int curl_code);
  void end_those_that_stand_still();

  std::shared_ptr<const Settings> settings_;
  SecretSource& secrets_;
  const Clock& clock_;
  int epoll_ = -1;
  void* multi_ = nullptr;
  std::map<std::string, Origin> origins_;  ///< libcurl holds their addresses as long as sockets are open
  std::optional<SteadyTime> curl_deadline_;
  SteadyTime next_look_{};  ///< at the speed of those in flight
  std::map<TransferId, std::unique_ptr<Transfer>> transfers_;
  std::vector<FinishedTransfer> finished_;
};

}  // namespace ops
