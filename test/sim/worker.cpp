#include "worker.hpp"

#include <algorithm>
#include <utility>

namespace ops::sim {

namespace {
constexpr Micros poll_interval = std::chrono::seconds{5};
}

Worker::Worker(Ground& ground, Database& database, Services& services, Inspector& inspector,
               const std::set<std::string>& secrets, const PhaseCatalog& catalog, KeptMark& mark, std::string id,
               Hooks hooks)
    : up_since(ground.agenda.steady_now()),
      ground_(ground),
      database_(database),
      inspector_(inspector),
      secrets_(secrets),
      id_(std::move(id)),
      at_point_([this, at_point = std::move(hooks.at_point)](const char* point) { at_point(*this, point); }),
      mark_(mark),
      session_(database, id_, at_point_, std::move(hooks.may_fail)),
      wire_(ground, services, secrets,
            {at_point_, [this, &inspector](const HttpRequest& request) { inspector.sends(id_, request); },
             [&inspector](const HttpRequest& request, const HttpResponse& response) {
               inspector.hears(request, response);
             }}),
      random_(ground.dice, at_point_),
      loop_({session_, wire_, ground.agenda, random_, files_, mark}, catalog, id_, settings(),
            [this](const std::string& problem) { ground_.trace([&] { return id_ + " reports: " + problem; }); }) {
  database_.register_life(id_, LoopSettings{}.lease);
}

LoopSettings Worker::settings() const {
  LoopSettings settings;
  if (ground_.defects.endless_lease) settings.lease = std::chrono::hours{24 * 365};
  return settings;
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
  at_point_("turn");
  inspector_.turns(id_, up_since);
  if (!std::exchange(started_, true)) {
    if (const std::string run_id = mark_.left_behind(); !run_id.empty()) database_.note_crash(run_id);
    loop_.adopt(database_.take_over(id_, {}));
  }
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
