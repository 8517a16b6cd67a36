// sim --seeds A..B     worlds with these seeds; one line for every hundred, exit status 1 when an invariant is broken
// sim --seed N [--trace] [--variant NAME]     one world, with its story; deliberately broken
// sim --variants       every deliberately broken world must be noticed
// sim --replays A..B   each world twice: the two stories must be the same
#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "simulation.hpp"
#include "variants.hpp"

namespace ops::sim {
namespace {

constexpr std::uint64_t block = 100;
constexpr std::uint64_t most_seeds_of_a_variant = 2'000;

int usage() {
  std::fputs("usage: sim --seeds A..B | --seed N [--trace] [--variant NAME] | --variants | --replays A..B\n", stderr);
  return 2;
}

struct Seeds {
  std::uint64_t first = 1;
  std::uint64_t last = 1;

  static std::optional<Seeds> parsed(std::string_view text) {
    const std::size_t dots = text.find("..");
    Seeds seeds;
    const auto number = [](std::string_view part, std::uint64_t& value) {
      const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
      return error == std::errc{} && end == part.data() + part.size();
    };
    if (!number(text.substr(0, dots), seeds.first)) return std::nullopt;
    seeds.last = seeds.first;
    if (dots != std::string_view::npos && !number(text.substr(dots + 2), seeds.last)) return std::nullopt;
    return seeds;
  }
};

void print(std::uint64_t seed, const Broken& broken, const std::string& variant = {}) {
  std::printf("# seed %llu: %s: %s\n# replay: sim --seed %llu --trace%s\n", static_cast<unsigned long long>(seed),
              broken.invariant.c_str(), broken.what.c_str(), static_cast<unsigned long long>(seed),
              variant.empty() ? "" : (" --variant \"" + variant + "\"").c_str());
}

/// Performs `work` for every block of seeds on all processors; tells of the blocks in order.
template <class Work>
std::uint64_t in_blocks(const Seeds& seeds, const Work& work) {
  struct Result {
    std::map<std::uint64_t, Broken> broken;
    Tally tally;
  };
  const std::uint64_t blocks = (seeds.last - seeds.first) / block + 1;
  std::map<std::uint64_t, Result> results;
  std::mutex mutex;
  std::atomic<std::uint64_t> next = 0;
  std::uint64_t told = 0, broken = 0;
  Tally total;
  const auto perform = [&] {
    for (std::uint64_t number = next++; number < blocks; number = next++) {
      Result result;
      const std::uint64_t first = seeds.first + number * block;
      for (std::uint64_t seed = first; seed <= std::min(first + block - 1, seeds.last); ++seed)
        if (auto found = work(seed, result.tally)) result.broken.emplace(seed, std::move(*found));
      const std::lock_guard lock(mutex);
      results.emplace(number, std::move(result));
      for (auto ready = results.find(told); ready != results.end(); ready = results.find(++told)) {
        const std::uint64_t begin = seeds.first + told * block;
        std::printf("%s seeds %llu..%llu\n", ready->second.broken.empty() ? "ok" : "not ok",
                    static_cast<unsigned long long>(begin),
                    static_cast<unsigned long long>(std::min(begin + block - 1, seeds.last)));
        for (const auto& [seed, what] : ready->second.broken) print(seed, what);
        std::fflush(stdout);
        broken += ready->second.broken.size();
        total.add(ready->second.tally);
        results.erase(ready);
      }
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::max(1u, std::thread::hardware_concurrency()); ++i) threads.emplace_back(perform);
  perform();
  for (std::thread& thread : threads) thread.join();
  std::printf("# %s\n", total.text().c_str());
  return broken;
}

int run_seeds(const Seeds& seeds, bool twice) {
  const std::uint64_t broken = in_blocks(seeds, [twice](std::uint64_t seed, Tally& tally) -> std::optional<Broken> {
    const Trace::Mode mode = twice ? Trace::Mode::hashed : Trace::Mode::off;
    Simulation simulation(seed, {}, mode);
    std::optional<Broken> found = simulation.run();
    tally.add(simulation.tally());
    if (!twice || found) return found;
    Simulation again(seed, {}, mode);
    (void)again.run();
    if (again.trace_hash() == simulation.trace_hash()) return std::nullopt;
    return Broken{"replay", "the world is another one when it is played again"};
  });
  std::printf("sim: %llu seeds, %llu broken\n", static_cast<unsigned long long>(seeds.last - seeds.first + 1),
              static_cast<unsigned long long>(broken));
  return broken > 0 ? 1 : 0;
}

int run_one(std::uint64_t seed, const Defects& defects, bool traced) {
  Simulation simulation(seed, defects, traced ? Trace::Mode::printed : Trace::Mode::off);
  const std::optional<Broken> found = simulation.run();
  if (found) print(seed, *found);
  std::printf("sim: 1 seeds, %d broken\n", found ? 1 : 0);
  return found ? 1 : 0;
}

int run_variants() {
  std::size_t unnoticed = 0;
  for (const Variant& variant : variants()) {
    Defects defects;
    defects.*variant.defect = true;
    std::optional<Broken> found;
    std::uint64_t seed = 0;
    while (!found && ++seed <= most_seeds_of_a_variant) found = Simulation(seed, defects, Trace::Mode::off).run();
    const bool well = found && std::ranges::find(variant.caught_by, found->invariant) != variant.caught_by.end();
    if (!well) ++unnoticed;
    std::printf("%s variant: %s%s\n", well ? "ok" : "not ok", variant.name.c_str(),
                well ? (" # noticed by " + found->invariant + ", seed " + std::to_string(seed)).c_str() : "");
    if (found && !well) print(seed, *found, variant.name);
    std::fflush(stdout);
  }
  std::printf("sim: %zu variants, %zu unnoticed\n", variants().size(), unnoticed);
  return unnoticed > 0 ? 1 : 0;
}

int run(const std::vector<std::string_view>& arguments) {
  std::optional<Seeds> seeds;
  Defects defects;
  bool traced = false, one = false, twice = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view option = arguments[i];
    if (option == "--variants") return run_variants();
    if (option == "--trace") {
      traced = true;
      continue;
    }
    if (++i == arguments.size()) return usage();
    if (option == "--variant") {
      const auto variant = std::ranges::find(variants(), arguments[i], &Variant::name);
      if (variant == variants().end()) return usage();
      defects.*variant->defect = true;
      continue;
    }
    one = option == "--seed";
    twice = option == "--replays";
    if (!one && !twice && option != "--seeds") return usage();
    seeds = Seeds::parsed(arguments[i]);
  }
  if (!seeds || seeds->last < seeds->first) return usage();
  return one ? run_one(seeds->first, defects, traced) : run_seeds(*seeds, twice);
}

}  // namespace
}  // namespace ops::sim

int main(int argc, char** argv) {
  return ops::sim::run({argv + 1, argv + argc});
}
