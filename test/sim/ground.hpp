// What every part of one simulated world stands on, and small helpers for services.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "core/http_message.hpp"
#include "core/json.hpp"
#include "core/url.hpp"
#include "agenda.hpp"
#include "defects.hpp"
#include "dice.hpp"
#include "trace.hpp"
#include "weather.hpp"

namespace ops::sim {

struct Ground {
  Ground(std::uint64_t seed, Defects broken, Trace::Mode mode) : dice(seed), defects(broken), trace(mode, agenda) {}

  Dice dice;
  Agenda agenda;
  Defects defects;
  Weather weather;
  Trace trace;
  /// A service has performed what a key names; called once per performance.
  std::function<void(const std::string& key)> took_effect = [](const std::string&) {};
};

inline HttpResponse answer(int status, const Json& body = nullptr) {
  HttpResponse response;
  response.request_sent = true;
  response.status = status;
  if (body.is_null()) return response;
  response.headers = {{"Content-Type", "application/json"}};
  response.body = body.dump();
  response.body_bytes = static_cast<std::int64_t>(response.body.size());
  return response;
}

/// The parts of a path between slashes.
inline std::vector<std::string> path_parts(const std::string& path) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at + 1), path.size());
    parts.push_back(path.substr(at + 1, end - at - 1));
    at = end;
  }
  return parts;
}

/// A 71 character digest of something that only needs to be unlike others.
std::string digest_of(const std::string& bytes);

}  // namespace ops::sim
