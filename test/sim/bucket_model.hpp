// Object storage: a key holds what was put last; a new object may be seen late.
#pragma once

#include <map>
#include <string>

#include "ground.hpp"
#include "outcome.hpp"
#include "scratch_memory.hpp"

namespace ops::sim {

class BucketModel {
 public:
  explicit BucketModel(Ground& ground) : ground_(ground) {}

  HttpResponse respond(const HttpRequest& request, const Url& url) {
    const SteadyTime now = ground_.agenda.steady_now();
    if (request.method == Method::put) {
      std::string bytes =
          request.body_file ? std::dynamic_pointer_cast<ScratchMemory>(request.body_file)->content : request.body;
      const auto lag = ground_.dice.chance(0.8) ? Micros{0} : ground_.dice.between(Micros{0}, std::chrono::seconds{5});
      const auto [place, is_new] = objects_.try_emplace(url.path, Object{bytes, now + lag});
      if (!is_new && place->second.bytes != bytes)
        throw Broken{"repeatable", "a repeated upload to " + url.path + " has other bytes than the first"};
      HttpResponse response = answer(200);
      response.headers.push_back({"ETag", "\"etag\""});
      return response;
    }
    const auto found = objects_.find(url.path);
    if (found == objects_.end() || found->second.visible > now) return answer(404);
    HttpResponse response = answer(200);
    response.headers.push_back({"Content-Length", std::to_string(found->second.bytes.size())});
    return response;
  }

  /// Null when there is none. @param path  /bucket/key
  const std::string* object(const std::string& path) const {
    const auto found = objects_.find(path);
    return found == objects_.end() ? nullptr : &found->second.bytes;
  }

 private:
  struct Object {
    std::string bytes;
    SteadyTime visible;
  };
  Ground& ground_;
  std::map<std::string, Object> objects_;
};

}  // namespace ops::sim
