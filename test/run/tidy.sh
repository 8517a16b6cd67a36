#!/usr/bin/env bash
# clang-tidy over all sources, or over those named. Exit status 1 if it finds anything.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# -gt 0 ] || mapfile -t named < <(git ls-files 'src/*.cpp')
[ $# -eq 0 ] || named=("$@")
server=$("${PG_CONFIG:-pg_config}" --includedir-server)
version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" ops_runner.control)
export server version
printf '%s\n' "${named[@]}" | xargs -P "$(nproc)" -I{} bash -c '
  clang-tidy-19 --quiet {} -- -std=c++20 "-DOPS_VERSION=\"$version\"" -Isrc -Wno-register -isystem "$server" 2>/dev/null || exit 1' | awk '!seen[$0]++'
status=$?
[ $status -ne 0 ] || echo "tidy: ok"
exit $status
