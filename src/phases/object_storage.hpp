// Uploads to S3-compatible storage, path style, signed by this product (see core/credential).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/phase_context.hpp"

namespace ops {

/// What is uploaded: bytes in memory or a file.
struct StoredObject {
  std::string name;  ///< last part of the key: [A-Za-z0-9_.-]
  std::string media_type;
  std::string body;  ///< when file is null
  std::shared_ptr<ScratchFile> file;
  std::int64_t size_bytes = 0;
  std::string sha256;  ///< hex
};

class ObjectStorage {
 public:
  /// Nothing when the phase's config has no section `storage`.
  static std::optional<ObjectStorage> from(PhaseContext& context);

  /// Uploads and checks that the store holds that many bytes. Returns s3://bucket/key.
  Coroutine<std::string> upload(StoredObject object);

 private:
  explicit ObjectStorage(PhaseContext& context);
  HttpRequest prepared(Method method, const std::string& key) const;

  PhaseContext* context_;
  std::string endpoint_;
  std::string region_;
  std::string bucket_;
  std::string prefix_;
  std::string credential_;
};

/// `text` with every character that a key must not hold replaced.
std::string key_part(std::string_view text);

}  // namespace ops
