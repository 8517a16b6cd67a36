// Server zone: jsonb documents as text. Most of them are empty objects, which need not be written out.
#pragma once

#include "pg/compat.hpp"

namespace ops::pg {

inline bool is_empty_object(const Jsonb* document) {
  return JB_ROOT_IS_OBJECT(document) && JB_ROOT_COUNT(document) == 0;
}

/// In palloc'd memory, or static.
inline const char* jsonb_text(Datum value) {
  Jsonb* document = DatumGetJsonbP(value);
  if (is_empty_object(document)) return "{}";
  return JsonbToCString(nullptr, &document->root, static_cast<int>(VARSIZE(document)));
}

}  // namespace ops::pg
