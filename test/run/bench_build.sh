# Builds what the benchmark and the profile need; sourced by both, from the top of the tree.
make --no-print-directory -j2 -f src/extension.mk VARIANT=bench variant >/dev/null
for program in probe curl_limit; do
  if [ test/bench/$program.cpp -nt build/bench/$program ]; then
    g++ -std=c++20 -O2 -Wall -Wextra -I"$(${PG_CONFIG:-pg_config} --includedir)" -o build/bench/$program test/bench/$program.cpp -lpq -lcurl
  fi
done
