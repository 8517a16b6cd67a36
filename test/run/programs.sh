# Sourced by scripts that run servers: makes $work, a directory that is removed at the end, with a private copy of the server's
# programs and this checkout's ops_runner in it ($bin): no system directory and no other server is touched. The environment
# variable OPS_MODULE names another build of the library (build/faults/ops_runner.so).
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
pg_config=${PG_CONFIG:-pg_config}

# The server refuses to run as root.
as_server_user=()
server_user=$(id -un)
if [ "$(id -u)" = 0 ]; then
  server_user=postgres
  id postgres >/dev/null 2>&1 || server_user=nobody
  as_server_user=(setpriv --reuid="$server_user" --regid="$(id -gn "$server_user")" --init-groups)
fi

work=$(mktemp -d /tmp/ops_runner.XXXXXX)
chmod 755 "$work"

# own PATH...: gives them to the server's user.
own() {
  [ "$(id -u)" != 0 ] || chown -R "$server_user" "$@"
}

# Programs find their files relative to themselves.
make_programs() {
  local system_bin share lib
  system_bin=$("$pg_config" --bindir)
  share=$("$pg_config" --sharedir)
  lib=$("$pg_config" --pkglibdir)
  mkdir -p "$work/root$(dirname "$system_bin")" "$work/root$share"
  cp -a "$(dirname "$system_bin")/." "$work/root$(dirname "$system_bin")/"
  cp -a "$share/." "$work/root$share/"
  bin=$work/root$system_bin
  install -m 755 "${OPS_MODULE:-$top/ops_runner.so}" "$work/root$lib/ops_runner.so"
  install -m 644 "$top/ops_runner.control" "$top"/sql/ops_runner--*.sql "$work/root$share/extension/"
}
