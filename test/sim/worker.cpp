#include "worker.hpp"

#include <algorithm>
#include <utility>

namespace ops::sim {

namespace {
constexpr Micros poll_interval = std::chrono::seconds{5};
}

Worker::Worker(Ground& ground, Database& database, Services& services, Inspector& inspector,
               const std::set<std::string>& secrets, const PhaseCatalog& catalog, std::string id, Hooks hooks)
    : ground_(ground),
      database_(database),
      secrets_(secrets),
      id_(std::move(id)),
      hooks_(std::move(hooks)),
      session_(database, id_, hooks_.at_point, hooks_.may_fail),
      wire_(ground, services, secrets,
            {hooks_.at_point, [&inspector](const HttpRequest& request) { inspector.sends(request); },
             [&inspector](const HttpRequest& request, const HttpResponse& response) {
               inspector.hears(request, response);
             }}),
      random_(ground.dice),
      loop_(session_, wire_, ground.agenda, random_, files_, catalog, id_, settings(),
            [this](const std::string& problem) { ground_.trace([&] { return id_ + " reports: " + problem; }); }) {
  database_.register_life(id_);
}

LoopSettings Worker::settings() const {
  return {};
}

void Worker::check_safety() {
  const SteadyTime now = ground_.agenda.steady_now();
  if (now < next_check_) return;
  next_check_ = now + poll_interval;
  const Database::SafetyReport report = database_.safety_check(id_);
  if (report.queue) loop_.ring_queue();
  if (report.cancel) loop_.ring_cancel();
  if (report.runs != loop_.running()) loop_.adopt(database_.take_over(id_, loop_.run_ids()));
  for (const std::string& name : report.missing_secrets)
    if (secrets_.contains(name)) database_.requeue_waiting_for_secret(name);
  if (!report.missing_secrets.empty()) loop_.ring_queue();
}

void Worker::step() {
  hooks_.at_point("turn");
  if (!std::exchange(started_, true)) loop_.adopt(database_.take_over(id_, {}));
  if (std::exchange(queue_rung_, false)) loop_.ring_queue();
  if (std::exchange(cancel_rung_, false)) loop_.ring_cancel();
  check_safety();
  more_ = false;
  try {
    more_ = loop_.turn();
  } catch (const std::exception& error) {
    ground_.trace([&] { return id_ + " reports: " + error.what(); });
  }
  ground_.agenda.advance_to(ground_.agenda.steady_now() + ground_.dice.between(Micros{50}, Micros{2'000}));
}

SteadyTime Worker::wakes() const {
  const SteadyTime now = ground_.agenda.steady_now();
  if (more_ || queue_rung_ || cancel_rung_ || wire_.has_finished()) return now;
  SteadyTime wake = next_check_;
  if (const auto deadline = loop_.next_deadline()) wake = std::min(wake, *deadline);
  return std::max(wake, now);
}

}  // namespace ops::sim
