// A registry as far as the phases see it: manifests by tag and digest, hashed as they are served.
#pragma once

#include "core/crypto.hpp"
#include "phase_world.hpp"

namespace ops::test {

inline std::string digest_of(const std::string& bytes) {
  return "sha256:" + sha256_hex(bytes);
}
inline std::string some_digest(char digit) {
  return "sha256:" + std::string(64, digit);
}

constexpr const char* index_type = "application/vnd.oci.image.index.v1+json";
constexpr const char* manifest_type = "application/vnd.oci.image.manifest.v1+json";

inline HttpResponse served(const std::string& bytes, const std::string& type) {
  HttpResponse response = with_header(answer(200), "Content-Type", type);
  response.headers.push_back({"Docker-Content-Digest", digest_of(bytes)});
  response.body = bytes;
  response.body_bytes = static_cast<std::int64_t>(bytes.size());
  return response;
}

/// An index as BuildKit writes it: one platform and its attestations.
inline Json image_index(const std::string& attestation = some_digest('b')) {
  return Json::parse(R"({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
      {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1234,
       "platform": {"os": "linux", "architecture": "amd64"}},
      {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 99,
       "platform": {"os": "unknown", "architecture": "unknown"},
       "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}]})")
      .patch(Json::array({{{"op", "add"}, {"path", "/manifests/0/digest"}, {"value", some_digest('a')}},
                          {{"op", "add"}, {"path", "/manifests/1/digest"}, {"value", attestation}}}));
}

}  // namespace ops::test
