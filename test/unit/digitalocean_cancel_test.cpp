// Stopping a deployment (faults F67, F77).
#include <gtest/gtest.h>

#include "app_platform_service.hpp"

namespace ops::test {
namespace {

class DigitaloceanCancel : public ::testing::Test, public AppPlatformWorld {
 protected:
  DigitaloceanCancel() { phases = {"BUILDING"}; }
  void cancel_when(const std::function<bool()>& stop) { perform_and_cancel(phase_facts(), stop, {built()}); }
  void cancel_when_followed() {
    cancel_when([this] { return sent(Method::get, "/deployments/dep-1$") > 0; });
  }
};

TEST_F(DigitaloceanCancel, F77_IsFollowedToItsEnd) {
  cancel_when_followed();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(sent(Method::post, "/cancel$"), 1);
  EXPECT_TRUE(told("deployment dep-1 ended as CANCELED"));
}

TEST_F(DigitaloceanCancel, I45_OfSeveralDeploymentsWithOurMarkerAllAreStopped) {
  answer_to_put = lost(true);
  Json other{{"id", "dep-2"}, {"phase", "BUILDING"}};
  services.on(Method::get, "/deployments?", [&](const HttpRequest&) {
    other["spec"] = app_spec;
    return answer(200, {{"deployments", {other, {{"id", "dep-1"}, {"phase", "BUILDING"}, {"spec", app_spec}}}}});
  });
  services.on(Method::get, "/deployments/dep-2$",
              [&](const HttpRequest&) { return answer(200, {{"deployment", other}}); });
  services.on(Method::post, "/deployments/dep-2/cancel$", [&](const HttpRequest&) {
    other["phase"] = "CANCELED";
    return answer(200, Json::object());
  });
  deploy();
  ASSERT_EQ(status(), RunStatus::waiting);
  stored().run.status = RunStatus::running;
  stored().run.cancel_requested = true;
  restart();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_TRUE(told("deployment dep-1 ended as CANCELED; deployment dep-2 ended as CANCELED"));
}

TEST_F(DigitaloceanCancel, ADeploymentThatHasEndedIsToldAsItEnded) {
  services.on(Method::post, "/cancel$", [this](const HttpRequest&) {
    phases = {"ACTIVE"};
    return answer(400, {{"message", "deployment cannot be cancelled"}});
  });
  cancel_when_followed();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_TRUE(told("dep-1 ended as ACTIVE; the new version is live"));
}

TEST_F(DigitaloceanCancel, OneThatEndedByItselfIsNotCancelled) {
  cancel_when([this] {
    if (sent(Method::get, "/deployments/dep-1$") == 0) return false;
    phases = {"ERROR"};
    return true;
  });
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(sent(Method::post, "/cancel$"), 0);
}

TEST_F(DigitaloceanCancel, WithoutConfirmationTheRunFails) {
  services.on(Method::post, "/cancel$", {{"message", "no"}}, 403);
  cancel_when_followed();
  EXPECT_EQ(code(), "stop_unconfirmed");
  EXPECT_EQ(status(), RunStatus::failed);
}

TEST_F(DigitaloceanCancel, BeforeThePutNothingIsOutside) {
  cancel_when([this] { return sent(Method::get, "/v2/apps/app-1$") > 0; });
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(sent(Method::put, ""), 0);
  EXPECT_TRUE(told("nothing was left to stop outside"));
}

// The commits that told of the phase and its PUT were lost with the old primary.
TEST_F(DigitaloceanCancel, F41_APutWithoutARecordIsLookedForAfterAPromotion) {
  queue(phase_facts(), {built()});
  world.run_until_idle([this] { return sent(Method::get, "/deployments/dep-1$") > 0; });
  ClaimedRun& run = stored().run;
  run.effects.clear();
  run.phases.back().state = PhaseState::pending;
  run.facts.look_first = true;
  run.cancel_requested = true;
  restart();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::cancelled);
  EXPECT_EQ(sent(Method::post, "/cancel$"), 1);
}

TEST_F(DigitaloceanCancel, APutWithLostAnswerIsLookedForAndCancelled) {
  answer_to_put = lost(true);
  services.on(Method::get, "/v2/apps/app-1$", [this](const HttpRequest&) {
    return sent(Method::put, "") > 0 && !world.store.runs.at("run-1").run.cancel_requested ? answer(500)
                                                                                           : answer(200, app_answer());
  });
  cancel_when([this] { return sent(Method::put, "") > 0 && world.transport.sent.back().method == Method::get; });
  EXPECT_EQ(status(), RunStatus::cancelled) << failure().message;
  EXPECT_EQ(sent(Method::put, ""), 1);
  EXPECT_EQ(sent(Method::post, "/cancel$"), 1);
}

TEST_F(DigitaloceanCancel, APutThatReachedNobodyIsSaidSo) {
  lost_puts = 99;
  services.on(Method::get, "/v2/apps/app-1$", [this](const HttpRequest&) {
    return sent(Method::put, "") > 0 && !world.store.runs.at("run-1").run.cancel_requested ? answer(500)
                                                                                           : answer(200, app_answer());
  });
  cancel_when([this] { return sent(Method::put, "") > 0 && world.transport.sent.back().method == Method::get; });
  EXPECT_EQ(status(), RunStatus::cancelled) << failure().message;
  EXPECT_TRUE(told("DigitalOcean shows no deployment of this phase"));
}

TEST_F(DigitaloceanCancel, F67_TheTimeLimitCancelsOnceAndFails) {
  PhaseFacts facts = phase_facts();
  facts.timeout = std::chrono::minutes{5};
  perform(facts, {built()});
  EXPECT_EQ(code(), "timed_out");
  EXPECT_EQ(sent(Method::post, "/cancel$"), 1);
}

}  // namespace
}  // namespace ops::test
