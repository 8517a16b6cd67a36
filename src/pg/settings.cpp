#include "pg/settings.hpp"

#include <exception>
#include <string>

#include "core/host_rules.hpp"
#include "core/tls_pins.hpp"

#include "pg/boundary.hpp"

namespace ops::pg {

Settings settings;

namespace {

constexpr const char* public_services =
    "api.github.com, ghcr.io, pkg-containers.githubusercontent.com, *.actions.githubusercontent.com, "
    "*.blob.core.windows.net, api.digitalocean.com, *.digitaloceanspaces.com";

/// @tparam Parsed  has parse(text, why)
template <class Parsed>
bool is_well_formed(const char* value, const char* hint) noexcept {
  static char why[512];
  try {
    std::string problem;
    if (Parsed::parse(value, &problem)) return true;
    detail::copy_cut(why, sizeof why, problem.c_str());
  } catch (const std::exception& error) {
    detail::copy_cut(why, sizeof why, error.what());
  }
  GUC_check_errdetail("%s", why);
  GUC_check_errhint("%s", hint);
  return false;
}

bool check_allowed_hosts(char** value, void**, GucSource) noexcept {
  return is_well_formed<HostRules>(*value,
                                   "Entries are host names (api.github.com), names below a domain (*.example.com) or "
                                   "origins (http://127.0.0.1:8081), separated by commas.");
}

bool check_tls_pins(char** value, void**, GucSource) noexcept {
  return is_well_formed<TlsPins>(*value,
                                 "Entries are host=sha256//hash;sha256//hash, separated by commas; a hash is that of a "
                                 "public key in base64. Name a spare key, so that the first one may be replaced.");
}

}  // namespace

void define_settings() {
  DefineCustomStringVariable(
      "ops_runner.databases", "Databases in which the worker runs; empty means all that have the extension.",
      "Names, separated by commas.", &settings.databases, "", PGC_SIGHUP, GUC_LIST_INPUT, nullptr, nullptr, nullptr);
  DefineCustomStringVariable("ops_runner.worker_name",
                             "Name of this server's workers in runs.claimed_by; empty means the host name.", nullptr,
                             &settings.worker_name, "", PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("ops_runner.max_concurrent_runs",
                          "Most runs the worker of one database performs at once; 0 claims nothing.", nullptr,
                          &settings.max_concurrent_runs, 100, 0, 100'000, PGC_SUSET, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable(
      "ops_runner.poll_interval", "Time between two safety checks for work that no wake-up announced.", nullptr,
      &settings.poll_interval_ms, 5'000, 100, 3'600'000, PGC_SUSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomIntVariable(
      "ops_runner.lease", "Time after which a worker that shows no sign of life has lost its runs.",
      "A worker outside the server extends it with each event, the worker of this server by itself.", &settings.lease_s,
      30, 1, 86'400, PGC_SUSET, GUC_UNIT_S, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("ops_runner.mutation_interval",
                          "Least time between two changing requests to one service with one credential.",
                          "GitHub asks for one second.", &settings.mutation_interval_ms, 1'000, 0, 60'000, PGC_SUSET,
                          GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomIntVariable(
      "ops_runner.retry_delay", "Wait before the first repetition of a failed request; doubles up to 20 times this.",
      nullptr, &settings.retry_delay_ms, 1'000, 1, 60'000, PGC_SUSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("ops_runner.max_connections_per_host",
                          "Most connections the worker of one database opens to one host.",
                          "GitHub allows 100 concurrent requests.", &settings.max_connections_per_host, 100, 1, 10'000,
                          PGC_SUSET, 0, nullptr, nullptr, nullptr);
  DefineCustomStringVariable("ops_runner.allowed_hosts", "Hosts that may be called.",
                             "Plain http and internal addresses only where an entry names them with scheme and port.",
                             &settings.allowed_hosts, public_services, PGC_SIGHUP, GUC_SUPERUSER_ONLY,
                             check_allowed_hosts, nullptr, nullptr);
  DefineCustomStringVariable("ops_runner.ca_file",
                             "File with the certificates of trusted authorities; empty means the system's.", nullptr,
                             &settings.ca_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, nullptr, nullptr, nullptr);
  DefineCustomStringVariable("ops_runner.tls_pins",
                             "Public keys that the certificate of a host must have beside being valid.",
                             "host=sha256//hash;sha256//spare hash, separated by commas; other hosts may have any key.",
                             &settings.tls_pins, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_tls_pins, nullptr, nullptr);
  DefineCustomStringVariable("ops_runner.secrets_directory",
                             "Directory with one file per secret, named like the secret.",
                             "Files must be readable by the server's user only.", &settings.secrets_directory, "",
                             PGC_SIGHUP, GUC_SUPERUSER_ONLY, nullptr, nullptr, nullptr);
  MarkGUCPrefixReserved("ops_runner");
}

LoopSettings loop_settings() {
  LoopSettings loop;
  loop.max_concurrent_runs = settings.max_concurrent_runs;
  loop.mutation_interval = Millis{settings.mutation_interval_ms};
  loop.lease = std::chrono::seconds{settings.lease_s};
  loop.retry_delay = Millis{settings.retry_delay_ms};
  return loop;
}

}  // namespace ops::pg
