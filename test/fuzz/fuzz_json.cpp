// What comes from services and from users as JSON: parsing, redaction and the text handed to jsonb.
#include <cstdlib>

#include "core/json.hpp"
#include "core/redact.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto parsed = ops::parse_json(text)) {
    const std::string written = ops::dump_json(ops::redact_json(*parsed));
    // What we write we must be able to read; depth and size can only have shrunk.
    if (!ops::parse_json(written, {64 * 1024 * 1024, 65, 100'000, 1 << 20})) std::abort();
  }
  const std::string clean = ops::clean_text(text);
  if (clean != ops::clean_text(clean)) std::abort();
  return 0;
}
