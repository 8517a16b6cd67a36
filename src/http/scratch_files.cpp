#include "http/scratch_files.hpp"

#include <sys/stat.h>
#include <unistd.h>

namespace ops {

namespace {

class OwnedFile final : public ScratchFile {
 public:
  explicit OwnedFile(std::string path) : path_(std::move(path)) {}
  ~OwnedFile() override { unlink(path_.c_str()); }
  OwnedFile(const OwnedFile&) = delete;
  OwnedFile& operator=(const OwnedFile&) = delete;
  const std::string& path() const override { return path_; }

 private:
  std::string path_;
};

}  // namespace

std::shared_ptr<ScratchFile> ScratchFiles::create() {
  // The server makes its directory for temporary files only when it first needs one.
  if (const auto slash = prefix_.rfind('/'); slash != std::string::npos) mkdir(prefix_.substr(0, slash).c_str(), 0700);
  return std::make_shared<OwnedFile>(prefix_ + "." + std::to_string(getpid()) + "." + std::to_string(++count_));
}

}  // namespace ops
