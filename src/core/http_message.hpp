// HTTP as values: what a phase asks for and what it gets. No sockets here.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/run.hpp"
#include "core/secret.hpp"

namespace ops {

enum class Method { get, head, post, put, patch, delete_ };
std::string_view to_string(Method);
/// Anything but GET and HEAD.
bool is_changing(Method);

struct Header {
  std::string name;
  std::string value;
};

/// How the named secret becomes part of the request, at the moment of sending.
enum class CredentialScheme {
  bearer,     ///< secret text is the token: Authorization: Bearer
  basic,      ///< secret is {"username","password"}: Authorization: Basic
  aws_sigv4,  ///< secret is {"access_key_id","secret_access_key"[,"session_token"]}: signed with region and service s3
  github_app_jwt,  ///< secret is {"app_id","installation_id","private_key"}: RS256 JWT as bearer
};

/// Names a secret; the value never enters the core's records. `origin` is scheme://host:port the credential
/// belongs to: sending refuses a request whose URL has another origin (threat T12).
struct CredentialUse {
  CredentialScheme scheme = CredentialScheme::bearer;
  std::string secret_name;
  std::string origin;
  std::string region;   ///< aws_sigv4 only
  std::string version;  ///< fingerprint of the secret's value, set when it is resolved; kept in memory only
};

/// A file that exists as long as somebody holds it. Bodies that do not fit in memory go through it.
class ScratchFile {
 public:
  virtual ~ScratchFile() = default;
  virtual const std::string& path() const = 0;
};

struct HttpRequest {
  Method method = Method::get;
  std::string url;
  std::vector<Header> headers;
  std::string body;                            ///< sent when body_file is empty
  std::shared_ptr<ScratchFile> body_file;      ///< streamed from disk
  std::int64_t body_file_bytes = 0;            ///< exact size of body_file
  std::string body_sha256;                     ///< hex; needed by aws_sigv4 with body_file
  std::shared_ptr<ScratchFile> response_file;  ///< when set, the answer's body goes there instead of to memory
  bool scrub_response = false;                 ///< response_file only: remove control codes, mask secrets, line by line
  std::optional<CredentialUse> credential;     ///< resolved when the request is sent
  bool only_resolve = false;                   ///< nothing is sent: the answer tells the credential's version
  std::shared_ptr<const SecretString> session_token;  ///< short-lived bearer token held in memory only
  std::chrono::milliseconds connect_timeout{10'000};
  std::chrono::milliseconds total_timeout{30'000};
  std::int64_t max_body_bytes = 4 * 1024 * 1024;  ///< after decoding; more is an error, not a cut
};

/// Why no usable answer came. `none` means `status` is meaningful.
enum class TransportFailure {
  none,
  refused_by_rule,   ///< allowed_hosts, address check, credential origin, or unusable URL: permanent
  secret_missing,    ///< the named secret does not exist: the run waits
  secret_malformed,  ///< the named secret exists and has not the form its scheme needs: permanent
  dns,
  connect,
  exhausted,  ///< this process may open no more descriptors: says nothing of the service
  tls,        ///< certificate or protocol: permanent
  timeout,
  reset,         ///< connection lost
  too_large,     ///< body or header limit: permanent
  protocol,      ///< not HTTP, bad chunk, two lengths, status outside 100..599
  scratch_file,  ///< disk full or unreadable file
};
std::string_view to_string(TransportFailure);

struct HttpResponse {
  TransportFailure failure = TransportFailure::none;
  std::string failure_text;        ///< for people; holds no secret and no query string
  bool request_sent = false;       ///< at least one byte of the request left this machine
  std::string credential_version;  ///< of the credential that was resolved for the request
  int status = 0;
  std::vector<Header> headers;  ///< in order, names as received
  std::string body;
  std::int64_t body_bytes = 0;  ///< also when the body went to a file
  std::string body_sha256;      ///< hex, of the bytes stored; set when the body went to a file
  std::chrono::microseconds elapsed{0};

  bool ok() const { return failure == TransportFailure::none && status >= 200 && status < 300; }
  /// First header of that name, case-insensitive; empty when absent.
  std::string_view header(std::string_view name) const;
};

/// A date as HTTP writes it: "Fri, 15 Jan 2027 08:00:20 GMT".
std::optional<WallTime> http_date(std::string_view text);
/// A time with its zone as RFC 3339 writes it: "2027-01-15T08:00:20Z", "2027-01-15T09:00:20.5+01:00".
std::optional<WallTime> rfc3339_time(std::string_view text);
/// The time on the clock of the service that answered; ours when it tells none.
WallTime service_time(const HttpResponse& response, WallTime now);
/// A sentence for the error of a refused credential when the answer's Date is a minute or more away from `now`; tokens
/// and signatures carry times, so such a refusal may be the clock's fault. Empty when the clocks agree.
std::string clock_remark(const HttpResponse& response, WallTime now);

}  // namespace ops
