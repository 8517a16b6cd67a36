#include "pg/stored_rows.hpp"

#include <cstring>

#include "pg/boundary.hpp"
#include "pg/index_scan.hpp"
#include "pg/jsonb_text.hpp"
#include "pg/server_time.hpp"

namespace ops::pg {

namespace {

// Server zone --------------------------------------------------------------------------------------------------------

IndexScan begin_scan(const char* table_name, const char* index_name, const char* key, LOCKMODE mode) {
  const IndexKey wanted{BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(key)};
  return begin_index_scan(table_name, index_name, &wanted, 1, mode);
}

const char* text_of(Datum value, Oid type) {
  switch (type) {  // the frequent ones without looking up how the type is written
    case TEXTOID:
      return TextDatumGetCString(value);
    case INT4OID:
      return psprintf("%d", DatumGetInt32(value));
    case JSONBOID:
      return jsonb_text(value);
    case UUIDOID:
      return DatumGetCString(DirectFunctionCall1(uuid_out, value));
    case TIDOID:
      return psprintf("(%u,%u)", ItemPointerGetBlockNumber(reinterpret_cast<ItemPointer>(DatumGetPointer(value))),
                      ItemPointerGetOffsetNumber(reinterpret_cast<ItemPointer>(DatumGetPointer(value))));
    case XIDOID:
      return psprintf("%u", DatumGetTransactionId(value));
    case TIMESTAMPTZOID:
      return psprintf(INT64_FORMAT,
                      static_cast<int64>(wall_time(DatumGetTimestampTz(value)).time_since_epoch().count()));
    case INTERVALOID:
      return psprintf(INT64_FORMAT, static_cast<int64>(DatumGetIntervalP(value)->time +
                                                       DatumGetIntervalP(value)->day * USECS_PER_DAY));
    case TEXTARRAYOID:
      if (ARR_NDIM(DatumGetArrayTypeP(value)) == 0) return "[]";
      return TextDatumGetCString(OidFunctionCall1(F_ARRAY_TO_JSON_ANYARRAY, value));
    default: {
      Oid output = InvalidOid;
      bool is_varlena = false;
      getTypeOutputInfo(type, &output, &is_varlena);
      return OidOutputFunctionCall(output, value);
    }
  }
}

struct RawRows {
  const char** cells;
  std::size_t rows;
};

struct Columns {
  const char* table;
  const char* index;  ///< null: the primary key
  const char* const* names;
  std::size_t count;
  int16* numbers;  ///< where the table had them last
};

int number_of(const Columns& columns, std::size_t i, Relation table) {
  int number = columns.numbers[i];
  if (number < 0) return number;
  TupleDesc description = RelationGetDescr(table);
  if (number == 0 || number > description->natts ||
      std::strcmp(NameStr(TupleDescAttr(description, number - 1)->attname), columns.names[i]) != 0)
    number = column_number(table, columns.names[i]);
  columns.numbers[i] = static_cast<int16>(number);
  return number;
}

void append_row(RawRows& found, TupleTableSlot* row, const Columns& columns, Relation table) {
  // Room is doubled at each power of two.
  if ((found.rows & (found.rows - 1)) == 0) {
    const Size bytes = sizeof(char*) * columns.count * (found.rows == 0 ? 1 : 2 * found.rows);
    found.cells = static_cast<const char**>(found.cells == nullptr ? palloc(bytes)
                                                                   : repalloc(static_cast<void*>(found.cells), bytes));
  }
  TupleDesc description = row->tts_tupleDescriptor;
  for (std::size_t i = 0; i < columns.count; ++i) {
    const int number = number_of(columns, i, table);
    bool is_null = false;
    const bool of_system = number < 0;
    const Datum value = of_system ? slot_getsysattr(row, number, &is_null) : slot_getattr(row, number, &is_null);
    const FormData_pg_attribute* attribute =
        of_system ? SystemAttributeDefinition(static_cast<AttrNumber>(number)) : TupleDescAttr(description, number - 1);
    found.cells[found.rows * columns.count + i] = is_null ? nullptr : text_of(value, attribute->atttypid);
  }
  ++found.rows;
}

RawRows read_rows(const Columns& columns, const char* key) {
  IndexScan open = begin_scan(columns.table, columns.index, key, AccessShareLock);
  TupleTableSlot* row = MakeSingleTupleTableSlot(RelationGetDescr(open.table), &TTSOpsHeapTuple);
  RawRows found{nullptr, 0};
  while (HeapTuple tuple = next_row(open, ForwardScanDirection))
    append_row(found, ExecStoreHeapTuple(tuple, row, false), columns, open.table);
  ExecDropSingleTupleTableSlot(row);
  end_index_scan(open);
  return found;
}

RawRows lock_row(const Columns& columns, const char* key, LockTupleMode mode, LockWaitPolicy wait) {
  IndexScan open = begin_scan(columns.table, columns.index, key, RowShareLock);
  RawRows found{nullptr, 0};
  if (HeapTuple tuple = next_row(open, ForwardScanDirection)) {
    TupleTableSlot* row = table_slot_create(open.table, nullptr);
    if (lock_found_row(open, tuple, mode, wait, row)) append_row(found, row, columns, open.table);
    ExecDropSingleTupleTableSlot(row);
  }
  end_index_scan(open);
  return found;
}

bool is_there(const Columns& columns, const char* key) {
  IndexScan open = begin_scan(columns.table, columns.index, key, AccessShareLock);
  const bool found = next_row(open, ForwardScanDirection) != nullptr;
  end_index_scan(open);
  return found;
}

int64 largest_of(const char* table_name, const char* key) {
  IndexScan open = begin_scan(table_name, nullptr, key, AccessShareLock);
  int64 largest = 0;
  if (HeapTuple tuple = next_row(open, BackwardScanDirection)) {
    bool is_null = false;
    const Datum value =
        heap_getattr(tuple, open.index->rd_index->indkey.values[1], RelationGetDescr(open.table), &is_null);
    largest = DatumGetInt32(value);
  }
  end_index_scan(open);
  return largest;
}

}  // namespace

Rows StoredTable::rows(const std::string& key) const {
  const Columns columns{name_, index_, columns_, column_count_, numbers_};
  const RawRows raw = guarded([&] { return read_rows(columns, key.c_str()); });
  return {raw.rows, column_count_, raw.cells};
}

Rows StoredTable::lock(const std::string& key, RowLock mode, RowWait wait) const {
  const Columns columns{name_, index_, columns_, column_count_, numbers_};
  const LockTupleMode server_mode = mode == RowLock::update ? LockTupleExclusive : LockTupleNoKeyExclusive;
  const LockWaitPolicy policy = wait == RowWait::skip ? LockWaitSkip : LockWaitBlock;
  const RawRows raw = guarded([&] { return lock_row(columns, key.c_str(), server_mode, policy); });
  return {raw.rows, column_count_, raw.cells};
}

bool StoredTable::has(const std::string& key) const {
  const Columns columns{name_, index_, columns_, column_count_, numbers_};
  return guarded([&] { return is_there(columns, key.c_str()); });
}

std::int64_t StoredTable::largest(const std::string& key) const {
  return guarded([&] { return largest_of(name_, key.c_str()); });
}

}  // namespace ops::pg
