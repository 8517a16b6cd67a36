// Server zone: values of columns (pg/statement.hpp) as the server holds them. Only inside guarded().
#pragma once

#include <variant>

#include "pg/compat.hpp"
#include "pg/server_time.hpp"
#include "pg/statement.hpp"

namespace ops::pg {

inline Datum text_datum(const std::string& value) {
  return PointerGetDatum(cstring_to_text_with_len(value.data(), static_cast<int>(value.size())));
}

/// One value of a column; `is_null` is set where there is none, and stays as it is otherwise.
struct ValueAt {
  std::size_t row;
  bool& is_null;

  Datum operator()(const TextColumn& column) const {
    is_null = !column[row].has_value();
    return is_null ? Datum{0} : text_datum(*column[row]);
  }
  Datum operator()(const IntColumn& column) const { return Int32GetDatum(column[row]); }
  Datum operator()(const BigintColumn& column) const { return Int64GetDatum(column[row]); }
  Datum operator()(const TimeColumn& column) const {
    is_null = !column[row].has_value();
    return is_null ? Datum{0} : TimestampTzGetDatum(server_time(*column[row]));
  }
};

/// So many rows have this column; nothing where the argument is none.
inline std::size_t row_count(const Argument& argument) {
  struct Count {
    std::size_t operator()(const TextColumn& column) const { return column.size(); }
    std::size_t operator()(const IntColumn& column) const { return column.size(); }
    std::size_t operator()(const BigintColumn& column) const { return column.size(); }
    std::size_t operator()(const TimeColumn& column) const { return column.size(); }
    std::size_t operator()(const std::string&) const { return 0; }
    std::size_t operator()(bool) const { return 0; }
    std::size_t operator()(std::int32_t) const { return 0; }
    std::size_t operator()(std::int64_t) const { return 0; }
  };
  return std::visit(Count{}, argument);
}

}  // namespace ops::pg
