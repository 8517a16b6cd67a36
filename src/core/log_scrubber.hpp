// Makes the log of a build safe to keep, as a stream: valid UTF-8, no terminal control codes, secrets masked, line by
// line; a private key in PEM form over all its lines. Memory is bounded by one line of at most 64 KiB; longer lines are
// cut and marked.
#pragma once

#include <string>
#include <string_view>

namespace ops {

class LogScrubber {
 public:
  /// Appends the cleaned form of all lines completed by `chunk` to `out`.
  void feed(std::string_view chunk, std::string& out);
  /// The last, unterminated line.
  void finish(std::string& out);

 private:
  void emit_line(std::string& out);
  std::string line_;
  bool cut_ = false;
  int key_lines_left_ = 0;  ///< inside of a private key: so many more lines may belong to it
};

}  // namespace ops
