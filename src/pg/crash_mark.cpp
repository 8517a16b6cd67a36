#include "pg/crash_mark.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace ops::pg {

namespace {
constexpr std::size_t size = 128;
}

MappedCrashMark::MappedCrashMark(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return;
  if (ftruncate(file, size) == 0) {
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) text_ = static_cast<char*>(memory);
  }
  close(file);
}

MappedCrashMark::~MappedCrashMark() {
  if (text_ != nullptr) munmap(text_, size);
}

std::string MappedCrashMark::left_behind() const {
  return text_ == nullptr ? std::string() : std::string(text_, strnlen(text_, size));
}

void MappedCrashMark::set(std::string_view run_id) noexcept {
  if (text_ == nullptr) return;
  const std::size_t length = std::min(run_id.size(), size - 1);
  std::memcpy(text_, run_id.data(), length);
  text_[length] = '\0';
}

void MappedCrashMark::clear() noexcept {
  if (text_ != nullptr) text_[0] = '\0';
}

}  // namespace ops::pg
