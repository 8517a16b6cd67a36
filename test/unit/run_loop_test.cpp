// The loop and the durable coroutines, without a server.
#include <gtest/gtest.h>

#include <algorithm>

#include "scripted_world.hpp"

namespace ops::test {
namespace {

const std::string effect_url = "https://service.example/effect";

Coroutine<Json> quick(PhaseContext& ctx) {
  ctx.remember("mark", 1);
  co_return Json{{"from", ctx.phase().name}};
}
Coroutine<std::string> nothing_outside(PhaseContext&) {
  co_return std::string();
}

Coroutine<Json> failing(PhaseContext& ctx) {
  co_await ctx.sleep(std::chrono::seconds{1});
  throw PhaseError("broken", "it broke", "mend it");
}

EffectSpec the_effect(PhaseContext& ctx, EffectKind kind) {
  EffectSpec spec;
  spec.key = "the_effect";
  spec.kind = kind;
  spec.request.method = Method::post;
  spec.request.url = effect_url;
  spec.request.body = "{}";
  spec.interpret = [](const HttpResponse& response) {
    if (response.status == 200) return EffectVerdict::done({{"id", 7}});
    return EffectVerdict::rejected({"rejected", "no", "ask otherwise"});
  };
  spec.look = [&ctx]() -> Coroutine<std::optional<Json>> {
    HttpRequest request;
    request.url = "https://service.example/look";
    const HttpResponse response = co_await ctx.request(std::move(request));
    if (response.status == 200) co_return Json{{"id", 7}};
    co_return std::nullopt;
  };
  return spec;
}

Coroutine<Json> with_effect(PhaseContext& ctx) {
  HttpRequest read;
  read.url = "https://service.example/read";
  co_await ctx.request(std::move(read));
  EffectSpec spec = the_effect(ctx, EffectKind::keyed);
  Json outcome = co_await ctx.effect(std::move(spec));
  ctx.event(Level::info, "effect done", outcome, "done");
  co_await ctx.sleep(std::chrono::seconds{5});
  co_return outcome;
}
Coroutine<Json> with_unkeyed_effect(PhaseContext& ctx) {
  EffectSpec spec = the_effect(ctx, EffectKind::unkeyed);
  Json outcome = co_await ctx.effect(std::move(spec));
  co_return outcome;
}
Coroutine<std::string> stop_effect(PhaseContext& ctx) {
  const EffectRecord* record = ctx.effect_record("the_effect");
  if (record == nullptr || record->state != EffectState::done) co_return std::string();
  HttpRequest request;
  request.url = "https://service.example/stopped";
  co_await ctx.request(std::move(request));
  co_return std::string("the effect was stopped");
}

PhaseCatalog catalog() {
  const Millis hour = std::chrono::hours{1};
  return PhaseCatalog({{"quick", {}, hour, quick, nothing_outside},
                       {"failing", {}, hour, failing, nothing_outside},
                       {"effect", {}, hour, with_effect, stop_effect},
                       {"unkeyed", {}, hour, with_unkeyed_effect, nothing_outside}});
}

ScriptedTransport::Service all_well() {
  return [](const HttpRequest&) { return answer(200, Json::object()); };
}
std::ptrdiff_t sent_effects(const World& world) {
  return std::ranges::count(world.transport.sent, effect_url, &HttpRequest::url);
}

TEST(RunLoop, PhasesRunInOrderOfTheirNeedsAndTheRunSucceeds) {
  World world(catalog(), all_well());
  world.queue("run-1", {phase("a", "quick"), phase("b", "effect", {"a"}), phase("c", "quick", {"b"})});
  world.run_until_idle();
  EXPECT_EQ(world.status("run-1"), RunStatus::success);
  const auto texts = world.messages("run-1");
  EXPECT_EQ(texts.front(), "claimed by worker worker");
  EXPECT_EQ(texts.back(), "run succeeded");
  EXPECT_LT(std::ranges::find(texts, "phase a succeeded"), std::ranges::find(texts, "phase b started"));
  EXPECT_EQ(world.store.runs.at("run-1").run.phases[0].remembered["mark"], 1);
}

TEST(RunLoop, AFailedPhaseSkipsWhatFollows) {
  World world(catalog(), all_well());
  world.queue("run-1", {phase("a", "failing"), phase("b", "quick", {"a"})});
  world.run_until_idle();
  EXPECT_EQ(world.status("run-1"), RunStatus::failed);
  EXPECT_EQ(world.store.runs.at("run-1").run.phases[1].state, PhaseState::skipped);
}

TEST(RunLoop, Invariant3_TheIntentIsStoredBeforeTheEffectLeaves) {
  World* seen = nullptr;
  bool intended_before = false;
  World world(catalog(), [&](const HttpRequest& request) {
    if (request.url == effect_url)
      for (const EffectRecord& effect : seen->store.runs.at("run-1").run.effects)
        intended_before |= effect.state == EffectState::intended;
    return answer(200, Json::object());
  });
  seen = &world;
  world.queue("run-1", {phase("a", "effect")});
  world.run_until_idle();
  EXPECT_TRUE(intended_before);
  EXPECT_EQ(world.status("run-1"), RunStatus::success);
}

const std::string read_url = "https://service.example/read";

/// Whether the store knows of the claim when the run's first request leaves.
bool first_read_is_of_a_stored_claim(bool starts_in_transactions) {
  World* seen = nullptr;
  std::optional<RunStatus> when_sent;
  World world(catalog(), [&](const HttpRequest& request) {
    if (request.url == read_url && !when_sent) when_sent = seen->status("run-1");
    return answer(200, Json::object());
  });
  seen = &world;
  world.transport.starts_in_transactions = starts_in_transactions;
  world.queue("run-1", {phase("a", "effect")});
  world.run_until_idle();
  EXPECT_EQ(world.status("run-1"), RunStatus::success);
  EXPECT_EQ(std::ranges::count(world.transport.sent, read_url, &HttpRequest::url), 1);
  return when_sent != RunStatus::queued;
}

TEST(RunLoop, TheFirstReadOfARunLeavesBeforeItsClaimIsStored) {
  EXPECT_FALSE(first_read_is_of_a_stored_claim(true));
  EXPECT_TRUE(first_read_is_of_a_stored_claim(false));
}

TEST(RunLoop, OfAClaimThatFailsTheReadIsForgottenAndNotSentAgainBeforeAClaimSucceeds) {
  for (const bool busy : {true, false}) {
    World world(catalog(), all_well());
    (busy ? world.store.busy_commits : world.store.fail_commits) = 5;
    world.queue("run-1", {phase("a", "effect")});
    world.run_until_idle([&] { return world.store.busy_commits == 0 && world.store.fail_commits == 0; });
    EXPECT_EQ(std::ranges::count(world.transport.sent, read_url, &HttpRequest::url), 1);
    EXPECT_EQ(world.transport.abandoned, 1u);
    world.run_until_idle();
    EXPECT_EQ(world.status("run-1"), RunStatus::success);
    EXPECT_EQ(world.store.runs.at("run-1").run.facts.attempt, 1);
    EXPECT_EQ(std::ranges::count(world.transport.sent, read_url, &HttpRequest::url), 2);
    EXPECT_EQ(sent_effects(world), 1);
  }
}

TEST(RunLoop, Invariant4_ALostAnswerIsLookedForAndNotRepeated) {
  World world(catalog(), [](const HttpRequest& request) {
    return request.url == effect_url ? lost(true) : answer(200, Json::object());
  });
  world.queue("run-1", {phase("a", "effect")});
  world.run_until_idle();
  EXPECT_EQ(world.status("run-1"), RunStatus::success);
  EXPECT_EQ(sent_effects(world), 1);
}

TEST(RunLoop, Invariant4_AnEffectProvenAbsentIsSentAgain) {
  int tries = 0;
  World world(catalog(), [&](const HttpRequest& request) {
    if (request.url == effect_url) return ++tries == 1 ? lost(true) : answer(200, Json::object());
    return answer(request.url.ends_with("/look") ? 404 : 200, Json::object());
  });
  world.queue("run-1", {phase("a", "effect")});
  world.run_until_idle();
  EXPECT_EQ(world.status("run-1"), RunStatus::success);
  EXPECT_EQ(sent_effects(world), 2);
}

TEST(RunLoop, Invariant4_AnUncertainUnkeyedEffectWaitsForAPerson) {
  World world(catalog(), [](const HttpRequest&) { return lost(true); });
  world.queue("run-1", {phase("a", "unkeyed")});
  world.run_until_idle();
  EXPECT_EQ(world.status("run-1"), RunStatus::waiting);
  EXPECT_EQ(sent_effects(world), 1);
}

TEST(RunLoop, F52_ARequestThatNeverLeftIsSentAgainWithoutLooking) {
  int tries = 0;
  World world(catalog(), [&](const HttpRequest& request) {
    if (request.url == effect_url && ++tries < 3) return lost(false);
    return answer(200, Json::object());
  });
  world.queue("run-1", {phase("a", "effect")});
  world.run_until_idle();
  EXPECT_EQ(world.status("run-1"), RunStatus::success);
  EXPECT_EQ(std::ranges::count(world.transport.sent, "https://service.example/look", &HttpRequest::url), 0);
}

TEST(RunLoop, F64_AConflictOnARepetitionIsLookedAtBeforeItFails) {
  for (const int conflict : {409, 422}) {
    int sends = 0;
    int looks = 0;
    World world(catalog(), [&](const HttpRequest& request) {
      if (request.url == effect_url) return ++sends == 1 ? lost(true) : answer(conflict, Json::object());
      // The first try took effect and shows late.
      if (request.url.ends_with("/look")) return answer(++looks == 1 ? 404 : 200, Json::object());
      return answer(200, Json::object());
    });
    world.queue("run-1", {phase("a", "effect")});
    world.run_until_idle();
    EXPECT_EQ(world.status("run-1"), RunStatus::success) << conflict;
    EXPECT_EQ(sends, 2);
    EXPECT_EQ(looks, 2);
  }
}

TEST(RunLoop, F64_AConflictOnTheFirstTryOrOfSomebodyElseIsAnError) {
  for (const bool lost_before : {false, true}) {
    int sends = 0;
    World world(catalog(), [&](const HttpRequest& request) {
      if (request.url == effect_url) return ++sends == 1 && lost_before ? lost(true) : answer(409, Json::object());
      return answer(request.url.ends_with("/look") ? 404 : 200, Json::object());
    });
    world.queue("run-1", {phase("a", "effect")});
    world.run_until_idle();
    EXPECT_EQ(world.store.runs.at("run-1").run.phases[0].outcome["error"], "rejected");
    EXPECT_EQ(world.store.runs.at("run-1").run.effects[0].state, EffectState::absent);
  }
}

// Ten minutes of 503 for everybody: few requests go out, no run fails, and all go on soon after.
TEST(RunLoop, F65_RunsOutliveAStormOfErrors) {
  constexpr int runs = 20;
  const SteadyTime over{std::chrono::minutes{10}};
  const World* seen = nullptr;
  int during = 0;
  World world(catalog(), [&](const HttpRequest&) {
    if (seen->clock.steady_now() >= over) return answer(200, Json::object());
    ++during;
    return answer(503, Json::object());
  });
  seen = &world;
  for (int i = 0; i < runs; ++i) world.queue("run-" + std::to_string(i), {phase("a", "effect")});
  world.run_until_idle();
  for (int i = 0; i < runs; ++i) EXPECT_EQ(world.status("run-" + std::to_string(i)), RunStatus::success);
  EXPECT_LT(during, 2 * runs + 70) << "an outage is probed every ten seconds";
  EXPECT_LT(world.clock.steady_now() - over, std::chrono::seconds{30 + 5}) << "5 s of them the phase itself sleeps";
  const auto texts = world.messages("run-7");
  EXPECT_EQ(std::ranges::count_if(texts, [](const auto& t) { return t.find("fails for everybody") != t.npos; }), 1);
}

TEST(RunLoop, F65_AnOutageWithoutAnEndFailsTheRunAfterAQuarterOfAnHour) {
  World world(catalog(), [](const HttpRequest&) { return answer(500, Json::object()); });
  world.queue("run-1", {phase("a", "effect")});
  world.run_until_idle();
  EXPECT_EQ(world.status("run-1"), RunStatus::failed);
  EXPECT_EQ(world.store.runs.at("run-1").run.phases[0].outcome["error"], "service_unavailable");
  EXPECT_GT(world.clock.steady_now(), SteadyTime{std::chrono::minutes{14}});
  EXPECT_LT(world.clock.steady_now(), SteadyTime{std::chrono::minutes{16}});
}

// A crash after every single turn, until the run ends: the effect is accepted once.
TEST(RunLoop, ACrashAfterAnyTurnNeverDoublesTheEffect) {
  for (int crash_after = 1; crash_after < 40; ++crash_after) {
    int accepted = 0;
    World world(catalog(), [&](const HttpRequest& request) {
      if (request.url == effect_url) ++accepted;
      if (request.url.ends_with("/look")) return answer(accepted > 0 ? 200 : 404, Json::object());
      return answer(200, Json::object());
    });
    world.queue("run-1", {phase("a", "quick"), phase("b", "effect", {"a"})});
    for (int turn = 0; turn < crash_after; ++turn) {
      world.loop->turn();
      if (const auto next = world.loop->next_deadline(); next && world.transport.in_flight() == 0)
        world.clock.advance_to(*next);
    }
    world.restart();
    world.transport.take_finished();  // answers of the old life reach nobody
    const RunStatus status = world.status("run-1");
    if (status == RunStatus::claimed || status == RunStatus::running)
      world.loop->adopt({world.store.taken_over("run-1")});
    world.run_until_idle();
    EXPECT_EQ(world.status("run-1"), RunStatus::success) << "crash after turn " << crash_after;
    EXPECT_EQ(accepted, 1) << "crash after turn " << crash_after;
    const auto texts = world.messages("run-1");
    EXPECT_EQ(std::ranges::count(texts, "effect done"), 1) << "crash after turn " << crash_after;
    EXPECT_EQ(std::ranges::count(texts, "phase b started"), 1) << "crash after turn " << crash_after;
  }
}

TEST(RunLoop, Invariant9_CancelFollowsWhatIsOutsideToItsEnd) {
  World world(catalog(), all_well());
  world.queue("run-1", {phase("a", "effect"), phase("b", "quick", {"a"})});
  world.run_until_idle([&] { return sent_effects(world) == 1 && world.transport.in_flight() == 0; });
  world.loop->turn();
  world.store.request_cancel("run-1");
  world.loop->ring_cancel();
  world.run_until_idle();
  EXPECT_EQ(world.status("run-1"), RunStatus::cancelled);
  EXPECT_EQ(std::ranges::count(world.transport.sent, "https://service.example/stopped", &HttpRequest::url), 1);
  EXPECT_EQ(world.store.runs.at("run-1").run.phases[0].state, PhaseState::cancelled);
  EXPECT_EQ(world.store.runs.at("run-1").run.phases[1].state, PhaseState::skipped);
}

TEST(RunLoop, F67_APhaseThatOutlivesItsTimeLimitIsStoppedAndFails) {
  World world(catalog(), all_well());
  PhaseFacts slow = phase("a", "effect");
  slow.timeout = std::chrono::seconds{2};
  world.queue("run-1", {slow});
  world.run_until_idle();
  EXPECT_EQ(world.status("run-1"), RunStatus::failed);
  EXPECT_EQ(world.store.runs.at("run-1").run.phases[0].outcome["error"], "timed_out");
}

TEST(RunLoop, Invariant6_AFencedRunIsDroppedWithoutWriting) {
  World world(catalog(), all_well());
  world.queue("run-1", {phase("a", "effect")});
  world.loop->turn();
  world.store.runs.at("run-1").run.claim_token = "somebody else's";
  const std::size_t events = world.store.runs.at("run-1").events.size();
  world.run_until_idle();
  EXPECT_EQ(world.store.runs.at("run-1").events.size(), events);
  EXPECT_EQ(world.loop->running(), 0u);
  EXPECT_EQ(sent_effects(world), 0);
}

// Stopped between the commit of an intent and its sending, for longer than the lease.
TEST(RunLoop, F11_AWorkerThatWasStoppedAsksWhatItStillHoldsBeforeItSends) {
  for (const bool rescued : {true, false}) {
    World world(catalog(), all_well());
    world.queue("run-1", {phase("a", "effect")});
    bool stopped = false;
    world.store.at_commit = [&](bool durable) {
      const auto& effects = world.store.runs.at("run-1").run.effects;
      if (!durable || effects.empty() || effects[0].state != EffectState::intended || stopped) return;
      stopped = true;
      world.clock.advance_to(world.clock.steady_now() + std::chrono::minutes{1});
      if (rescued) world.store.rescued.insert("run-1");
    };
    world.run_until_idle();
    EXPECT_EQ(sent_effects(world), rescued ? 0 : 1);
    EXPECT_EQ(world.loop->running(), 0u);
    EXPECT_EQ(world.status("run-1"), rescued ? RunStatus::running : RunStatus::success);
  }
}

TEST(RunLoop, R3_TheLeaseIsRenewedWhileARunWaitsAndOnlyThen) {
  World world(catalog(), all_well());
  world.run_until_idle();
  EXPECT_FALSE(world.loop->next_deadline());
  PhaseFacts slow = phase("a", "effect");
  world.queue("run-1", {slow});
  world.run_until_idle([&] { return sent_effects(world) == 1; });
  const auto next = world.loop->next_deadline();
  ASSERT_TRUE(next);
  EXPECT_LE(*next - world.clock.steady_now(), LoopSettings{}.lease / 3);
}

TEST(RunLoop, F41_AfterAPromotionAnEffectWithoutARecordIsLookedForFirst) {
  for (const bool out_there : {true, false}) {
    int looks = 0;
    World world(catalog(), [&](const HttpRequest& request) {
      if (!request.url.ends_with("/look")) return answer(200, Json::object());
      ++looks;
      return answer(out_there ? 200 : 404, Json::object());
    });
    world.queue("run-1", {phase("a", "effect")});
    world.store.runs.at("run-1").run.facts.look_first = true;
    world.run_until_idle();
    EXPECT_EQ(world.status("run-1"), RunStatus::success);
    EXPECT_EQ(looks, 1);
    EXPECT_EQ(sent_effects(world), out_there ? 0 : 1);
  }
}

TEST(RunLoop, AFailedCommitIsRedoneAndLosesNothing) {
  for (int at = 0; at < 12; ++at) {
    World world(catalog(), all_well());
    for (int i = 0; i < 5; ++i) world.queue("run-" + std::to_string(i), {phase("a", "effect")});
    for (int turn = 0; turn < at; ++turn) world.loop->turn();
    world.store.fail_commits = 1;
    world.run_until_idle();
    for (int i = 0; i < 5; ++i) EXPECT_EQ(world.status("run-" + std::to_string(i)), RunStatus::success) << at;
    EXPECT_EQ(sent_effects(world), 5) << at;
  }
}

TEST(RunLoop, F28ABusyStoreIsAskedAgainAndNothingIsReleasedBefore) {
  for (int at = 0; at < 12; ++at) {
    World world(catalog(), all_well());
    for (int i = 0; i < 5; ++i) world.queue("run-" + std::to_string(i), {phase("a", "effect")});
    for (int turn = 0; turn < at; ++turn) world.loop->turn();
    world.store.busy_commits = 20;
    const std::size_t sent = world.transport.sent.size();
    world.run_until_idle([&] { return world.store.busy_commits == 0; });
    EXPECT_LE(world.transport.sent.size(), sent + 5) << "sent without a commit, at " << at;
    world.run_until_idle();
    for (const auto& [run_id, stored] : world.store.runs) {
      EXPECT_EQ(stored.run.status, RunStatus::success) << at;
      EXPECT_EQ(stored.run.facts.attempt, 1) << at;
    }
    EXPECT_EQ(sent_effects(world), 5) << at;
    EXPECT_EQ(world.messages("run-0"), world.messages("run-4")) << at;
    EXPECT_LE(world.reports.size(), 20u) << at;
  }
}

TEST(RunLoop, F17AStoreThatAlwaysFailsIsAskedEverMoreSlowly) {
  World world(catalog(), all_well());
  world.queue("run-1", {phase("a", "quick")});
  world.store.fail_commits = 1'000'000;
  const SteadyTime end = world.clock.steady_now() + std::chrono::minutes{10};
  world.run_until_idle([&] { return world.clock.steady_now() > end; });
  EXPECT_LE(world.reports.size(), 130u);
  EXPECT_GE(world.reports.size(), 50u);
  world.store.fail_commits = 0;
  world.run_until_idle();
  EXPECT_EQ(world.status("run-1"), RunStatus::success);
}

TEST(RunLoop, OneRunThatCannotBeStoredDoesNotHurtAnother) {
  World world(catalog(), all_well());
  world.queue("run-1", {phase("a", "quick")});
  world.queue("run-2", {phase("a", "quick")});
  world.store.poisoned.insert("run-1");
  world.run_until_idle();
  EXPECT_EQ(world.status("run-2"), RunStatus::success);
  EXPECT_EQ(world.status("run-1"), RunStatus::failed);
  EXPECT_EQ(world.store.runs.at("run-1").run.phases[0].state, PhaseState::failed);
  EXPECT_FALSE(world.reports.empty());
}

TEST(RunLoop, NoMoreRunsThanAllowedAtOnce) {
  World world(catalog(), all_well());
  LoopSettings settings;
  settings.max_concurrent_runs = 3;
  settings.mutation_interval = Millis{0};
  world.loop->configure(settings);
  for (int i = 0; i < 10; ++i) world.queue("run-" + std::to_string(i), {phase("a", "effect")});
  std::size_t most = 0;
  world.run_until_idle([&] {
    most = std::max(most, world.loop->running());
    return false;
  });
  EXPECT_EQ(most, 3u);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(world.status("run-" + std::to_string(i)), RunStatus::success);
}

}  // namespace
}  // namespace ops::test
