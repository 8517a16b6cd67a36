#!/usr/bin/env bash
# How much of core and phases the unit tests execute. Last line: `core lines: N% branches: N%`; exit status 1 below the floor.
#
# clang's source coverage: gcc 12 marks the bodies of coroutines as artificial, and gcov leaves them out, which here is most of
# what matters. Branches are those of conditions as written; the hidden ones to landing pads of exceptions are not among them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
least_lines=95
least_branches=90
directory=build/coverage

cmake -S . -B $directory -DOPS_COVERAGE=ON -DCMAKE_CXX_COMPILER=clang++-19 > /dev/null
cmake --build $directory -j2 > $directory/build.log 2>&1 || { tail -n 40 $directory/build.log; exit 1; }
LLVM_PROFILE_FILE=$directory/unit.profraw $directory/unit_tests > $directory/unit.log 2>&1 || { tail -n 60 $directory/unit.log; exit 1; }
llvm-profdata-19 merge -sparse $directory/unit.profraw -o $directory/unit.profdata
covered() { llvm-cov-19 "$1" $directory/unit_tests -instr-profile=$directory/unit.profdata "${@:2}"; }
covered show -format=html -output-dir=$directory/html -show-branches=count src/core src/phases > /dev/null

# measure PART: a line for each file of src/PART, then sets `lines` and `branches` to its totals.
measure() {
  covered report "src/$1" -show-region-summary=false > $directory/report.txt
  awk '/[ch]pp /{ printf "  %-24s lines %7s  branches %7s\n", $1, $7, $10 }' $directory/report.txt
  read -r lines branches < <(awk '/^TOTAL/{ gsub(/%/, ""); print $7, $10 }' $directory/report.txt)
  echo "$1 lines: $lines% branches: $branches%"
}
measure phases
measure core
awk -v l="$lines" -v b="$branches" -v ll=$least_lines -v lb=$least_branches 'BEGIN { exit !(l >= ll && b >= lb) }'
