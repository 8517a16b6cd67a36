// Keys that a host's certificate must have beside being valid: setting ops_runner.tls_pins (threat T11).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace ops {

class TlsPins {
 public:
  /// Comma-separated entries `host=sha256//<base64>;sha256//<base64>`: the SHA-256 hashes of the public keys that are
  /// taken, one of them in use and the others spare. Nothing on a malformed entry; `why` names it and says what is
  /// wrong.
  static std::optional<TlsPins> parse(std::string_view setting, std::string* why = nullptr);

  /// The pins of that host as they were written; empty: any key.
  std::string_view of(const std::string& host) const;

 private:
  std::map<std::string, std::string> pins_;  ///< by host, lower case
};

}  // namespace ops
