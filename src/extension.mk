# Builds and installs the extension by PGXS. Called by the top Makefile from the top directory, after the dependencies are
# there.  Variables: PG_CONFIG, OPS_WERROR=1 (warnings are errors), DESTDIR.
# `make VARIANT=faults variant` builds build/faults/ops_runner.so, a test build that is never installed.

PG_CONFIG ?= pg_config
VERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" ops_runner.control)
SCRIPT := sql/ops_runner--$(VERSION).sql
SOURCES := $(wildcard src/core/*.cpp src/phases/*.cpp src/http/*.cpp src/pg/*.cpp)

VARIANT ?=
OBJECT_DIR := build/$(VARIANT:%=%/)obj
MODULE_big = ops_runner
OBJS := $(SOURCES:src/%.cpp=$(OBJECT_DIR)/%.o)
EXTENSION = ops_runner
DATA_built = $(SCRIPT)
SHLIB_LINK = -lcurl -lcrypto -larchive -lstdc++
EXTRA_CLEAN = build/obj $(SCRIPT)

# The C++20 sources cannot be compiled to bitcode with the server's clang; there is nothing in them to inline.
override with_llvm = no
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# -O1: the time of this program is spent in the server and in libcurl; -O2 makes the build a third longer and nothing faster.
OPS_CXXFLAGS := -std=c++20 -O1 -g1 -fPIC -fvisibility=hidden -fstack-protector-strong -D_FORTIFY_SOURCE=2 \
  -Wall -Wextra -Wshadow -Wno-missing-field-initializers $(if $(OPS_WERROR),-Werror) -Isrc \
  $(if $(filter faults,$(VARIANT)),-DOPS_FAULTS)
# Only src/pg sees the server's headers, and only src/http may see curl's: the layers hold by construction.
OPS_PG_CXXFLAGS := -Wno-register -D_GNU_SOURCE -isystem $(shell $(PG_CONFIG) --includedir-server)

$(OBJECT_DIR)/pg/%.o: src/pg/%.cpp
	@mkdir -p $(@D)
	$(CXX) $(OPS_CXXFLAGS) $(OPS_PG_CXXFLAGS) -MMD -MP -c -o $@ $<

$(OBJECT_DIR)/%.o: src/%.cpp
	@mkdir -p $(@D)
	$(CXX) $(OPS_CXXFLAGS) -MMD -MP -c -o $@ $<

.PHONY: variant
variant: build/$(VARIANT)/ops_runner.so $(SCRIPT)
build/$(VARIANT)/ops_runner.so: $(OBJS)
	$(CXX) -shared -o $@ $(OBJS) $(SHLIB_LINK)

$(SCRIPT): $(sort $(wildcard sql/install/*.sql)) ops_runner.control
	{ printf '%s\n' '\echo Use "CREATE EXTENSION ops_runner" to load this file. \quit'; cat $(filter %.sql,$^); } > $@

-include $(OBJS:.o=.d)
