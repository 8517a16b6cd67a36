// Checks of definitions that C++ code of the server uses too.
#pragma once

#include "pg/boundary.hpp"

namespace ops::pg {

/// Size, depth and phases of a run's metadata (jsonb). @throws SqlError that names the JSON path
void check_metadata_document(Datum metadata);

}  // namespace ops::pg
