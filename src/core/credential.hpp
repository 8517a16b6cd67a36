// Turns a credential's name and value into headers of a request, at the moment of sending. The one place where
// credentials meet requests (threat T12).
#pragma once

#include <optional>
#include <string>

#include "core/http_message.hpp"
#include "core/run.hpp"

namespace ops {

struct CredentialProblem {
  TransportFailure failure;  ///< refused_by_rule or secret_malformed
  std::string text;          ///< for people; holds no secret
};

/// Adds the headers. `secret` is the value of request.credential->secret_name. Refuses a request whose URL has another
/// origin than the credential. `now` dates SigV4 signatures and JWTs (iat = now - 60 s, exp = now + 540 s).
/// Sources: SigV4, docs.aws.amazon.com; JWT, docs.github.com "Generating a JWT for a GitHub App".
std::optional<CredentialProblem> apply_credential(HttpRequest& request, const SecretString& secret, WallTime now);

/// Adds Authorization: Bearer for request.session_token, which must be set.
void apply_session_token(HttpRequest& request);

/// The Authorization header value of AWS Signature Version 4 for `request` with all its present headers signed.
/// @param amz_date  YYYYMMDDTHHMMSSZ; @param payload_hash  hex sha256 of the body or UNSIGNED-PAYLOAD
std::string sigv4_authorization(const HttpRequest& request, std::string_view access_key_id,
                                std::string_view secret_access_key, std::string_view region, std::string_view service,
                                std::string_view amz_date, std::string_view payload_hash);

}  // namespace ops
