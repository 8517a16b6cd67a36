// The launcher: one process per server that gives every database with the extension its worker.
#pragma once

#include "pg/boundary.hpp"

namespace ops::pg {

/// Registers the launcher with the postmaster. Only while shared_preload_libraries are loaded.
void register_launcher();

}  // namespace ops::pg
