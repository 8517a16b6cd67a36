#include "zip_file.hpp"

#include <archive.h>
#include <archive_entry.h>

#include <memory>
#include <stdexcept>

namespace ops::sim {

std::string zip_file(const std::string& name, const std::string& content) {
  std::string bytes(content.size() + 2 * name.size() + 1024, '\0');
  std::size_t used = 0;
  {
    const std::unique_ptr<archive, decltype(&archive_write_free)> writer(archive_write_new(), archive_write_free);
    const std::unique_ptr<archive_entry, decltype(&archive_entry_free)> entry(archive_entry_new(), archive_entry_free);
    archive_entry_set_pathname(entry.get(), name.c_str());
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(content.size()));
    archive_entry_set_filetype(entry.get(), AE_IFREG);
    archive_entry_set_perm(entry.get(), 0644);
    archive_write_set_format_zip(writer.get());
    if (archive_write_open_memory(writer.get(), bytes.data(), bytes.size(), &used) != ARCHIVE_OK ||
        archive_write_header(writer.get(), entry.get()) != ARCHIVE_OK ||
        archive_write_data(writer.get(), content.data(), content.size()) < 0 ||
        archive_write_close(writer.get()) != ARCHIVE_OK)
      throw std::runtime_error("zip file: no space");
  }
  bytes.resize(used);
  return bytes;
}

}  // namespace ops::sim
