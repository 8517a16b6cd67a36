// Checks of definitions that C++ code of the server uses too.
#pragma once

#include <string>

#include "pg/boundary.hpp"

namespace ops::pg {

/// RFC 9562, version 7: 48 bits of Unix time in milliseconds, then random bits. @throws SqlError
std::string new_uuid();

/// Size, depth and phases of a run's metadata (jsonb). @throws SqlError that names the JSON path
void check_metadata_document(Datum metadata);

}  // namespace ops::pg
