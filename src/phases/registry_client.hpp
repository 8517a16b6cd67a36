// OCI registry: tokens, manifests, blobs. Facts: opencontainers/distribution-spec, distribution token specification.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/phase_context.hpp"

namespace ops {

struct Manifest {
  std::string digest;  ///< sha256:<hex>, computed from the raw bytes
  std::string media_type;
  std::string raw;  ///< exactly as served
  Json document;
  bool is_index() const;
};

/// A descriptor inside an index or manifest.
struct Descriptor {
  std::string digest;
  std::int64_t size = 0;
};

class RegistryClient {
 public:
  /// Reads url, image and credential from the phase's config section `registry`.
  explicit RegistryClient(PhaseContext& context);

  /// Host and path as deployed: ghcr.io/acme/odoo
  std::string image_name() const;

  /// By tag or digest; nothing when it does not exist. Raw bytes are hashed and must agree with what was asked for.
  Coroutine<std::optional<Manifest>> manifest(std::string reference);
  /// Whole blob in memory, checked against its digest. @param max_bytes  more is an error
  Coroutine<std::string> blob(std::string digest, std::int64_t max_bytes);

 private:
  Coroutine<HttpResponse> get(std::string path, std::string accept, std::int64_t max_bytes);
  Coroutine<std::shared_ptr<const SecretString>> token(std::string challenge);
  std::string token_key() const;
  PhaseError unexpected(const HttpResponse& response, const std::string& what) const;

  PhaseContext& context_;
  std::string url_;
  std::string image_;
  std::optional<std::string> credential_;
};

/// @throws PhaseError  code bad_response: the digest has not the form of one, or the size is negative
Descriptor descriptor_at(const Json& entry);

/// The runnable manifest of linux/amd64 in an index (of the only platform when there is one).
std::optional<Descriptor> platform_manifest(const Json& index);

}  // namespace ops
