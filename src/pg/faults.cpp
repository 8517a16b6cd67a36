#include "pg/faults.hpp"

#ifdef OPS_FAULTS

#include <dlfcn.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/stop_point.hpp"

#include "pg/boundary.hpp"

namespace {

constexpr const char* fault_file = "ops_faults";

struct Fault {
  std::string point;
  std::string action;
  long number = 0;
  long more = 0;
  std::string run_id;
  bool always = false;
};

Fault parse(const std::string& line) {
  std::istringstream words(line);
  Fault fault;
  words >> fault.point >> fault.action;
  if (const std::size_t equals = fault.action.find('='); equals != std::string::npos) {
    fault.number = std::stol(fault.action.substr(equals + 1));
    fault.action.resize(equals);
  }
  for (std::string word; words >> word;) {
    if (word.starts_with("run=")) fault.run_id = word.substr(4);
    if (word.starts_with("more=")) fault.more = std::stol(word.substr(5));
    if (word == "always") fault.always = true;
  }
  return fault;
}

void carry_out(const Fault& fault) {
  if (fault.action == "sleep") {
    std::this_thread::sleep_for(std::chrono::milliseconds{fault.number});
  } else if (fault.action == "throw") {
    throw std::runtime_error("fault at " + fault.point);
  } else if (fault.action == "raise") {
    ops::pg::guarded([] { ereport(ERROR, (errmsg("fault raised"))); });
  } else if (fault.action == "exit") {
    _exit(static_cast<int>(fault.number));
  } else if (fault.action == "kill") {
    kill(getpid(), SIGKILL);
  } else if (fault.action == "segv") {
    *static_cast<volatile int*>(nullptr) = 1;
  } else if (fault.action == "oom") {
    using FailMemory = void (*)(long nth, long more);
    const auto fail_memory = reinterpret_cast<FailMemory>(dlsym(RTLD_DEFAULT, "fail_memory"));
    if (fail_memory == nullptr) throw std::runtime_error("test/t/fail_memory.c is not preloaded");
    fail_memory(fault.number, fault.more);
  }
}

void act(std::string_view point, std::string_view run_id) {
  std::ifstream file(fault_file);
  if (!file) return;
  std::vector<std::string> kept;
  Fault found;
  for (std::string line; std::getline(file, line);) {
    const Fault fault = parse(line);
    const bool matches =
        found.point.empty() && fault.point == point && (fault.run_id.empty() || fault.run_id == run_id);
    if (matches) found = fault;
    if (!matches || fault.always) kept.push_back(line);
  }
  if (found.point.empty()) return;
  file.close();
  // Replaced as a whole: the test may be reading it.
  const std::string next = std::string(fault_file) + ".next";
  {
    std::ofstream rest(next, std::ios::trunc);
    for (const std::string& line : kept) rest << line << '\n';
  }
  std::rename(next.c_str(), fault_file);
  carry_out(found);
}

}  // namespace

namespace ops::pg {
void install_faults() {
  stop_point_action = act;
}
}  // namespace ops::pg

#endif
