// Rows found by key without planner and executor: starting and ending a statement costs more than the look into the
// index, above all when its small objects have got cold.
//
// Only for reading and for locks: what is written has to go through triggers, checks and privileges of the tables.
#pragma once

#include <cstdint>
#include <string>

#include "pg/statement.hpp"

namespace ops::pg {

/// As in SELECT … FOR UPDATE, and FOR NO KEY UPDATE, which lets foreign keys be checked.
enum class RowLock { update, no_key_update };
/// What happens where another session holds the row.
enum class RowWait { skip, block };

/// A table of the schema ops, looked into by an index that begins with a text column.
class StoredTable {
 public:
  static constexpr std::size_t most_columns = 16;
  /// @param columns  what rows consist of, also of the system: xmin and ctid tell one version of a row from another
  /// @param index  null: the primary key
  template <std::size_t count>
  constexpr StoredTable(const char* name, const char* const (&columns)[count], const char* index = nullptr)
      : name_(name), index_(index), columns_(columns), column_count_(count) {
    static_assert(count <= most_columns);
  }

  /// All rows with this key, in the order of the index, as this command sees them. As text: times are
  /// microseconds since 1970, intervals microseconds, arrays and jsonb JSON. Where a transaction is open. @throws
  /// PgError
  Rows rows(const std::string& key) const;
  /// Locks the newest version of the one row with this key; no row where there is none. With RowWait::skip it never
  /// waits: no row where another session holds it. SELECT … SKIP LOCKED may wait after all, where the row was changed
  /// between the statement's snapshot and its lock while a foreign key check still holds the old version: the server
  /// then follows to the new one and waits for whoever locked that. @throws PgError: also 40001 in a transaction of
  /// higher isolation
  Rows lock(const std::string& key, RowLock mode, RowWait wait = RowWait::skip) const;
  /// Whether this command sees a row with this key. @throws PgError
  bool has(const std::string& key) const;
  /// The largest value of the second column (integer) of the primary key among the rows with this key; 0 without rows.
  std::int64_t largest(const std::string& key) const;

 private:
  const char* name_;
  const char* index_;
  const char* const* columns_;
  std::size_t column_count_;
  mutable std::int16_t numbers_[most_columns] = {};  ///< of the columns in the table, remembered
};

}  // namespace ops::pg
