#!/usr/bin/env bash
# Runs the named suites, or all, fast ones first. Last line: `N passed, N failed`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
[ $# -gt 0 ] || set -- unit layers install sim regress isolation pgtap e2e t storm
logs=$(mktemp -d /tmp/ops_check.XXXXXX)
chmod 755 "$logs"
trap 'rm -rf "$logs"' EXIT
# A description file beside the checkout, if there.
[ -n "${DIGITALOCEAN_OPENAPI:-}" ] || [ ! -f ../shared/openapi/digitalocean.json ] ||
  export DIGITALOCEAN_OPENAPI=$(realpath ../shared/openapi/digitalocean.json)
passed=0
failed=0

# count SUITE PASSED FAILED STATUS: a suite that ran nothing has failed.
count() {
  local failures=$3
  if [ "$4" -ne 0 ] && [ "$failures" -eq 0 ]; then failures=1; fi
  if [ "$2" -eq 0 ] && [ "$failures" -eq 0 ]; then failures=1; fi
  passed=$((passed + $2))
  failed=$((failed + failures))
  echo "== $1: $2 passed, $failures failed"
  if [ "$failures" -gt 0 ]; then
    grep -E -A 30 '^ *not ok|^\[  FAILED|error:|\.\.\. FAILED' "$logs/$1.log" | head -n 200
    tail -n 60 "$logs/$1.log"
  fi
}
matches() { grep -cE "$1" "$logs/$2.log" || true; }
in_server() { test/run/with_server.sh "$@"; }
pgxs_tests=$(dirname "$("${PG_CONFIG:-pg_config}" --pgxs)")/../..
regress=$(realpath "$pgxs_tests/src/test/regress/pg_regress")
isolation=$(realpath "$pgxs_tests/src/test/isolation/pg_isolation_regress")

suite_unit() {
  { cmake -S . -B build/unit -DCMAKE_BUILD_TYPE=Debug ${OPS_SANITIZE:+-DOPS_SANITIZE=ON} &&
    cmake --build build/unit -j2 && build/unit/unit_tests; } > "$logs/unit.log" 2>&1
  local status=$?
  count unit "$(matches '^\[       OK \]' unit)" "$(matches '^\[  FAILED  \] [A-Za-z_0-9]+\.[A-Za-z_0-9]+ \(' unit)" $status
}

# One line for every hundred simulated worlds and one for every deliberately broken variant (docs/reliability.md).
suite_sim() {
  { cmake -S . -B build/unit -DCMAKE_BUILD_TYPE=Debug ${OPS_SANITIZE:+-DOPS_SANITIZE=ON} &&
    cmake --build build/unit -j2 --target sim && build/unit/sim --seeds "1..${OPS_SEEDS:-2000}" &&
    build/unit/sim --replays 1..100 && build/unit/sim --variants; } > "$logs/sim.log" 2>&1
  local status=$?
  count sim "$(matches '^ok ' sim)" "$(matches '^not ok ' sim)" $status
}

# Core and phases hold no reference to the server or to libcurl, in what they include and in what they link. The product
# knows nothing of the phase kinds that the benchmark links before its own.
suite_layers() {
  {
    for object in build/obj/core/*.o build/obj/phases/*.o; do
      if nm -u "$object" | grep -E ' (curl_|SPI_|palloc|pfree|elog|ereport|errstart|errmsg|MemoryContext|LWLock|PQ)'; then
        echo "not ok $object"
      else
        echo "ok $object"
      fi
    done
    if nm ops_runner.so | grep -F __wrap_; then echo "not ok ops_runner.so"; else echo "ok ops_runner.so"; fi
  } > "$logs/layers.log" 2>&1
  count layers "$(matches '^ok' layers)" "$(matches '^not ok' layers)" 0
}

# What a package is made of: `make install` into an empty directory puts three files there, `make uninstall` takes them away.
suite_install() {
  local root=$logs/root
  {
    make --no-print-directory install DESTDIR="$root" || echo "not ok make install"
    for file in "$("${PG_CONFIG:-pg_config}" --pkglibdir)"/ops_runner.so \
      "$("${PG_CONFIG:-pg_config}" --sharedir)"/extension/ops_runner{.control,--*.sql}; do
      if compgen -G "$root$file" >/dev/null; then echo "ok installed $file"; else echo "not ok missing $file"; fi
    done
    make --no-print-directory uninstall DESTDIR="$root" || echo "not ok make uninstall"
    if [ -z "$(find "$root" -type f)" ]; then echo "ok uninstalled"; else echo "not ok left over: $(find "$root" -type f)"; fi
  } > "$logs/install.log" 2>&1
  count install "$(matches '^ok ' install)" "$(matches '^not ok ' install)" 0
}

# The results directory must be writable for the one who runs it: it lies in the temporary directory.
suite_regress() {
  in_server -c ops_runner.max_concurrent_runs=0 -- "$regress" --inputdir="$top" --outputdir="$logs" --use-existing \
    --dbname=postgres --schedule=test/regress.schedule --bindir= --dlpath="$logs" > "$logs/regress.log" 2>&1
  local status=$?
  [ $status -eq 0 ] || cat "$logs/regression.diffs" >> "$logs/regress.log" 2>/dev/null
  count regress "$(matches '(^ok |\.\.\. ok)' regress)" "$(matches '(^not ok|\.\.\. FAILED)' regress)" $status
}

suite_isolation() {
  in_server -c ops_runner.max_concurrent_runs=0 -- "$isolation" --inputdir=test/isolation --outputdir="$logs" \
    --use-existing --dbname=postgres --schedule=test/isolation/isolation_schedule --bindir= > "$logs/isolation.log" 2>&1
  local status=$?
  [ $status -eq 0 ] || cat "$logs/regression.diffs" >> "$logs/isolation.log" 2>/dev/null
  count isolation "$(matches '(^ok |\.\.\. ok)' isolation)" "$(matches '(^not ok|\.\.\. FAILED)' isolation)" $status
}

suite_pgtap() {
  in_server -c ops_runner.max_concurrent_runs=0 -- bash -c '
    for file in test/pgtap/*.sql; do
      psql -Xq -c "CREATE DATABASE tap" && psql -Xq -d tap -f "$file"; psql -Xq -c "DROP DATABASE tap"
    done' > "$logs/pgtap.log" 2>&1
  local status=$?
  count pgtap "$(matches '^ *ok ' pgtap)" "$(matches '^ *(not ok|psql:.*ERROR)' pgtap)" $status
}

# A file that hangs is ended and counts as failed: its last lines tell where it stood.
one_e2e() {
  test/run/with_server.sh -- timeout -k 10 "${OPS_FILE_SECONDS:-600}" node --test --test-reporter=tap "$1" ||
    echo "not ok $1 ended with status $?"
}
export -f one_e2e

# Two files at a time, each beside a server of its own: they mostly wait.
suite_e2e() {
  printf '%s\n' test/e2e/*.test.mjs | xargs -P 2 -I{} bash -c 'one_e2e {} > "$0/$(basename {}).log" 2>&1' "$logs"
  cat "$logs"/*.test.mjs.log > "$logs/e2e.log"
  local skipped
  skipped=$(matches '^ok .* # SKIP' e2e)
  [ "$skipped" -eq 0 ] || { echo "== e2e: $skipped skipped:"; grep -E '^ok .* # SKIP' "$logs/e2e.log"; }
  count e2e "$(($(matches '^ok ' e2e) - skipped))" "$(matches '^not ok ' e2e)" 0
}

# Each with servers of its own and the build that has stop points.
suite_t() {
  make --no-print-directory -j2 -f src/extension.mk ${OPS_WERROR:+OPS_WERROR=1} VARIANT=faults variant > "$logs/t.log" 2>&1 &&
    OPS_WATCH_SECONDS=${OPS_WATCH_SECONDS:-60} test/run/tap.sh test/t/*.t >> "$logs/t.log" 2>&1
  local status=$?
  count t "$(matches '^ok ' t)" "$(matches '^(not ok |Bail out)' t)" $status
}

# Short forms.
suite_storm() {
  { make --no-print-directory storm STORM_KILLS=60 STORM_RUNS=300; make --no-print-directory soak-memory SOAK_RUNS=3000; } > "$logs/storm.log" 2>&1
  count storm "$(matches '^ok ' storm)" "$(matches '^not ok ' storm)" "$(matches '^make(\[[0-9]+\])?: \*\*\*' storm)"
}

case " $* " in *" layers "* | *" install "* | *" regress "* | *" isolation "* | *" pgtap "* | *" e2e "* | *" t "* | *" storm "*)
  if ! make --no-print-directory -j2 -f src/extension.mk ${OPS_WERROR:+OPS_WERROR=1} all > "$logs/build.log" 2>&1; then
    tail -n 60 "$logs/build.log"
    echo "0 passed, 1 failed"
    exit 1
  fi ;;
esac
for suite in "$@"; do "suite_$suite"; done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
