#include "wire.hpp"

#include <utility>

#include "core/crypto.hpp"

namespace ops::sim {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// How late a request may take effect whose sender has given it up.
constexpr Micros latest_effect = seconds{45};

std::string shown(const HttpResponse& response) {
  return response.failure == TransportFailure::none ? std::to_string(response.status)
                                                    : std::string(to_string(response.failure));
}

/// Puts the body where the request wants it.
HttpResponse received(const HttpRequest& request, HttpResponse response) {
  if (!request.response_file || response.status != 200) return response;
  response.body_sha256 = sha256_hex(response.body);
  std::dynamic_pointer_cast<ScratchMemory>(request.response_file)->content = std::move(response.body);
  response.body.clear();
  return response;
}

}  // namespace

std::string shown(const HttpRequest& request) {
  return std::string(to_string(request.method)) + " " + request.url;
}

Wire::Wire(Ground& ground, Services& services, const std::set<std::string>& secrets, Hooks hooks)
    : ground_(ground), services_(services), secrets_(secrets), hooks_(std::move(hooks)) {}

void Wire::start(TransferId id, HttpRequest request) {
  hooks_.at_point("before send");
  hooks_.sends(request);
  const auto kept = std::make_shared<const HttpRequest>(std::move(request));
  pending_->emplace(id, kept);
  travel(id, kept);
  hooks_.at_point("after send");
}

std::vector<FinishedTransfer> Wire::take_finished() {
  std::vector<FinishedTransfer> finished = std::exchange(*finished_, {});
  std::erase_if(finished, [&](const FinishedTransfer& transfer) { return !pending_->contains(transfer.id); });
  for (const FinishedTransfer& transfer : finished) {
    const Request request = pending_->extract(transfer.id).mapped();
    ground_.trace([&] { return "  <- " + shown(transfer.response) + " for " + shown(*request); });
    hooks_.hears(*request, transfer.response);
  }
  return finished;
}

HttpResponse Wire::lost(bool sent) const {
  HttpResponse response;
  response.failure = sent ? TransportFailure::reset : TransportFailure::connect;
  response.request_sent = sent && !ground_.defects.calls_lost_unsent;
  return response;
}

HttpResponse Wire::throttled(const HttpRequest& request) const {
  Dice& dice = ground_.dice;
  const auto wait = dice.between(1, 40);
  if (!request.url.starts_with(github_origin) || dice.chance(0.3)) {
    HttpResponse response = answer(429, {{"message", "Too many requests"}});
    response.headers.push_back({"Retry-After", std::to_string(wait)});
    return response;
  }
  if (dice.chance(0.5)) return answer(403, {{"message", "You have exceeded a secondary rate limit."}});
  HttpResponse response = answer(403, {{"message", "API rate limit exceeded"}});
  const auto now = std::chrono::duration_cast<seconds>(ground_.agenda.now().time_since_epoch()).count();
  response.headers.push_back({"x-ratelimit-remaining", "0"});
  response.headers.push_back({"x-ratelimit-reset", std::to_string(now + wait)});
  return response;
}

void Wire::deliver(TransferId id, Micros delay, HttpResponse response) {
  const auto found = pending_->find(id);
  if (found == pending_->end()) return;
  const Request request = found->second;
  const bool too_late = delay > request->total_timeout;
  if (too_late) response = lost(true);
  if (too_late) response.failure = TransportFailure::timeout;
  response.elapsed = std::min<Micros>(delay, request->total_timeout);
  const auto keep = [finished = std::weak_ptr(finished_), id,
                     answer = received(*request, std::move(response))]() mutable {
    if (const auto still = finished.lock()) still->push_back({id, std::move(answer)});
  };
  ground_.agenda.after(std::min<Micros>(delay, request->total_timeout), keep);
}

void Wire::arrive(TransferId id, const Request& request, Micros way_back) {
  HttpResponse response = services_.respond(*request);
  if (ground_.defects.repeats_requests && request->method != Method::get) services_.respond(*request);
  if (ground_.dice.chance(ground_.weather.garbled)) response.body.resize(response.body.size() / 2);
  deliver(id, way_back, std::move(response));
}

void Wire::travel(TransferId id, const Request& request) {
  Dice& dice = ground_.dice;
  const Weather& weather = ground_.weather;
  const auto tell = [&](const std::string& what) {
    ground_.trace([&] { return "  -> " + shown(*request) + (what.empty() ? "" : " (" + what + ")"); });
  };
  if (request->credential && !secrets_.contains(request->credential->secret_name)) {
    HttpResponse response = lost(false);
    response.failure = TransportFailure::secret_missing;
    tell("secret missing");
    return deliver(id, Micros{0}, std::move(response));
  }
  const bool slow = dice.chance(weather.slow);
  const auto way = [&] {
    return slow ? dice.between(seconds{1}, seconds{25}) : dice.between(milliseconds{2}, milliseconds{150});
  };
  const Micros there = way();
  const Micros back = way();
  // Acts of the agenda do not hold the wire: a request arrives although its sender may be dead by then.
  const auto performs = [services = &services_, request] { (void)services->respond(*request); };

  if (dice.chance(weather.unreachable)) {
    tell("does not leave");
    deliver(id, there, lost(false));
  } else if (dice.chance(weather.request_lost)) {
    tell("is lost");
    deliver(id, dice.chance(0.5) ? there : Micros{request->total_timeout} + seconds{1}, lost(true));
  } else if (dice.chance(weather.throttled)) {
    tell("throttled");
    deliver(id, there + back, throttled(*request));
  } else if (dice.chance(weather.answer_lost)) {
    tell("its answer will be lost");
    ground_.agenda.after(there, performs);
    deliver(id, dice.chance(0.5) ? there + back : Micros{request->total_timeout} + seconds{1}, lost(true));
  } else if (dice.chance(weather.effect_late)) {
    tell("its answer is lost, its effect comes late");
    ground_.agenda.after(dice.between(Micros{0}, latest_effect), performs);
    deliver(id, there, dice.chance(0.5) ? lost(true) : answer(504));
  } else if (dice.chance(weather.server_error)) {
    const bool after_effect = dice.chance(0.5);
    tell(after_effect ? "performed and answered with an error" : "answered with an error");
    if (after_effect) ground_.agenda.after(there, performs);
    deliver(id, there + back, answer(dice.one_of(std::vector<int>{500, 502, 503, 504})));
  } else {
    tell("");
    ground_.agenda.after(there, [this, alive = std::weak_ptr(pending_), performs, id, request, back] {
      alive.expired() ? performs() : arrive(id, request, back);
    });
  }
}

}  // namespace ops::sim
