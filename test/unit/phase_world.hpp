// Real phases against scripted services. Rules say what a service answers to a method and a part of the URL (with $ at
// its end: the end of the URL); the last rule that fits answers, what no rule knows is answered 404.
#pragma once

#include <algorithm>

#include "core/json.hpp"
#include "scripted_world.hpp"

namespace ops::test {

inline bool fits(std::string_view url, std::string_view part) {
  if (!part.ends_with('$')) return url.find(part) != std::string_view::npos;
  return url.ends_with(part.substr(0, part.size() - 1));
}

class Services {
 public:
  using Answer = std::function<HttpResponse(const HttpRequest&)>;
  void on(Method method, std::string part, Answer respond) {
    rules_.push_back({method, std::move(part), std::move(respond)});
  }
  void on(Method method, std::string part, const Json& body, int status = 200) {
    on(method, std::move(part), [=](const HttpRequest&) { return answer(status, body); });
  }
  /// The answers one after the other; the last one stays.
  void on_each(Method method, std::string part, std::vector<HttpResponse> answers) {
    auto next = std::make_shared<std::size_t>(0);
    on(method, std::move(part), [answers = std::move(answers), next](const HttpRequest&) {
      return answers[std::min((*next)++, answers.size() - 1)];
    });
  }
  HttpResponse operator()(const HttpRequest& request) const {
    for (auto rule = rules_.rbegin(); rule != rules_.rend(); ++rule)
      if (rule->method == request.method && fits(request.url, rule->part)) return rule->respond(request);
    return answer(404, {{"message", "Not Found"}});
  }

 private:
  struct Rule {
    Method method;
    std::string part;
    Answer respond;
  };
  std::vector<Rule> rules_;
};

inline HttpResponse with_header(HttpResponse response, std::string name, std::string value) {
  std::erase_if(response.headers, [&](const Header& header) { return header.name == name; });
  response.headers.push_back({std::move(name), std::move(value)});
  return response;
}
inline HttpResponse redirect(const std::string& location, int status = 302) {
  return with_header(answer(status), "Location", location);
}
inline HttpResponse failed(TransportFailure failure, bool sent = false) {
  HttpResponse response;
  response.failure = failure;
  response.failure_text = "why it failed";
  response.request_sent = sent;
  return response;
}
inline std::string header_of(const HttpRequest& request, const std::string& name) {
  for (const Header& header : request.headers)
    if (header.name == name) return header.value;
  return {};
}

class PhaseWorld {
 public:
  explicit PhaseWorld(PhaseCatalog catalog = default_catalog())
      : world(std::move(catalog), [this](const HttpRequest& request) { return services(request); }) {}

  /// A phase of that kind as it stands in the queue.
  static PhaseFacts facts(const std::string& kind, Json config) {
    PhaseFacts made = phase("the_phase", kind);
    made.config = std::move(config);
    return made;
  }
  /// A phase before it that has ended well.
  static PhaseFacts succeeded(const std::string& kind, Json outcome) {
    PhaseFacts made = phase("before_" + kind, kind);
    made.state = PhaseState::succeeded;
    made.outcome = std::move(outcome);
    return made;
  }

  void queue(PhaseFacts facts, std::vector<PhaseFacts> before = {}) {
    before.push_back(std::move(facts));
    world.store.runs.erase("run-1");  // of what this world performed before
    world.queue("run-1", std::move(before));
    RunFacts& run = stored().run.facts;
    run.git_sha = "0123456789abcdef0123456789abcdef01234567";
    run.git_ref = "main";
    run.env_type = "staging";
    run.odoo_version = "19.0";
  }
  void perform(PhaseFacts facts, std::vector<PhaseFacts> before = {}) {
    queue(std::move(facts), std::move(before));
    world.run_until_idle();
  }
  /// Performs until `stop`, then an operator cancels the run.
  void perform_and_cancel(PhaseFacts facts, const std::function<bool()>& stop, std::vector<PhaseFacts> before = {}) {
    queue(std::move(facts), std::move(before));
    world.run_until_idle(stop);
    world.store.request_cancel("run-1");
    world.loop->ring_cancel();
    world.run_until_idle();
  }
  /// The worker dies, its answers are lost, and a new one takes the run over.
  void restart() {
    world.restart();
    world.transport.take_finished();
    world.loop->adopt({world.store.taken_over("run-1")});
  }

  MemoryStore::StoredRun& stored() { return world.store.runs.at("run-1"); }
  RunStatus status() { return stored().run.status; }
  const Json& outcome() { return stored().run.phases.back().outcome; }
  /// The event that told why the phase failed; empty when it did not fail.
  EventRecord failure() {
    for (const EventRecord& event : stored().events)
      if (event.level == Level::error && event.payload.contains("code")) return event;
    return {};
  }
  std::string code() { return failure().payload.value("code", ""); }
  bool told(const std::string& part) {
    return std::ranges::any_of(stored().events,
                               [&](const EventRecord& event) { return event.message.find(part) != std::string::npos; });
  }
  std::ptrdiff_t sent(Method method, const std::string& part) {
    return std::ranges::count_if(world.transport.sent, [&](const HttpRequest& request) {
      return request.method == method && fits(request.url, part);
    });
  }
  /// The last request of that kind; the test fails when there is none.
  HttpRequest last_sent(Method method, const std::string& part) {
    for (auto request = world.transport.sent.rbegin(); request != world.transport.sent.rend(); ++request)
      if (request->method == method && fits(request->url, part)) return *request;
    throw std::runtime_error("no request to " + part);
  }
  Json last_body(Method method, const std::string& part) { return Json::parse(last_sent(method, part).body); }

  Services services;
  World world;
};

}  // namespace ops::test
