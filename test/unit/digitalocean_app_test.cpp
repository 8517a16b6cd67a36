// The phase that runs an image on App Platform, against a scripted service.
#include <gtest/gtest.h>

#include "app_platform_service.hpp"

namespace ops::test {
namespace {

class DigitaloceanApp : public ::testing::Test, public AppPlatformWorld {};

TEST_F(DigitaloceanApp, ChangesTheImageFollowsAndRemembersTheOldOne) {
  deploy();
  ASSERT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(outcome()["deployment_id"], "dep-1");
  EXPECT_EQ(outcome()["digest"], some_digest('a'));
  EXPECT_EQ(outcome()["previous"], Json::parse(R"({"odoo": "19.0-old", "cron": null})"));
  EXPECT_EQ(sent(Method::put, "/v2/apps/app-1$"), 1);
  EXPECT_TRUE(told("deployment step build: SUCCESS"));
  EXPECT_TRUE(told("deployment is ACTIVE"));
  EXPECT_EQ(last_sent(Method::put, "").credential->secret_name, "digitalocean");
}

TEST_F(DigitaloceanApp, NothingButTheImageAndOurMarkerChanges) {
  deploy();
  const Json put = last_body(Method::put, "/v2/apps/app-1$")["spec"];
  EXPECT_EQ(put, last_body(Method::post, "/propose$")["spec"]);
  EXPECT_EQ(put["services"][0]["image"], (Json{{"registry_type", "GHCR"},
                                               {"registry", "acme"},
                                               {"repository", "odoo"},
                                               {"digest", some_digest('a')},
                                               {"registry_credentials", "EV[1:abc]"}}));
  EXPECT_EQ(put["workers"][0]["image"]["digest"], some_digest('a'));
  Json expected = spec();
  for (const char* list : {"services", "workers"}) {
    Json& component = expected[list][0];
    component["image"] = put[list][0]["image"];
    if (!component.contains("envs")) component["envs"] = Json::array();
    component["envs"].push_back(put[list][0]["envs"].back());
    EXPECT_EQ(put[list][0]["envs"].back()["key"], "OPS_RUN_TOKEN");
    EXPECT_EQ(put[list][0]["envs"].back()["value"], outcome()["run_token"]);
  }
  EXPECT_EQ(put, expected);
}

TEST_F(DigitaloceanApp, TheMarkerOfAnEarlierRunIsReplaced) {
  app_spec["services"][0]["envs"].push_back({{"key", "OPS_RUN_TOKEN"}, {"value", "an earlier run"}});
  app_spec["services"][0]["image"] = {{"digest", some_digest('7')}};
  deploy();
  const Json envs = last_body(Method::put, "")["spec"]["services"][0]["envs"];
  EXPECT_EQ(envs.size(), 2u);
  EXPECT_EQ(envs[1]["value"], outcome()["run_token"]);
  EXPECT_EQ(outcome()["previous"]["odoo"], some_digest('7'));
}

TEST_F(DigitaloceanApp, TheDigestComesFromTheBuildOrFromTheRequest) {
  deploy({{"digitalocean", {{"deploy_digest", "platform"}}}});
  EXPECT_EQ(outcome()["digest"], some_digest('b'));

  const auto given = [this](const Json& metadata) {
    queue(phase_facts());
    stored().run.facts.metadata = metadata;
    world.run_until_idle();
    return status() == RunStatus::success ? outcome()["digest"].get<std::string>() : code();
  };
  EXPECT_EQ(given({{"digest", some_digest('c')}}), some_digest('c'));
  for (const Json& metadata : {Json::object(), Json{{"digest", "sha256:00"}}, Json{{"digest", "latest"}},
                               Json{{"digest", 7}}, Json{{"digest", "sha512:" + std::string(64, 'a')}}})
    EXPECT_EQ(given(metadata), "digest_unknown") << metadata;  // I21
}

TEST_F(DigitaloceanApp, I46_AnotherAppOrDeploymentIsRefused) {
  services.on(Method::get, "/v2/apps/app-1$", {{"app", {{"id", "app-2"}, {"spec", spec()}}}});
  deploy();
  EXPECT_EQ(code(), "bad_response");
  EXPECT_EQ(sent(Method::put, ""), 0);

  AppPlatformWorld other;
  other.services.on(Method::get, "/deployments/dep-1$", {{"deployment", {{"id", "dep-2"}, {"phase", "ACTIVE"}}}});
  other.deploy();
  EXPECT_EQ(other.code(), "bad_response");
}

TEST_F(DigitaloceanApp, AnUnknownComponentNamesThoseThereAre) {
  deploy({{"digitalocean", {{"components", {"odoo", "web"}}}}});
  EXPECT_EQ(code(), "component_unknown");
  EXPECT_NE(failure().payload["hint"].get<std::string>().find("odoo, cron"), std::string::npos);
  EXPECT_EQ(sent(Method::put, ""), 0);
}

TEST_F(DigitaloceanApp, ADeploymentOfSomebodyElseIsWaitedFor) {
  int reads = 0;
  services.on(Method::get, "/v2/apps/app-1$", [&](const HttpRequest&) {
    Json app = app_answer();
    ++reads;
    const char* member = reads == 1 ? "pending_deployment" : "in_progress_deployment";
    if (reads < 3) app["app"][member] = {{"id", "other"}, {"phase", "DEPLOYING"}, {"spec", spec()}};
    if (reads == 3) app["app"][member] = {{"id", "other"}, {"phase", "ERROR"}, {"spec", spec()}};
    EXPECT_EQ(sent(Method::put, ""), 0);
    return answer(200, app);
  });
  deploy();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_TRUE(told("waiting for another deployment"));
  EXPECT_EQ(sent(Method::put, ""), 1);
}

TEST_F(DigitaloceanApp, EndingsThatAreNoSuccess) {
  for (const auto& [phase, expected] :
       {std::pair("ERROR", "deployment_failed"), std::pair("CANCELED", "deployment_cancelled"),
        std::pair("SUPERSEDED", "deployment_superseded")}) {
    AppPlatformWorld ended;
    ended.phases = {"BUILDING", phase};
    ended.deploy();
    EXPECT_EQ(ended.code(), expected);
    EXPECT_EQ(ended.failure().payload["deployment_id"], "dep-1");
  }
}

TEST_F(DigitaloceanApp, TheDeepestReasonIsTold) {
  phases = {"ERROR"};
  steps = Json::parse(R"([{"name": "build", "status": "SUCCESS"},
      {"name": "deploy", "status": "ERROR", "steps": [
         {"name": "odoo", "component_name": "odoo", "status": "ERROR",
          "reason": {"code": "DeployContainerExitNonZero", "message": "exit 1"}},
         {"status": "ERROR"}, {"name": "later", "status": "PENDING"}]}])");
  deploy();
  EXPECT_EQ(code(), "deployment_failed");
  EXPECT_NE(failure().message.find("in deploy/odoo: DeployContainerExitNonZero: exit 1"), std::string::npos)
      << failure().message;
  EXPECT_FALSE(told("later"));
}

TEST_F(DigitaloceanApp, I47_UnknownWordsMeanNotFinishedAndActiveStays) {
  phases = {"UNKNOWN", "HIBERNATING", "DEPLOYING", "BUILDING", "ACTIVE"};
  deploy();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_TRUE(told("deployment is HIBERNATING"));
}

TEST_F(DigitaloceanApp, ADeploymentThatWasActiveMayBeReplacedBeforeARestart) {
  queue(phase_facts(), {built()});
  world.run_until_idle([this] { return sent(Method::get, "/deployments/dep-1$") > 0; });
  stored().run.phases.back().remembered["was_active"] = true;
  phases = {"SUPERSEDED"};
  restart();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(sent(Method::put, ""), 1);
}

TEST_F(DigitaloceanApp, I48_TimesOfTheServiceDecideNothing) {
  steps =
      Json::parse(R"([{"name": "build", "status": "SUCCESS", "started_at": "0001-01-01T00:00:00Z", "ended_at": 7}])");
  deploy();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
}

TEST_F(DigitaloceanApp, F54_ALostAnswerToThePutIsLookedFor) {
  for (const HttpResponse& given : {lost(true), answer(504), answer(200), answer(200, {{"app", {{"id", "app-1"}}}})}) {
    AppPlatformWorld lossy;
    lossy.answer_to_put = given;
    lossy.deploy();
    EXPECT_EQ(lossy.status(), RunStatus::success) << lossy.failure().message;
    EXPECT_EQ(lossy.sent(Method::put, ""), 1);
    EXPECT_EQ(lossy.outcome()["deployment_id"], "dep-1");
  }
}

TEST_F(DigitaloceanApp, F54_TheDeploymentMayHaveEndedInTheMeantime) {
  answer_to_put = lost(true);
  shown_in_app = false;
  deploy();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(sent(Method::put, ""), 1);
  EXPECT_EQ(sent(Method::get, "/deployments?"), 1);
}

TEST_F(DigitaloceanApp, F55_APutThatReachedNobodyIsSentOnceMore) {
  lost_puts = 1;  // the first one is lost on its way
  deploy();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(sent(Method::put, ""), 2);
}

TEST_F(DigitaloceanApp, ASpecOfOursWithoutDeploymentIsNotSentAgain) {
  answer_to_put = lost(true);
  shown_in_app = false;
  services.on(Method::get, "/deployments?", {{"deployments", Json::array()}});
  deploy();
  EXPECT_EQ(code(), "deployment_not_found");
  EXPECT_EQ(sent(Method::put, ""), 1);
}

TEST_F(DigitaloceanApp, I45_OfTwoDeploymentsWithOurMarkerTheOneThatCountsIsFollowed) {
  answer_to_put = lost(true);
  shown_in_app = false;
  for (const char* other : {"SUPERSEDED", "CANCELED", "ERROR"}) {
    services.on(Method::get, "/deployments?", [&](const HttpRequest&) {
      const Json newer{{"id", "dep-2"}, {"phase", other}, {"spec", app_spec}};
      const Json ours{{"id", "dep-1"}, {"phase", "BUILDING"}, {"spec", app_spec}};
      return answer(200, {{"deployments", {newer, ours}}});
    });
    deploy();
    EXPECT_EQ(status(), RunStatus::success) << failure().message;
    EXPECT_EQ(outcome()["deployment_id"], "dep-1");
  }
}

TEST_F(DigitaloceanApp, I45_TwoDeploymentsWithOurMarkerNeedADecision) {
  answer_to_put = lost(true);
  for (const char* older : {"ACTIVE", "DEPLOYING", "A_NEW_WORD"}) {
    services.on(Method::get, "/deployments?", [&](const HttpRequest&) {
      const Json newer{{"id", "dep-2"}, {"phase", "PENDING_DEPLOY"}, {"spec", app_spec}};
      const Json ours{{"id", "dep-1"}, {"phase", older}, {"spec", app_spec}};
      return answer(200, {{"deployments", {newer, ours}}});
    });
    deployed = false;
    deploy();
    EXPECT_EQ(status(), RunStatus::waiting);
    EXPECT_EQ(stored().run.effects.at(0).state, EffectState::needs_decision);
    EXPECT_TRUE(told("several deployments with our marker"));
    EXPECT_TRUE(told("dep-2 (PENDING_DEPLOY)"));
  }
}

TEST_F(DigitaloceanApp, RefusalsAreNamed) {
  for (const auto& [refusal, expected] :
       {std::pair(401, "digitalocean_denied"), std::pair(403, "digitalocean_denied"),
        std::pair(404, "digitalocean_not_found"), std::pair(422, "digitalocean_rejected")}) {
    for (const auto& [method, part] : {std::pair(Method::get, "/v2/apps/app-1$"), std::pair(Method::post, "/propose$"),
                                       std::pair(Method::put, "/v2/apps/app-1$")}) {
      AppPlatformWorld refusing;
      refusing.services.on(method, part, {{"id", "x"}, {"message", "spec is not valid"}, {"request_id", "r-1"}},
                           refusal);
      refusing.deploy();
      EXPECT_EQ(refusing.code(), expected) << part;
      EXPECT_NE(refusing.failure().message.find("spec is not valid"), std::string::npos);
      EXPECT_EQ(refusing.failure().payload["request_id"], "r-1");
      EXPECT_LE(refusing.sent(Method::put, ""), 1);
    }
  }
}

TEST_F(DigitaloceanApp, I30_I32_AnswersOfTheWrongShapeAreNamed) {
  for (const char* part : {"/v2/apps/app-1$", "/deployments/dep-1$"})
    for (const Json& shape : {Json(), Json::object(), Json::array(), Json("text"), Json{{"app", 1}, {"deployment", 1}},
                              Json{{"app", {{"id", 1}}}, {"deployment", {{"id", 1}}}},
                              Json{{"app", {{"id", "app-1"}}}, {"deployment", {{"id", "dep-1"}, {"phase", 3}}}}}) {
      AppPlatformWorld odd;
      odd.services.on(Method::get, part, [&](const HttpRequest&) {
        HttpResponse response = answer(200);
        response.body = shape.is_null() ? "" : shape.dump();
        return response;
      });
      odd.deploy();
      EXPECT_EQ(odd.code(), "bad_response") << part << " " << shape;
    }
}

TEST_F(DigitaloceanApp, F63_ADeploymentThatIsGoneFails) {
  services.on_each(Method::get, "/deployments/dep-1$",
                   {answer(200, {{"deployment", {{"id", "dep-1"}, {"phase", "BUILDING"}}}}), answer(404)});
  deploy();
  EXPECT_EQ(code(), "gone");
}

TEST_F(DigitaloceanApp, F66_ADeploymentThatIsShownLateIsWaitedFor) {
  answer_to_put = lost(true);
  shown_in_app = false;
  int lists = 0;
  services.on(Method::get, "/deployments?", [&](const HttpRequest&) {
    Json list = Json::array();
    if (++lists > 2) list.push_back({{"id", "dep-1"}, {"spec", app_spec}});
    return answer(200, {{"deployments", list}});
  });
  deploy();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(sent(Method::put, ""), 1);
}

}  // namespace
}  // namespace ops::test
