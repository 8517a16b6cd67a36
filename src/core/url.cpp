#include "core/url.hpp"

#include <algorithm>
#include <charconv>

#include "core/host_rules.hpp"

namespace ops {

namespace {

constexpr std::size_t longest_url = 8'192;

std::optional<Url> refuse(std::string* why, std::string text) {
  if (why != nullptr) *why = std::move(text);
  return std::nullopt;
}

bool is_alnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

/// Labels of letters, digits and inner hyphens; the last label must not look like a number, or the name is an address
/// in one of the spellings that resolvers accept (127.1, 0x7f000001, 2130706433).
bool is_host_name(std::string_view host) {
  if (host.empty() || host.size() > 253) return false;
  std::size_t begin = 0;
  std::string_view label;
  for (;;) {
    const std::size_t end = std::min(host.find('.', begin), host.size());
    label = host.substr(begin, end - begin);
    if (label.empty() || label.size() > 63 || label.front() == '-' || label.back() == '-') return false;
    if (!std::ranges::all_of(label, [](char c) { return is_alnum(c) || c == '-' || c == '_'; })) return false;
    if (end == host.size()) break;
    begin = end + 1;
  }
  const bool numeric = std::ranges::all_of(label, is_digit) || label.starts_with("0x");
  return !numeric;
}

/// Four decimal numbers without leading zeros.
bool is_canonical_ipv4(std::string_view host) {
  int parts = 0;
  std::size_t begin = 0;
  for (;;) {
    const std::size_t end = std::min(host.find('.', begin), host.size());
    const std::string_view part = host.substr(begin, end - begin);
    if (part.empty() || part.size() > 3 || !std::ranges::all_of(part, is_digit)) return false;
    if (part.size() > 1 && part.front() == '0') return false;
    if (std::stoi(std::string(part)) > 255) return false;
    ++parts;
    if (end == host.size()) return parts == 4;
    begin = end + 1;
  }
}

}  // namespace

std::string Url::origin() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  return scheme + "://" + (ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string Url::without_query() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  const bool usual = port == (scheme == "https" ? 443 : 80);
  return scheme + "://" + (ipv6 ? "[" + host + "]" : host) + (usual ? "" : ":" + std::to_string(port)) + path;
}

std::optional<Url> parse_url(std::string_view text, std::string* why) {
  if (text.size() > longest_url) return refuse(why, "the URL is longer than 8192 bytes");
  if (!std::ranges::all_of(text, [](char c) { return c > ' ' && c < 0x7f; }))
    return refuse(why, "the URL holds a space, a control character or a character outside ASCII");
  if (text.find_first_of("\\<>\"{}|^`") != std::string_view::npos)
    return refuse(why, "the URL holds a character that must be percent-encoded");

  Url url;
  const std::size_t colon = text.find("://");
  if (colon == std::string_view::npos) return refuse(why, "the URL must begin with https:// or http://");
  url.scheme = lower(text.substr(0, colon));
  if (url.scheme != "https" && url.scheme != "http")
    return refuse(why, "the scheme \"" + url.scheme + "\" is not https or http");
  std::string_view rest = text.substr(colon + 3);
  if (rest.find('#') != std::string_view::npos) return refuse(why, "the URL has a fragment");

  const std::size_t path_begin = std::min(rest.find_first_of("/?"), rest.size());
  std::string_view authority = rest.substr(0, path_begin);
  rest = rest.substr(path_begin);
  if (authority.find('@') != std::string_view::npos) return refuse(why, "the URL holds a user name or password");
  if (authority.find('%') != std::string_view::npos) return refuse(why, "the host holds a percent sign");

  std::string_view port;
  bool has_port = false;
  if (authority.starts_with('[')) {
    const std::size_t close = authority.find(']');
    if (close == std::string_view::npos) return refuse(why, "the IPv6 address has no closing bracket");
    url.host = lower(authority.substr(1, close - 1));
    if (url.host.find(':') == std::string::npos || !parse_ip(url.host))
      return refuse(why, "[" + url.host + "] is not an IPv6 address");
    const std::string_view after = authority.substr(close + 1);
    if (!after.empty() && after.front() != ':') return refuse(why, "text after the IPv6 address");
    has_port = !after.empty();
    if (has_port) port = after.substr(1);
  } else {
    const std::size_t port_colon = authority.find(':');
    has_port = port_colon != std::string_view::npos;
    url.host = lower(authority.substr(0, port_colon));
    if (has_port) port = authority.substr(port_colon + 1);
    if (!is_canonical_ipv4(url.host) && !is_host_name(url.host))
      return refuse(why, "\"" + url.host + "\" is not a host name or an address in its usual spelling");
  }

  url.port = url.scheme == "https" ? 443 : 80;
  if (has_port) {
    unsigned number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (port.empty() || error != std::errc{} || end != port.data() + port.size() || number < 1 || number > 65535)
      return refuse(why, "the port \"" + std::string(port) + "\" is not a number from 1 to 65535");
    url.port = static_cast<std::uint16_t>(number);
  }

  const std::size_t question = rest.find('?');
  url.path = std::string(rest.substr(0, question));
  if (url.path.empty()) url.path = "/";
  if (question != std::string_view::npos) url.query = std::string(rest.substr(question + 1));
  return url;
}

std::optional<std::string> resolve_location(std::string_view base, std::string_view location) {
  const auto origin = parse_url(base);
  if (!origin || location.empty()) return std::nullopt;
  std::string target;
  // Absolute only where the scheme comes first: a query may hold a URL of its own.
  if (location.find("://") < location.find_first_of("/?#")) {
    target = std::string(location);
  } else if (location.starts_with("//")) {
    target = origin->scheme + ":" + std::string(location);
  } else if (location.starts_with('/')) {
    target = origin->origin() + std::string(location);
  } else if (location.starts_with('?')) {
    target = origin->origin() + origin->path + std::string(location);
  } else {
    target = origin->origin() + origin->path.substr(0, origin->path.rfind('/') + 1) + std::string(location);
  }
  if (const std::size_t fragment = target.find('#'); fragment != std::string::npos) target.resize(fragment);
  if (!parse_url(target)) return std::nullopt;
  return target;
}

namespace {
std::string percent_encoded(std::string_view text, std::string_view also_kept) {
  constexpr char digits[] = "0123456789ABCDEF";
  std::string result;
  for (const char c : text) {
    if (is_alnum(c) || std::string_view("-._~").find(c) != std::string_view::npos ||
        also_kept.find(c) != std::string_view::npos) {
      result += c;
    } else {
      result += '%';
      result += digits[static_cast<unsigned char>(c) >> 4];
      result += digits[static_cast<unsigned char>(c) & 15];
    }
  }
  return result;
}
}  // namespace

std::string percent_encode(std::string_view text) {
  return percent_encoded(text, "");
}
std::string percent_encode_path(std::string_view text) {
  return percent_encoded(text, "/");
}

}  // namespace ops
