#include "phases/registry_client.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "core/crypto.hpp"
#include "core/json.hpp"
#include "core/session_tokens.hpp"
#include "core/url.hpp"

namespace ops {

namespace {

// All four, always: ghcr.io answers MANIFEST_UNKNOWN when the type it holds is not asked for.
constexpr const char* manifest_types =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
constexpr int most_redirects = 3;
constexpr Millis usual_token_life = std::chrono::seconds{60};  // when the answer names none
constexpr Millis longest_token_life = std::chrono::hours{1};

/// Parameters of WWW-Authenticate: Bearer; values are quoted and may hold commas.
std::map<std::string, std::string> challenge_parameters(std::string_view challenge) {
  std::map<std::string, std::string> parameters;
  std::size_t at = challenge.find(' ');
  while (at != std::string_view::npos && at < challenge.size()) {
    while (at < challenge.size() && (challenge[at] == ' ' || challenge[at] == ',')) ++at;
    const std::size_t equals = challenge.find('=', at);
    if (equals == std::string_view::npos) break;
    const std::string name(challenge.substr(at, equals - at));
    at = equals + 1;
    std::string value;
    if (at < challenge.size() && challenge[at] == '"') {
      for (++at; at < challenge.size() && challenge[at] != '"'; ++at) {
        if (challenge[at] == '\\' && at + 1 < challenge.size()) ++at;
        value += challenge[at];
      }
      ++at;
    } else {
      const std::size_t end = std::min(challenge.find(',', at), challenge.size());
      value = std::string(challenge.substr(at, end - at));
      at = end;
    }
    parameters[name] = value;
  }
  return parameters;
}

bool is_digest(std::string_view text) {
  return text.starts_with("sha256:") && text.size() == 71 &&
         text.find_first_not_of("0123456789abcdef", 7) == std::string_view::npos;
}

bool is_manifest_type(std::string_view content_type) {
  const std::string_view type = content_type.substr(0, content_type.find(';'));
  return type.starts_with("application/") && std::string_view(manifest_types).find(type) != std::string_view::npos;
}

}  // namespace

bool Manifest::is_index() const {
  return document.contains("manifests");
}

RegistryClient::RegistryClient(PhaseContext& context)
    : context_(context),
      url_(optional_text_at(context.config(), "/registry/url").value_or("https://ghcr.io")),
      image_(optional_text_at(context.config(), "/registry/image").value_or("")),
      credential_(optional_text_at(context.config(), "/registry/credential")) {
  while (url_.ends_with('/')) url_.pop_back();
}

std::string RegistryClient::image_name() const {
  const std::size_t scheme = url_.find("://");
  return url_.substr(scheme + 3) + "/" + image_;
}

std::string RegistryClient::token_key() const {
  return "registry|" + url_ + "|" + image_ + "|" + credential_.value_or("");
}

Coroutine<std::shared_ptr<const SecretString>> RegistryClient::token(std::string challenge) {
  const auto parameters = challenge_parameters(challenge);
  const auto realm = parameters.find("realm");
  const auto realm_url = realm == parameters.end() ? std::nullopt : parse_url(realm->second);
  if (!challenge.starts_with("Bearer ") || !realm_url)
    throw PhaseError("bad_response", "the registry " + url_ + " asks for a kind of login that is not known",
                     "It must answer WWW-Authenticate: Bearer realm=\"…\".");
  HttpRequest request;
  request.url = realm->second + (realm_url->query.empty() ? "?" : "&") +
                "scope=" + percent_encode("repository:" + image_ + ":pull");
  if (const auto service = parameters.find("service"); service != parameters.end())
    request.url += "&service=" + percent_encode(service->second);
  // The password goes to the registry's own origin only; a realm elsewhere gets an anonymous request (input I50).
  const auto own = parse_url(url_);
  const bool same_origin = own && own->origin() == realm_url->origin();
  if (credential_ && same_origin) request.credential = CredentialUse{CredentialScheme::basic, *credential_, url_, {}};
  const HttpResponse response = co_await context_.request(std::move(request));
  if (response.status != 200) throw unexpected(response, "a token");
  const Json answer = answer_json(response, "the registry", "a token request");
  auto text = optional_text_at(answer, "/token");
  if (!text) text = text_at(answer, "/access_token");
  Millis life = usual_token_life;
  if (const auto seconds = optional_integer_at(answer, "/expires_in")) {
    if (*seconds <= 0)
      throw PhaseError("bad_response",
                       "the registry " + url_ + " answered with a token that has expired: it lasts " +
                           std::to_string(*seconds) + " s",
                       "The token was not used. Retry the run; if it stays, look at the registry's token service.");
    life = std::min<Millis>(std::chrono::seconds{std::min<std::int64_t>(*seconds, 3600)}, longest_token_life);
  }
  co_return context_.tokens().keep(token_key(), std::move(*text), context_.steady_now() + life);
}

Coroutine<HttpResponse> RegistryClient::get(std::string path, std::string accept, std::int64_t max_bytes) {
  std::string url = url_ + "/v2/" + image_ + path;
  std::shared_ptr<const SecretString> bearer =
      context_.tokens().find(token_key(), context_.steady_now(), std::chrono::seconds{10});
  bool renewed = false;
  for (int hop = 0; hop <= most_redirects;) {
    HttpRequest request;
    request.url = url;
    request.max_body_bytes = max_bytes;
    if (!accept.empty()) request.headers.push_back({"Accept", accept});
    const bool at_home = hop == 0;
    if (at_home) request.session_token = bearer;
    HttpResponse response = co_await context_.request(std::move(request));
    if (at_home && response.status == 401 && !renewed) {
      renewed = true;
      std::string challenge(response.header("www-authenticate"));
      bearer = co_await token(std::move(challenge));
      continue;
    }
    const bool redirect =
        response.status == 302 || response.status == 301 || response.status == 307 || response.status == 308;
    const auto target = redirect ? resolve_location(url, response.header("location")) : std::nullopt;
    if (!target) co_return response;
    url = *target;  // another host: without our token
    ++hop;
  }
  throw PhaseError("bad_response", "the registry " + url_ + " redirects more than three times", "Check registry.url.");
}

Coroutine<std::optional<Manifest>> RegistryClient::manifest(std::string reference) {
  std::string path = "/manifests/" + percent_encode_path(reference);
  if (is_digest(reference)) path = "/manifests/" + reference;
  std::string accept = manifest_types;
  HttpResponse response = co_await get(std::move(path), std::move(accept), 4 * 1024 * 1024);
  if (response.status == 404) co_return std::nullopt;
  if (response.status != 200) throw unexpected(response, "manifest " + reference);
  Manifest manifest;
  manifest.digest = "sha256:" + sha256_hex(response.body);
  manifest.media_type = std::string(response.header("content-type"));
  JsonLimits limits;
  limits.max_keys = 10'000;
  manifest.document = answer_json(response, "the registry", "manifest " + reference, limits);
  // An error or a page of something in between is JSON too; adopted as an image it would be deployed.
  if (integer_at(manifest.document, "/schemaVersion") != 2)
    throw PhaseError("bad_response", "manifest " + reference + " of " + image_name() + " is of a version that is not 2",
                     "Build and push the image with a current tool.");
  if (!is_manifest_type(manifest.media_type))
    throw PhaseError("image_unusable",
                     image_name() + " (" + reference + ") has the media type \"" +
                         clean_text(manifest.media_type, 120) + "\", which is no image",
                     "Push an OCI image or index, as docs/workflows/ops-build.yml does.");
  manifest.raw = std::move(response.body);
  const std::string_view told = response.header("docker-content-digest");
  if ((is_digest(reference) && reference != manifest.digest) || (!told.empty() && told != manifest.digest))
    throw PhaseError("digest_mismatch",
                     "the registry's bytes for " + image_name() + " (" + reference + ") hash to " + manifest.digest +
                         (told.empty() ? std::string() : " while its header says " + std::string(told)),
                     "The registry or something before it changes content. Do not deploy from it.");
  co_return manifest;
}

Coroutine<std::string> RegistryClient::blob(std::string digest, std::int64_t max_bytes) {
  std::string path = "/blobs/" + digest;
  HttpResponse response = co_await get(std::move(path), {}, max_bytes);
  if (response.status != 200) throw unexpected(response, "blob " + digest);
  if ("sha256:" + sha256_hex(response.body) != digest)
    throw PhaseError("digest_mismatch", "the registry's bytes for blob " + digest + " have another hash",
                     "The registry or something before it changes content. Do not deploy from it.");
  co_return std::move(response.body);
}

PhaseError RegistryClient::unexpected(const HttpResponse& response, const std::string& what) const {
  const std::string text =
      "the registry answered " + std::to_string(response.status) + " for " + what + " of " + image_name();
  if (response.status == 401 || response.status == 403)
    return {"registry_denied", text + clock_remark(response, context_.now()),
            credential_
                ? "The secret \"" + *credential_ + "\" cannot read this image (GHCR: classic token with read:packages)."
                : "Name a credential in the environment's registry section, or make the image public."};
  return {
      "bad_response", text, "Check registry.url and registry.image of the environment.", {{"status", response.status}}};
}

Descriptor descriptor_at(const Json& entry) {
  Descriptor found{text_at(entry, "/digest"), integer_at(entry, "/size")};
  if (!is_digest(found.digest) || found.size < 0)
    throw PhaseError("bad_response",
                     "the registry names content by \"" + clean_text(found.digest, 80) + "\" of " +
                         std::to_string(found.size) + " bytes, which is no sha256 digest and size",
                     "Build and push the image with a current tool.");
  return found;
}

std::optional<Descriptor> platform_manifest(const Json& index) {
  std::optional<Descriptor> only;
  int runnable = 0;
  for (const Json& entry : array_at(index, "/manifests")) {
    const std::string os = optional_text_at(entry, "/platform/os").value_or("");
    const std::string architecture = optional_text_at(entry, "/platform/architecture").value_or("");
    if (os == "unknown") continue;  // attestations
    Descriptor found = descriptor_at(entry);
    if (os == "linux" && architecture == "amd64") return found;
    only = found;
    ++runnable;
  }
  return runnable == 1 ? only : std::nullopt;
}

}  // namespace ops
