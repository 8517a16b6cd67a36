// A zip file with one entry.
#pragma once

#include <string>

namespace ops::sim {

std::string zip_file(const std::string& name, const std::string& content);

}  // namespace ops::sim
