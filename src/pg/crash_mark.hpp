// The run that the worker is resuming, in a small file mapped into memory: written at the cost of a memory copy, and
// still there when the process is not. The next life counts the death to that run (ops._note_crash).
#pragma once

#include <string>

#include "core/ports.hpp"

namespace ops::pg {

class MappedCrashMark final : public CrashMark {
 public:
  /// @param path  below the data directory; made if it is not there
  explicit MappedCrashMark(const std::string& path);
  ~MappedCrashMark() override;
  MappedCrashMark(const MappedCrashMark&) = delete;
  MappedCrashMark& operator=(const MappedCrashMark&) = delete;

  /// What the life before left behind; empty when it ended in peace.
  std::string left_behind() const;
  void set(std::string_view run_id) noexcept override;
  void clear() noexcept override;

 private:
  char* text_ = nullptr;  ///< null where the file cannot be made: then nothing is marked
};

}  // namespace ops::pg
