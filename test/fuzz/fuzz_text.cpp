// URLs, host rules, locations and logs from outside.
#include <cstdlib>

#include "core/host_rules.hpp"
#include "core/log_scrubber.hpp"
#include "core/pipeline.hpp"
#include "core/redact.hpp"
#include "core/url.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto url = ops::parse_url(text)) {
    const auto again = ops::parse_url(url->origin() + url->path);
    if (!again || again->origin() != url->origin()) std::abort();
    (void)ops::HostRules::parse("*.example.com, http://127.0.0.1:80")->refusal(*url);
  }
  (void)ops::HostRules::parse(text);
  (void)ops::resolve_location("https://a.b/c/d", text);
  (void)ops::parse_duration(text);

  ops::LogScrubber whole;
  std::string at_once;
  whole.feed(text, at_once);
  whole.finish(at_once);
  ops::LogScrubber parts;
  std::string in_two;
  parts.feed(text.substr(0, size / 2), in_two);
  parts.feed(text.substr(size / 2), in_two);
  parts.finish(in_two);
  if (at_once != in_two || at_once.find('\x1b') != std::string::npos) std::abort();
  return 0;
}
