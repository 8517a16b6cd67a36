// Test builds only: starts a worker or launcher that the server has not asked for.
//   CREATE FUNCTION start_again(what text) RETURNS void LANGUAGE c STRICT AS '$libdir/ops_runner', 'ops_fault_start';
#ifdef OPS_FAULTS

#include "pg/boundary.hpp"

extern "C" {
OPS_SQL_FUNCTION(ops_fault_start);
}

// Server zone.
Datum ops_fault_start(PG_FUNCTION_ARGS) {
  const char* what = text_to_cstring(PG_GETARG_TEXT_PP(0));
  BackgroundWorker worker{};
  worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
  worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
  worker.bgw_restart_time = BGW_NEVER_RESTART;
  strlcpy(worker.bgw_library_name, "ops_runner", sizeof worker.bgw_library_name);
  snprintf(worker.bgw_function_name, sizeof worker.bgw_function_name, "ops_runner_%s_main", what);
  snprintf(worker.bgw_name, sizeof worker.bgw_name, "ops_runner %s", what);
  snprintf(worker.bgw_type, sizeof worker.bgw_type, "ops_runner %s", what);
  worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
  const Oid role = get_role_oid("ops_runner_worker", false);
  memcpy(worker.bgw_extra, &role, sizeof role);
  if (!RegisterDynamicBackgroundWorker(&worker, nullptr)) ereport(ERROR, (errmsg("no free background process")));
  PG_RETURN_VOID();
}

#endif
