#!/usr/bin/env bash
# clang-tidy over all sources, or over those named. Exit status 1 if it finds anything.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# -gt 0 ] || mapfile -t named < <(git ls-files 'src/*.cpp')
[ $# -eq 0 ] || named=("$@")
server=$("${PG_CONFIG:-pg_config}" --includedir-server)
export server
printf '%s\n' "${named[@]}" | xargs -P "$(nproc)" -I{} bash -c '
  clang-tidy-19 --quiet {} -- -std=c++20 -Isrc -Wno-register -isystem "$server" 2>/dev/null || exit 1' | awk '!seen[$0]++'
status=$?
[ $status -ne 0 ] || echo "tidy: ok"
exit $status
