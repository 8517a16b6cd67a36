// Stopping a workflow run (faults F67, F77): nothing is called cancelled while it goes on outside.
#include <gtest/gtest.h>

#include "github_service.hpp"

namespace ops::test {
namespace {

class GithubCancel : public ::testing::Test {
 protected:
  GithubCancel() {
    world.services.on(Method::get, "/actions/runs/41$",
                      [this](const HttpRequest&) { return answer(200, BuildWorld::run(run_status, conclusion)); });
    world.services.on(Method::post, "/actions/runs/41/cancel", [this](const HttpRequest&) {
      finish_as("cancelled");
      return answer(202, Json::object());
    });
  }
  void finish_as(const char* how) {
    run_status = "completed";
    conclusion = how;
  }
  void cancel_when_followed() {
    world.perform_and_cancel(BuildWorld::build_phase(),
                             [this] { return world.sent(Method::get, "/runs/41/jobs") > 0; });
  }

  BuildWorld world;
  std::string run_status = "in_progress";
  Json conclusion;
};

TEST_F(GithubCancel, F77_IsFollowedToItsEnd) {
  cancel_when_followed();
  EXPECT_EQ(world.status(), RunStatus::cancelled);
  EXPECT_EQ(world.sent(Method::post, "/actions/runs/41/cancel"), 1);
  EXPECT_TRUE(world.told("workflow run 41 ended as cancelled"));
}

TEST_F(GithubCancel, ARunThatHasJustEndedIsToldAsItEnded) {
  world.services.on(Method::post, "/actions/runs/41/cancel", [this](const HttpRequest&) {
    finish_as("success");
    return answer(409, {{"message", "Cannot cancel a workflow run that is completed"}});
  });
  cancel_when_followed();
  EXPECT_EQ(world.status(), RunStatus::cancelled);
  EXPECT_TRUE(world.told("workflow run 41 ended as success"));
}

TEST_F(GithubCancel, ARunThatDoesNotListenIsForced) {
  world.services.on(Method::post, "/actions/runs/41/cancel", Json::object(), 202);
  world.services.on(Method::post, "/actions/runs/41/force-cancel", [this](const HttpRequest&) {
    finish_as("cancelled");
    return answer(202, Json::object());
  });
  cancel_when_followed();
  EXPECT_EQ(world.status(), RunStatus::cancelled);
  EXPECT_EQ(world.sent(Method::post, "/force-cancel"), 1);
}

TEST_F(GithubCancel, WithoutConfirmationTheRunFails) {
  world.services.on(Method::post, "/cancel", {{"message", "Resource not accessible"}}, 403);
  cancel_when_followed();
  EXPECT_EQ(world.status(), RunStatus::failed);
  EXPECT_EQ(world.code(), "stop_unconfirmed");
}

TEST_F(GithubCancel, F67_ARunThatNeverEndsEndsTheWaitForIt) {
  world.services.on(Method::post, "/actions/runs/41/cancel", Json::object(), 202);
  world.services.on(Method::post, "/actions/runs/41/force-cancel", Json::object(), 202);
  cancel_when_followed();
  EXPECT_EQ(world.code(), "stop_unconfirmed");
  EXPECT_EQ(world.sent(Method::post, "/actions/runs/41/cancel"), 1);
  EXPECT_EQ(world.sent(Method::post, "/force-cancel"), 1);
}

TEST_F(GithubCancel, F67_TheTimeLimitCancelsOnceAndFails) {
  PhaseFacts facts = BuildWorld::build_phase();
  facts.timeout = std::chrono::minutes{5};
  world.perform(facts);
  EXPECT_EQ(world.code(), "timed_out");
  EXPECT_NE(world.failure().message.find("workflow run 41 ended as cancelled"), std::string::npos);
  EXPECT_EQ(world.sent(Method::post, "/cancel"), 1);
}

TEST_F(GithubCancel, BeforeTheDispatchNothingIsOutside) {
  world.perform_and_cancel(BuildWorld::build_phase(), [this] { return world.sent(Method::get, "/build.yml$") > 0; });
  EXPECT_EQ(world.status(), RunStatus::cancelled);
  EXPECT_EQ(world.sent(Method::post, ""), 0);
  EXPECT_TRUE(world.told("nothing was left to stop outside"));
}

TEST_F(GithubCancel, ARefusedDispatchLeavesNothing) {
  world.dispatch_answer = lost(false);
  world.perform_and_cancel(BuildWorld::build_phase(), [this] {
    const auto& effects = world.stored().run.effects;
    return !effects.empty() && effects[0].state == EffectState::absent;
  });
  EXPECT_EQ(world.status(), RunStatus::cancelled);
  EXPECT_EQ(world.sent(Method::post, "/cancel"), 0);
}

TEST_F(GithubCancel, ADispatchWithLostAnswerIsLookedForAndCancelled) {
  bool shown = false;
  world.dispatch_answer = lost(true);
  world.services.on(Method::get, "/build.yml/runs", [&](const HttpRequest&) {
    Json runs = Json::array();
    if (shown) runs.push_back({{"id", 41}, {"display_title", "build [" + world.token + "]"}});
    return answer(200, {{"workflow_runs", runs}});
  });
  world.queue(BuildWorld::build_phase());
  world.world.run_until_idle([this] { return world.sent(Method::get, "/build.yml/runs") > 0; });
  shown = true;
  world.world.store.request_cancel("run-1");
  world.world.loop->ring_cancel();
  world.world.run_until_idle();
  EXPECT_EQ(world.status(), RunStatus::cancelled);
  EXPECT_EQ(world.sent(Method::post, "/actions/runs/41/cancel"), 1);
  EXPECT_EQ(world.sent(Method::post, "/dispatches"), 1);
}

TEST_F(GithubCancel, ADispatchThatReachedNobodyIsSaidSo) {
  world.dispatch_answer = lost(true);
  world.perform_and_cancel(BuildWorld::build_phase(),
                           [this] { return world.sent(Method::get, "/build.yml/runs") > 0; });
  EXPECT_EQ(world.status(), RunStatus::cancelled);
  EXPECT_TRUE(world.told("GitHub shows no workflow run of this phase"));
}

TEST_F(GithubCancel, ARunFoundByItsTokenIsCancelledInALaterLife) {
  world.dispatch_answer = answer(204);
  world.services.on(Method::get, "/build.yml/runs", [this](const HttpRequest&) {
    return answer(200, {{"workflow_runs", {{{"id", 41}, {"display_title", "build [" + world.token + "]"}}}}});
  });
  world.queue(BuildWorld::build_phase());
  world.world.run_until_idle([this] { return world.sent(Method::get, "/runs/41/jobs") > 0; });
  world.world.loop->turn();
  const auto searches = world.sent(Method::get, "/build.yml/runs");
  world.world.store.request_cancel("run-1");
  world.restart();
  world.world.loop->ring_cancel();
  world.world.run_until_idle();
  EXPECT_EQ(world.status(), RunStatus::cancelled);
  EXPECT_EQ(world.sent(Method::post, "/actions/runs/41/cancel"), 1);
  EXPECT_EQ(world.sent(Method::get, "/build.yml/runs"), searches);  // it was remembered
}

}  // namespace
}  // namespace ops::test
