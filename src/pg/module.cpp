// Entry point of the library.
#include "pg/settings.hpp"

#include "pg/boundary.hpp"
#include "pg/database_hold.hpp"
#include "pg/faults.hpp"
#include "pg/launcher.hpp"
#include "pg/shared_memory.hpp"

extern "C" {
OPS_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);  // NOLINT(bugprone-reserved-identifier): the server looks for this name
}

void _PG_init(void) {  // NOLINT(bugprone-reserved-identifier)
  using namespace ops::pg;
  define_settings();
  // Loaded later, by the first call of a function: the SQL side works, but there is no worker (ops._worker_present).
  if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade) return;
  install_faults();
  install_shared_memory();
  install_database_hold();
  register_launcher();
}
