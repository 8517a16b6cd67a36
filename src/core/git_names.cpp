#include "core/git_names.hpp"

#include <algorithm>

namespace ops {

bool is_commit(std::string_view text) {
  return text.size() >= 7 && text.size() <= 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool is_git_ref(std::string_view text) {
  constexpr std::string_view wrong_parts[] = {"..", "@{", "//", "/.", ".lock/"};
  constexpr std::string_view wrong_at_the_end[] = {"/", ".", ".lock"};
  return !text.empty() && text.size() <= 255 && !has_control_characters(text) &&
         text.find_first_of(" ~^:?*[\\") == std::string_view::npos &&
         std::string_view("-/.").find(text.front()) == std::string_view::npos &&
         std::ranges::none_of(wrong_parts, [&](auto part) { return text.find(part) != std::string_view::npos; }) &&
         std::ranges::none_of(wrong_at_the_end, [&](auto part) { return text.ends_with(part); });
}

bool has_control_characters(std::string_view utf8) {
  for (std::size_t i = 0; i < utf8.size(); ++i) {
    const auto byte = static_cast<unsigned char>(utf8[i]);
    if (byte < 0x20 || byte == 0x7f) return true;
    const std::string_view rest = utf8.substr(i);
    if (byte == 0xc2 && rest.size() > 1 && static_cast<unsigned char>(rest[1]) < 0xa0) return true;
    if (rest.starts_with("\xe2\x80\xa8") || rest.starts_with("\xe2\x80\xa9")) return true;
  }
  return false;
}

}  // namespace ops
