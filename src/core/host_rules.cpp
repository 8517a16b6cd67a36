#include "core/host_rules.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

namespace ops {

namespace {

bool has_prefix(const IpAddress& address, std::initializer_list<std::uint8_t> prefix, int bits) {
  int left = bits;
  std::size_t i = 0;
  for (const std::uint8_t byte : prefix) {
    const int take = std::min(left, 8);
    const auto mask = static_cast<std::uint8_t>(0xff << (8 - take));
    if ((address[i] & mask) != (byte & mask)) return false;
    left -= take;
    ++i;
  }
  return true;
}

bool is_internal_ipv4(std::uint8_t a, std::uint8_t b, std::uint8_t c) {
  return a == 0 || a == 10 || a == 127 || a >= 224 ||  // this network, private, loopback, multicast and reserved
         (a == 100 && b >= 64 && b < 128) ||           // shared address space, RFC 6598
         (a == 169 && b == 254) ||                     // link-local, cloud metadata
         (a == 172 && b >= 16 && b < 32) || (a == 192 && b == 168) ||
         (a == 192 && b == 0 && (c == 0 || c == 2)) ||  // protocol assignments, documentation
         (a == 192 && b == 88 && c == 99) ||            // 6to4 relay
         (a == 198 && (b == 18 || b == 19)) ||          // benchmarks
         (a == 198 && b == 51 && c == 100) || (a == 203 && b == 0 && c == 113);
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\n\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\n\r") - begin + 1);
}

}  // namespace

std::optional<IpAddress> parse_ip(std::string_view text) {
  const std::string terminated(text);
  IpAddress address{};
  in_addr v4{};
  if (inet_pton(AF_INET, terminated.c_str(), &v4) == 1) {
    address[10] = address[11] = 0xff;
    std::memcpy(&address[12], &v4, 4);
    return address;
  }
  in6_addr v6{};
  if (inet_pton(AF_INET6, terminated.c_str(), &v6) == 1) {
    std::memcpy(address.data(), &v6, 16);
    return address;
  }
  return std::nullopt;
}

bool is_internal(const IpAddress& address) {
  const auto embedded = [&](std::size_t at) { return is_internal_ipv4(address[at], address[at + 1], address[at + 2]); };
  if (has_prefix(address, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96)) return embedded(12);  // mapped
  if (has_prefix(address, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 96)) return true;  // unspecified, loopback, compatible
  if (has_prefix(address, {0x00, 0x64, 0xff, 0x9b}, 32)) return true;              // NAT64, well-known and local
  if (has_prefix(address, {0x20, 0x02}, 16)) return embedded(2);                   // 6to4
  if (has_prefix(address, {0x20, 0x01, 0x00, 0x00}, 32)) return true;              // Teredo
  if (has_prefix(address, {0x20, 0x01, 0x0d, 0xb8}, 32)) return true;              // documentation
  if (has_prefix(address, {0xfc}, 7) || has_prefix(address, {0xfe, 0x80}, 10) || has_prefix(address, {0xff}, 8))
    return true;
  return !has_prefix(address, {0x20}, 3);  // global unicast is 2000::/3, everything else is reserved
}

std::optional<HostRules> HostRules::parse(std::string_view setting, std::string* why) {
  HostRules rules;
  const auto refuse = [&](std::string_view entry, const std::string& text) {
    if (why != nullptr) *why = "entry \"" + std::string(entry) + "\": " + text;
    return std::nullopt;
  };
  while (!setting.empty()) {
    const std::size_t comma = std::min(setting.find(','), setting.size());
    const std::string_view text = trimmed(setting.substr(0, comma));
    setting.remove_prefix(std::min(comma + 1, setting.size()));
    if (text.empty()) continue;

    Entry entry;
    entry.explicit_origin = text.find("://") != std::string_view::npos;
    entry.any_subdomain = text.starts_with("*.");
    const std::string_view name = entry.any_subdomain ? text.substr(2) : text;
    std::string problem;
    const auto url = parse_url(entry.explicit_origin ? std::string(text) : "https://" + std::string(name), &problem);
    if (!url) return refuse(text, problem);
    if (url->path != "/" || !url->query.empty()) return refuse(text, "an entry has no path");
    if (!entry.explicit_origin && text.find(':') != std::string_view::npos)
      return refuse(text, "a port needs its scheme, as in https://" + std::string(text));
    if (entry.any_subdomain && (parse_ip(url->host) || url->host.find('.') == std::string::npos))
      return refuse(text, "* stands before a domain of at least two labels");
    entry.scheme = url->scheme;
    entry.host = url->host;
    entry.port = url->port;
    rules.entries_.push_back(std::move(entry));
  }
  return rules;
}

const HostRules::Entry* HostRules::match(const Url& url) const {
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (entry.scheme != url.scheme || entry.port != url.port) continue;
    const bool matches = entry.any_subdomain
                             ? url.host.size() > entry.host.size() + 1 && url.host.ends_with("." + entry.host)
                             : url.host == entry.host;
    if (matches && (found == nullptr || entry.explicit_origin)) found = &entry;
  }
  return found;
}

std::string HostRules::refusal(const Url& url) const {
  const Entry* entry = match(url);
  if (entry == nullptr)
    return url.origin() + " is not in ops_runner.allowed_hosts; the entry \"" +
           (url.scheme == "https" && url.port == 443 ? url.host : url.origin()) + "\" would allow it";
  if (const auto address = parse_ip(url.host)) return refusal(url, *address);
  return {};
}

std::string HostRules::refusal(const Url& url, const IpAddress& address) const {
  const Entry* entry = match(url);
  if (entry == nullptr) return url.origin() + " is not in ops_runner.allowed_hosts";
  if (entry->explicit_origin || !is_internal(address)) return {};
  return url.host +
         " has an internal address; it is reachable only where ops_runner.allowed_hosts names it with scheme " +
         "and port: \"" + url.origin() + "\"";
}

}  // namespace ops
