// URLs as far as this product needs them. Strict: what is unusual is refused, not repaired (input I20).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ops {

struct Url {
  std::string scheme;  ///< http or https
  std::string host;    ///< lower case, no trailing dot; IPv6 without brackets
  std::uint16_t port = 443;
  std::string path;   ///< begins with /
  std::string query;  ///< without ?, may be empty

  /// scheme://host:port, the port always written, IPv6 in brackets
  std::string origin() const;
  /// For messages: scheme://host[:port]/path without the query, which may hold a signature.
  std::string without_query() const;
};

/// Nothing for anything but an absolute http(s) URL of at most 8,192 printable ASCII bytes with a plain host name or
/// an address in canonical spelling: no user info, no fragment, no zone, no odd spellings of IPv4 addresses, ports
/// 1..65535. `why` says what was wrong.
std::optional<Url> parse_url(std::string_view text, std::string* why = nullptr);

/// Resolves a Location header against the URL that answered; nothing when the result is not acceptable to parse_url.
std::optional<std::string> resolve_location(std::string_view base, std::string_view location);

/// Everything but unreserved characters (RFC 3986) as %XX; `/` too.
std::string percent_encode(std::string_view text);
/// The same, `/` kept.
std::string percent_encode_path(std::string_view text);

}  // namespace ops
