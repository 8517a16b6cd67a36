// sim --seeds A..B      worlds with these seeds
// sim --seed N [--trace] [--variant NAME]   one world, with its story
// sim --variants        the broken variants: each must be caught
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string>

#include "simulation.hpp"

using namespace ops::sim;

int main(int argc, char** argv) {
  std::uint64_t first = 1, last = 100;
  Trace::Mode mode = Trace::Mode::off;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--seed")) first = last = std::stoull(argv[++i]);
    if (!std::strcmp(argv[i], "--seeds")) { std::string s = argv[++i]; first = std::stoull(s); last = std::stoull(s.substr(s.find("..") + 2)); }
    if (!std::strcmp(argv[i], "--trace")) mode = Trace::Mode::printed;
  }
  int broken = 0;
  Tally tally;
  for (auto seed = first; seed <= last; ++seed) {
    Simulation simulation(seed, {}, mode);
    if (const auto found = simulation.run()) { ++broken; std::printf("seed %lu: %s: %s\n", (unsigned long)seed, found->invariant.c_str(), found->what.c_str()); }
    tally.add(simulation.tally());
  }
  std::printf("runs %lu ok %lu failed %lu cancelled %lu deaths %lu crashes %lu stops %lu steps %lu\n", tally.runs, tally.succeeded, tally.failed, tally.cancelled, tally.deaths, tally.crashes, tally.stops, tally.steps);
  std::printf("sim: %lu seeds, %d broken\n", (unsigned long)(last - first + 1), broken);
  return broken != 0;
}
