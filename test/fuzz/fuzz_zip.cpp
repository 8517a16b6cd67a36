// Archives of build results, as GitHub serves them.
#include <cstdlib>

#include "phases/zip_entry.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto content = ops::zip_entry({reinterpret_cast<const char*>(data), size}, "result.json", 65'536);
  if (content && content->size() > 65'536) std::abort();
  return 0;
}
