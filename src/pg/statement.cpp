#include "pg/statement.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "pg/boundary.hpp"
#include "pg/column_values.hpp"

namespace ops::pg {

namespace {

Oid type_of(const Argument& argument) {
  struct Types {
    Oid operator()(const std::string&) const { return TEXTOID; }
    Oid operator()(bool) const { return BOOLOID; }
    Oid operator()(std::int32_t) const { return INT4OID; }
    Oid operator()(std::int64_t) const { return INT8OID; }
    Oid operator()(const TextColumn&) const { return TEXTARRAYOID; }
    Oid operator()(const IntColumn&) const { return INT4ARRAYOID; }
    Oid operator()(const BigintColumn&) const { return INT8ARRAYOID; }
    Oid operator()(const TimeColumn&) const { return TIMESTAMPTZARRAYOID; }
  };
  return std::visit(Types{}, argument);
}

// Server zone: called inside guarded(); only palloc'd memory and references live here.
struct ToDatum {
  template <class Column>
  static Datum array(const Column& column, Oid type, int16 length, bool by_value, char align) {
    Datum* values = static_cast<Datum*>(palloc(sizeof(Datum) * (column.size() + 1)));
    bool* nulls = static_cast<bool*>(palloc0(sizeof(bool) * (column.size() + 1)));
    for (std::size_t i = 0; i < column.size(); ++i) values[i] = ValueAt{i, nulls[i]}(column);
    int dimension = static_cast<int>(column.size());
    int lower_bound = 1;
    return PointerGetDatum(
        construct_md_array(values, nulls, 1, &dimension, &lower_bound, type, length, by_value, align));
  }
  Datum operator()(const std::string& value) const { return text_datum(value); }
  Datum operator()(bool value) const { return BoolGetDatum(value); }
  Datum operator()(std::int32_t value) const { return Int32GetDatum(value); }
  Datum operator()(std::int64_t value) const { return Int64GetDatum(value); }
  Datum operator()(const TextColumn& column) const { return array(column, TEXTOID, -1, false, TYPALIGN_INT); }
  Datum operator()(const IntColumn& column) const { return array(column, INT4OID, 4, true, TYPALIGN_INT); }
  Datum operator()(const BigintColumn& column) const {
    return array(column, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
  }
  Datum operator()(const TimeColumn& column) const {
    return array(column, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
  }
};

/// The only value of a column.
struct OnlyValue {
  bool& is_null;
  template <class Value>
  Datum operator()(const Value& value) const {
    if constexpr (std::is_invocable_v<ValueAt, const Value&>)
      return ValueAt{0, is_null}(value);
    else
      return ToDatum{}(value);
  }
};

/// Result of a statement as memory of the transaction's SPI context.
struct RawRows {
  std::size_t rows;
  std::size_t columns;
  char** cells;
};

/// @param single  so many of the first arguments are columns of one row, and their values are passed
RawRows run_plan(SPIPlanPtr plan, const Argument* arguments, std::size_t count, std::size_t single) {
  Datum* values = static_cast<Datum*>(palloc(sizeof(Datum) * (count + 1)));
  char* nulls = static_cast<char*>(palloc(count + 1));
  for (std::size_t i = 0; i < count; ++i) {
    bool is_null = false;
    values[i] = i < single ? std::visit(OnlyValue{is_null}, arguments[i]) : std::visit(ToDatum{}, arguments[i]);
    nulls[i] = is_null ? 'n' : ' ';
  }
  const int result = SPI_execute_plan(plan, values, nulls, false, 0);
  if (result < 0) elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
  RawRows raw{0, 0, nullptr};
  if (SPI_tuptable == nullptr) return raw;
  raw.rows = SPI_processed;
  raw.columns = static_cast<std::size_t>(SPI_tuptable->tupdesc->natts);
  raw.cells = static_cast<char**>(palloc(sizeof(char*) * (raw.rows * raw.columns + 1)));
  for (std::size_t row = 0; row < raw.rows; ++row)
    for (std::size_t column = 0; column < raw.columns; ++column)
      raw.cells[row * raw.columns + column] =
          SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, static_cast<int>(column) + 1);
  SPI_freetuptable(SPI_tuptable);
  return raw;
}

SPIPlanPtr prepare(const char* sql, const Argument* arguments, std::size_t count, std::size_t single) {
  Oid* types = static_cast<Oid*>(palloc(sizeof(Oid) * (count + 1)));
  for (std::size_t i = 0; i < count; ++i) {
    types[i] = type_of(arguments[i]);
    if (i < single) types[i] = get_base_element_type(types[i]);
  }
  // Planning anew for each set of keys takes longer than most statements.
  SPIPlanPtr plan = SPI_prepare_cursor(sql, static_cast<int>(count), types, CURSOR_OPT_GENERIC_PLAN);
  if (plan == nullptr) elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
  SPI_keepplan(plan);
  return plan;
}

struct Written {
  std::string sql;
  std::size_t columns = 0;  ///< of the set
};

/// The statement with `{u(name type, …)}` written out.
Written with_rows(std::string_view sql, bool one_row) {
  const std::size_t open = sql.find('{');
  if (open == std::string_view::npos) return {std::string(sql)};
  const std::size_t columns = sql.find('(', open);
  const std::size_t close = sql.find(")}", columns);
  const std::string_view name = sql.substr(open + 1, columns - open - 1);
  std::string values, names;
  std::size_t number = 0;
  for (std::size_t at = columns + 1; at < close;) {
    at = sql.find_first_not_of(" \n", at);
    const std::size_t space = sql.find(' ', at);
    const std::size_t end = std::min(sql.find(',', space), close);
    const std::string column(sql.substr(at, space - at));
    const std::string value =
        "$" + std::to_string(++number) + "::" + std::string(sql.substr(space + 1, end - space - 1));
    const char* separator = number == 1 ? "" : ", ";
    values += separator + (one_row ? value + " AS " + column : value + "[]");
    names += separator + column;
    at = end + 1;
  }
  const std::string rows = one_row ? "(SELECT " + values + ") AS " + std::string(name)
                                   : "unnest(" + values + ") AS " + std::string(name) + "(" + names + ")";
  return {std::string(sql.substr(0, open)) + rows + std::string(sql.substr(close + 2)), number};
}

}  // namespace

Rows Statement::run(std::initializer_list<Argument> arguments) {
  // The first column tells for all: they have the same length.
  const bool one_row = arguments.size() > 0 && row_count(*arguments.begin()) == 1;
  void*& plan_slot = one_row ? plan_of_one_row_ : plan_;
  if (plan_slot == nullptr) {
    const Written written = with_rows(sql_, one_row);
    set_columns_ = written.columns;
    const char* sql = written.sql.c_str();
    const std::size_t single = one_row ? set_columns_ : 0;
    plan_slot = guarded([&] { return prepare(sql, arguments.begin(), arguments.size(), single); });
  }
  SPIPlanPtr plan = static_cast<SPIPlanPtr>(plan_slot);
  const std::size_t single = one_row ? set_columns_ : 0;
  const RawRows raw = guarded([&] { return run_plan(plan, arguments.begin(), arguments.size(), single); });
  return {raw.rows, raw.columns, raw.cells};
}

}  // namespace ops::pg
