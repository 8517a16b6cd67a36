// Phase kinds that only the module of the benchmark knows. The objects of the product stay as they are: the linker
// hands their calls of default_catalog() to the function at the end of this file (src/extension.mk, VARIANT=bench).
// What the kinds do is read from the run's metadata; where requests go is the environment's `url`.
#include <string>
#include <utility>
#include <vector>

#include "core/phase_catalog.hpp"
#include "phases/phase_kinds.hpp"

namespace ops {

namespace {

int number_of(const PhaseContext& ctx, const char* key, int usual) {
  return ctx.run().metadata.value(key, usual);
}

/// An event and a checkpoint.
Coroutine<Json> perform_noop(PhaseContext& ctx) {
  Json payload{{"phase_no", ctx.phase().phase_no}};
  ctx.event(Level::info, "nothing to do", std::move(payload), "noop");
  Json outcome{{"value", ctx.remember("value", ctx.phase().phase_no)}};
  co_return outcome;
}

/// As bench_noop, and what it recorded is committed before the phase ends.
Coroutine<Json> perform_step(PhaseContext& ctx) {
  Json payload{{"phase_no", ctx.phase().phase_no}};
  ctx.event(Level::info, "a step was taken", std::move(payload), "step");
  Json outcome{{"value", ctx.remember("value", ctx.phase().phase_no)}};
  co_await ctx.committed();
  co_return outcome;
}

Coroutine<Json> perform_sleep(PhaseContext& ctx) {
  const Millis duration{number_of(ctx, "sleep_ms", 1'000)};
  co_await ctx.sleep(duration);
  co_return Json::object();
}

/// Requests one after the other, each answer an event.
Coroutine<Json> perform_requests(PhaseContext& ctx) {
  const int requests = number_of(ctx, "requests", 1);
  const std::string url = ctx.config().at("url").get<std::string>() + "/" + ctx.run().run_id;
  for (int i = 1; i <= requests; ++i) {
    HttpRequest get;
    get.url = url;
    get.total_timeout = Millis{number_of(ctx, "timeout_ms", 30'000)};
    const HttpResponse answer = co_await ctx.request(std::move(get));
    Json payload{{"status", answer.status}, {"request", i}};
    ctx.event(Level::info, "answered", std::move(payload));
  }
  co_return Json::object();
}

}  // namespace

}  // namespace ops

extern "C" {
const ops::PhaseCatalog& __real__ZN3ops15default_catalogEv();
const ops::PhaseCatalog& __wrap__ZN3ops15default_catalogEv();
}

const ops::PhaseCatalog& __wrap__ZN3ops15default_catalogEv() {
  using namespace std::chrono_literals;
  static const ops::PhaseCatalog catalog([] {
    std::vector<ops::PhaseKind> kinds = __real__ZN3ops15default_catalogEv().kinds();
    kinds.push_back({"bench_noop", {}, 1h, ops::perform_noop, ops::cancel_nothing});
    kinds.push_back({"bench_step", {}, 1h, ops::perform_step, ops::cancel_nothing});
    kinds.push_back({"bench_sleep", {}, 1h, ops::perform_sleep, ops::cancel_nothing});
    kinds.push_back({"bench_requests", {}, 1h, ops::perform_requests, ops::cancel_nothing});
    return kinds;
  }());
  return catalog;
}
