// SQL statements that are prepared once and run any number of times: in the worker's transactions and in triggers.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "core/run.hpp"

namespace ops::pg {

/// Arguments of a statement. Arrays are columns of a set, all of the same length; times are timestamptz.
using TextColumn = std::vector<std::optional<std::string>>;
using IntColumn = std::vector<std::int32_t>;
using BigintColumn = std::vector<std::int64_t>;
using TimeColumn = std::vector<std::optional<WallTime>>;
using Argument =
    std::variant<std::string, bool, std::int32_t, std::int64_t, TextColumn, IntColumn, BigintColumn, TimeColumn>;

/// A column of these values.
inline TextColumn column_of(const std::set<std::string>& values) {
  TextColumn column;
  for (const std::string& value : values) column.emplace_back(value);
  return column;
}

/// Rows of a result as text; nothing where the value is null.
class Rows {
 public:
  Rows() = default;
  /// Copies memory of the server, row by row. @param cells  null where the value is
  Rows(std::size_t rows, std::size_t columns, const char* const* cells) : columns_(columns), cells_(rows * columns) {
    for (std::size_t i = 0; i < cells_.size(); ++i)
      if (cells[i] != nullptr) cells_[i] = cells[i];
  }
  std::size_t size() const { return columns_ == 0 ? 0 : cells_.size() / columns_; }
  const std::optional<std::string>& at(std::size_t row, std::size_t column) const {
    return cells_[row * columns_ + column];
  }
  /// Empty text for null.
  std::string text(std::size_t row, std::size_t column) const { return at(row, column).value_or(std::string()); }
  std::int64_t integer(std::size_t row, std::size_t column) const { return std::stoll(text(row, column)); }
  bool is_true(std::size_t row, std::size_t column) const { return at(row, column) == "t"; }
  std::set<std::string> first_column() const {
    std::set<std::string> values;
    for (std::size_t row = 0; row < size(); ++row) values.insert(text(row, 0));
    return values;
  }

 private:
  std::size_t columns_ = 0;
  std::vector<std::optional<std::string>> cells_;
};

/// A statement prepared once per process and run any number of times.
///
/// `{u(run_id text, seq int)}` stands for a set of rows u, of which $1, $2, … are the columns: unnest(…), and where it
/// is one row its values, which the server starts in half the time.
class Statement {
 public:
  explicit constexpr Statement(const char* sql) : sql_(sql) {}
  /// Where SPI is connected. The arguments are never copied: a std::variant of g++ 12 that fails to copy a string jumps
  /// to nowhere. @throws PgError
  Rows run(std::initializer_list<Argument> arguments);

 private:
  const char* sql_;
  std::size_t set_columns_ = 0;  ///< known when a plan is there
  void* plan_ = nullptr;
  void* plan_of_one_row_ = nullptr;
};

}  // namespace ops::pg
