#include "core/secret.hpp"

#include <openssl/crypto.h>

namespace ops {

void SecretString::wipe(std::string& text) noexcept {
  text.resize(text.capacity());  // a short text that was moved from is empty and still stands in the object
  OPENSSL_cleanse(text.data(), text.size());
  text.clear();
}

}  // namespace ops
