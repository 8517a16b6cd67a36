// Is the deployed Odoo the right one and does it serve? Rounds of checks against a scripted Odoo.
#include <gtest/gtest.h>

#include "core/crypto.hpp"
#include "phase_world.hpp"

namespace ops::test {
namespace {

class OdooSmoke : public ::testing::Test, public PhaseWorld {
 protected:
  OdooSmoke() {
    services.on(Method::get, "/web/health$", {{"status", "pass"}});
    services.on(Method::post, "/web/webclient/version_info$",
                {{"jsonrpc", "2.0"}, {"result", {{"server_serie", "19.0"}, {"server_version", "19.0-20260101"}}}});
    services.on(Method::get, "/web/login$", [this](const HttpRequest&) { return page(login_page); });
    services.on(Method::get, "/web/assets/1/a.min.css$", [](const HttpRequest&) { return page("body{}", "text/css"); });
    services.on(Method::get, "/web/assets/1/a.min.js$",
                [](const HttpRequest&) { return page("var a", "application/javascript"); });
  }
  static HttpResponse page(const std::string& body, const std::string& type = "text/html; charset=utf-8") {
    HttpResponse response = with_header(answer(200), "Content-Type", type);
    response.body = body;
    response.body_bytes = static_cast<std::int64_t>(body.size());
    return response;
  }
  void smoke(const Json& changes = Json::object()) {
    Json config = Json::parse(R"({"url": "https://staging.acme.example/", "smoke": {"timeout": "60 s"}})");
    config.merge_patch(changes);
    perform(PhaseWorld::facts("odoo_smoke", config));
  }
  /// Of the last round: the check of that name as it was recorded.
  Json check(const std::string& name) {
    const Json checks = status() == RunStatus::success ? outcome()["checks"] : failure().payload["checks"];
    for (const Json& found : checks)
      if (found["name"] == name) return found;
    return Json{{"verdict", "absent"}, {"detail", ""}};
  }
  /// Why that check alone fails with what the test has changed; empty when it passes.
  std::string fault(const std::string& name) {
    smoke();
    const Json found = check(name);
    EXPECT_EQ(found["verdict"], status() == RunStatus::success ? "pass" : "fail") << found;
    return found["detail"];
  }

  std::string login_page = R"(<html><head><link rel="shortcut icon" href="/favicon.ico"/>
      <link type="text/css" rel="stylesheet" href="/web/assets/1/a.min.css"/>
      <script>inline()</script><script type="text/javascript" src="/web/assets/1/a.min.js"></script></head>
      <form><input type="hidden" name="csrf_token"/><input name='login'/><input type="password" name="password"></form>)";
};

TEST_F(OdooSmoke, PassesAfterTwoGoodRounds) {
  smoke();
  ASSERT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(outcome()["rounds"], 2);
  EXPECT_EQ(outcome()["verdict"], "pass");
  EXPECT_EQ(outcome()["checks"].size(), 5u);
  EXPECT_EQ(check("login")["sha256"], sha256_hex(login_page));
  EXPECT_EQ(last_body(Method::post, "/version_info")["method"], "call");
  smoke({{"smoke", {{"consecutive_passes", 5}}}});
  EXPECT_EQ(outcome()["rounds"], 5);
}

TEST_F(OdooSmoke, ARestAfterAFailureBeginsTheCountAnew) {
  services.on_each(Method::get, "/web/health$",
                   {answer(502), answer(200, {{"status", "pass"}}), answer(200, {{"status", "fail"}}),
                    answer(200, {{"status", "pass"}})});
  smoke();
  EXPECT_EQ(outcome()["rounds"], 5);
  EXPECT_TRUE(told("check health fails: expected 200 with status pass, found status 502"));
  EXPECT_TRUE(told("found status 200 with status fail"));
  EXPECT_TRUE(told("check health passes"));
}

TEST_F(OdooSmoke, WhatNeverPassesFailsWithEveryCheckRecorded) {
  for (const char* part : {"/web/health$", "/web/login$", "/web/version"})
    services.on(Method::get, part, [](const HttpRequest&) { return failed(TransportFailure::connect); });
  services.on(Method::post, "/version_info", [](const HttpRequest&) { return failed(TransportFailure::timeout); });
  smoke();
  EXPECT_EQ(code(), "smoke_failed");
  EXPECT_EQ(failure().payload["checks"].size(), 5u);
  EXPECT_NE(failure().message.find("https://staging.acme.example is not healthy"), std::string::npos);
  EXPECT_EQ(check("health")["detail"], "expected 200 with status pass, found not connected (why it failed)");
  EXPECT_EQ(check("version")["detail"], "expected Odoo 19.0, found timed out (why it failed)");
  EXPECT_EQ(check("css asset")["detail"], "the login page did not come");
  EXPECT_GE(failure().payload["rounds"], 10);  // in 60 s, every 5 s
}

TEST_F(OdooSmoke, EnoughPassesMustFitIntoTheTime) {
  smoke({{"smoke", {{"timeout", "9 s"}, {"consecutive_passes", 50}}}});
  EXPECT_EQ(code(), "smoke_failed");
  EXPECT_NE(failure().message.find("did not pass 50 times in a row"), std::string::npos);
}

TEST_F(OdooSmoke, I30_I31_HealthIsReadNotGuessed) {
  for (const HttpResponse& given : {answer(200), answer(200, Json::array()), answer(200, {{"status", true}}),
                                    page("<html>pass</html>"), answer(204), answer(404)}) {
    services.on(Method::get, "/web/health$", [&](const HttpRequest&) { return given; });
    EXPECT_NE(fault("health"), "") << given.body;
  }
}

TEST_F(OdooSmoke, Odoo14HasNoHealthRoute) {
  services.on(Method::get, "/web/health$", Json::object(), 404);
  services.on(Method::post, "/version_info$", {{"result", {{"server_serie", "14.0"}}}});
  queue(PhaseWorld::facts("odoo_smoke", {{"url", "https://staging.acme.example"}}));
  stored().run.facts.odoo_version = "14.0";
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
}

TEST_F(OdooSmoke, TheVersionMustBeTheDeployedOne) {
  const auto with_series = [this](const Json& series) {
    services.on(Method::post, "/version_info$", {{"result", {{"server_serie", series}}}});
    return fault("version");
  };
  EXPECT_EQ(with_series("18.0"), "expected Odoo 19.0, found 18.0");
  EXPECT_EQ(with_series("19.05"), "expected Odoo 19.0, found 19.05");
  EXPECT_EQ(with_series("19.0\x1b[2J"), "expected Odoo 19.0, found 19.0[2J");
  EXPECT_EQ(with_series("19.0+e"), "");
  EXPECT_EQ(with_series("19.0-20260101"), "");
  EXPECT_EQ(with_series("19.0 (Community)"), "");
}

TEST_F(OdooSmoke, TheNewVersionRouteIsTriedToo) {
  services.on(Method::post, "/version_info$", Json::object(), 404);
  EXPECT_EQ(fault("version"), "expected Odoo 19.0, found status 404");
  services.on(Method::get, "/web/version$", {{"version", "19.0"}});
  EXPECT_EQ(fault("version"), "");
  EXPECT_EQ(check("version")["path"], "/web/version");
  services.on(Method::get, "/web/version$", {{"version", 19}});
  EXPECT_NE(fault("version"), "");
}

TEST_F(OdooSmoke, ALoginPageHasTheForm) {
  login_page = "<input name=\"login\"/> password";
  EXPECT_EQ(fault("login"), "expected 200 with fields login and password, found status 200 without that form");
  services.on(Method::get, "/web/login$", Json::object(), 500);
  EXPECT_EQ(fault("login"), "expected 200 with fields login and password, found status 500");
}

TEST_F(OdooSmoke, TheDatabaseSelectorIsNamed) {
  services.on(Method::get, "/web/login$", [](const HttpRequest&) { return redirect("/web/database/selector", 303); });
  services.on(Method::get, "/web/database/selector$", [this](const HttpRequest&) { return page(login_page); });
  EXPECT_EQ(fault("login"), "redirected to the database selector: the database is missing or dbfilter does not match");
}

TEST_F(OdooSmoke, I42_RedirectsStayOnTheDeployment) {
  services.on(Method::get, "/web/login$", [](const HttpRequest&) { return redirect("/de/web/login?redirect=x", 308); });
  services.on(Method::get, "/de/web/login?redirect=x$", [this](const HttpRequest&) { return page(login_page); });
  EXPECT_EQ(fault("login"), "");
  for (const char* elsewhere : {"https://evil.example/web/login", "http://staging.acme.example/web/login",
                                "file:///etc/passwd", "", "https://169.254.169.254/"}) {
    services.on(Method::get, "/web/login$", [&](const HttpRequest&) { return redirect(elsewhere); });
    world.transport.sent.clear();
    EXPECT_NE(fault("login"), "") << elsewhere;
    for (const HttpRequest& request : world.transport.sent)
      EXPECT_TRUE(request.url.starts_with("https://staging.acme.example")) << request.url;
  }
  services.on(Method::get, "/web/login", [](const HttpRequest& request) { return redirect(request.url + "l"); });
  world.transport.sent.clear();
  EXPECT_NE(fault("login"), "");
  EXPECT_LE(sent(Method::get, "/web/login"), 4 * failure().payload["rounds"].get<int>());
  services.on(Method::get, "/web/login", Json::object(), 304);
  EXPECT_EQ(fault("login"), "expected 200 with fields login and password, found status 304");
}

TEST_F(OdooSmoke, AssetsAreLoadedWithTheirType) {
  services.on(Method::get, "a.min.js$", [](const HttpRequest&) { return page("<html>", "text/html"); });
  EXPECT_EQ(fault("js asset"), "expected 200 with javascript and content, found status 200, text/html, 6 bytes");
  services.on(Method::get, "a.min.js$", [](const HttpRequest&) { return page("", "text/javascript"); });
  EXPECT_EQ(fault("js asset"), "expected 200 with javascript and content, found status 200, text/javascript, 0 bytes");
  services.on(Method::get, "a.min.js$", [](const HttpRequest&) { return page("x", "text/javascript"); });
  services.on(Method::get, "a.min.css$", Json::object(), 404);
  EXPECT_NE(fault("css asset").find("status 404"), std::string::npos);
}

TEST_F(OdooSmoke, AssetsOfThePageAreFound) {
  const std::string form = "<input name=\"login\"><input name=\"password\">";
  const std::string script = "<script src='/web/assets/1/a.min.js'></script>";
  login_page = form + script;
  EXPECT_EQ(fault("css asset"), "the login page names no .css file");
  login_page = form + script + "<link href=\"/favicon.ico\"><link href='/web/assets/1/a.min.css";
  EXPECT_EQ(fault("css asset"), "the login page names no .css file");
  login_page = form + script + "<link rel=\"stylesheet\" href=\"https://cdn.example/a.min.css?v=1\">";
  EXPECT_EQ(fault("css asset"), "on another host, not requested");
  EXPECT_EQ(sent(Method::get, "cdn.example"), 0);
  login_page = form + script + "<link href=\"/web/assets/1/a.min.css?v=2\"/>";
  services.on(Method::get, "/web/assets/1/a.min.css?v=2$", [](const HttpRequest&) { return page("b", "text/css"); });
  EXPECT_EQ(fault("css asset"), "");
}

TEST_F(OdooSmoke, ConfiguredChecksCompareStatusTextAndTime) {
  HttpResponse shop = page("<a>Add to cart</a>");
  shop.elapsed = std::chrono::milliseconds{700};
  services.on(Method::get, "/shop", [&](const HttpRequest&) { return shop; });
  const auto fault_of = [this](const Json& wanted) {
    Json check_config = wanted;
    check_config["path"] = "/shop?token=hidden";
    smoke({{"smoke", {{"checks", {check_config}}}}});
    EXPECT_EQ(check("/shop")["path"], "/shop");
    EXPECT_EQ(check("/shop")["ms"], 700);
    return check("/shop")["detail"].get<std::string>();
  };
  EXPECT_EQ(fault_of(Json::object()), "");
  EXPECT_EQ(fault_of({{"status", 200}, {"contains", "Add to cart"}, {"max_ms", 700}}), "");
  EXPECT_EQ(fault_of({{"status", 403}}), "expected status 403, found status 200");
  EXPECT_EQ(fault_of({{"contains", "Checkout"}}), "expected the text \"Checkout\", which the page does not hold");
  EXPECT_EQ(fault_of({{"max_ms", 699}}), "expected an answer within 699 ms, it took 700 ms");
  shop.failure = TransportFailure::reset;
  EXPECT_EQ(fault_of(Json::object()), "expected status 200, found connection lost");
}

}  // namespace
}  // namespace ops::test
