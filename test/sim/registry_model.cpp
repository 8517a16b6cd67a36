#include "registry_model.hpp"

#include "core/crypto.hpp"

namespace ops::sim {

std::string digest_of(const std::string& bytes) {
  return "sha256:" + sha256_hex(bytes);
}

namespace {
constexpr const char* index_type = "application/vnd.oci.image.index.v1+json";
constexpr const char* manifest_type = "application/vnd.oci.image.manifest.v1+json";
constexpr Micros token_life = std::chrono::seconds{300};
}  // namespace

std::string RegistryModel::push(const std::string& image, const std::vector<std::string>& tags,
                                const std::string& git_sha) {
  const auto keep = [&](const Json& document) {
    std::string bytes = document.dump();
    const std::string digest = digest_of(bytes);
    manifests_[image + "@" + digest] = std::move(bytes);
    commits_[digest] = git_sha;
    return digest;
  };
  // Two builds of one commit are not alike.
  const std::string platform =
      keep({{"schemaVersion", 2}, {"mediaType", manifest_type}, {"build", tags.front()}, {"commit", git_sha}});
  const Json sbom{{"mediaType", "application/vnd.in-toto+json"},
                  {"digest", digest_of("sbom of " + platform)},
                  {"size", 7},
                  {"annotations", {{"in-toto.io/predicate-type", "https://spdx.dev/Document"}}}};
  const std::string attestation = keep(
      {{"schemaVersion", 2}, {"mediaType", manifest_type}, {"subject", platform}, {"layers", Json::array({sbom})}});
  const Json platform_entry{
      {"digest", platform}, {"size", 99}, {"platform", {{"os", "linux"}, {"architecture", "amd64"}}}};
  const Json attestation_entry{{"digest", attestation},
                               {"size", 99},
                               {"platform", {{"os", "unknown"}, {"architecture", "unknown"}}},
                               {"annotations", {{"vnd.docker.reference.type", "attestation-manifest"}}}};
  const std::string index = keep({{"schemaVersion", 2},
                                  {"mediaType", index_type},
                                  {"manifests", Json::array({platform_entry, attestation_entry})}});
  for (const std::string& tag : tags) tags_[image + ":" + tag] = index;
  return index;
}

std::string RegistryModel::commit_of(const std::string& digest) const {
  const auto found = commits_.find(digest);
  return found == commits_.end() ? std::string() : found->second;
}

HttpResponse RegistryModel::respond(const HttpRequest& request, const Url& url) {
  if (url.path == "/token") {
    const std::string token = "bearer-" + std::to_string(++last_token_);
    tokens_[token] = ground_.agenda.steady_now() + token_life;
    return answer(200, {{"token", token}, {"expires_in", 300}});
  }
  const auto token = request.session_token ? tokens_.find(std::string(request.session_token->reveal())) : tokens_.end();
  if (token == tokens_.end() || token->second < ground_.agenda.steady_now()) {
    HttpResponse response = answer(401, {{"errors", Json::array()}});
    response.headers.push_back(
        {"WWW-Authenticate", R"(Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:x:pull")"});
    return response;
  }
  // /v2/<image>/manifests/<reference>
  const std::size_t at = url.path.find("/manifests/");
  if (!url.path.starts_with("/v2/") || at == std::string::npos) return answer(404, {{"errors", Json::array()}});
  const std::string image = url.path.substr(4, at - 4);
  std::string reference = url.path.substr(at + 11);
  if (const auto tag = tags_.find(image + ":" + reference); tag != tags_.end()) reference = tag->second;
  const auto manifest = manifests_.find(image + "@" + reference);
  if (manifest == manifests_.end()) return answer(404, {{"errors", Json::array()}});
  HttpResponse response = answer(200);
  response.headers = {
      {"Content-Type", manifest->second.find(index_type) != std::string::npos ? index_type : manifest_type},
      {"Docker-Content-Digest", reference}};
  response.body = manifest->second;
  response.body_bytes = static_cast<std::int64_t>(response.body.size());
  return response;
}

}  // namespace ops::sim
