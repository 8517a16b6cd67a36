// What ends a step of the simulation early. Neither is a std::exception: the product must not be able to swallow it.
#pragma once

#include <string>

namespace ops::sim {

/// A broken invariant.
struct Broken {
  std::string invariant;  ///< short stable name
  std::string what;
};

/// The worker ends here, by itself or with its server.
struct Death {
  bool of_server = false;
  std::string where;
};

}  // namespace ops::sim
