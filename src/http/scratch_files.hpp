// Temporary files for bodies that do not fit in memory. Mode 0600; gone with their last holder.
#pragma once

#include <string>

#include "core/ports.hpp"

namespace ops {

class ScratchFiles final : public Files {
 public:
  /// @param prefix  directory and beginning of the file names; the process id and a number are appended
  explicit ScratchFiles(std::string prefix) : prefix_(std::move(prefix)) {}
  std::shared_ptr<ScratchFile> create() override;

 private:
  std::string prefix_;
  unsigned long count_ = 0;
};

}  // namespace ops
