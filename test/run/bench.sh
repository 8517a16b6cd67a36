#!/usr/bin/env bash
# The benchmark beside a private server: bench.sh [NAME]...  See docs/performance.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
make --no-print-directory -j2 -f src/extension.mk VARIANT=bench variant >/dev/null
for program in probe curl_limit; do
  if [ test/bench/$program.cpp -nt build/bench/$program ]; then
    g++ -std=c++20 -O2 -Wall -Wextra -I"$(${PG_CONFIG:-pg_config} --includedir)" -o build/bench/$program test/bench/$program.cpp -lpq -lcurl
  fi
done
ulimit -n "$(ulimit -Hn)"
# Commits are flushed as everywhere; a checkpoint in the middle of a measurement would only add noise.
OPS_MODULE=$PWD/build/bench/ops_runner.so exec test/run/with_server.sh ${OPS_KEEP_LOG:+--keep-log "$OPS_KEEP_LOG"} \
  -c shared_buffers=1GB -c max_wal_size=8GB -c checkpoint_timeout=30min \
  -c ops_runner.max_concurrent_runs=0 -c ops_runner.max_connections_per_host=10000 -- node test/bench/bench.mjs "$@"
