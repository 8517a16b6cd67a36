#include <algorithm>
#include <cstring>

#include "pg/boundary.hpp"

namespace ops::pg::detail {

void copy_cut(char* to, std::size_t size, const char* from) noexcept {
  const std::size_t length = std::min(std::strlen(from), size - 1);
  std::memcpy(to, from, length);
  to[length] = '\0';
}

ErrorData* take_error(MemoryContext context) {
  ErrorData* volatile copy = nullptr;
  MemoryContextSwitchTo(context);
  PG_TRY();
  {
    copy = CopyErrorData();
  }
  PG_CATCH();
  {
    MemoryContextSwitchTo(context);
  }
  PG_END_TRY();
  FlushErrorState();
  return const_cast<ErrorData*>(copy);
}

void throw_error(ErrorData* error) {
  if (error == nullptr) throw std::bad_alloc();
  throw PgError(error);
}

void raise(const Raise& raise) {
  if (raise.server_error != nullptr) ReThrowError(raise.server_error);
  ereport(ERROR, (errcode(raise.sqlstate), errmsg_internal("%s", raise.message),
                  raise.detail[0] != '\0' ? errdetail_internal("%s", raise.detail) : 0,
                  raise.hint[0] != '\0' ? errhint("%s", raise.hint) : 0));
  pg_unreachable();
}

}  // namespace ops::pg::detail
