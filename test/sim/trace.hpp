// What happened, line by line: printed for people, or only hashed to compare two replays.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "agenda.hpp"

namespace ops::sim {

class Trace {
 public:
  enum class Mode { off, hashed, printed };
  Trace(Mode mode, const Agenda& agenda) : mode_(mode), agenda_(agenda) {}

  /// @param line  called only when somebody wants the line
  template <class Line>
  void operator()(Line&& line) {
    if (mode_ == Mode::off) return;
    const double seconds = static_cast<double>(agenda_.steady_now().time_since_epoch().count()) / 1e6;
    char moment[32];
    std::snprintf(moment, sizeof moment, "%12.6f  ", seconds);
    const std::string text = moment + line();
    for (const char c : text) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3;  // FNV-1a
    if (mode_ == Mode::printed) std::printf("%s\n", text.c_str());
  }
  std::uint64_t hash() const { return hash_; }

 private:
  Mode mode_;
  const Agenda& agenda_;
  std::uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace ops::sim
