#!/usr/bin/env bash
# The benchmark beside a private server: bench.sh [NAME]...  See docs/performance.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. test/run/bench_build.sh
ulimit -n "$(ulimit -Hn)"
if [ -n "${BENCH_FLUSH_US:-}" ]; then
  gcc -O2 -Wall -Wextra -shared -fPIC -o build/bench/slow_flush.so test/bench/slow_flush.c
  export OPS_SERVER_PRELOAD=$PWD/build/bench/slow_flush.so SLOW_FLUSH_US=$BENCH_FLUSH_US
fi
# Commits are flushed as everywhere; a checkpoint in the middle of a measurement would only add noise.
OPS_MODULE=$PWD/build/bench/ops_runner.so exec test/run/with_server.sh ${OPS_KEEP_LOG:+--keep-log "$OPS_KEEP_LOG"} \
  -c shared_buffers=1GB -c max_wal_size=8GB -c checkpoint_timeout=30min \
  -c ops_runner.max_concurrent_runs=0 -c ops_runner.max_connections_per_host=10000 -- node test/bench/bench.mjs "$@"
