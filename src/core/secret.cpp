#include "core/secret.hpp"

#include <openssl/crypto.h>

namespace ops {

void SecretString::wipe() noexcept {
  if (!value_.empty()) OPENSSL_cleanse(value_.data(), value_.size());
  value_.clear();
}

}  // namespace ops
