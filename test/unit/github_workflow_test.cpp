// The phase that builds an image with GitHub Actions, against scripted services.
#include <gtest/gtest.h>

#include "github_service.hpp"

namespace ops::test {
namespace {

TEST(GithubWorkflow, BuildsFollowsAndVerifies) {
  BuildWorld world;
  world.services.on(
      Method::get, "/actions/runs/41/jobs",
      {{"jobs",
        {BuildWorld::job("completed", "success",
                         {BuildWorld::step(1, "Set up", "completed", "success"),
                          BuildWorld::step(2, "Push", "in_progress"), BuildWorld::step(3, "Later", "queued")})}}});
  world.perform(BuildWorld::build_phase({{"github", {{"inputs", {{"odoo", "19.0"}}}}}}));
  ASSERT_EQ(world.status(), RunStatus::success) << world.failure().message;
  EXPECT_EQ(world.outcome()["digest"], world.built_digest());
  EXPECT_EQ(world.outcome()["platform_digest"], some_digest('a'));
  EXPECT_EQ(world.outcome()["image"], "ghcr.io/acme/odoo");
  EXPECT_EQ(world.outcome()["jobs"], Json::parse(R"([{"id": 77, "name": "build"}])"));
  EXPECT_EQ(world.outcome()["adopted"], false);
  const Json dispatched = world.last_body(Method::post, "/dispatches");
  EXPECT_EQ(dispatched["ref"], "main");
  EXPECT_EQ(dispatched["inputs"]["git_sha"], "0123456789abcdef0123456789abcdef01234567");
  EXPECT_EQ(dispatched["inputs"]["image"], "ghcr.io/acme/odoo");
  EXPECT_EQ(dispatched["inputs"]["odoo"], "19.0");
  EXPECT_EQ(world.sent(Method::post, "/dispatches"), 1);
  EXPECT_TRUE(world.told("job build started"));
  EXPECT_TRUE(world.told("step Set up: success"));
  EXPECT_TRUE(world.told("step Push started"));
  EXPECT_FALSE(world.told("step Push: "));
  EXPECT_FALSE(world.told("step Later"));
}

TEST(GithubWorkflow, T12_TheTokenDoesNotFollowTheRedirectToTheArtifact) {
  BuildWorld world;
  world.perform(BuildWorld::build_phase());
  const HttpRequest blob = world.last_sent(Method::get, "https://blob.example/");
  EXPECT_FALSE(blob.credential);
  EXPECT_FALSE(blob.session_token);
  EXPECT_TRUE(blob.headers.empty());
  for (const EventRecord& event : world.stored().events)
    EXPECT_EQ((event.message + event.payload.dump()).find("hidden"), std::string::npos) << event.message;
}

TEST(GithubWorkflow, AnImageOfThisCommitIsAdopted) {
  BuildWorld world;
  world.services.on(Method::get, "/manifests/sha-0123456789abcdef0123456789abcdef01234567",
                    [&](const HttpRequest&) { return served(world.index, index_type); });
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.status(), RunStatus::success);
  EXPECT_EQ(world.outcome()["adopted"], true);
  EXPECT_EQ(world.outcome()["digest"], world.built_digest());
  EXPECT_EQ(world.sent(Method::post, "/dispatches"), 0);

  BuildWorld forbidden;
  forbidden.services.on(Method::get, "/manifests/sha-",
                        [&](const HttpRequest&) { return served(forbidden.index, index_type); });
  forbidden.perform(BuildWorld::build_phase({{"github", {{"adopt", false}}}}));
  EXPECT_EQ(forbidden.status(), RunStatus::success);
  EXPECT_EQ(forbidden.sent(Method::post, "/dispatches"), 1);
  EXPECT_EQ(forbidden.sent(Method::get, "/manifests/sha-"), 0);
}

TEST(GithubWorkflow, ADeployWorkflowGetsTheDigestAndReadsNoRegistry) {
  BuildWorld world;
  world.perform(BuildWorld::build_phase({{"github", {{"role", "deploy"}, {"ref", "release"}}}}),
                {PhaseWorld::succeeded("github_workflow", {{"digest", some_digest('c')}})});
  ASSERT_EQ(world.status(), RunStatus::success) << world.failure().message;
  const Json dispatched = world.last_body(Method::post, "/dispatches");
  EXPECT_EQ(dispatched["ref"], "release");
  EXPECT_EQ(dispatched["inputs"]["digest"], some_digest('c'));
  EXPECT_FALSE(dispatched["inputs"].contains("image"));
  EXPECT_EQ(world.sent(Method::get, "/manifests/"), 0);

  BuildWorld without_image;
  without_image.perform(BuildWorld::build_phase({{"registry", nullptr}}));
  EXPECT_EQ(without_image.status(), RunStatus::success);
  EXPECT_FALSE(without_image.last_body(Method::post, "/dispatches")["inputs"].contains("digest"));
}

TEST(GithubWorkflow, RefusalsBeforeTheDispatch) {
  {
    BuildWorld world;
    world.services.on(Method::get, "/actions/workflows/build.yml$", {{"state", "disabled_manually"}});
    world.perform(BuildWorld::build_phase());
    EXPECT_EQ(world.code(), "workflow_disabled");
    EXPECT_EQ(world.sent(Method::post, "/dispatches"), 0);
  }
  for (const auto& [status, code] : {std::pair(404, "commit_unknown"), std::pair(422, "commit_unknown"),
                                     std::pair(403, "github_denied"), std::pair(410, "bad_response")}) {
    BuildWorld world;
    world.services.on(Method::get, "/commits/", {{"message", "no"}}, status);
    world.perform(BuildWorld::build_phase());
    EXPECT_EQ(world.code(), code) << status;
    EXPECT_EQ(world.sent(Method::post, "/dispatches"), 0);
  }
}

TEST(GithubWorkflow, ARefusedDispatchFailsWithTheServicesWords) {
  for (const auto& [status, code] : {std::pair(401, "github_denied"), std::pair(403, "github_denied"),
                                     std::pair(404, "github_not_found"), std::pair(422, "bad_response")}) {
    BuildWorld world;
    world.dispatch_answer = answer(status, {{"message", "No ref found for: main"}});
    world.perform(BuildWorld::build_phase());
    EXPECT_EQ(world.code(), code) << status;
    EXPECT_NE(world.failure().message.find("No ref found for: main"), std::string::npos);
    EXPECT_EQ(world.sent(Method::post, "/dispatches"), 1);
    EXPECT_EQ(world.stored().run.effects.at(0).state, EffectState::absent);
  }
}

TEST(GithubWorkflow, I22_ABranchThatLooksLikeACommitIsNone) {
  for (const char* found :
       {"fedcba9876543210fedcba9876543210fedcba98", "0123456789abcdef", "0123456789ABCDEF0123456789ABCDEF01234567",
        "0123456789abcdef0123456789abcdef01234567/..", "main"}) {
    BuildWorld world;
    world.services.on(Method::get, "/commits/", {{"sha", found}});
    world.perform(BuildWorld::build_phase());
    EXPECT_EQ(world.code(), "commit_unknown") << found;
    EXPECT_EQ(world.sent(Method::post, ""), 0) << found;
  }
  BuildWorld sha256;
  sha256.services.on(Method::get, "/commits/",
                     {{"sha", "0123456789abcdef0123456789abcdef01234567" + std::string(24, '0')}});
  sha256.perform(BuildWorld::build_phase());
  EXPECT_EQ(sha256.status(), RunStatus::success) << sha256.failure().message;
}

TEST(GithubWorkflow, I22_NamesOfBranchesStandInNoPath) {
  for (const char* ref :
       {"../../user", "a~1", "a^", "a b", "-f", "fedcba9876543210fedcba9876543210fedcba98", "a%2Fb"}) {
    BuildWorld world;
    world.queue(BuildWorld::build_phase());
    world.stored().run.facts.git_ref = ref;
    world.world.run_until_idle();
    EXPECT_EQ(world.status(), RunStatus::success) << ref << world.failure().message;
    EXPECT_EQ(world.last_body(Method::post, "/dispatches")["ref"], ref);
    for (const HttpRequest& request : world.world.transport.sent)
      EXPECT_EQ(request.url.find(ref), std::string::npos) << request.url;
  }
}

Json listed(const BuildWorld& world, std::int64_t id) {
  return {{"id", id}, {"display_title", "build 0123 [" + world.token + "]"}, {"html_url", "https://x"}};
}

TEST(GithubWorkflow, ADispatchWithoutDetailsIsFoundByItsToken) {
  BuildWorld world;
  world.dispatch_answer = answer(204);
  int searches = 0;
  world.services.on(Method::get, "/build.yml/runs", [&](const HttpRequest&) {
    Json runs{{{"id", 40}, {"display_title", "build 0123 [another]"}}, {{"id", 39}, {"display_title", nullptr}}};
    if (++searches > 3) runs.push_back(listed(world, BuildWorld::run_id));  // the list shows it late
    return answer(200, {{"workflow_runs", runs}});
  });
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.status(), RunStatus::success) << world.failure().message;
  EXPECT_EQ(world.outcome()["workflow_run_id"], 41);
  EXPECT_EQ(world.sent(Method::post, "/dispatches"), 1);
  EXPECT_NE(world.last_sent(Method::get, "/build.yml/runs").url.find("created=%3E%3D20"), std::string::npos);
}

TEST(GithubWorkflow, ARunThatNeverShowsIsNotDispatchedTwice) {
  BuildWorld world;
  world.dispatch_answer = answer(204);
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.code(), "run_not_found");
  EXPECT_EQ(world.sent(Method::post, "/dispatches"), 1);
}

TEST(GithubWorkflow, F54_ALostAnswerIsLookedForNotRepeated) {
  for (const HttpResponse& lost_answer :
       {lost(true), answer(502), answer(200, {{"workflow_run_id", "41"}}), answer(200)}) {
    BuildWorld world;
    world.dispatch_answer = lost_answer;
    world.services.on(Method::get, "/build.yml/runs", [&](const HttpRequest&) {
      return answer(200, {{"workflow_runs", {listed(world, BuildWorld::run_id)}}});
    });
    world.perform(BuildWorld::build_phase());
    EXPECT_EQ(world.status(), RunStatus::success) << world.failure().message;
    EXPECT_EQ(world.sent(Method::post, "/dispatches"), 1);
  }
}

TEST(GithubWorkflow, F55_F66_ADispatchThatIsProvenAbsentIsSentOnceMore) {
  BuildWorld world;
  int tries = 0;
  world.services.on(Method::post, "/dispatches", [&](const HttpRequest& request) {
    const std::string token = Json::parse(request.body)["inputs"]["run_token"];
    EXPECT_TRUE(world.token.empty() || world.token == token);  // the same key
    world.token = token;
    return ++tries == 1 ? lost(true) : world.dispatch_answer;
  });
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.status(), RunStatus::success) << world.failure().message;
  EXPECT_EQ(tries, 2);
  // The list may lag: absence is believed only after a while of looking.
  EXPECT_GE(world.sent(Method::get, "/build.yml/runs"), 4);
}

/// Two runs carry the token of a dispatch whose answer was lost; cancelling the younger one has that end.
class TwinWorld : public BuildWorld {
 public:
  TwinWorld(const std::string& status, const Json& conclusion, const Json& conclusion_after_cancel = "cancelled") {
    dispatch_answer = lost(true);
    younger = {status, conclusion};
    services.on(Method::get, "/build.yml/runs", [this](const HttpRequest&) {
      Json other = listed(*this, 43);
      other["status"] = younger[0];
      other["conclusion"] = younger[1];
      return answer(200, {{"workflow_runs", {other, listed(*this, run_id)}}});
    });
    services.on(Method::get, "/actions/runs/43$",
                [this](const HttpRequest&) { return answer(200, run(younger[0], younger[1], 43)); });
    services.on(Method::post, "/actions/runs/43/cancel", [this, conclusion_after_cancel](const HttpRequest&) {
      if (younger[0] == "completed") return answer(409);
      younger = {"completed", conclusion_after_cancel};
      return answer(202, Json::object());
    });
  }
  static PhaseFacts deploy_phase() { return build_phase({{"github", {{"role", "deploy"}}}, {"registry", nullptr}}); }
  bool waits_for_a_decision() {
    const auto is_open = [](const EffectRecord& effect) {
      return effect.key == "dispatch" && effect.state == EffectState::needs_decision;
    };
    return status() == RunStatus::waiting && std::ranges::any_of(stored().run.effects, is_open);
  }

  Json younger;
};

TEST(GithubWorkflow, I45_OfTwoBuildsTheOlderStaysWhenTheOtherCanBeStopped) {
  for (const auto& [state, conclusion] : {std::pair<const char*, Json>("queued", nullptr),
                                          {"in_progress", nullptr},
                                          {"completed", "cancelled"},
                                          {"completed", "failure"}}) {
    TwinWorld world(state, conclusion);
    world.perform(BuildWorld::build_phase());
    EXPECT_EQ(world.status(), RunStatus::success) << state << world.failure().message;
    EXPECT_EQ(world.outcome()["workflow_run_id"], 41);
    EXPECT_EQ(world.sent(Method::post, "/actions/runs/43/cancel"), 1);
    EXPECT_EQ(world.sent(Method::post, "/actions/runs/41/cancel"), 0);
    EXPECT_EQ(world.sent(Method::post, "/dispatches"), 1);
    EXPECT_TRUE(world.told("a second run with our token"));
  }
}

TEST(GithubWorkflow, I45_TwoRunsThatLeftSomethingNeedADecision) {
  TwinWorld built("completed", "success");
  built.perform(BuildWorld::build_phase());
  EXPECT_TRUE(built.waits_for_a_decision());
  EXPECT_TRUE(built.told("41 (unknown, no conclusion), 43 (completed, success)"));
  EXPECT_EQ(built.sent(Method::post, "/cancel$"), 0) << "nothing is stopped by chance";

  TwinWorld too_late("in_progress", nullptr, "success");
  too_late.perform(BuildWorld::build_phase());
  EXPECT_TRUE(too_late.waits_for_a_decision());

  for (const auto& [state, conclusion] :
       {std::pair<const char*, Json>("in_progress", nullptr), {"completed", "failure"}}) {
    TwinWorld deployed(state, conclusion);
    deployed.perform(TwinWorld::deploy_phase());
    EXPECT_TRUE(deployed.waits_for_a_decision()) << state;
    EXPECT_EQ(deployed.sent(Method::post, "/cancel$"), 0);
  }
  TwinWorld not_begun("queued", nullptr);
  not_begun.perform(TwinWorld::deploy_phase());
  EXPECT_EQ(not_begun.status(), RunStatus::success) << not_begun.failure().message;
  EXPECT_EQ(not_begun.sent(Method::post, "/actions/runs/43/cancel"), 1);
}

TEST(GithubWorkflow, I45_AlsoWhereTheDispatchWasAcceptedWithoutAName) {
  TwinWorld world("completed", "success");
  world.dispatch_answer = answer(204);
  world.perform(BuildWorld::build_phase());
  EXPECT_TRUE(world.waits_for_a_decision());
}

TEST(GithubWorkflow, I45_ADecisionThatNamesTheRunIsFollowed) {
  TwinWorld world("completed", "success");
  world.perform(BuildWorld::build_phase());
  ASSERT_TRUE(world.waits_for_a_decision());
  EffectRecord& dispatch = world.stored().run.effects.at(0);
  dispatch.state = EffectState::done;  // what ops.resolve_effect does
  dispatch.outcome = {{"workflow_run_id", 41}};
  world.stored().run.status = RunStatus::running;
  world.restart();
  world.world.run_until_idle();
  EXPECT_EQ(world.status(), RunStatus::success) << world.failure().message;
  EXPECT_EQ(world.sent(Method::post, "/dispatches"), 1);
}

TEST(GithubWorkflow, I45_ACancelStopsBothRuns) {
  TwinWorld world("completed", "success");
  world.perform(BuildWorld::build_phase());
  ASSERT_TRUE(world.waits_for_a_decision());
  world.services.on(Method::post, "/actions/runs/41/cancel", Json::object(), 202);
  world.services.on(Method::get, "/actions/runs/41$", BuildWorld::run("completed", "cancelled"));
  world.stored().run.status = RunStatus::running;
  world.stored().run.cancel_requested = true;
  world.restart();
  world.world.run_until_idle();
  EXPECT_EQ(world.status(), RunStatus::cancelled);
  EXPECT_TRUE(world.told("workflow run 41 ended as cancelled; workflow run 43 ended as success"));
}

TEST(GithubWorkflow, AFailedBuildNamesJobStepAndPage) {
  BuildWorld world;
  world.services.on(Method::get, "/actions/runs/41$", BuildWorld::run("completed", "failure"));
  world.services.on(Method::get, "/actions/runs/41/jobs",
                    {{"jobs",
                      {BuildWorld::job("completed", "success"), BuildWorld::job("completed", "skipped"),
                       BuildWorld::job("completed", "failure",
                                       {BuildWorld::step(1, "Checkout", "completed", "success"),
                                        BuildWorld::step(2, "Run tests", "completed", "failure")})}}});
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.code(), "build_failed");
  EXPECT_NE(world.failure().message.find("job build failure in step Run tests"), std::string::npos);
  EXPECT_NE(world.failure().message.find("/actions/runs/41/job/77"), std::string::npos);
  EXPECT_EQ(world.failure().payload["conclusion"], "failure");
}

TEST(GithubWorkflow, OnlyTheConclusionSuccessIsASuccess) {
  for (const Json& conclusion : {Json("cancelled"), Json("timed_out"), Json("neutral"), Json("skipped"), Json("stale"),
                                 Json("action_required"), Json("startup_failure"), Json("a new word"), Json()}) {
    BuildWorld world;
    world.services.on(Method::get, "/actions/runs/41$", BuildWorld::run("completed", conclusion));
    world.services.on(Method::get, "/actions/runs/41/jobs", {{"jobs", Json::array()}});
    world.perform(BuildWorld::build_phase());
    EXPECT_EQ(world.code(), "build_failed") << conclusion;
  }
}

TEST(GithubWorkflow, I47_UnknownAndBackwardStatusesMeanNotFinished) {
  BuildWorld world;
  world.services.on_each(Method::get, "/actions/runs/41$",
                         {answer(200, BuildWorld::run("in_progress")), answer(200, BuildWorld::run("queued")),
                          answer(200, BuildWorld::run("waiting")), answer(200, BuildWorld::run("hibernating")),
                          answer(200, BuildWorld::run("completed", "success"))});
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.status(), RunStatus::success) << world.failure().message;
  EXPECT_TRUE(world.told("waits for an approval"));
  EXPECT_TRUE(world.told("hibernating"));  // an unknown word is told
  EXPECT_EQ(world.sent(Method::get, "/actions/runs/41/jobs"), 2);
}

TEST(GithubWorkflow, I48_TimesOfTheServiceDecideNothing) {
  BuildWorld world;
  Json odd = BuildWorld::run("completed", "success");
  for (const char* name : {"created_at", "updated_at", "run_started_at"}) odd[name] = "2026-13-01T99:00:00";
  odd["created_at"] = 17;
  Json job = BuildWorld::job("completed", "success");
  job["started_at"] = "9999-01-01T00:00:00Z";
  job["completed_at"] = "1970-01-01";
  world.services.on(Method::get, "/actions/runs/41$", odd);
  world.services.on(Method::get, "/actions/runs/41/jobs", {{"jobs", {job}}});
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.status(), RunStatus::success) << world.failure().message;
}

TEST(GithubWorkflow, UnchangedAnswersAreAskedForByTheirTag) {
  BuildWorld world;
  int asked = 0;
  world.services.on(Method::get, "/actions/runs/41$", [&](const HttpRequest& request) {
    if (++asked == 1) return with_header(answer(200, BuildWorld::run("queued")), "ETag", "\"one\"");
    if (asked < 4) {
      EXPECT_EQ(header_of(request, "If-None-Match"), "\"one\"");
      return answer(304);
    }
    return answer(200, BuildWorld::run("completed", "success"));
  });
  world.services.on(Method::get, "/actions/runs/41/jobs", {{"jobs", {BuildWorld::job("completed", "success")}}});
  world.services.on(Method::get, "/actions/runs/41/artifacts", {{"artifacts", Json::array()}});
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.status(), RunStatus::success) << world.failure().message;
  EXPECT_EQ(asked, 4);
}

TEST(GithubWorkflow, F63_ARunThatWasSeenAndIsGoneFailsAtOnceAndOneThatIsLateIsWaitedFor) {
  BuildWorld late;
  late.services.on_each(Method::get, "/actions/runs/41$",
                        {answer(404), answer(404), answer(200, BuildWorld::run("completed", "success"))});
  late.perform(BuildWorld::build_phase());
  EXPECT_EQ(late.status(), RunStatus::success) << late.failure().message;

  BuildWorld gone;
  gone.services.on_each(Method::get, "/actions/runs/41$", {answer(200, BuildWorld::run("queued")), answer(404)});
  gone.perform(BuildWorld::build_phase());
  EXPECT_EQ(gone.code(), "gone");
  EXPECT_EQ(gone.sent(Method::get, "/actions/runs/41$"), 2);
}

TEST(GithubWorkflow, F50_ARefusedCredentialNamesAClockThatIsWrong) {
  BuildWorld world;
  world.services.on(Method::get, "/commits/", [](const HttpRequest&) {
    return with_header(answer(401, {{"message", "Bad credentials"}}), "Date", "Fri, 15 Jan 2027 07:00:00 GMT");
  });
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.code(), "github_denied");
  EXPECT_NE(world.failure().message.find("ahead of the service's clock"), std::string::npos);
}

}  // namespace
}  // namespace ops::test
