// Deliberately broken worlds: what the simulation must be able to notice.
#pragma once

#include <string>
#include <vector>

#include "defects.hpp"

namespace ops::sim {

struct Variant {
  std::string name;
  bool Defects::* defect;
  std::vector<std::string> caught_by;  ///< invariants that may notice it
};

const std::vector<Variant>& variants();

}  // namespace ops::sim
