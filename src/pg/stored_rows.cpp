#include "pg/stored_rows.hpp"

#include <cstring>

#include "pg/boundary.hpp"
#include "pg/server_time.hpp"

namespace ops::pg {

namespace {

// Server zone --------------------------------------------------------------------------------------------------------

/// A scan of the primary key. Not closed where the server raises an error: the end of its transaction does that.
struct KeyScan {
  Relation table;
  Relation index;
  SysScanDesc scan;
};

KeyScan begin_scan(const char* table_name, const char* key, LOCKMODE mode) {
  KeyScan open{};
  const Oid table = get_relname_relid(table_name, get_namespace_oid("ops", false));
  if (!OidIsValid(table))
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("table ops.%s does not exist", table_name),
                    errhint("Create the extension ops_runner anew.")));
  open.table = table_open(table, mode);
  open.index = index_open(compat::primary_key_index(open.table), AccessShareLock);
  CommandCounterIncrement();  // what this transaction has written is seen
  PushActiveSnapshot(GetTransactionSnapshot());
  ScanKeyData wanted;
  ScanKeyInit(&wanted, open.index->rd_index->indkey.values[0], BTEqualStrategyNumber, F_TEXTEQ,
              CStringGetTextDatum(key));
  wanted.sk_collation = open.index->rd_indcollation[0];
  open.scan = systable_beginscan_ordered(open.table, open.index, GetActiveSnapshot(), 1, &wanted);
  return open;
}

void end_scan(KeyScan& open) {
  systable_endscan_ordered(open.scan);
  PopActiveSnapshot();
  index_close(open.index, AccessShareLock);
  table_close(open.table, NoLock);
}

const char* text_of(Datum value, Oid type) {
  switch (type) {
    case TEXTOID:
      return TextDatumGetCString(value);
    case TIMESTAMPTZOID:
      return psprintf(INT64_FORMAT,
                      static_cast<int64>(wall_time(DatumGetTimestampTz(value)).time_since_epoch().count()));
    case INTERVALOID:
      return psprintf(INT64_FORMAT, static_cast<int64>(DatumGetIntervalP(value)->time +
                                                       DatumGetIntervalP(value)->day * USECS_PER_DAY));
    case TEXTARRAYOID:
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
  const char* const* names;
  std::size_t count;
  int16* numbers;  ///< where the table had them last
};

int number_of(const Columns& columns, std::size_t i, TupleDesc description) {
  int number = columns.numbers[i];
  if (number <= 0 || number > description->natts ||
      std::strcmp(NameStr(TupleDescAttr(description, number - 1)->attname), columns.names[i]) != 0)
    number = SPI_fnumber(description, columns.names[i]);
  if (number <= 0)
    ereport(ERROR,
            (errcode(ERRCODE_UNDEFINED_COLUMN), errmsg("ops.%s has no column \"%s\"", columns.table, columns.names[i]),
             errhint("The tables of ops_runner keep their columns; create the extension anew.")));
  columns.numbers[i] = static_cast<int16>(number);
  return number;
}

void append_row(RawRows& found, TupleTableSlot* row, const Columns& columns) {
  // Room is doubled at each power of two.
  if ((found.rows & (found.rows - 1)) == 0) {
    const Size bytes = sizeof(char*) * columns.count * (found.rows == 0 ? 1 : 2 * found.rows);
    found.cells = static_cast<const char**>(found.cells == nullptr ? palloc(bytes)
                                                                   : repalloc(static_cast<void*>(found.cells), bytes));
  }
  TupleDesc description = row->tts_tupleDescriptor;
  for (std::size_t i = 0; i < columns.count; ++i) {
    const int number = number_of(columns, i, description);
    bool is_null = false;
    const Datum value = slot_getattr(row, number, &is_null);
    found.cells[found.rows * columns.count + i] =
        is_null ? nullptr : text_of(value, TupleDescAttr(description, number - 1)->atttypid);
  }
  ++found.rows;
}

RawRows read_rows(const Columns& columns, const char* key) {
  KeyScan open = begin_scan(columns.table, key, AccessShareLock);
  TupleTableSlot* row = MakeSingleTupleTableSlot(RelationGetDescr(open.table), &TTSOpsHeapTuple);
  RawRows found{nullptr, 0};
  while (HeapTuple tuple = systable_getnext_ordered(open.scan, ForwardScanDirection))
    append_row(found, ExecStoreHeapTuple(tuple, row, false), columns);
  ExecDropSingleTupleTableSlot(row);
  end_scan(open);
  return found;
}

RawRows lock_row(const Columns& columns, const char* key, LockTupleMode mode) {
  KeyScan open = begin_scan(columns.table, key, RowShareLock);
  RawRows found{nullptr, 0};
  if (HeapTuple tuple = systable_getnext_ordered(open.scan, ForwardScanDirection)) {
    TupleTableSlot* row = table_slot_create(open.table, nullptr);
    TM_FailureData failure;
    ItemPointerData place = tuple->t_self;
    const bool one_snapshot = IsolationUsesXactSnapshot();
    const TM_Result result =
        table_tuple_lock(open.table, &place, GetActiveSnapshot(), row, GetCurrentCommandId(true), mode, LockWaitSkip,
                         one_snapshot ? 0 : TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
    if (result == TM_Ok)
      append_row(found, row, columns);
    else if (one_snapshot && (result == TM_Updated || result == TM_Deleted))
      ereport(ERROR,
              (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
               errmsg("could not serialize access due to a concurrent change of \"%s\" in ops.%s", key, columns.table),
               errhint("Do the transaction again.")));
    ExecDropSingleTupleTableSlot(row);
  }
  end_scan(open);
  return found;
}

int64 largest_of(const char* table_name, const char* key) {
  KeyScan open = begin_scan(table_name, key, AccessShareLock);
  int64 largest = 0;
  if (HeapTuple tuple = systable_getnext_ordered(open.scan, BackwardScanDirection)) {
    bool is_null = false;
    const Datum value =
        heap_getattr(tuple, open.index->rd_index->indkey.values[1], RelationGetDescr(open.table), &is_null);
    largest = DatumGetInt32(value);
  }
  end_scan(open);
  return largest;
}

}  // namespace

Rows StoredTable::rows(const std::string& key) const {
  const Columns columns{name_, columns_, column_count_, numbers_};
  const RawRows raw = guarded([&] { return read_rows(columns, key.c_str()); });
  return {raw.rows, column_count_, raw.cells};
}

Rows StoredTable::lock(const std::string& key, RowLock mode) const {
  const Columns columns{name_, columns_, column_count_, numbers_};
  const LockTupleMode server_mode = mode == RowLock::update ? LockTupleExclusive : LockTupleNoKeyExclusive;
  const RawRows raw = guarded([&] { return lock_row(columns, key.c_str(), server_mode); });
  return {raw.rows, column_count_, raw.cells};
}

std::int64_t StoredTable::largest(const std::string& key) const {
  return guarded([&] { return largest_of(name_, key.c_str()); });
}

}  // namespace ops::pg
