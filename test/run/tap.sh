#!/usr/bin/env bash
# tap.sh FILE...
#
# Runs TAP files of test/t, which make their own servers with PostgreSQL::Test from a private copy of the server's programs
# (programs.sh) with the build for tests that has stop points. Each file gets its own stand-in services. The files run as the
# server's user and see nothing of this checkout but what lies in $work.
set -euo pipefail

export OPS_MODULE=${OPS_MODULE:-build/faults/ops_runner.so}
. "$(dirname "${BASH_SOURCE[0]}")/programs.sh"
# Data directories lie in memory if there are some gigabytes of it.
data=$work
if [ "$(df --output=avail -B1 /dev/shm 2>/dev/null | tail -n 1)" -gt 4000000000 ] 2>/dev/null; then
  data=$(mktemp -d /dev/shm/ops_runner.XXXXXX)
  chmod 755 "$data"
fi
services=
cleanup() {
  status=$?
  trap - EXIT INT TERM
  stop_services
  end_servers
  rm -rf "$work" "$data"
  exit $status
}
# Those of a file that was ended from outside.
end_servers() {
  for pid_file in "$data"/*/tmp_check/*/pgdata/postmaster.pid; do
    [ ! -f "$pid_file" ] || kill -QUIT "$(head -n 1 "$pid_file")" 2>/dev/null || true
  done
}
stop_services() {
  [ -n "$services" ] || return 0
  exec {to_services}>&-
  wait "$services" || true
  services=
}
trap cleanup EXIT INT TERM

make_programs
pgxs=$(dirname "$("$pg_config" --pgxs)")/..
cp -r "$top/test/t" "$work/t"
cp "$top/ops_runner.so" "$work/release.so"
chmod -R a+rX "$work/t" "$work/release.so"
export OPS_INCLUDE=$("$pg_config" --includedir-server)
export PATH=$bin:$PATH PG_REGRESS=$pgxs/test/regress/pg_regress OPS_RELEASE=$work/release.so OPS_SECRETS=$work/secrets

status=0
for file in "$@"; do
  name=$(basename "$file" .t)
  rm -rf "$work/secrets"
  mkdir -m 700 "$work/secrets" "$data/$name"
  own "$work/secrets" "$data/$name"

  mkfifo "$work/to_services" "$work/from_services"
  node "$top/test/services/main.mjs" "$work/secrets" "$server_user" < "$work/to_services" > "$work/from_services" &
  services=$!
  exec {to_services}> "$work/to_services" {from_services}< "$work/from_services"
  rm "$work/to_services" "$work/from_services"
  read -r OPS_SERVICES <&"$from_services"
  exec {from_services}<&-
  export OPS_SERVICES TESTDIR=$data/$name

  ended=0
  (cd "$data/$name" && timeout -k 20 "${OPS_FILE_SECONDS:-600}" "${as_server_user[@]}" \
    perl -I "$pgxs/test/perl" -I "$work/t" "$work/t/$name.t" {to_services}>&-) > "$work/output" 2>&1 || ended=$?
  cat "$work/output"
  if [ $ended -ne 0 ]; then
    status=1
    grep -q '^not ok' "$work/output" || echo "not ok $name ended with status $ended"
    tail -n 60 "$data/$name/tmp_check/log"/* 2>/dev/null | sed 's/^/# /' || true
  fi
  end_servers
  rm -rf "${data:?}/$name"
  stop_services
done
exit $status
