# Builds and installs the extension by PGXS. Called by the top Makefile from the top directory, after the dependencies are
# there.  Variables: PG_CONFIG, OPS_WERROR=1 (warnings are errors), DESTDIR.
# `make VARIANT=faults variant` builds build/faults/ops_runner.so, a test build that is never installed. VARIANT=bench is the
# module of the benchmark: the product's own objects and the phase kinds of test/bench, which the linker puts before them.

PG_CONFIG ?= pg_config
EXTENSION_VERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" ops_runner.control)
SCRIPT := sql/ops_runner--$(EXTENSION_VERSION).sql
SOURCES := $(wildcard src/core/*.cpp src/phases/*.cpp src/http/*.cpp src/pg/*.cpp)

VARIANT ?=
OBJECT_DIR := build/$(patsubst %,%/,$(filter-out bench,$(VARIANT)))obj
MODULE_big = ops_runner
OBJS := $(SOURCES:src/%.cpp=$(OBJECT_DIR)/%.o)
EXTENSION = ops_runner
DATA_built = $(SCRIPT)
SHLIB_LINK = -lcurl -lcrypto -larchive -lstdc++
ifeq ($(VARIANT),bench)
OBJS += build/bench/bench_phases.o
SHLIB_LINK += -Wl,--wrap=_ZN3ops15default_catalogEv
endif
EXTRA_CLEAN = build/obj $(SCRIPT)

# The C++20 sources cannot be compiled to bitcode with the server's clang; there is nothing in them to inline.
override with_llvm = no
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
# PGXS takes the folder of this makefile for the top of the tree.
srcdir := .

# -O2 makes our own code, a tenth of a run's time, a quarter faster and the build a third longer; test builds do without.
OPS_CXXFLAGS := -std=c++20 $(if $(filter-out bench,$(VARIANT)),-O1,-O2) -g1 -fPIC -fvisibility=hidden \
  -fstack-protector-strong -D_FORTIFY_SOURCE=2 -Wall -Wextra -Wshadow -Wno-missing-field-initializers $(if $(OPS_WERROR),-Werror) -Isrc \
  $(if $(filter faults,$(VARIANT)),-DOPS_FAULTS)
# Only src/pg sees the server's headers, and only src/http may see curl's: the layers hold by construction.
OPS_PG_CXXFLAGS := -Wno-register -D_GNU_SOURCE -DOPS_VERSION='"$(EXTENSION_VERSION)"' -isystem $(shell $(PG_CONFIG) --includedir-server)

# The JSON library's header takes most of the time of a small file: compiled once, found before the real one.
JSON_PCH := $(OBJECT_DIR)/pch/nlohmann/json.hpp.gch
OPS_CXXFLAGS += -I$(OBJECT_DIR)/pch -include nlohmann/json.hpp
$(JSON_PCH): src/extension.mk
	@mkdir -p $(@D)
	echo '#include_next <nlohmann/json.hpp>' > $(basename $@)
	$(CXX) $(filter-out -include nlohmann/json.hpp,$(OPS_CXXFLAGS)) -w -x c++-header -o $@ $(basename $@)

$(OBJECT_DIR)/pg/%.o: src/pg/%.cpp $(JSON_PCH)
	@mkdir -p $(@D)
	$(CXX) $(OPS_CXXFLAGS) $(OPS_PG_CXXFLAGS) -MMD -MP -c -o $@ $<

$(OBJECT_DIR)/%.o: src/%.cpp $(JSON_PCH)
	@mkdir -p $(@D)
	$(CXX) $(OPS_CXXFLAGS) -MMD -MP -c -o $@ $<

build/bench/%.o: test/bench/%.cpp $(JSON_PCH)
	@mkdir -p $(@D)
	$(CXX) $(OPS_CXXFLAGS) -MMD -MP -c -o $@ $<

.PHONY: variant
variant: build/$(VARIANT)/ops_runner.so $(SCRIPT)
build/$(VARIANT)/ops_runner.so: $(OBJS)
	$(CXX) -shared -o $@ $(OBJS) $(SHLIB_LINK)

$(SCRIPT): $(sort $(wildcard sql/install/*.sql)) ops_runner.control
	{ printf '%s\n' '\echo Use "CREATE EXTENSION ops_runner" to load this file. \quit'; cat $(filter %.sql,$^); } > $@

-include $(OBJS:.o=.d)
