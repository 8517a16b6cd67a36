// A run in memory: how phases begin, end, are stopped, and what becomes of the run (faults F12, F67, F77).
#include <gtest/gtest.h>

#include "phase_world.hpp"

namespace ops::test {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

const std::string read_url = "https://service.example/read";
const std::string effect_url = "https://service.example/effect";
const std::string second_url = "https://service.example/second";
const std::string stop_url = "https://service.example/stop";

Coroutine<Json> quick(PhaseContext&) {
  co_return Json::object();
}
Coroutine<Json> sleepy(PhaseContext& ctx) {
  co_await ctx.sleep(minutes{10});
  co_return Json::object();
}
Coroutine<Json> reading(PhaseContext& ctx) {
  HttpRequest request;
  request.url = read_url;
  co_await ctx.request(std::move(request));
  co_return Json::object();
}
EffectSpec an_effect(const std::string& key, const std::string& url) {
  EffectSpec spec;
  spec.key = key;
  spec.request.method = Method::post;
  spec.request.url = url;
  spec.interpret = [](const HttpResponse& response) {
    return response.status == 200 ? EffectVerdict::done(Json::object()) : EffectVerdict::ambiguous();
  };
  spec.look = []() -> Coroutine<std::optional<Json>> { co_return std::nullopt; };
  return spec;
}
Coroutine<Json> effecting(PhaseContext& ctx) {
  EffectSpec spec = an_effect("the_effect", effect_url);
  co_await ctx.effect(std::move(spec));
  co_await ctx.sleep(minutes{10});
  co_return Json::object();
}
Coroutine<Json> effecting_twice(PhaseContext& ctx) {
  EffectSpec spec = an_effect("the_effect", effect_url);
  co_await ctx.effect(std::move(spec));
  EffectSpec second = an_effect("the_second", second_url);
  co_await ctx.effect(std::move(second));
  co_return Json::object();
}
Coroutine<Json> broken(PhaseContext& ctx) {
  co_await ctx.sleep(seconds{1});
  throw std::runtime_error("vector::at with ghp_0123456789abcdefghijABCDEFGHIJ012345");
}
Coroutine<Json> breaking_at_once(PhaseContext&) {
  throw std::bad_alloc();  // not a coroutine: resuming it throws
}
Coroutine<Json> waiting(PhaseContext& ctx) {
  co_await ctx.sleep(seconds{1});
  throw MustWait("decision", "somebody must decide", "decide");
}
Coroutine<Json> waiting_with_effect(PhaseContext& ctx) {
  EffectSpec spec;
  spec.key = "the_effect";
  spec.request.method = Method::post;
  spec.request.url = effect_url;
  spec.interpret = [](const HttpResponse&) { return EffectVerdict::done(Json::object()); };
  co_await ctx.effect(std::move(spec));
  throw MustWait("secret:the_secret", "it has gone", "bring it back");
}
Coroutine<Json> failing(PhaseContext& ctx) {
  co_await ctx.sleep(seconds{2});
  throw PhaseError("it_broke", "it broke", "mend it", Json("no object"));
}
Coroutine<std::string> nothing_outside(PhaseContext&) {
  co_return std::string();
}
Coroutine<std::string> stop_by_request(PhaseContext& ctx) {
  const EffectRecord* record = ctx.effect_record("the_effect");
  if (record == nullptr || record->state == EffectState::absent) co_return std::string();
  HttpRequest request;
  request.url = stop_url;
  co_await ctx.request(std::move(request));
  co_return std::string("the effect was stopped");
}
Coroutine<std::string> stop_waits(PhaseContext&) {
  throw MustWait("decision", "was it stopped?", "look");
  co_return std::string();
}
Coroutine<std::string> stop_breaks(PhaseContext&) {
  throw std::bad_alloc();
}

PhaseCatalog kinds() {
  const Millis hour = std::chrono::hours{1};
  return PhaseCatalog({{"quick", {}, hour, quick, nothing_outside},
                       {"sleepy", {}, hour, sleepy, nothing_outside},
                       {"reading", {}, hour, reading, nothing_outside},
                       {"effecting", {}, hour, effecting, stop_by_request},
                       {"effecting_twice", {}, hour, effecting_twice, stop_by_request},
                       {"broken", {}, hour, broken, nothing_outside},
                       {"breaking_at_once", {}, hour, breaking_at_once, nothing_outside},
                       {"waiting", {}, hour, waiting, nothing_outside},
                       {"waiting_with_effect", {}, hour, waiting_with_effect, stop_by_request},
                       {"failing", {}, hour, failing, nothing_outside},
                       {"stop_waits", {}, hour, sleepy, stop_waits},
                       {"stop_breaks", {}, hour, sleepy, stop_breaks}});
}

class RunExecutionTest : public ::testing::Test, public PhaseWorld {
 protected:
  RunExecutionTest() : PhaseWorld(kinds()) {
    for (const std::string& url : {read_url, stop_url}) services.on(Method::get, url, Json::object());
    services.on(Method::post, effect_url, Json::object());
  }
  void run(std::vector<PhaseFacts> phases, const std::function<bool()>& stop = [] { return false; }) {
    PhaseFacts last = std::move(phases.back());
    phases.pop_back();
    queue(std::move(last), std::move(phases));
    world.run_until_idle(stop);
  }
  void cancel() {
    world.store.request_cancel("run-1");
    world.loop->ring_cancel();
  }
  PhaseState state(std::size_t index) { return stored().run.phases.at(index).state; }
};

TEST_F(RunExecutionTest, AKindOfALaterVersionIsNamed) {
  run({phase("a", "kubernetes"), phase("b", "quick", {"a"})});
  EXPECT_EQ(code(), "unknown_kind");
  EXPECT_NE(failure().message.find("\"kubernetes\""), std::string::npos);
  EXPECT_EQ(status(), RunStatus::failed);
  EXPECT_EQ(state(1), PhaseState::skipped);
}

TEST_F(RunExecutionTest, F12_AnUnexpectedErrorEndsTheRunAndNoOther) {
  for (const char* kind : {"broken", "breaking_at_once"}) {
    world.queue("run-2", {phase("a", "sleepy")});
    run({phase("a", kind)});
    EXPECT_EQ(code(), "internal_error") << kind;
    EXPECT_NE(failure().message.find(kind), std::string::npos);
    EXPECT_EQ(failure().message.find("ghp_"), std::string::npos);
    EXPECT_EQ(world.status("run-2"), RunStatus::success);
    EXPECT_TRUE(world.crash_mark.marked.empty());
  }
}

TEST_F(RunExecutionTest, PhasesThatNeedNothingOfEachOtherRunSideBySide) {
  const SteadyTime begin = world.clock.steady_now();
  run({phase("a", "sleepy"), phase("b", "sleepy"), phase("c", "quick", {"a", "b"})});
  EXPECT_EQ(status(), RunStatus::success);
  EXPECT_EQ(world.clock.steady_now() - begin, minutes{10});
}

TEST_F(RunExecutionTest, AFailureLetsWhatRunsEndAndStartsNothingNew) {
  run({phase("a", "sleepy"), phase("b", "failing"), phase("c", "quick", {"a"}), phase("d", "quick", {"b"})});
  EXPECT_EQ(status(), RunStatus::failed);
  EXPECT_EQ(state(0), PhaseState::succeeded);
  EXPECT_EQ(state(1), PhaseState::failed);
  EXPECT_EQ(state(2), PhaseState::skipped);
  EXPECT_EQ(state(3), PhaseState::skipped);
  EXPECT_EQ(failure().payload["hint"], "mend it");
  EXPECT_EQ(stored().events.back().payload["phase"], "b");
}

TEST_F(RunExecutionTest, AWaitingPhaseParksTheRunWhenTheOthersHaveEnded) {
  run({phase("a", "waiting"), phase("b", "sleepy"), phase("c", "quick", {"b"})});
  EXPECT_EQ(status(), RunStatus::waiting);
  EXPECT_EQ(state(0), PhaseState::pending);
  EXPECT_FALSE(stored().run.phases[0].started_at);
  EXPECT_EQ(state(1), PhaseState::succeeded);
  EXPECT_EQ(state(2), PhaseState::pending);
}

// As ops.cancel_run does with it: the run is queued once more.
TEST_F(RunExecutionTest, Invariant9_WhatAWaitingPhaseHasLeftOutsideIsStoppedWhenItsRunIsCancelled) {
  run({phase("a", "waiting_with_effect"), phase("b", "quick", {"a"})});
  EXPECT_EQ(status(), RunStatus::waiting);
  EXPECT_EQ(state(0), PhaseState::running);
  EXPECT_FALSE(stored().run.phases[0].started_at);
  stored().run.cancel_requested = true;
  stored().run.status = RunStatus::queued;
  world.loop->ring_queue();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(sent(Method::get, stop_url), 1);
  EXPECT_EQ(state(0), PhaseState::cancelled);
  EXPECT_EQ(state(1), PhaseState::skipped);
}

TEST_F(RunExecutionTest, ARunThatIsCancelledWhileNothingOfItIsOutsideDoesNotWait) {
  run({phase("a", "waiting"), phase("b", "sleepy")}, [this] { return told("waiting: somebody must decide"); });
  cancel();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(state(0), PhaseState::skipped);
}

TEST_F(RunExecutionTest, AFailureOfAnEarlierLifeIsNotForgotten) {
  run({phase("a", "failing"), phase("b", "sleepy"), phase("c", "quick", {"a"})},
      [this] { return state(0) == PhaseState::failed; });
  EXPECT_EQ(status(), RunStatus::running);
  restart();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::failed);
  EXPECT_EQ(state(1), PhaseState::succeeded);
  EXPECT_EQ(state(2), PhaseState::skipped);
}

TEST_F(RunExecutionTest, AFailureBesideAWaitingPhaseIsTheStrongerWord) {
  run({phase("a", "waiting"), phase("b", "failing")});
  EXPECT_EQ(status(), RunStatus::failed);
  EXPECT_EQ(state(0), PhaseState::skipped);
}

TEST_F(RunExecutionTest, ASkippedPhaseIsAMetNeed) {
  PhaseFacts skipped = phase("a", "quick");
  skipped.state = PhaseState::skipped;
  run({skipped, phase("b", "quick", {"a"})});
  EXPECT_EQ(status(), RunStatus::success);
  EXPECT_EQ(state(0), PhaseState::skipped);
  EXPECT_EQ(state(1), PhaseState::succeeded);
}

TEST_F(RunExecutionTest, F77_ACancelDropsAReadAndDoesNotWaitForIt) {
  world.transport.held.insert(read_url);
  run({phase("a", "reading")}, [this] { return sent(Method::get, read_url) > 0; });
  cancel();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(world.transport.abandoned, 1u);
  EXPECT_EQ(stored().events.back().message, "run cancelled: asked");
}

TEST_F(RunExecutionTest, F77_ACancelHearsAnEffectFirstAndThenStopsIt) {
  world.transport.held.insert(effect_url);
  run({phase("a", "effecting")}, [this] { return sent(Method::post, effect_url) > 0; });
  cancel();
  for (int i = 0; i < 5; ++i) world.loop->turn();
  EXPECT_EQ(status(), RunStatus::running);
  EXPECT_EQ(sent(Method::get, stop_url), 0);
  world.transport.let_go();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(sent(Method::get, stop_url), 1);
  EXPECT_EQ(world.transport.abandoned, 0u);
}

TEST_F(RunExecutionTest, F67_ADeadlineHearsAnEffectFirstAndThenStopsIt) {
  world.transport.held.insert(effect_url);
  PhaseFacts facts = phase("a", "effecting");
  facts.timeout = minutes{1};
  run({facts}, [this] { return sent(Method::post, effect_url) > 0; });
  world.loop->turn();
  world.clock.advance_to(world.clock.steady_now() + minutes{2});
  for (int i = 0; i < 5; ++i) world.loop->turn();
  EXPECT_EQ(status(), RunStatus::running);
  world.transport.let_go();
  world.run_until_idle();
  EXPECT_EQ(code(), "timed_out");
  EXPECT_NE(failure().message.find("the effect was stopped"), std::string::npos);
}

TEST_F(RunExecutionTest, AStoppedPhaseSendsNoNewEffect) {
  world.transport.held.insert(effect_url);
  services.on(Method::post, effect_url, [](const HttpRequest&) { return lost(false); });
  run({phase("a", "effecting")}, [this] { return sent(Method::post, effect_url) > 0; });
  cancel();
  world.loop->turn();
  world.transport.let_go();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(sent(Method::post, effect_url), 1);
  EXPECT_TRUE(told("nothing was left to stop outside"));
}

TEST_F(RunExecutionTest, F77_AStoppedPhaseBeginsNoFurtherEffect) {
  world.transport.held.insert(effect_url);
  run({phase("a", "effecting_twice")}, [this] { return sent(Method::post, effect_url) > 0; });
  cancel();
  world.loop->turn();
  world.transport.let_go();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(sent(Method::post, second_url), 0);
  EXPECT_EQ(sent(Method::get, stop_url), 1);
  EXPECT_EQ(stored().run.effects.size(), 1u);
}

TEST_F(RunExecutionTest, TheSecondCancelChangesNothing) {
  run({phase("a", "sleepy")}, [this] { return status() == RunStatus::running; });
  cancel();
  world.loop->turn();
  stored().cancel_told = false;
  world.loop->ring_cancel();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(std::ranges::count(world.messages("run-1"), "run cancelled: asked"), 1);
}

TEST_F(RunExecutionTest, ACancelledRunKeepsWhatHasSucceeded) {
  run({phase("a", "quick"), phase("b", "sleepy", {"a"}), phase("c", "quick", {"b"})},
      [this] { return told("phase b started"); });
  cancel();
  world.run_until_idle();
  EXPECT_EQ(state(0), PhaseState::succeeded);
  EXPECT_EQ(state(1), PhaseState::cancelled);
  EXPECT_EQ(state(2), PhaseState::skipped);
}

TEST_F(RunExecutionTest, AStopThatMustWaitParksTheRun) {
  run({phase("a", "stop_waits")}, [this] { return status() == RunStatus::running; });
  cancel();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::waiting);
  EXPECT_TRUE(told("waiting: was it stopped?"));
}

TEST_F(RunExecutionTest, F12_AStopThatBreaksEndsTheRun) {
  run({phase("a", "stop_breaks")}, [this] { return status() == RunStatus::running; });
  cancel();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::failed);
  EXPECT_EQ(code(), "internal_error");
}

TEST_F(RunExecutionTest, ATakenOverRunThatIsBeingCancelledIsOnlyStopped) {
  run({phase("a", "effecting"), phase("b", "quick", {"a"})}, [this] { return sent(Method::post, effect_url) > 0; });
  world.loop->turn();
  world.store.request_cancel("run-1");
  restart();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(sent(Method::post, effect_url), 1);
  EXPECT_EQ(sent(Method::get, stop_url), 1);
  EXPECT_TRUE(told("taken over by worker"));
}

TEST_F(RunExecutionTest, TimeUsedByEarlierLivesCounts) {
  PhaseFacts facts = phase("a", "sleepy");
  facts.timeout = minutes{15};
  run({facts}, [this] { return status() == RunStatus::running; });
  world.clock.advance_to(world.clock.steady_now() + minutes{8});
  restart();
  const SteadyTime begin = world.clock.steady_now();
  world.run_until_idle();
  EXPECT_EQ(code(), "timed_out");  // ten minutes of sleep begin anew and do not fit
  EXPECT_LE(world.clock.steady_now() - begin, minutes{7});
}

TEST_F(RunExecutionTest, F49_AClockThatWasSetBackLengthensNoPhase) {
  PhaseFacts facts = phase("a", "sleepy");
  facts.timeout = minutes{5};
  run({facts}, [this] { return status() == RunStatus::running; });
  stored().run.phases[0].started_at = world.clock.now() + std::chrono::hours{400 * 24};
  restart();
  const SteadyTime begin = world.clock.steady_now();
  world.run_until_idle();
  EXPECT_EQ(code(), "timed_out");
  EXPECT_LE(world.clock.steady_now() - begin, minutes{5});
}

}  // namespace
}  // namespace ops::test
