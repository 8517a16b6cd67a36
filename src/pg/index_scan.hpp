// Server zone: scans of an index of a table of the schema ops, and locks of what they find, without planner and
// executor. Only inside guarded(). Not closed where the server raises an error: the end of its transaction does that.
#pragma once

#include "pg/compat.hpp"

namespace ops::pg {

struct IndexScan {
  Relation table;
  Relation index;
  SysScanDesc scan;
};

/// A condition on one column of the index, in its order.
struct IndexKey {
  StrategyNumber strategy;  ///< BTEqualStrategyNumber, …
  RegProcedure compare;
  Datum value;
};

/// @param index_name  null: the primary key
/// @param mode  of the lock on the table
IndexScan begin_index_scan(const char* table_name, const char* index_name, const IndexKey* keys, int key_count,
                           LOCKMODE mode);
/// The next row that this command sees, in the order of the index; null at the end.
HeapTuple next_row(IndexScan& scan, ScanDirection direction);
void end_index_scan(IndexScan& scan);
/// The number of a column, negative for one of the system (xmin). Raises 42703 where there is none.
int column_number(Relation table, const char* name);

/// Locks the newest version of a row that was found: false where it is gone, or another session holds it and that is
/// not to be waited for (LockWaitSkip). @param row  made by table_slot_create; filled with the newest version. Raises
/// 40001 where the row has changed in a transaction of higher isolation.
bool lock_found_row(IndexScan& scan, HeapTuple tuple, LockTupleMode mode, LockWaitPolicy wait, TupleTableSlot* row);

}  // namespace ops::pg
