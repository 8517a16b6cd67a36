#include "phases/zip_entry.hpp"

#include <archive.h>
#include <archive_entry.h>

#include <memory>

namespace ops {

namespace {
constexpr int most_entries = 1'000;
struct Free {
  void operator()(archive* reader) const { archive_read_free(reader); }
};
}  // namespace

std::optional<std::string> zip_entry(std::string_view zip, std::string_view name, std::size_t max_bytes) {
  const std::unique_ptr<archive, Free> reader(archive_read_new());
  archive_read_support_format_zip(reader.get());
  if (archive_read_open_memory(reader.get(), zip.data(), zip.size()) != ARCHIVE_OK) return std::nullopt;
  archive_entry* entry = nullptr;
  for (int i = 0; i < most_entries && archive_read_next_header(reader.get(), &entry) == ARCHIVE_OK; ++i) {
    const char* path = archive_entry_pathname(entry);
    if (path == nullptr || name != path) continue;
    std::string content(max_bytes + 1, '\0');
    std::size_t filled = 0;
    while (filled < content.size()) {
      const auto got = archive_read_data(reader.get(), content.data() + filled, content.size() - filled);
      if (got < 0) return std::nullopt;
      if (got == 0) break;
      filled += static_cast<std::size_t>(got);
    }
    if (filled > max_bytes) return std::nullopt;
    content.resize(filled);
    return content;
  }
  return std::nullopt;
}

}  // namespace ops
