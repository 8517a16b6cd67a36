// Hashes and signatures, by OpenSSL.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace ops {

std::string sha256_hex(std::string_view bytes);
/// 32 raw bytes.
std::string hmac_sha256(std::string_view key, std::string_view bytes);
std::string hex(std::string_view bytes);
std::string base64(std::string_view bytes);
/// Without padding (RFC 7515).
std::string base64url(std::string_view bytes);
/// Nothing when the PEM holds no usable RSA key.
std::optional<std::string> rs256_signature(std::string_view private_key_pem, std::string_view bytes);

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(std::string_view bytes);
  std::string finish_hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ops
