// GitHub REST, as far as the phases use it. Facts: docs.github.com/rest and the official OpenAPI description.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/phase_context.hpp"

namespace ops {

/// GET with the ETag of the last answer: an unchanged object costs nothing of the hourly limit.
struct Conditional {
  std::string etag;
  Json last;
  bool seen = false;  ///< it has been seen: now 404 says that it is gone, before it may only be late
};

class GithubClient {
 public:
  /// Reads api_url, auth, credential and installation_id from the phase's config section `github`.
  explicit GithubClient(PhaseContext& context);

  /// https://api.github.com/repos/owner/name
  const std::string& repository_url() const { return repository_url_; }

  /// A request with this client's headers and credential; for effects, together with renewal().
  Coroutine<HttpRequest> prepared(Method method, std::string url, std::string body);

  /// For EffectSpec::renew; empty where the credential is no short-lived token.
  std::function<Coroutine<>(HttpRequest&)> renewal();

  /// A read. 401 renews an installation token once. Other statuses are returned.
  Coroutine<HttpResponse> get(std::string url);
  /// A read that must answer 200 with JSON.
  /// @param what  names the object in errors: "workflow run 42"
  Coroutine<Json> get_json(std::string url, std::string what);
  /// The same with ETag; nothing when it is unchanged. An object that was not seen yet may appear late.
  /// @throws PhaseError  code gone: it was seen before and does not exist any more
  Coroutine<std::optional<Json>> get_if_changed(std::string url, std::string what, Conditional& conditional);
  /// All items of a paginated list, at most 100 pages, only pages of this service.
  /// @param member  name of the list in each page: "jobs"
  Coroutine<Json::array_t> get_list(std::string url, std::string member, std::string what);
  /// Follows the redirect to a short-lived signed URL, without credentials. The request's limits and response_file hold
  /// for the second hop. Statuses of either hop that are not 302 and 200 are returned.
  Coroutine<HttpResponse> download(std::string url, HttpRequest options);

  /// Error for a status that should not have come; codes github_denied, github_not_found, bad_response.
  PhaseError unexpected(const HttpResponse& response, const std::string& what) const;

 private:
  Coroutine<> authorize(HttpRequest& request);
  Coroutine<> renew_token(HttpRequest& request);
  Coroutine<std::shared_ptr<const SecretString>> installation_token();
  void tell_wider_scope(const Json& answer) const;
  Coroutine<std::string> installation_id();
  std::string token_key() const;

  PhaseContext& context_;
  std::string api_url_;
  std::string repository_url_;
  std::string credential_;
  bool app_;
  std::optional<std::int64_t> configured_installation_;
};

}  // namespace ops
