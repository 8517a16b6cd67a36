// Every difference between the supported server versions (15 to 18), and the server headers themselves.
#pragma once

extern "C" {
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_database.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "pgstat.h"
#include "nodes/parsenodes.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/logicalworker.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ps_status.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif
}

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "ops_runner supports PostgreSQL 15 to 18"
#endif
#if PG_VERSION_NUM == 150009 || PG_VERSION_NUM == 160005 || PG_VERSION_NUM == 170001
#error "this minor release broke the extension ABI and was withdrawn; use a later one"
#endif

// Below 16 PGDLLEXPORT is empty, so entry points would vanish with hidden visibility.
#if PG_VERSION_NUM < 160000
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#endif

#if PG_VERSION_NUM >= 180000
#define OPS_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "ops_runner", .version = OPS_VERSION)
#else
#define OPS_MODULE_MAGIC PG_MODULE_MAGIC
#endif

// Declares a function that SQL calls; inside extern "C". Before 16 PG_FUNCTION_INFO_V1 does not export the function
// itself.
#define OPS_SQL_FUNCTION(name)              \
  PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
  PG_FUNCTION_INFO_V1(name)

// Macros of the server that collide with the C++ standard library or with common names, so that headers may be included
// in any order.
#undef vsnprintf
#undef snprintf
#undef vsprintf
#undef sprintf
#undef vfprintf
#undef fprintf
#undef vprintf
#undef printf
#undef strerror
#undef strerror_r
#undef qsort
#undef Min
#undef Max
#undef Abs
#undef foreach
#undef gettext
#undef ngettext
#undef _

namespace ops::pg::compat {

/// A role may connect to a database.
inline bool may_connect(Oid database, Oid role) {
#if PG_VERSION_NUM >= 160000
  return object_aclcheck(DatabaseRelationId, database, role, ACL_CONNECT) == ACLCHECK_OK;
#else
  return pg_database_aclcheck(database, role, ACL_CONNECT) == ACLCHECK_OK;
#endif
}

inline bool owns_database(Oid database, Oid role) {
#if PG_VERSION_NUM >= 160000
  return object_ownercheck(DatabaseRelationId, database, role);
#else
  return pg_database_ownercheck(database, role);
#endif
}

/// Wait event shown in pg_stat_activity; a name of its own from 17 on.
inline uint32 wait_event([[maybe_unused]] const char* name) {
#if PG_VERSION_NUM >= 170000
  return WaitEventExtensionNew(name);
#else
  return PG_WAIT_EXTENSION;
#endif
}

/// Calls `walker` for every child of an expression.
inline bool walk_expression(Node* node, bool (*walker)(Node*, void*), void* context) {
#if PG_VERSION_NUM >= 160000
  return expression_tree_walker(node, walker, context);
#else
  // NOLINTNEXTLINE(bugprone-casting-through-void): the old declaration has no prototype
  return expression_tree_walker(node, reinterpret_cast<bool (*)()>(reinterpret_cast<void*>(walker)), context);
#endif
}

inline Oid primary_key_index(Relation relation) {
#if PG_VERSION_NUM >= 180000
  return RelationGetPrimaryKeyIndex(relation, false);
#else
  return RelationGetPrimaryKeyIndex(relation);
#endif
}

/// Of a row that was just inserted, in all indexes. Raises 23505.
inline void insert_index_entries(ResultRelInfo* table, TupleTableSlot* row, EState* state) {
  if (table->ri_NumIndices == 0) return;
#if PG_VERSION_NUM >= 160000
  ExecInsertIndexTuples(table, row, state, false, false, nullptr, nullptr, false);
#else
  ExecInsertIndexTuples(table, row, state, false, false, nullptr, nullptr);
#endif
}

inline WaitEventSet* create_wait_event_set(int events) {
#if PG_VERSION_NUM >= 170000
  return CreateWaitEventSet(nullptr, events);
#else
  return CreateWaitEventSet(TopMemoryContext, events);
#endif
}

}  // namespace ops::pg::compat
