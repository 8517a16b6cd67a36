#include "core/credential.hpp"

#include <algorithm>
#include <ctime>
#include <vector>

#include "core/crypto.hpp"
#include "core/json.hpp"
#include "core/url.hpp"

namespace ops {

namespace {

constexpr std::string_view empty_body_hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

/// host or host:port as libcurl writes the Host header.
std::string host_header(const Url& url) {
  const bool usual = url.port == (url.scheme == "https" ? 443 : 80);
  const std::string host = url.host.find(':') == std::string::npos ? url.host : "[" + url.host + "]";
  return usual ? host : host + ":" + std::to_string(url.port);
}

/// Parameters sorted by name and value, as they stand in the URL (already percent-encoded).
std::string canonical_query(const std::string& query) {
  if (query.empty()) return {};
  std::vector<std::pair<std::string, std::string>> parameters;
  for (std::size_t begin = 0; begin <= query.size();) {
    const std::size_t end = std::min(query.find('&', begin), query.size());
    const std::string part = query.substr(begin, end - begin);
    const std::size_t equals = std::min(part.find('='), part.size());
    parameters.emplace_back(part.substr(0, equals), equals < part.size() ? part.substr(equals + 1) : std::string());
    begin = end + 1;
  }
  std::ranges::sort(parameters);
  std::string result;
  for (const auto& [name, value] : parameters) result += (result.empty() ? "" : "&") + name + "=" + value;
  return result;
}

std::string utc(WallTime time, const char* format) {
  const std::time_t seconds =
      std::chrono::system_clock::to_time_t(std::chrono::time_point_cast<std::chrono::seconds>(time));
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, format, &parts)};
}

CredentialProblem malformed(const CredentialUse& use, const std::string& expected) {
  return {TransportFailure::secret_malformed, "secret \"" + use.secret_name + "\" is not " + expected};
}

bool is_header_safe(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c > ' ' && c < 0x7f; });
}

std::optional<std::string> member(const Json& parts, const char* name) {
  const Json& value = value_at(parts, std::string("/") + name);
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return std::to_string(value.get<std::int64_t>());
  return std::nullopt;
}

}  // namespace

std::string sigv4_authorization(const HttpRequest& request, std::string_view access_key_id,
                                std::string_view secret_access_key, std::string_view region, std::string_view service,
                                std::string_view amz_date, std::string_view payload_hash) {
  const Url url = parse_url(request.url).value_or(Url{});
  std::vector<std::pair<std::string, std::string>> headers{{"host", host_header(url)}};
  for (const Header& header : request.headers) headers.emplace_back(lower(header.name), trimmed(header.value));
  std::ranges::sort(headers);
  std::string canonical_headers;
  std::string signed_headers;
  for (const auto& [name, value] : headers) {
    canonical_headers += name + ":" + value + "\n";
    signed_headers += (signed_headers.empty() ? "" : ";") + name;
  }
  const std::string canonical = std::string(to_string(request.method)) + "\n" + url.path + "\n" +
                                canonical_query(url.query) + "\n" + canonical_headers + "\n" + signed_headers + "\n" +
                                std::string(payload_hash);
  const std::string day(amz_date.substr(0, 8));
  const std::string scope = day + "/" + std::string(region) + "/" + std::string(service) + "/aws4_request";
  const std::string to_sign =
      "AWS4-HMAC-SHA256\n" + std::string(amz_date) + "\n" + scope + "\n" + sha256_hex(canonical);
  std::string key = hmac_sha256("AWS4" + std::string(secret_access_key), day);
  key = hmac_sha256(key, region);
  key = hmac_sha256(key, service);
  key = hmac_sha256(key, "aws4_request");
  return "AWS4-HMAC-SHA256 Credential=" + std::string(access_key_id) + "/" + scope +
         ", SignedHeaders=" + signed_headers + ", Signature=" + hex(hmac_sha256(key, to_sign));
}

std::optional<CredentialProblem> apply_credential(HttpRequest& request, const SecretString& secret, WallTime now) {
  const CredentialUse& use = *request.credential;
  const auto url = parse_url(request.url);
  const auto home = parse_url(use.origin);
  if (!url || !home || url->origin() != home->origin())
    return CredentialProblem{TransportFailure::refused_by_rule, "credential \"" + use.secret_name +
                                                                    "\" belongs to another origin than " +
                                                                    (url ? url->origin() : std::string("this URL"))};

  if (use.scheme == CredentialScheme::bearer) {
    if (!is_header_safe(secret.reveal())) return malformed(use, "a token without spaces and line ends");
    request.headers.push_back({"Authorization", "Bearer " + std::string(secret.reveal())});
    return std::nullopt;
  }
  const auto parts = parse_json(secret.reveal());
  if (!parts || !parts->is_object()) return malformed(use, "a JSON object");

  switch (use.scheme) {
    case CredentialScheme::basic: {
      const auto username = member(*parts, "username");
      const auto password = member(*parts, "password");
      if (!username || !password) return malformed(use, R"({"username", "password"})");
      request.headers.push_back({"Authorization", "Basic " + base64(*username + ":" + *password)});
      return std::nullopt;
    }
    case CredentialScheme::aws_sigv4: {
      const auto access_key_id = member(*parts, "access_key_id");
      const auto secret_access_key = member(*parts, "secret_access_key");
      if (!access_key_id || !secret_access_key || !is_header_safe(*access_key_id))
        return malformed(use, R"({"access_key_id", "secret_access_key"})");
      const std::string amz_date = utc(now, "%Y%m%dT%H%M%SZ");
      const std::string payload_hash = request.body_file      ? request.body_sha256
                                       : request.body.empty() ? std::string(empty_body_hash)
                                                              : sha256_hex(request.body);
      request.headers.push_back({"x-amz-date", amz_date});
      request.headers.push_back({"x-amz-content-sha256", payload_hash});
      if (const auto session_token = member(*parts, "session_token")) {
        if (!is_header_safe(*session_token)) return malformed(use, "usable: session_token holds a space or line end");
        request.headers.push_back({"x-amz-security-token", *session_token});
      }
      std::string authorization =
          sigv4_authorization(request, *access_key_id, *secret_access_key, use.region, "s3", amz_date, payload_hash);
      request.headers.push_back({"Authorization", std::move(authorization)});
      return std::nullopt;
    }
    case CredentialScheme::github_app_jwt: {
      const auto app_id = member(*parts, "app_id");
      const auto private_key = member(*parts, "private_key");
      if (!app_id || !private_key) return malformed(use, R"({"app_id", "private_key"})");
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count();
      // Back-dated against clock drift; GitHub accepts at most ten minutes.
      const Json claims{{"iat", seconds - 60}, {"exp", seconds + 540}, {"iss", *app_id}};
      const std::string text = base64url(R"({"alg":"RS256","typ":"JWT"})") + "." + base64url(dump_json(claims));
      const auto signature = rs256_signature(*private_key, text);
      if (!signature) return malformed(use, "usable: private_key is not an RSA key in PEM form");
      request.headers.push_back({"Authorization", "Bearer " + text + "." + base64url(*signature)});
      return std::nullopt;
    }
    case CredentialScheme::bearer:
      break;
  }
  return std::nullopt;
}

void apply_session_token(HttpRequest& request) {
  request.headers.push_back({"Authorization", "Bearer " + std::string(request.session_token->reveal())});
}

}  // namespace ops
