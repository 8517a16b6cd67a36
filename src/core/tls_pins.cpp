#include "core/tls_pins.hpp"

#include <algorithm>

#include "core/url.hpp"

namespace ops {

namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

/// What stands before the separator; `text` goes on behind it.
std::string_view take(std::string_view& text, char separator) {
  const std::size_t end = std::min(text.find(separator), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return trimmed(part);
}

/// 32 bytes in base64, of which the last digit before the padding carries four bits.
bool is_pin(std::string_view text) {
  constexpr std::string_view prefix = "sha256//";
  constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  constexpr std::size_t digits = 43;
  if (!text.starts_with(prefix) || text.size() != prefix.size() + digits + 1 || text.back() != '=') return false;
  const std::string_view hash = text.substr(prefix.size(), digits);
  return hash.find_first_not_of(alphabet) == std::string_view::npos && alphabet.find(hash.back()) % 4 == 0;
}

}  // namespace

std::optional<TlsPins> TlsPins::parse(std::string_view setting, std::string* why) {
  const auto wrong = [&](std::string_view entry, const std::string& what) {
    if (why != nullptr) *why = "entry \"" + std::string(entry.substr(0, 120)) + "\": " + what;
    return std::nullopt;
  };
  TlsPins result;
  for (std::string_view rest = trimmed(setting); !rest.empty();) {
    const std::string_view entry = take(rest, ',');
    std::string_view pins = entry;
    const std::string_view host = take(pins, '=');
    const auto url = parse_url("https://" + std::string(host) + "/");
    if (host.empty() || !url || host.find_first_of(":/?#@*") != std::string_view::npos)
      return wrong(entry, "it does not begin with a host name and \"=\"");
    std::string& known = result.pins_[url->host];
    if (!known.empty()) return wrong(entry, "this host has an entry before");
    if (pins.empty()) return wrong(entry, "it names no pin");
    while (!pins.empty()) {
      const std::string_view pin = take(pins, ';');
      if (!is_pin(pin))
        return wrong(entry, "\"" + std::string(pin.substr(0, 60)) + "\" is no sha256//<44 digits of base64>");
      known += (known.empty() ? "" : ";") + std::string(pin);
    }
  }
  return result;
}

std::string_view TlsPins::of(const std::string& host) const {
  const auto found = pins_.find(host);
  return found == pins_.end() ? std::string_view() : found->second;
}

}  // namespace ops
