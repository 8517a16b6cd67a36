#!/usr/bin/env bash
# with_server.sh [-c name=value]... [--keep-log FILE] -- command [argument]...
#
# Runs a command beside a throw-away PostgreSQL server that has this checkout's ops_runner preloaded (programs.sh). It finds
# PGHOST, PGPORT, PGUSER, PGDATABASE, OPS_PGBIN, OPS_PGDATA, OPS_SECRETS (directory for secret files), OPS_SERVER_LOG and
# OPS_AS_SERVER_USER (prefix that runs a program as the server's user). OPS_SERVER_PRELOAD names a library that the server
# shall preload.
set -euo pipefail

settings=()
keep_log=
while [ $# -gt 0 ]; do
  case $1 in
    -c) settings+=("$2"); shift 2 ;;
    --keep-log) keep_log=$2; shift 2 ;;
    --) shift; break ;;
    *) echo "with_server.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done
[ $# -gt 0 ] || { echo "with_server.sh: no command" >&2; exit 2; }

. "$(dirname "${BASH_SOURCE[0]}")/programs.sh"
started=
cleanup() {
  status=$?
  trap - EXIT INT TERM
  if [ -n "$started" ] && [ -s "$work/data/postmaster.pid" ]; then
    "${as_server_user[@]}" "$bin/pg_ctl" -D "$work/data" -m immediate -w -t 20 stop >/dev/null 2>&1 || true
  fi
  [ -z "$keep_log" ] || cp "$work/server.log" "$keep_log" 2>/dev/null || true
  if [ $status -ne 0 ] && [ -f "$work/server.log" ] && [ -z "${OPS_QUIET:-}" ]; then
    echo "--- last lines of the server log" >&2
    tail -n 25 "$work/server.log" >&2
  fi
  rm -rf "$work"
  exit $status
}
trap cleanup EXIT INT TERM

make_programs
mkdir -m 700 "$work/data" "$work/secrets"
mkdir -m 755 "$work/socket"
: > "$work/server.log"
own "$work/data" "$work/secrets" "$work/socket" "$work/server.log"
(cd "$work" && "${as_server_user[@]}" "$bin/initdb" -D "$work/data" -U postgres -A trust --no-sync -E UTF8 --locale=C.UTF-8 >/dev/null)
{
  echo "shared_preload_libraries = 'ops_runner'"
  echo "listen_addresses = ''"
  echo "unix_socket_directories = '$work/socket'"
  echo "port = 54321"
  echo "max_connections = 200"
  echo "max_worker_processes = 20"
  echo "log_min_messages = warning"
  echo "log_line_prefix = '%m [%p] %b '"
  echo "ops_runner.secrets_directory = '$work/secrets'"
  for setting in "${settings[@]}"; do echo "${setting%%=*} = '${setting#*=}'"; done
} >> "$work/data/postgresql.conf"
started=1
(cd "$work" && LD_PRELOAD=${OPS_SERVER_PRELOAD:-${LD_PRELOAD:-}} "${as_server_user[@]}" "$bin/pg_ctl" -D "$work/data" -l "$work/server.log" -w -t 30 \
  start >/dev/null)

export PGHOST=$work/socket PGPORT=54321 PGUSER=postgres PGDATABASE=postgres
export OPS_PGBIN=$bin OPS_PGDATA=$work/data OPS_SECRETS=$work/secrets OPS_SERVER_LOG=$work/server.log
export OPS_AS_SERVER_USER="${as_server_user[*]:-}" OPS_SERVER_USER=$server_user
"$@"
