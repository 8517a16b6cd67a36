// Definitions: environments, metadata, pipelines, durations, typos (inputs I07 to I09, I14, I17, I20).
#include "core/pipeline.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <string>

namespace ops {
namespace {

using namespace std::chrono_literals;

const PhaseCatalog catalog({
    {"github_workflow", {"github", "registry"}, 2h, nullptr, nullptr},
    {"digitalocean_app", {"digitalocean", "registry"}, 45min, nullptr, nullptr},
    {"odoo_smoke", {"smoke"}, 15min, nullptr, nullptr},
    {"capture", {"github", "registry", "storage"}, 30min, nullptr, nullptr},
});

/// The example of the documentation.
Json full_config() {
  return Json::parse(R"({
    "url": "https://staging.acme.example",
    "github": {"api_url": "https://api.github.com", "workflow": "build.yml", "ref": "main", "inputs": {"odoo": "19.0"},
               "credential": "github", "auth": "app", "installation_id": 7, "poll_interval": "10 s", "adopt": false,
               "role": "build"},
    "registry": {"url": "https://ghcr.io", "image": "acme/odoo", "credential": "ghcr"},
    "digitalocean": {"api_url": "https://api.digitalocean.com", "app_id": "4f6c-11", "components": ["odoo"],
                     "credential": "digitalocean", "poll_interval": "5 s", "deploy_digest": "platform"},
    "smoke": {"timeout": "5 min", "interval": "5 s", "consecutive_passes": 2,
              "checks": [{"path": "/shop", "status": 200, "contains": "Add to cart", "max_ms": 2000}]},
    "storage": {"kind": "s3", "endpoint": "https://fra1.digitaloceanspaces.com", "region": "fra1", "bucket": "acme-ops",
                "prefix": "runs", "credential": "spaces"},
    "max_active_runs": 1,
    "phases": null
  })");
}

std::string shown(const std::optional<DefinitionError>& error) {
  return error ? error->path + ": " + error->message + " | " + error->hint : "";
}
std::string environment_error(const std::string& config) {
  return shown(check_environment_config(Json::parse(config), catalog));
}
/// The error of the documented config with one member replaced.
std::string error_with(const std::string& pointer, const Json& value) {
  Json config = full_config();
  config[Json::json_pointer(pointer)] = value;
  return shown(check_environment_config(config, catalog));
}
std::string pipeline_error(const std::string& phases) {
  return shown(check_pipeline(Json::parse(phases), "$.phases", catalog));
}

TEST(EnvironmentConfig, TakesTheDocumentedExample) {
  EXPECT_EQ(shown(check_environment_config(full_config(), catalog)), "");
  EXPECT_EQ(environment_error("{}"), "");
}

TEST(EnvironmentConfig, I08_WantsObjects) {
  for (const char* config : {"null", "[]", "1", "\"x\""})
    EXPECT_TRUE(environment_error(config).starts_with("$: config must be an object")) << config;
  EXPECT_EQ(environment_error(R"({"github": []})"), "$.github: must be an object | Found array.");
  EXPECT_EQ(environment_error(R"({"smoke": {"checks": [1]}})"), "$.smoke.checks[0]: must be an object | Found number.");
}

TEST(EnvironmentConfig, I09_NamesTheNearestKey) {
  EXPECT_EQ(environment_error(R"({"gitub": {}})"), "$.gitub: unknown key \"gitub\" | Did you mean \"github\"?");
  EXPECT_EQ(environment_error(R"({"github": {"workflw": "b.yml"}})"),
            "$.github.workflw: unknown key \"workflw\" | Did you mean \"workflow\"?");
  EXPECT_EQ(environment_error(R"({"smoke": {"timout": "5 min"}})"),
            "$.smoke.timout: unknown key \"timout\" | Did you mean \"timeout\"?");
  EXPECT_EQ(environment_error(R"({"registry": {"kubernetes": 1}})"),
            "$.registry.kubernetes: unknown key \"kubernetes\" | Known keys are url, image, credential.");
  EXPECT_EQ(environment_error(R"({"smoke": {"checks": [{"path": "/", "stats": 200}]}})"),
            "$.smoke.checks[0].stats: unknown key \"stats\" | Did you mean \"status\"?");
}

TEST(EnvironmentConfig, I03_ShowsHostileKeysCleaned) {
  EXPECT_EQ(
      shown(check_environment_config({{std::string("a\x1B[2J\n") + std::string(200, 'x'), 1}}, catalog)).find('\x1B'),
      std::string::npos);
}

TEST(EnvironmentConfig, ChecksEveryValue) {
  const std::vector<std::pair<std::string, std::vector<Json>>> wrong{
      {"/url", {nullptr, 1, "", "staging.acme.example", "https://x/?a=b"}},
      {"/max_active_runs", {0, 101, -1, 1.5, "2", nullptr, 1e30}},
      {"/phases", {Json::object(), "x", Json::array()}},
      {"/github/api_url", {"ftp://x", true}},
      {"/github/workflow", {"", "../x.yml", "a b.yml", 17, std::string(201, 'w'), ".", ".."}},  // I22
      {"/digitalocean/app_id", {"", "..", "a/b", "a~b"}},
      {"/github/ref", {"",   "a b", "a..b", "-a", "/a",  "a/",   "a//b", ".a",     "a/.b",     "a.",   "a~1",
                       "a^", "a:b", "a?",   "a*", "a[b", "a\\b", "a@{b", "a.lock", "a.lock/b", "a\nb", "a\x7f"}},
      {"/github/ref", {"", "a\nb", 1, std::string(256, 'r')}},
      {"/github/inputs", {"x", {{"a", 1}}, Json::array()}},
      {"/github/auth", {"oauth", 1}},
      {"/github/installation_id", {"7", 0, -3, 1.0}},
      {"/github/poll_interval", {"0 s", "soon", 5, "36 d"}},
      {"/github/adopt", {"yes", 1}},
      {"/github/role", {"test"}},
      {"/registry/image", {"Acme/odoo", "acme/odoo:19", "acme/odoo@sha256:00", "/odoo", "a//b", "../x", ""}},
      {"/digitalocean/app_id", {"", "a/b", 4}},
      {"/digitalocean/components", {"odoo", Json::array(), {"a b"}, {1}}},
      {"/digitalocean/deploy_digest", {"both"}},
      {"/smoke/timeout", {"", "5 parsecs", 300}},
      {"/smoke/consecutive_passes", {0, 101, "2"}},
      {"/smoke/checks", {"x", Json::object()}},
      {"/smoke/checks/0/path", {"shop", "", "/a\r\nHost: b"}},
      {"/smoke/checks/0/status", {99, 600, "200"}},
      {"/smoke/checks/0/contains", {"", 1}},
      {"/smoke/checks/0/max_ms", {0, 600'001}},
      {"/storage/kind", {"ftp"}},
      {"/storage/endpoint", {"s3://bucket"}},
      {"/storage/bucket", {"a/b", ""}},
      {"/storage/prefix", {"../up", "a b"}},
  };
  for (const auto& [pointer, values] : wrong)
    for (const Json& value : values) {
      const std::string error = error_with(pointer, value);
      EXPECT_NE(error, "") << pointer << " = " << value;
    }
}

TEST(EnvironmentConfig, CredentialsAreNames) {
  for (const char* section : {"/github", "/registry", "/digitalocean", "/storage"}) {
    const std::string pointer = std::string(section) + "/credential";
    for (const char* wrong : {"", "a/b", "../x", ".hidden", "with space", "ghp_x y"})
      EXPECT_NE(error_with(pointer, wrong), "") << wrong;
    EXPECT_NE(error_with(pointer, std::string(65, 'c')), "");
    EXPECT_EQ(error_with(pointer, std::string(64, 'c')), "");
    EXPECT_NE(error_with(pointer, "ghp_0123456789abcdefghijABCDEFGHIJ456789"), "");
  }
}

TEST(EnvironmentConfig, I16_ShowsAndTakesNoSecrets) {
  EXPECT_EQ(error_with("/url", "https://user:hunter2@odoo.example").find("hunter2"), std::string::npos);
  EXPECT_EQ(error_with("/github/credential", "ghp_0123456789abcdefghijABCDEFGHIJ456789").find("ghp_01"),
            std::string::npos);
  EXPECT_NE(error_with("/github/inputs", {{"api_key", "x"}}), "");
  EXPECT_NE(error_with("/github/inputs", {{"note", "ghp_0123456789abcdefghijABCDEFGHIJ456789"}}), "");
}

TEST(EnvironmentConfig, A_CheckNamesItsPath) {
  EXPECT_EQ(environment_error(R"({"smoke": {"checks": [{"path": "/"}, {"status": 200}]}})"),
            "$.smoke.checks[1].path: is missing | A check names the path it requests.");
}

TEST(Pipeline, I09_ChecksKeysNamesAndKinds) {
  EXPECT_EQ(pipeline_error(R"([{"name": "a", "kind": "capture", "need": []}])"),
            "$.phases[0].need: unknown key \"need\" | Did you mean \"needs\"?");
  EXPECT_EQ(pipeline_error(R"([{"name": "a", "kind": "odo_smoke"}])"),
            "$.phases[0].kind: unknown kind \"odo_smoke\" | Did you mean \"odoo_smoke\"?");
  EXPECT_EQ(pipeline_error(R"([{"name": "a", "kind": "kubernetes"}])"),
            "$.phases[0].kind: unknown kind \"kubernetes\" | Known kinds are github_workflow, digitalocean_app, "
            "odoo_smoke, capture.");
  EXPECT_EQ(pipeline_error(R"([{"name": "a", "kind": "capture"}, {"name": "a", "kind": "capture"}])"),
            "$.phases[1].name: the name \"a\" is used twice | Names are unique in a pipeline.");
  for (const char* wrong : {R"({})",
                            R"([])",
                            R"([1])",
                            R"([{}])",
                            R"([{"name": "a"}])",
                            R"([{"kind": "capture"}])",
                            R"([{"name": "A", "kind": "capture"}])",
                            R"([{"name": "a b", "kind": "capture"}])",
                            R"([{"name": "", "kind": "capture"}])",
                            R"([{"name": 1, "kind": "capture"}])",
                            R"([{"name": "a", "kind": 1}])",
                            R"([{"name": "a", "kind": "capture", "timeout": 30}])",
                            R"([{"name": "a", "kind": "capture", "timeout": "-1 s"}])",
                            R"([{"name": "a", "kind": "capture", "config": []}])",
                            R"([{"name": "a", "kind": "capture", "needs": "b"}])",
                            R"([{"name": "a", "kind": "capture", "needs": [1]}])",
                            R"([{"name": "a", "kind": "capture", "when": []}])",
                            R"([{"name": "a", "kind": "capture", "when": {"branch": "x"}}])",
                            R"([{"name": "a", "kind": "capture", "when": {"env_type": 1}}])",
                            R"([{"name": "a", "kind": "capture", "when": {"env_type": [1]}}])"})
    EXPECT_NE(pipeline_error(wrong), "") << wrong;
}

TEST(Pipeline, I09_ChecksTheConfigOfAPhase) {
  EXPECT_EQ(pipeline_error(R"([{"name": "b", "kind": "github_workflow", "config": {"github": {"workflw": "x.yml"}}}])"),
            "$.phases[0].config.github.workflw: unknown key \"workflw\" | Did you mean \"workflow\"?");
  EXPECT_EQ(pipeline_error(R"([{"name": "b", "kind": "github_workflow", "config": {"smoke": {}}}])"),
            "$.phases[0].config.smoke: unknown key \"smoke\" | Known keys are url, github, registry.");
  EXPECT_NE(pipeline_error(R"([{"name": "b", "kind": "odoo_smoke", "config": {"url": "no"}}])"), "");
  EXPECT_EQ(
      pipeline_error(R"([{"name": "b", "kind": "odoo_smoke", "config": {"url": "https://x.example", "smoke": null}}])"),
      "");
}

TEST(Pipeline, I17_RefusesNeedsThatCannotBeMet) {
  EXPECT_EQ(pipeline_error(R"([{"name": "a", "kind": "capture", "needs": ["a"]}])"),
            "$.phases[0].needs: phase \"a\" needs itself | Remove it from needs.");
  EXPECT_EQ(
      pipeline_error(R"([{"name": "build", "kind": "capture"}, {"name": "b", "kind": "capture", "needs": ["biuld"]}])"),
      "$.phases[1].needs: unknown phase \"biuld\" | Did you mean \"build\"?");
  EXPECT_TRUE(pipeline_error(R"([{"name": "a", "kind": "capture", "needs": ["c"]}, {"name": "b", "kind": "capture"},
                                 {"name": "c", "kind": "capture", "needs": ["b"]}])")
                  .find("circle") != std::string::npos);
}

std::string chain(int phases, bool reversed) {
  Json list = Json::array();
  for (int i = 0; i < phases; ++i) {
    Json phase = {{"name", "p" + std::to_string(i)}, {"kind", "capture"}, {"needs", Json::array()}};
    if (i > 0) phase["needs"].push_back("p" + std::to_string(i - 1));
    list.push_back(phase);
  }
  if (reversed) std::reverse(list.begin(), list.end());
  return list.dump();
}

TEST(Pipeline, I17_TakesAtMost500Phases) {
  EXPECT_EQ(pipeline_error(chain(500, false)), "");
  EXPECT_EQ(pipeline_error(chain(500, true)), "");
  EXPECT_EQ(pipeline_error(chain(501, false)), "$.phases: has 501 phases | The limit is 500.");
  EXPECT_EQ(pipeline_error(chain(10'000, false)), "$.phases: has 10000 phases | The limit is 500.");
}

TEST(RunMetadata, IsAnObjectWithAPipelineThatHolds) {
  EXPECT_EQ(shown(check_run_metadata({{"ticket", 17}}, catalog)), "");
  EXPECT_EQ(shown(check_run_metadata(Json::array(), catalog)), "$: metadata must be an object | Found array.");
  EXPECT_EQ(shown(check_run_metadata({{"phases", {{{"name", "a"}, {"kind", "x"}}}}}, catalog)).substr(0, 18),
            "$.phases[0].kind: ");
}

Plan plan(const Json& config, const Json& metadata = Json::object(), std::string_view env_type = "staging",
          std::string_view git_ref = "main") {
  return plan_phases(config, metadata, env_type, git_ref, catalog);
}
std::vector<std::string> names(const Plan& made) {
  std::vector<std::string> all;
  for (const PhaseFacts& phase : made.phases) all.push_back(phase.name);
  return all;
}

TEST(PlanPhases, DefaultsToTheFourPhases) {
  const Plan made = plan(full_config());
  ASSERT_EQ(shown(made.error), "");
  EXPECT_EQ(names(made),
            (std::vector<std::string>{"build_image", "deploy_runtime", "smoke_tests", "capture_artifacts"}));
  EXPECT_EQ(made.phases[0].needs, std::vector<std::string>{});
  EXPECT_EQ(made.phases[3].needs, std::vector<std::string>{"smoke_tests"});
  EXPECT_EQ(made.phases[3].phase_no, 4);
  EXPECT_EQ(made.phases[0].timeout, Millis(2h));
  EXPECT_EQ(made.phases[0].state, PhaseState::pending);
}

TEST(PlanPhases, FreezesTheSectionsThatTheKindReads) {
  const Plan made = plan(full_config());
  ASSERT_EQ(made.phases.size(), 4u);
  const Json& build = made.phases[0].config;
  EXPECT_EQ(build["url"], "https://staging.acme.example");
  EXPECT_EQ(build["github"]["workflow"], "build.yml");
  EXPECT_TRUE(build.contains("registry"));
  EXPECT_FALSE(build.contains("digitalocean"));
  EXPECT_FALSE(build.contains("max_active_runs"));
  EXPECT_TRUE(made.phases[3].config.contains("storage"));
}

TEST(PlanPhases, LaysThePhasesKeysOverTheEnvironments) {
  const Plan made = plan(full_config(), Json::parse(R"({"phases": [
      {"name": "deploy", "kind": "github_workflow", "timeout": "90 s",
       "config": {"github": {"workflow": "deploy.yml", "role": "deploy", "ref": null}}}]})"));
  ASSERT_EQ(shown(made.error), "");
  EXPECT_EQ(made.phases[0].config["github"]["workflow"], "deploy.yml");
  EXPECT_EQ(made.phases[0].config["github"]["credential"], "github");
  EXPECT_FALSE(made.phases[0].config["github"].contains("ref"));
  EXPECT_EQ(made.phases[0].timeout, Millis(90s));
}

TEST(PlanPhases, TheRunsPhasesComeBeforeTheEnvironments) {
  Json config = full_config();
  config["phases"] = Json::parse(R"([{"name": "of_environment", "kind": "odoo_smoke"}])");
  EXPECT_EQ(names(plan(config)), std::vector<std::string>{"of_environment"});
  EXPECT_EQ(names(plan(config, Json::parse(R"({"phases": [{"name": "of_run", "kind": "odoo_smoke"}]})"))),
            std::vector<std::string>{"of_run"});
}

TEST(PlanPhases, WithoutNeedsAPhaseNeedsTheOneBefore) {
  const Plan made = plan(full_config(), Json::parse(R"({"phases": [
      {"name": "last", "kind": "capture", "needs": ["left", "right"]},
      {"name": "left", "kind": "odoo_smoke", "needs": []},
      {"name": "right", "kind": "odoo_smoke"}]})"));
  ASSERT_EQ(shown(made.error), "");
  EXPECT_EQ(names(made), (std::vector<std::string>{"left", "right", "last"}));
  EXPECT_EQ(made.phases[1].needs, std::vector<std::string>{"left"});
  EXPECT_EQ(made.phases[2].phase_no, 3);
}

TEST(PlanPhases, WhenDecidesWhatIsSkipped) {
  const Json metadata = Json::parse(R"({"phases": [
      {"name": "a", "kind": "odoo_smoke", "when": {"env_type": ["staging", "prod"], "git_ref": "main"}},
      {"name": "b", "kind": "odoo_smoke", "when": {"env_type": "prod"}}]})");
  const auto states = [&](std::string_view env_type, std::string_view git_ref) {
    const Plan made = plan(full_config(), metadata, env_type, git_ref);
    return std::pair(made.phases.at(0).state, made.phases.at(1).state);
  };
  EXPECT_EQ(states("staging", "main"), std::pair(PhaseState::pending, PhaseState::skipped));
  EXPECT_EQ(states("prod", "main"), std::pair(PhaseState::pending, PhaseState::pending));
  EXPECT_EQ(states("prod", "v1"), std::pair(PhaseState::skipped, PhaseState::pending));
  EXPECT_EQ(states("dev", "main"), std::pair(PhaseState::skipped, PhaseState::skipped));
}

TEST(PlanPhases, SaysWhichKeyIsMissing) {
  const std::vector<std::pair<std::string, std::string>> required{
      {"/github/workflow", "$.github.workflow"},
      {"/digitalocean/app_id", "$.digitalocean.app_id"},
      {"/digitalocean/components", "$.digitalocean.components"},
      {"/registry/image", "$.registry.image"},
      {"/url", "$.url"},
      {"/storage/endpoint", "$.storage.endpoint"},
      {"/storage/bucket", "$.storage.bucket"}};
  for (const auto& [pointer, path] : required) {
    Json config = full_config();
    Json& section = config[Json::json_pointer(pointer).parent_pointer()];
    section.erase(Json::json_pointer(pointer).back());
    const Plan made = plan(config);
    ASSERT_TRUE(made.error.has_value()) << pointer;
    EXPECT_EQ(made.error->path, path);
    EXPECT_EQ(made.error->message, "is missing");
    EXPECT_NE(made.error->hint.find("Phase \""), std::string::npos);
  }
  Json without_storage = full_config();
  without_storage.erase("storage");
  EXPECT_EQ(shown(plan(without_storage).error), "");
}

TEST(PlanPhases, AsksNothingOfAPhaseThatIsSkipped) {
  EXPECT_EQ(shown(plan(Json::object(), Json::parse(R"({"phases": [
      {"name": "a", "kind": "odoo_smoke", "when": {"env_type": "prod"}}]})"))
                      .error),
            "");
}

TEST(ParseDuration, I07_ReadsUnitsInRange) {
  EXPECT_EQ(parse_duration("90"), 90s);
  EXPECT_EQ(parse_duration("90 s"), 90s);
  EXPECT_EQ(parse_duration("5 min"), 5min);
  EXPECT_EQ(parse_duration("5min"), 5min);
  EXPECT_EQ(parse_duration("5 minutes"), 5min);
  EXPECT_EQ(parse_duration("1 h"), 1h);
  EXPECT_EQ(parse_duration("250 ms"), 250ms);
  EXPECT_EQ(parse_duration("2 d"), 48h);
  EXPECT_EQ(parse_duration("35 d"), 35 * 24h);
  for (const char* wrong : {"", " ", "s", "0", "-1 day", "36 d", "10000 years", "1.5 h", "5 min later", "infinity",
                            "NaN", "9223372036854775807 d", "99999999999999999999 s", "0x10 s", "5\tmin", " 5 s"})
    EXPECT_EQ(parse_duration(wrong), std::nullopt) << wrong;
}

TEST(NearestWord, FindsTyposAndNothingElse) {
  const std::vector<std::string> known{"timeout", "needs", "kind"};
  EXPECT_EQ(nearest_word("timout", known), "timeout");
  EXPECT_EQ(nearest_word("knid", known), "kind");
  EXPECT_EQ(nearest_word("dnik", known), std::nullopt);
  EXPECT_EQ(nearest_word("kin", known), "kind");
  EXPECT_EQ(nearest_word("needs", known), "needs");
  EXPECT_EQ(nearest_word("kubernetes", known), std::nullopt);
  EXPECT_EQ(nearest_word("", known), std::nullopt);
  EXPECT_EQ(nearest_word(std::string(1'000'000, 'x'), known), std::nullopt);
}

RC_GTEST_PROP(PlanPhases, NeverThrowsOnAnyMetadata, (const std::vector<std::pair<std::string, std::string>>& phases)) {
  Json list = Json::array();
  for (const auto& [key, value] : phases) list.push_back({{"name", value}, {"kind", "capture"}, {key, value}});
  const Plan made = plan(full_config(), {{"phases", list}});
  RC_ASSERT(made.error.has_value() || made.phases.size() == list.size());
}

}  // namespace
}  // namespace ops
