// The catalogue of the simulation: the product's kinds, and one whose effect cannot be told apart.
#pragma once

#include "core/phase_catalog.hpp"
#include "defects.hpp"

namespace ops::sim {

/// The catalogue with these defects; lives as long as the program.
const PhaseCatalog& catalog_with(const Defects& defects);

}  // namespace ops::sim
