// All settings of the extension (ops_runner.*), in one place. README.md lists them for users.
#pragma once

#include "core/run_loop.hpp"

namespace ops::pg {

struct Settings {
  char* databases;           ///< names, comma-separated; empty: every database in which the extension exists
  char* worker_name;         ///< empty: host name
  int max_concurrent_runs;   ///< per database; 0: the worker claims nothing
  int poll_interval_ms;      ///< of the slow safety check
  int lease_s;               ///< of claims by workers outside the server
  int mutation_interval_ms;  ///< between changing requests to one origin with one credential
  int retry_delay_ms;        ///< before the first repetition of a failed request
  int max_connections_per_host;
  char* allowed_hosts;
  char* ca_file;
  char* tls_pins;
  char* secrets_directory;
};

/// Values as the server's settings machinery keeps them; read them where they are used.
extern Settings settings;

void define_settings();
LoopSettings loop_settings();

}  // namespace ops::pg
