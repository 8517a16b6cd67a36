// The loop when its store, its transport or its lease fails (faults F11, F28, F48; rule R3).
#include <gtest/gtest.h>

#include <deque>

#include "phase_world.hpp"

namespace ops::test {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

const std::string effect_url = "https://service.example/effect";

Coroutine<Json> effecting(PhaseContext& ctx) {
  EffectSpec spec;
  spec.key = "the_effect";
  spec.request.method = Method::post;
  spec.request.url = effect_url;
  spec.interpret = [](const HttpResponse&) { return EffectVerdict::done(Json::object()); };
  spec.look = [&ctx]() -> Coroutine<std::optional<Json>> {
    HttpRequest request;
    request.url = "https://service.example/look";
    const HttpResponse response = co_await ctx.request(std::move(request));
    if (response.status == 200) co_return Json::object();
    co_return std::nullopt;
  };
  co_await ctx.effect(std::move(spec));
  co_await ctx.sleep(minutes{1});
  co_return Json::object();
}
Coroutine<std::string> nothing_outside(PhaseContext&) {
  co_return std::string();
}

class RunLoopFaults : public ::testing::Test, public PhaseWorld {
 protected:
  RunLoopFaults() : PhaseWorld(PhaseCatalog({{"effecting", {}, std::chrono::hours{1}, effecting, nothing_outside}})) {
    services.on(Method::post, effect_url, Json::object());
    services.on(Method::get, "/look",
                [this](const HttpRequest&) { return answer(sent(Method::post, effect_url) > 0 ? 200 : 404); });
    queue(phase("a", "effecting"));
  }
  bool effect_is(EffectState expected) {
    const auto& effects = stored().run.effects;
    return !effects.empty() && effects[0].state == expected;
  }
  bool reported(const std::string& part) {
    return std::ranges::any_of(world.reports,
                               [&](const std::string& report) { return report.find(part) != std::string::npos; });
  }
  /// What the next commits do: fail for ever (f), meet a busy store (b), succeed (anything else).
  void script_commits(const std::string& script) {
    auto rest = std::make_shared<std::deque<char>>(script.begin(), script.end());
    world.store.at_commit = [rest](bool durable) {
      if (durable || rest->empty()) return;
      const char next = rest->front();
      rest->pop_front();
      if (next == 'f') throw std::runtime_error("value too long, ghp_0123456789abcdefghijABCDEFGHIJ012345");
      if (next == 'b') throw StoreBusy("deadlock detected");
    };
  }
  void expect_success_after_a_take_over() {
    EXPECT_EQ(world.loop->running(), 0u);
    EXPECT_FALSE(is_final(status()));
    world.loop->adopt({world.store.taken_over("run-1")});
    world.run_until_idle();
    EXPECT_EQ(status(), RunStatus::success);
    EXPECT_EQ(sent(Method::post, effect_url), 1);
  }
};

TEST_F(RunLoopFaults, AFailureThatStaysFailsTheRunWithItsReasonMasked) {
  world.loop->turn();
  script_commits("ff");  // the turn, then the run alone; its ending can be stored
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::failed);
  EXPECT_EQ(code(), "internal_error");
  EXPECT_NE(failure().message.find("value too long"), std::string::npos);
  EXPECT_EQ(failure().message.find("ghp_"), std::string::npos);
  EXPECT_TRUE(reported("redone run by run"));
  EXPECT_FALSE(reported("ghp_"));
  EXPECT_EQ(sent(Method::post, effect_url), 1);
}

TEST_F(RunLoopFaults, WhereNotEvenTheEndingCanBeStoredTheRunIsTakenUpAgain) {
  world.loop->turn();
  script_commits("fff");
  world.run_until_idle();
  EXPECT_TRUE(reported("stays claimed until the worker can read it again"));
  expect_success_after_a_take_over();
}

TEST_F(RunLoopFaults, F28_WhatABusyStoreRefusedIsStoredBeforeAnythingNew) {
  world.loop->turn();
  script_commits("bbfb");  // busy twice, refused together, busy alone, then stored
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::success);
  EXPECT_EQ(sent(Method::post, effect_url), 1);
  EXPECT_EQ(stored().run.facts.attempt, 1);
  EXPECT_TRUE(reported("the store is busy"));
}

TEST_F(RunLoopFaults, F28_ARunThatIsFencedWhileTheStoreIsBusyIsForgotten) {
  world.run_until_idle([this] { return effect_is(EffectState::done); });
  script_commits("b");
  world.run_until_idle([this] { return reported("the store is busy"); });
  stored().run.claim_token = "somebody else's";
  const std::size_t events = stored().events.size();
  world.run_until_idle();
  EXPECT_EQ(world.loop->running(), 0u);
  EXPECT_EQ(stored().events.size(), events);
}

TEST_F(RunLoopFaults, F28_AnEndingThatMeetsABusyStoreLeavesTheRunToTheNextTakeOver) {
  world.loop->turn();
  script_commits("ffb");
  world.run_until_idle();
  expect_success_after_a_take_over();
}

TEST_F(RunLoopFaults, AClaimThatCannotBeStoredIsMadeAgain) {
  script_commits("f");
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::success);
  EXPECT_EQ(sent(Method::post, effect_url), 1);
  EXPECT_EQ(std::ranges::count(world.messages("run-1"), "claimed by worker worker"), 1);
}

TEST_F(RunLoopFaults, F11_WithoutALeaseNothingIsSentUntilItIsRenewed) {
  bool stopped = false;
  int failures = 0;
  world.store.at_commit = [&](bool durable) {
    if (durable && effect_is(EffectState::intended) && !stopped) {
      stopped = true;
      world.clock.advance_to(world.clock.steady_now() + minutes{1});
    } else if (!durable && stopped && failures < 3) {
      ++failures;
      throw std::runtime_error("no connection");
    }
  };
  for (int i = 0; i < 5; ++i) world.loop->turn();
  EXPECT_EQ(sent(Method::post, effect_url), 0);
  EXPECT_TRUE(reported("the lease could not be renewed, nothing is sent until it is"));
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::success);
  EXPECT_EQ(sent(Method::post, effect_url), 1);
  EXPECT_EQ(failures, 3);
}

TEST_F(RunLoopFaults, R3_ARunThatSomebodyElseHoldsIsForgottenAtTheNextRenewal) {
  world.run_until_idle([this] { return effect_is(EffectState::done); });
  world.store.rescued.insert("run-1");
  const std::size_t events = stored().events.size();
  world.run_until_idle();
  EXPECT_EQ(world.loop->running(), 0u);
  EXPECT_EQ(stored().events.size(), events);
}

TEST_F(RunLoopFaults, F48_ARequestThatCannotBeStartedIsLeftToTheNextTakeOver) {
  bool exhausted = true;
  services.on(Method::post, effect_url, [&](const HttpRequest&) {
    if (std::exchange(exhausted, false)) throw std::runtime_error("too many open files");
    return answer(200);
  });
  world.run_until_idle();
  EXPECT_TRUE(reported("run run-1 cannot go on and is taken up again later: too many open files"));
  world.transport.sent.clear();
  expect_success_after_a_take_over();
}

TEST_F(RunLoopFaults, ACancelOfARunThatIsNotHereIsNotForThisWorker) {
  world.loop->turn();
  world.queue("run-2", {phase("a", "effecting")});
  world.store.runs.at("run-2").run.status = RunStatus::running;
  world.store.request_cancel("run-2");
  world.loop->ring_cancel();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::success);
  EXPECT_EQ(world.status("run-2"), RunStatus::running);
}

TEST_F(RunLoopFaults, AnswersForPhasesThatAreGoneReachNobody) {
  world.transport.held.insert(effect_url);
  world.run_until_idle([this] { return sent(Method::post, effect_url) > 0; });
  world.loop->adopt({world.store.taken_over("run-1")});  // came back: the old life ends here
  world.transport.let_go();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::success);
}

TEST_F(RunLoopFaults, CountersAndNamesTellWhatTheLoopDoes) {
  EXPECT_TRUE(world.loop->run_ids().empty());
  world.run_until_idle([this] { return effect_is(EffectState::done); });
  EXPECT_EQ(world.loop->run_ids(), std::vector<std::string>{"run-1"});
  world.queue("run-2", {phase("a", "effecting")});
  world.store.runs.at("run-2").run.status = RunStatus::running;
  world.loop->adopt({world.store.taken_over("run-2")});
  EXPECT_EQ(world.loop->run_ids(), (std::vector<std::string>{"run-1", "run-2"}));
  EXPECT_EQ(world.loop->running(), 2u);
  world.run_until_idle();
  EXPECT_EQ(world.loop->counters().claimed, 2u);
  EXPECT_EQ(world.loop->counters().finished, 2u);
  EXPECT_GT(world.loop->counters().commits, 4u);
  EXPECT_GE(world.loop->counters().turns, world.loop->counters().commits);
}

TEST_F(RunLoopFaults, MoreRoomIsUsedAtOnce) {
  LoopSettings settings;
  settings.max_concurrent_runs = 1;
  settings.mutation_interval = Millis{0};
  world.loop->configure(settings);
  world.queue("run-2", {phase("a", "effecting")});
  world.loop->turn();
  EXPECT_EQ(world.loop->running(), 1u);
  settings.max_concurrent_runs = 2;
  world.loop->configure(settings);
  world.loop->turn();
  EXPECT_EQ(world.loop->running(), 2u);
}

TEST_F(RunLoopFaults, TwoChangesToOneServiceKeepTheirDistance) {
  LoopSettings settings;
  settings.mutation_interval = seconds{1};
  world.loop->configure(settings);
  world.queue("run-2", {phase("a", "effecting")});
  std::vector<SteadyTime> times;
  services.on(Method::post, effect_url, [&](const HttpRequest&) {
    times.push_back(world.clock.steady_now());
    return answer(200);
  });
  world.run_until_idle();
  ASSERT_EQ(times.size(), 2u);
  EXPECT_GE(times[1] - times[0], seconds{1});
}

}  // namespace
}  // namespace ops::test
