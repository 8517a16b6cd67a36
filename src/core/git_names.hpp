// Names of git, as far as this extension takes them from people.
#pragma once

#include <string_view>

namespace ops {

/// 7 to 64 hexadecimal digits in lower case.
bool is_commit(std::string_view text);

/// A branch or tag by the rules of git check-ref-format, of at most 255 bytes and without control characters.
bool is_git_ref(std::string_view text);

/// C0 and C1 controls, delete, and the two line ends of Unicode: whatever moves a cursor or ends a line.
bool has_control_characters(std::string_view utf8);

}  // namespace ops
