// Which hosts may be called: setting ops_runner.allowed_hosts (design, outbound rule; threat T10).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/url.hpp"

namespace ops {

/// 16 bytes in network order; IPv4 as ::ffff:a.b.c.d.
using IpAddress = std::array<std::uint8_t, 16>;
std::optional<IpAddress> parse_ip(std::string_view text);
/// Loopback, private, link-local, unique-local, multicast, unspecified, reserved, shared (100.64/10), and every mapped
/// or translated form of them (::ffff:0:0/96, 64:ff9b::/96, 2002::/16, 2001::/32).
bool is_internal(const IpAddress& address);

class HostRules {
 public:
  /// Comma-separated entries: `api.github.com` (https, port 443), `*.example.com` (any name below it, https, 443),
  /// `https://host:8443`, `http://127.0.0.1:8081` (exactly that origin; the only form that reaches plain http and
  /// internal addresses). Nothing on a malformed entry; `why` names it and says what is wrong.
  static std::optional<HostRules> parse(std::string_view setting, std::string* why = nullptr);

  /// Empty when `url` may be requested; otherwise why not, with the entry that would allow it.
  std::string refusal(const Url& url) const;
  /// After name resolution, at connect time: empty when a connection for `url` may go to `address`.
  std::string refusal(const Url& url, const IpAddress& address) const;

 private:
  struct Entry {
    std::string scheme;
    std::string host;  ///< without the leading *.
    std::uint16_t port = 443;
    bool any_subdomain = false;
    bool explicit_origin = false;  ///< written with scheme: internal addresses allowed
  };
  const Entry* match(const Url& url) const;
  std::vector<Entry> entries_;
};

}  // namespace ops
