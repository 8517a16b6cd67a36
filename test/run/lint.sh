#!/usr/bin/env bash
# Format and house rules. Prints what is wrong; exit status 1 if anything is.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
status=0
wrong() { echo "lint: $*"; status=1; }

sources=$(git ls-files 'src/*.cpp' 'src/*.hpp' 'test/*.cpp' 'test/*.hpp')
# shellcheck disable=SC2086
clang-format-19 --dry-run --Werror $sources 2>/tmp/ops_format.$$ || { head -n 20 /tmp/ops_format.$$; wrong "run make format"; }
rm -f /tmp/ops_format.$$
git grep -nE '#include *[<"](postgres|fmgr|executor/|utils/|curl/|pg/|http/)' -- src/core src/phases && wrong "core and phases must stay pure"
git grep -nE '#include *[<"](postgres|pg/)' -- src/http && wrong "http does not know the server"
git grep -nE 'PG_VERSION_NUM' -- src ':!src/pg/compat.hpp' && wrong "version checks live in compat.hpp"
git grep -nF 'vector<Json>' -- src ':!src/core/json_value.hpp' && wrong "a list of JSON values is a Json::array_t: see src/core/json_value.hpp"
duplicates=$(git ls-files 'src/*.cpp' | xargs -n1 basename | sort | uniq -d)
[ -z "$duplicates" ] || wrong "base names of sources are not unique: $duplicates"
for script in sql/*.sql; do
  case $script in sql/ops_runner--*) continue ;; esac
  [ -f "expected/$(basename "$script" .sql).out" ] || wrong "$script has no expected output"
done
git grep -niE 'create or replace|create (table|view|schema|index) if not exists' -- sql/install && wrong "objects are created, never adopted"
git grep -nE '(^|[^_a-z])(usleep|pg_sleep)[ (]+[0-9]' -- test/e2e test/pgtap test/t sql && wrong "wait for a condition instead of a time"
[ $status -ne 0 ] || echo "lint: ok"
exit $status
