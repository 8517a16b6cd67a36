// What a finished build reports against what the registry holds (inputs I21, I30, I32, I46, I50).
#include <gtest/gtest.h>

#include "github_service.hpp"

namespace ops::test {
namespace {

TEST(BuildResult, BothSourcesOfTheDigestMustAgree) {
  BuildWorld world;
  world.result = {{"digest", some_digest('e')}};
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.code(), "digest_mismatch");
  EXPECT_NE(world.failure().message.find(some_digest('e')), std::string::npos);
  EXPECT_NE(world.failure().message.find(world.built_digest()), std::string::npos);
}

TEST(BuildResult, I46_ABuildOfAnotherCommitIsRefused) {
  BuildWorld world;
  world.result = {{"git_sha", "ffffffffffffffffffffffffffffffffffffffff"}};
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.code(), "wrong_commit");
}

TEST(BuildResult, I46_AnotherRunOrItsJobsAreRefused) {
  BuildWorld other_run;
  other_run.services.on(Method::get, "/actions/runs/41$", BuildWorld::run("completed", "success", 42));
  other_run.perform(BuildWorld::build_phase());
  EXPECT_EQ(other_run.code(), "bad_response");

  BuildWorld other_jobs;
  Json job = BuildWorld::job("completed", "success");
  job["run_id"] = 42;
  other_jobs.services.on(Method::get, "/actions/runs/41/jobs", {{"jobs", {job}}});
  other_jobs.perform(BuildWorld::build_phase());
  EXPECT_EQ(other_jobs.code(), "bad_response");
}

TEST(BuildResult, AnImageThatWasNotPushedFails) {
  BuildWorld world;
  world.services.on(Method::get, "/manifests/run-", Json::object(), 404);
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.code(), "image_missing");
  EXPECT_NE(world.failure().message.find("ghcr.io/acme/odoo:run-" + world.token), std::string::npos);
}

TEST(BuildResult, AnImageOfNoUsablePlatformFails) {
  BuildWorld world;
  Json index = image_index();
  index["manifests"][0]["platform"] = {{"os", "linux"}, {"architecture", "arm64"}};
  index["manifests"].push_back({{"digest", some_digest('d')}, {"size", 1}, {"platform", {{"os", "windows"}}}});
  world.index = index.dump();
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.code(), "image_unusable");
}

TEST(BuildResult, APlainManifestIsItsOwnPlatform) {
  BuildWorld world;
  world.index = R"({"schemaVersion": 2, "config": {}, "layers": []})";
  world.services.on(Method::get, "/manifests/run-",
                    [&](const HttpRequest&) { return served(world.index, manifest_type); });
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.outcome()["platform_digest"], world.built_digest());
}

TEST(BuildResult, WithoutAnArtifactTheRegistryDecides) {
  const auto digest_without = [](const std::function<void(BuildWorld&)>& change) {
    BuildWorld world;
    change(world);
    world.perform(BuildWorld::build_phase());
    EXPECT_EQ(world.status(), RunStatus::success) << world.failure().message;
    EXPECT_TRUE(world.told("the digest is taken from the registry alone"));
    return world.outcome()["digest"] == world.built_digest();
  };
  EXPECT_TRUE(digest_without([](BuildWorld& world) {
    world.services.on(Method::get, "/actions/runs/41/artifacts", {{"artifacts", Json::array()}});
  }));
  EXPECT_TRUE(digest_without([](BuildWorld& world) {
    world.services.on(Method::get, "/actions/runs/41/artifacts", [&](const HttpRequest&) {
      Json expired = world.artifact();
      expired["expired"] = true;
      Json other = world.artifact();
      other["name"] = "coverage";
      return answer(200, {{"artifacts", {expired, other}}});
    });
  }));
  EXPECT_TRUE(digest_without(
      [](BuildWorld& world) { world.services.on(Method::get, "/artifacts/7/zip", Json::object(), 410); }));
  EXPECT_TRUE(
      digest_without([](BuildWorld& world) { world.services.on(Method::get, "blob.example", Json::object(), 404); }));
}

TEST(BuildResult, TheArtifactOfTheNewestAttemptCounts) {
  BuildWorld world;
  world.services.on(Method::get, "/actions/runs/41/artifacts", [&](const HttpRequest&) {
    return answer(200, {{"artifacts", {world.artifact(6), world.artifact(7), world.artifact(5)}}});
  });
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.status(), RunStatus::success) << world.failure().message;
  EXPECT_EQ(world.sent(Method::get, "/actions/artifacts/7/zip"), 1);
}

TEST(BuildResult, I31_I36_AnUnreadableArtifactFails) {
  for (const char* text : {"", "not json", "[1]", "{\"digest\": 1"}) {
    BuildWorld world;
    world.result = nullptr;
    world.result_text = text;
    world.perform(BuildWorld::build_phase());
    EXPECT_EQ(world.code(), "bad_response") << text;
  }
  BuildWorld wrong_types;
  wrong_types.result = {{"git_sha", 17}};
  wrong_types.perform(BuildWorld::build_phase());
  EXPECT_EQ(wrong_types.code(), "bad_response");

  BuildWorld swapped;
  swapped.services.on(Method::get, "blob.example", [](const HttpRequest&) {
    HttpResponse response = answer(200);
    response.body = zip_of({{"result.json", "{}"}});
    return response;
  });
  swapped.perform(BuildWorld::build_phase());
  EXPECT_EQ(swapped.code(), "digest_mismatch");

  BuildWorld refused;
  refused.services.on(Method::get, "/artifacts/7/zip", {{"message", "no"}}, 403);
  refused.perform(BuildWorld::build_phase());
  EXPECT_EQ(refused.code(), "github_denied");
}

// Every answer of the build in a wrong shape: the phase fails and says why, nothing else happens.
TEST(BuildResult, I30_I32_AnswersOfTheWrongShapeAreNamed) {
  const std::vector<Json> shapes{nullptr, Json::object(), Json::array(), "text", 17, {{"message", "Server Error"}}};
  const struct {
    Method method;
    const char* part;
  } answers[] = {{Method::get, "/actions/workflows/build.yml$"},
                 {Method::get, "/actions/runs/41$"},
                 {Method::get, "/actions/runs/41/jobs"},
                 {Method::get, "/actions/runs/41/artifacts"},
                 {Method::get, "/manifests/run-"},
                 {Method::get, "/manifests/sha-"}};
  for (const auto& [method, part] : answers)
    for (const Json& shape : shapes) {
      BuildWorld world;
      HttpResponse given = answer(200);
      given.body = shape.is_null() ? "" : shape.dump();
      world.services.on(method, part, [given](const HttpRequest&) { return given; });
      world.perform(BuildWorld::build_phase());
      EXPECT_EQ(world.code(), "bad_response") << part << " " << given.body;
      EXPECT_LE(world.sent(Method::post, "/dispatches"), 1);
    }
}

TEST(BuildResult, I32_WrongFieldTypesAreNamed) {
  const std::vector<std::pair<const char*, Json>> wrong{
      {"id", "41"}, {"id", 41.0}, {"id", nullptr}, {"id", -41}, {"status", nullptr}, {"status", 3}, {"conclusion", 1}};
  for (const auto& [name, value] : wrong) {
    BuildWorld world;
    Json run = BuildWorld::run("completed", "success");
    run[name] = value;
    world.services.on(Method::get, "/actions/runs/41$", run);
    world.perform(BuildWorld::build_phase());
    EXPECT_EQ(world.code(), "bad_response") << name << " = " << value;
  }
  for (const auto& [name, value] : std::vector<std::pair<const char*, Json>>{{"id", "77"},
                                                                             {"id", 1e30},
                                                                             {"name", nullptr},
                                                                             {"status", 1},
                                                                             {"html_url", 5},
                                                                             {"steps", {1}},
                                                                             {"steps", {{{"number", "1"}}}}}) {
    BuildWorld world;
    Json job = BuildWorld::job("completed", "success");
    job[name] = value;
    world.services.on(Method::get, "/actions/runs/41/jobs", {{"jobs", {job}}});
    world.perform(BuildWorld::build_phase());
    EXPECT_EQ(world.code(), "bad_response") << name << " = " << value;
  }
}

TEST(BuildResult, I32_AnOddPageOfTheDispatchedRunDoesNotLoseTheRun) {
  BuildWorld world;
  world.dispatch_answer = answer(200, {{"workflow_run_id", 41}, {"html_url", 17}});
  world.perform(BuildWorld::build_phase());
  EXPECT_EQ(world.status(), RunStatus::success) << world.failure().message;
  EXPECT_EQ(world.sent(Method::post, "/dispatches"), 1);
}

}  // namespace
}  // namespace ops::test
