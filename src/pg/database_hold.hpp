// DROP DATABASE, CREATE DATABASE .. TEMPLATE, ALTER DATABASE .. RENAME / SET TABLESPACE need a database without
// connections. For the time of such a command the worker of that database is stopped, so that the operator never meets
// it.
#pragma once

namespace ops::pg {

/// Installs the utility hook. Only while shared_preload_libraries are loaded.
void install_database_hold();

}  // namespace ops::pg
