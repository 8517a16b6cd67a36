#include "pg/index_scan.hpp"

namespace ops::pg {

namespace {

constexpr int most_keys = 2;

Oid oid_of(const char* name) {
  const Oid relation = get_relname_relid(name, get_namespace_oid("ops", false));
  if (!OidIsValid(relation))
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("ops.%s does not exist", name),
                    errhint("Create the extension ops_runner anew.")));
  return relation;
}

}  // namespace

IndexScan begin_index_scan(const char* table_name, const char* index_name, const IndexKey* keys, int key_count,
                           LOCKMODE mode) {
  IndexScan open{};
  open.table = table_open(oid_of(table_name), mode);
  open.index =
      index_open(index_name == nullptr ? compat::primary_key_index(open.table) : oid_of(index_name), AccessShareLock);
  CommandCounterIncrement();  // what this transaction has written is seen
  PushActiveSnapshot(GetTransactionSnapshot());
  ScanKeyData wanted[most_keys];
  Assert(key_count <= most_keys);
  for (int i = 0; i < key_count; ++i) {
    ScanKeyInit(&wanted[i], open.index->rd_index->indkey.values[i], keys[i].strategy, keys[i].compare, keys[i].value);
    wanted[i].sk_collation = open.index->rd_indcollation[i];
  }
  open.scan = systable_beginscan_ordered(open.table, open.index, GetActiveSnapshot(), key_count, wanted);
  return open;
}

HeapTuple next_row(IndexScan& scan, ScanDirection direction) {
  return systable_getnext_ordered(scan.scan, direction);
}

void end_index_scan(IndexScan& scan) {
  systable_endscan_ordered(scan.scan);
  PopActiveSnapshot();
  index_close(scan.index, AccessShareLock);
  table_close(scan.table, NoLock);
}

int column_number(Relation table, const char* name) {
  const int number = SPI_fnumber(RelationGetDescr(table), name);
  if (number == 0 || number == SPI_ERROR_NOATTRIBUTE)
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
                    errmsg("ops.%s has no column \"%s\"", RelationGetRelationName(table), name),
                    errhint("The tables of ops_runner keep their columns; create the extension anew.")));
  return number;
}

bool lock_found_row(IndexScan& scan, HeapTuple tuple, LockTupleMode mode, LockWaitPolicy wait, TupleTableSlot* row) {
  TM_FailureData failure;
  ItemPointerData place = tuple->t_self;
  const bool one_snapshot = IsolationUsesXactSnapshot();
  const TM_Result result = table_tuple_lock(scan.table, &place, GetActiveSnapshot(), row, GetCurrentCommandId(true),
                                            mode, wait, one_snapshot ? 0 : TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
  if (one_snapshot && (result == TM_Updated || result == TM_Deleted))
    ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
                    errmsg("could not serialize access due to a concurrent change of a row of ops.%s",
                           RelationGetRelationName(scan.table)),
                    errhint("Do the transaction again.")));
  return result == TM_Ok;
}

}  // namespace ops::pg
