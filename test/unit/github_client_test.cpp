// Reading GitHub: pages, tags, redirects, App tokens (inputs I42 to I44, I51, threat T12).
#include "phases/github_client.hpp"

#include <gtest/gtest.h>

#include "phase_world.hpp"

namespace ops::test {
namespace {

Coroutine<std::string> nothing_outside(PhaseContext&) {
  co_return std::string();
}
Coroutine<Json> read_list(PhaseContext& ctx) {
  GithubClient github(ctx);
  std::string url = github.repository_url() + "/things?per_page=100";
  const Json::array_t items = co_await github.get_list(std::move(url), "things", "the things");
  co_return Json{{"count", items.size()}};
}
Coroutine<Json> read_twice(PhaseContext& ctx) {
  GithubClient github(ctx);
  Conditional conditional;
  for (int i = 0; i < 2; ++i) {
    std::string url = github.repository_url() + "/thing";
    co_await github.get_if_changed(std::move(url), "the thing", conditional);
  }
  std::string url = github.repository_url() + "/thing";
  Json last = co_await github.get_json(std::move(url), "the thing");
  co_return last;
}
Coroutine<Json> read_download(PhaseContext& ctx) {
  GithubClient github(ctx);
  HttpRequest options;
  options.max_body_bytes = 99;
  options.headers = {{"Authorization", "Bearer hidden"}};
  options.credential = CredentialUse{};
  std::string url = github.repository_url() + "/file";
  const HttpResponse response = co_await github.download(std::move(url), std::move(options));
  co_return Json{{"status", response.status}, {"body", response.body}};
}

class GithubClientTest : public ::testing::Test, public PhaseWorld {
 protected:
  GithubClientTest()
      : PhaseWorld(PhaseCatalog({{"list", {}, std::chrono::hours{1}, read_list, nothing_outside},
                                 {"twice", {}, std::chrono::hours{1}, read_twice, nothing_outside},
                                 {"download", {}, std::chrono::hours{1}, read_download, nothing_outside}})) {}

  void read(const std::string& kind, const Json& github = Json::object()) {
    perform(PhaseWorld::facts(kind, {{"github", github}}));
  }
  static HttpResponse page(int items, const std::string& link = "") {
    Json things = Json::array();
    for (int i = 0; i < items; ++i) things.push_back(i);
    HttpResponse response = answer(200, {{"things", things}});
    return link.empty() ? response : with_header(response, "Link", link);
  }
  static std::string next(const std::string& url) { return "<" + url + ">; rel=\"next\""; }
};

TEST_F(GithubClientTest, AllPagesAreRead) {
  const std::string base = "https://api.github.com/repositories/1/things?page=";
  services.on(Method::get, "/repos/acme/odoo/things", [&](const HttpRequest&) {
    return page(3, "<https://api.github.com/x>; rel=\"prev\", " + next(base + "2") + ", <" + base + "9>; rel=\"last\"");
  });
  services.on(Method::get, "page=2$", [&](const HttpRequest&) { return page(2, next(base + "3")); });
  services.on(Method::get, "page=3$", [&](const HttpRequest&) { return page(1, "<" + base + "2>; rel=\"prev\""); });
  read("list");
  EXPECT_EQ(outcome()["count"], 6);
}

TEST_F(GithubClientTest, I44_ALoopOfPagesEnds) {
  services.on(Method::get, "/things", [](const HttpRequest& request) { return page(1, next(request.url)); });
  read("list");
  EXPECT_EQ(status(), RunStatus::success);
  EXPECT_EQ(sent(Method::get, "/things"), 1);
}

TEST_F(GithubClientTest, I44_EndlessPagesEnd) {
  int number = 0;
  services.on(Method::get, "/things", [&](const HttpRequest&) {
    return page(1, next("https://api.github.com/things?page=" + std::to_string(++number)));
  });
  read("list");
  EXPECT_EQ(sent(Method::get, "/things"), 100);
  EXPECT_EQ(outcome()["count"], 100);
}

TEST_F(GithubClientTest, I44_T12_LinksToAnotherOriginAreNotFollowed) {
  for (const char* elsewhere :
       {"https://evil.example/things?page=2", "http://api.github.com/things?page=2",
        "https://api.github.com:8443/things?page=2", "/things?page=2", "file:///etc/passwd", ""}) {
    services.on(Method::get, "/things", [&](const HttpRequest&) { return page(1, next(elsewhere)); });
    world.transport.sent.clear();
    read("list");
    EXPECT_EQ(status(), RunStatus::success) << elsewhere;
    EXPECT_EQ(world.transport.sent.size(), 1u) << elsewhere;
  }
}

TEST_F(GithubClientTest, I43_OddLinksAreNoLinks) {
  for (const char* link :
       {"<https://api.github.com/things", "rel=\"next\"", "<>; rel=\"next\"", "garbage", "<<>>,,;"}) {
    services.on(Method::get, "/things", [&](const HttpRequest&) { return page(1, link); });
    read("list");
    EXPECT_EQ(outcome()["count"], 1) << link;
  }
}

TEST_F(GithubClientTest, AFailingPageFailsTheList) {
  services.on(Method::get, "/things",
              [&](const HttpRequest&) { return page(1, next("https://api.github.com/page2")); });
  read("list");
  EXPECT_EQ(code(), "github_not_found");
  EXPECT_NE(failure().message.find("GitHub answered 404 for the things of acme/odoo: Not Found"), std::string::npos);
}

TEST_F(GithubClientTest, TagsAreSentBackAndChangesAreTaken) {
  services.on(Method::get, "/thing", [](const HttpRequest& request) {
    if (header_of(request, "If-None-Match") == "\"v1\"") return answer(304);
    return with_header(answer(200, {{"v", 1}}), "ETag", "\"v1\"");
  });
  read("twice");
  EXPECT_EQ(outcome(), Json({{"v", 1}}));
  EXPECT_EQ(header_of(world.transport.sent[0], "X-GitHub-Api-Version"), "2022-11-28");
  EXPECT_EQ(world.transport.sent[0].credential->secret_name, "github");
  EXPECT_EQ(world.transport.sent[0].credential->origin, "https://api.github.com");
}

TEST_F(GithubClientTest, ErrorsOfEachKindAreNamed) {
  for (const auto& [refusal, expected] : {std::pair(401, "github_denied"), std::pair(403, "github_denied"),
                                          std::pair(404, "github_not_found"), std::pair(451, "bad_response")}) {
    services.on(Method::get, "/thing", [given = refusal](const HttpRequest&) {
      return with_header(answer(given, {{"message", 17}}), "X-GitHub-Request-Id", "AB:1");
    });
    read("twice");
    EXPECT_EQ(code(), expected) << refusal;
    EXPECT_EQ(failure().payload["request_id"], "AB:1");
  }
}

TEST_F(GithubClientTest, I42_ADownloadFollowsOneRedirectWithoutCredentials) {
  services.on(Method::get, "/file", [](const HttpRequest&) { return redirect("https://blob.example/f?sig=s", 307); });
  services.on(Method::get, "blob.example", [](const HttpRequest&) {
    HttpResponse response = answer(200);
    response.body = "content";
    return response;
  });
  read("download");
  EXPECT_EQ(outcome()["body"], "content");
  const HttpRequest second = last_sent(Method::get, "blob.example");
  EXPECT_TRUE(second.headers.empty());
  EXPECT_FALSE(second.credential);
  EXPECT_EQ(second.max_body_bytes, 99);

  services.on(Method::get, "blob.example", [](const HttpRequest&) { return redirect("https://blob.example/again"); });
  read("download");
  EXPECT_EQ(outcome()["status"], 302);
}

TEST_F(GithubClientTest, I42_ARedirectToNowhereFails) {
  for (const char* location :
       {"", "file:///etc/passwd", "https://user:pw@evil.example/", "https://[::1", "https://127.1/"}) {
    services.on(Method::get, "/file", [&](const HttpRequest&) { return redirect(location, 301); });
    read("download");
    EXPECT_EQ(code(), "bad_response") << location;
    EXPECT_EQ(failure().message.find("pw@"), std::string::npos);
  }
}

class GithubApp : public GithubClientTest {
 protected:
  GithubApp() {
    services.on(Method::get, "/repos/acme/odoo/installation", {{"id", 12}});
    services.on(Method::post, "/app/installations/", [this](const HttpRequest&) {
      return answer(201, {{"token", "ghs_token" + std::to_string(++tokens)}});
    });
    services.on(Method::get, "/thing", [this](const HttpRequest& request) {
      const std::string token(request.session_token->reveal());
      if (token != "ghs_token" + std::to_string(valid)) return answer(401, {{"message", "Bad credentials"}});
      return answer(200, {{"token_number", valid}, {"things", Json::array()}});
    });
  }
  const Json app{{"auth", "app"}, {"credential", "the_app"}};
  int tokens = 0;
  int valid = 1;
};

TEST_F(GithubApp, OneTokenServesManyRequestsAndIsNarrowed) {
  read("twice", app);
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(tokens, 1);
  EXPECT_EQ(last_body(Method::post, "/app/installations/12/access_tokens$"), Json({{"repositories", {"odoo"}}}));
  EXPECT_EQ(last_sent(Method::post, "/access_tokens").credential->scheme, CredentialScheme::github_app_jwt);
  EXPECT_EQ(last_sent(Method::get, "/installation$").credential->scheme, CredentialScheme::github_app_jwt);
  for (const HttpRequest& request : world.transport.sent)
    EXPECT_TRUE(request.credential.has_value() != (request.session_token != nullptr)) << request.url;
  for (const EventRecord& event : stored().events) EXPECT_EQ(event.payload.dump().find("ghs_token"), std::string::npos);
}

TEST_F(GithubApp, AConfiguredInstallationIsNotAskedFor) {
  Json config = app;
  config["installation_id"] = 99;
  read("list", config);
  EXPECT_EQ(sent(Method::get, "/installation$"), 0);
  EXPECT_EQ(sent(Method::post, "/app/installations/99/access_tokens$"), 1);
}

TEST_F(GithubApp, F61_ARevokedTokenIsRenewedOnce) {
  valid = 2;
  read("twice", app);
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(tokens, 2);
  valid = 99;
  for (const char* kind : {"twice", "list"}) {
    const int before = tokens;
    read(kind, app);
    EXPECT_EQ(code(), "github_denied");
    EXPECT_LE(tokens - before, 2);  // no hammering
  }
}

TEST_F(GithubApp, ATokenIsRenewedBeforeItEnds) {
  read("twice", app);
  world.clock.advance_to(world.clock.steady_now() + std::chrono::minutes{51});
  valid = 2;
  read("twice", app);
  EXPECT_EQ(tokens, 2);
  EXPECT_EQ(outcome()["token_number"], 2);
}

TEST_F(GithubApp, I51_ATokenThatHasEndedIsNotUsed) {
  for (const char* ended : {"2020-01-01T00:00:00Z", "2027-01-15T08:00:00Z", "tomorrow", "2027-13-01T00:00:00Z", ""}) {
    services.on(Method::post, "/app/installations/", {{"token", "ghs_token1"}, {"expires_at", ended}}, 201);
    read("twice", app);
    EXPECT_EQ(code(), "bad_response") << ended;
    EXPECT_NE(failure().message.find(std::string("installation token that end")), std::string::npos);
    EXPECT_NE(failure().message.find(ended), std::string::npos);
    EXPECT_EQ(sent(Method::get, "/thing"), 0) << ended;
  }
}

TEST_F(GithubApp, I51_TheEndOfATokenIsThatOfTheServicesClockAndAtMostOneHourAway) {
  for (const auto& [ends, usable_minutes] :
       {std::pair("2127-01-15T08:00:00Z", 55), std::pair("2027-01-15T09:20:00+00:10", 55),
        std::pair("2027-01-15T08:20:00Z", 15)}) {
    valid = tokens + 1;
    services.on(Method::post, "/app/installations/", [this, given = ends](const HttpRequest&) {
      // The service's clock stands still, ours goes on.
      const Json body{{"token", "ghs_token" + std::to_string(++tokens)}, {"expires_at", given}};
      return with_header(answer(201, body), "Date", "Fri, 15 Jan 2027 08:00:00 GMT");
    });
    const int before = tokens;
    const SteadyTime begin = world.clock.steady_now() + std::chrono::seconds{1};
    read("twice", app);
    EXPECT_EQ(status(), RunStatus::success) << ends << failure().message;
    world.clock.advance_to(begin + std::chrono::minutes{usable_minutes} - std::chrono::minutes{1});
    read("twice", app);
    EXPECT_EQ(tokens - before, 1) << ends;
    world.clock.advance_to(begin + std::chrono::minutes{usable_minutes});
    valid = tokens + 1;
    read("twice", app);
    EXPECT_EQ(tokens - before, 2) << ends;
    world.clock.advance_to(world.clock.steady_now() + std::chrono::hours{2});
  }
}

TEST_F(GithubApp, I51_ATokenThatOpensMoreThanAskedForIsAFinding) {
  const std::pair<Json, const char*> answers[] = {
      {{{"repository_selection", "all"}}, "it opens all repositories as well"},
      {{{"repositories", Json::parse(R"([{"full_name": "Acme/odoo"}, {"full_name": "acme/secrets"}])")}},
       "it opens acme/secrets as well"},
      {{{"repository_selection", "selected"}, {"repositories", Json::parse(R"([{"full_name": "acme/odoo"}])")}}, ""}};
  for (const auto& [scope, finding] : answers) {
    Json token{{"token", "ghs_token1"}};
    token.update(scope);
    services.on(Method::post, "/app/installations/", token, 201);
    read("twice", app);
    EXPECT_EQ(status(), RunStatus::success) << scope;
    const std::string told = finding;
    EXPECT_EQ(this->told("is wider than asked for"), !told.empty()) << scope;
    EXPECT_TRUE(told.empty() || this->told(told)) << scope;
    world.clock.advance_to(world.clock.steady_now() + std::chrono::hours{2});
  }
}

TEST_F(GithubApp, RefusedTokensAndInstallationsAreErrors) {
  services.on(Method::post, "/app/installations/", {{"message", "no"}}, 422);
  read("twice", app);
  EXPECT_EQ(code(), "bad_response");
  services.on(Method::get, "/installation$", {{"message", "no"}}, 404);
  read("twice", app);
  EXPECT_EQ(code(), "github_not_found");
  services.on(Method::get, "/installation$", {{"id", "12"}});
  read("twice", app);
  EXPECT_EQ(code(), "bad_response");
  services.on(Method::get, "/installation$", {{"id", 12}});
  services.on(Method::post, "/app/installations/", {{"token", nullptr}}, 201);
  read("twice", app);
  EXPECT_EQ(code(), "bad_response");
}

}  // namespace
}  // namespace ops::test
