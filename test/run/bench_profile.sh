#!/usr/bin/env bash
# Where the worker's time goes: bench_profile.sh [KIND [PHASES [RUNS [ENVIRONMENTS]]]]. See docs/performance.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. test/run/bench_build.sh
ulimit -n "$(ulimit -Hn)"
OPS_MODULE=$PWD/build/bench/ops_runner.so exec test/run/with_server.sh \
  -c shared_buffers=1GB -c max_wal_size=8GB -c checkpoint_timeout=30min -c ops_runner.max_concurrent_runs=0 \
  -c shared_preload_libraries=ops_runner,pg_stat_statements -c pg_stat_statements.track=all -- node test/bench/profile.mjs "$@"
