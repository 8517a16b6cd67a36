// One small file out of a zip that came from outside.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ops {

/// The content of the entry with that name, at the top of the archive; nothing when it is absent, larger than max_bytes
/// after decompression, or the archive is damaged.
std::optional<std::string> zip_entry(std::string_view zip, std::string_view name, std::size_t max_bytes);

}  // namespace ops
