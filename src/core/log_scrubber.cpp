#include "core/log_scrubber.hpp"

#include <optional>
#include <utility>

#include "core/json.hpp"
#include "core/redact.hpp"

namespace ops {

namespace {
constexpr std::size_t longest_line = 64 * 1024;
constexpr int most_key_lines = 200;  // an RSA key of 16,384 bits
constexpr std::string_view dashes = "-----";

/// The line begins a private key in PEM form and does not end it.
bool opens_key(std::string_view line) {
  const std::size_t begin = line.rfind("-----BEGIN");
  if (begin == std::string_view::npos) return false;
  const std::size_t header_end = line.find(dashes, begin + 10);
  return header_end != std::string_view::npos &&
         line.substr(begin, header_end - begin).find("PRIVATE KEY") != std::string_view::npos &&
         line.find("-----END", header_end) == std::string_view::npos;
}

/// What stands behind the end of a key; nothing when the line does not end it.
std::optional<std::string> after_key(const std::string& line) {
  const std::size_t footer = line.find("-----END");
  if (footer == std::string::npos) return std::nullopt;
  const std::size_t footer_end = line.find(dashes, footer + 8);
  if (footer_end == std::string::npos) return std::nullopt;
  return line.substr(footer_end + dashes.size());
}

}  // namespace

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
  line_.clear();
  const bool cut = std::exchange(cut_, false);
  std::string clean = clean_text(plain, longest_line * 3);
  if (key_lines_left_ > 0) {
    --key_lines_left_;
    const auto rest = after_key(clean);
    if (!rest) return;
    key_lines_left_ = 0;
    clean = "[redacted]" + *rest;
  }
  if (opens_key(clean)) key_lines_left_ = most_key_lines;
  out += redact(clean);
  if (cut) out += " [line cut]";
  out += '\n';
}

}  // namespace ops
