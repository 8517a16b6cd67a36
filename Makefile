# ops_runner: build, install, demo and tests. Works on a fresh Debian 12 with only make and git: what is missing is installed
# by `make setup`, which demo and check call.

PG_CONFIG ?= pg_config
export PG_CONFIG
EXTENSION_MAKE = $(MAKE) --no-print-directory -f src/extension.mk

.DEFAULT_GOAL := all
.PHONY: all install uninstall demo check check-unit soak coverage bench storm soak-memory setup format lint tidy fuzz clean

## Builds the module and the install script.
all:
	$(EXTENSION_MAKE) all

install uninstall:
	$(EXTENSION_MAKE) $@

## Installs missing Debian packages and the test programs' npm packages.
setup:
	test/run/setup.sh

## One run from queue to success beside a throw-away server and stand-in services.
demo: setup
	@$(EXTENSION_MAKE) -j2 all >/dev/null
	@test/run/with_server.sh -- node test/demo/demo.mjs

## Every test; the last line is `N passed, N failed`.
check: setup
	test/run/check.sh

check-unit: setup
	test/run/check.sh unit layers

## Many simulated worlds; the last line is `sim: N seeds, N broken`. See docs/reliability.md.
SOAK_SEEDS ?= 100000
soak:
	cmake -S . -B build/sim -DCMAKE_BUILD_TYPE=Release >/dev/null
	cmake --build build/sim -j2 --target sim
	build/sim/sim --seeds 1..$(SOAK_SEEDS)

## Measures speed against its targets and peers (docs/performance.md): all, or BENCH="pickup runs"; BENCH_SCALE=0.1 is quick.
bench:
	@test/run/setup.sh bench
	@test/run/bench.sh $(BENCH)

## Lines and branches of core that the unit tests execute; details in build/coverage/html.
coverage:
	test/run/setup.sh coverage
	test/run/coverage.sh

## Kills worker and server in every way while runs are under way; figures in docs/reliability.md. The last line says what was lost.
STORM_KILLS ?= 1000
STORM_RUNS ?= 5000
storm: setup
	@$(EXTENSION_MAKE) -j2 VARIANT=faults variant >/dev/null
	@OPS_QUIET=1 OPS_MODULE=build/faults/ops_runner.so test/run/with_server.sh -c fsync=off -- \
	  node test/storm/storm.mjs $(STORM_KILLS) $(STORM_RUNS)

## Memory of the worker over many runs of which a fifth fails.
SOAK_RUNS ?= 10000
soak-memory: setup
	@$(EXTENSION_MAKE) -j2 all >/dev/null
	@OPS_QUIET=1 test/run/with_server.sh -c fsync=off -- node test/storm/memory.mjs $(SOAK_RUNS)

format:
	git ls-files 'src/*.cpp' 'src/*.hpp' 'test/*.cpp' 'test/*.hpp' | xargs clang-format-19 -i

lint:
	test/run/lint.sh

## clang-tidy over every source (two minutes).
tidy:
	test/run/setup.sh lint
	test/run/tidy.sh

## Each fuzzer for FUZZ_SECONDS; what it finds lies in build/fuzz.
FUZZ_SECONDS ?= 60
fuzz:
	test/run/setup.sh lint
	cmake -S . -B build/fuzz -DOPS_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++-19 >/dev/null
	cmake --build build/fuzz -j2
	cd build/fuzz && for fuzzer in fuzz_*; do [ ! -x "$$fuzzer" ] || [ -d "$$fuzzer" ] || { mkdir -p "corpus_$$fuzzer" && \
	  "./$$fuzzer" -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 "corpus_$$fuzzer" || exit 1; }; done

clean:
	rm -rf build
	$(EXTENSION_MAKE) clean
