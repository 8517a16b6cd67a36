// Insertion of rows that only the extension writes, without planner and executor: of a statement that inserts one row
// the row itself is a third, and of many rows the server makes a table of its own first.
#pragma once

#include <initializer_list>

#include "pg/statement.hpp"

namespace ops::pg {

/// INSERT of a set of rows into a table of the schema ops, prepared once per process and run any number of times.
///
/// Rows are written directly where nothing else would happen to them: the role may insert, no trigger of the table
/// fires (so it has no foreign keys), and it has no checks, rules, policies or generated columns, and every column that
/// is not given may be null. Everywhere else the statement does it, and also where one snapshot holds for the whole
/// transaction: what others have written since is a conflict of its own kind there.
class Insert {
 public:
  static constexpr std::size_t most_columns = 16;
  /// @param columns  those that are given; every other one is null
  /// @param sql  inserts the same columns FROM {u(…)}, in the same order
  template <std::size_t count>
  constexpr Insert(const char* table, const char* const (&columns)[count], const char* sql)
      : table_(table), columns_(columns), column_count_(count), statement_(sql) {
    static_assert(count <= most_columns);
  }
  /// @param values  columns of the same length. Text is read as what the column holds (text, jsonb or text[]), numbers
  /// as milliseconds where it holds an interval, and as true where it holds a boolean and they are not 0. Where SPI is
  /// connected. @throws PgError
  void run(std::initializer_list<Argument> values);

 private:
  const char* table_;
  const char* const* columns_;
  std::size_t column_count_;
  Statement statement_;
};

}  // namespace ops::pg
