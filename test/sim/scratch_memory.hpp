// The Files port: scratch files that are only memory.
#pragma once

#include <memory>
#include <string>

#include "core/ports.hpp"

namespace ops::sim {

class ScratchMemory final : public ScratchFile {
 public:
  const std::string& path() const override { return path_; }
  std::string content;

 private:
  std::string path_ = "scratch";
};

class ScratchMemories final : public Files {
 public:
  std::shared_ptr<ScratchFile> create() override { return std::make_shared<ScratchMemory>(); }
};

}  // namespace ops::sim
