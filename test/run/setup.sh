#!/usr/bin/env bash
# Installs what building and testing need and is missing: Debian packages, then the test programs' npm packages. Starts nothing
# and leaves no new daemon behind. Argument `lint` adds the formatter, the linter and the compiler of the fuzzers, `coverage` the
# compiler and the tools that `make coverage` needs, `bench` what the product is measured against.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

packages=(g++ cmake pkg-config postgresql-15 postgresql-server-dev-15 postgresql-15-pgtap libcurl4-openssl-dev
          nlohmann-json3-dev libssl-dev libarchive-dev libgtest-dev librapidcheck-dev docker-registry openssl util-linux
          perl libipc-run-perl binutils iproute2 nftables)
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
[ "${1:-}" != coverage ] || packages+=(clang-19 libclang-rt-19-dev llvm-19)
[ "${1:-}" != lint ] || packages+=(clang-format-19 clang-tidy-19 clang-19 libclang-rt-19-dev)
[ "${1:-}" != bench ] || packages+=(nginx-light libpq-dev)

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "setup: missing packages and neither root nor sudo: ${missing[*]}" >&2; exit 1; }
    root=(sudo)
  fi
  echo "setup: installing ${missing[*]}"
  # Packages that bring a daemon must not start it here, nor make a database cluster.
  policy=/usr/sbin/policy-rc.d
  made_policy=
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
    "${root[@]}" chmod 755 $policy
    made_policy=1
  fi
  made_cluster_config=
  if ! dpkg-query -W postgresql-common >/dev/null 2>&1 && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    "${root[@]}" mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | "${root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
    made_cluster_config=1
  fi
  trap '[ -z "$made_policy" ] || "${root[@]}" rm -f $policy' EXIT
  "${root[@]}" apt-get update -q >/dev/null
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    -o Dpkg::Options::=--force-confold "${missing[@]}" >/dev/null
  [ -z "$made_cluster_config" ] || echo "setup: /etc/postgresql-common/createcluster.conf keeps packages from making a cluster"
fi

stamp=test/node_modules/.installed
if [ ! -e $stamp ] || [ test/package-lock.json -nt $stamp ]; then
  echo "setup: npm packages"
  (cd test && npm ci --no-fund --no-audit --loglevel=error >/dev/null)
  touch $stamp
fi

if [ "${1:-}" = bench ]; then
  stamp=test/bench/node_modules/.installed
  if [ ! -e $stamp ] || [ test/bench/package-lock.json -nt $stamp ]; then
    echo "setup: npm packages of the peers"
    if (cd test/bench && npm ci --no-fund --no-audit --loglevel=error >/dev/null); then
      touch $stamp
    else
      echo "setup: the peers could not be installed; the benchmark goes on without them" >&2
    fi
  fi
fi
