#include "core/log_scrubber.hpp"

#include "core/json.hpp"
#include "core/redact.hpp"

namespace ops {

namespace {
constexpr std::size_t longest_line = 64 * 1024;
}

void LogScrubber::feed(std::string_view chunk, std::string& out) {
  while (!chunk.empty()) {
    const std::size_t newline = chunk.find('\n');
    const std::string_view part = chunk.substr(0, newline);
    const std::size_t room = longest_line - line_.size();
    line_.append(part.substr(0, room));
    cut_ |= part.size() > room;
    if (newline == std::string_view::npos) return;
    emit_line(out);
    chunk.remove_prefix(newline + 1);
  }
}

void LogScrubber::finish(std::string& out) {
  if (!line_.empty()) emit_line(out);
}

void LogScrubber::emit_line(std::string& out) {
  // Colours and cursor movements: ESC [ ... letter. The rest of the control codes goes in clean_text.
  std::string plain;
  for (std::size_t i = 0; i < line_.size(); ++i) {
    if (line_[i] == '\x1b' && i + 1 < line_.size() && line_[i + 1] == '[') {
      i += 2;
      while (i < line_.size() && !((line_[i] >= '@' && line_[i] <= '~'))) ++i;
      continue;
    }
    plain += line_[i];
  }
  out += redact(clean_text(plain, longest_line * 3));
  if (cut_) out += " [line cut]";
  out += '\n';
  line_.clear();
  cut_ = false;
}

}  // namespace ops
