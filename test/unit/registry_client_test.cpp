// The registry: logins, manifests, blobs (input I50, threats T12 and T23).
#include "phases/registry_client.hpp"

#include <gtest/gtest.h>

#include "registry_service.hpp"

namespace ops::test {
namespace {

Coroutine<std::string> nothing_outside(PhaseContext&) {
  co_return std::string();
}
Coroutine<Json> read_manifest(PhaseContext& ctx) {
  RegistryClient registry(ctx);
  std::string reference = text_at(ctx.config(), "/reference");
  const auto manifest = co_await registry.manifest(std::move(reference));
  if (!manifest) co_return Json{{"found", false}};
  co_return Json{{"digest", manifest->digest}, {"index", manifest->is_index()}, {"raw", manifest->raw}};
}
Coroutine<Json> read_blob(PhaseContext& ctx) {
  RegistryClient registry(ctx);
  std::string digest = text_at(ctx.config(), "/reference");
  std::string bytes = co_await registry.blob(std::move(digest), 1'000);
  co_return Json{{"bytes", bytes}};
}

const std::string index_bytes = image_index().dump();

class RegistryClientTest : public ::testing::Test, public PhaseWorld {
 protected:
  RegistryClientTest()
      : PhaseWorld(PhaseCatalog({{"manifest", {}, std::chrono::hours{1}, read_manifest, nothing_outside},
                                 {"blob", {}, std::chrono::hours{1}, read_blob, nothing_outside}})) {}

  void read(const std::string& kind, const std::string& reference, Json registry = Json::object()) {
    registry["image"] = "acme/odoo";
    perform(PhaseWorld::facts(kind, {{"registry", registry}, {"reference", reference}}));
  }
  /// The registry wants a token of that realm before it answers.
  void ask_for_login(const std::string& challenge, const std::string& part = "/manifests/") {
    services.on(Method::get, part, [this, challenge](const HttpRequest& request) {
      if (request.session_token && request.session_token->reveal() == token) return served(index_bytes, index_type);
      return with_header(answer(401, Json::object()), "WWW-Authenticate", challenge);
    });
    services.on(Method::get, "/token?", [this](const HttpRequest&) { return answer(200, token_answer); });
  }

  std::string token = "the-token";
  Json token_answer{{"token", "the-token"}};
  const std::string ghcr =
      R"(Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:acme/odoo:pull")";
  const Json with_credential{{"credential", "ghcr"}};
};

TEST_F(RegistryClientTest, AManifestIsHashedAsItIsServed) {
  services.on(Method::get, "https://ghcr.io/v2/acme/odoo/manifests/19.0$",
              [](const HttpRequest&) { return served(index_bytes, index_type); });
  read("manifest", "19.0");
  EXPECT_EQ(outcome()["digest"], digest_of(index_bytes));
  EXPECT_EQ(outcome()["index"], true);
  EXPECT_EQ(outcome()["raw"], index_bytes);
  const std::string accept = header_of(world.transport.sent[0], "Accept");
  for (const char* type : {"image.index.v1", "image.manifest.v1", "manifest.list.v2", "manifest.v2"})
    EXPECT_NE(accept.find(type), std::string::npos) << type;
  read("manifest", "absent");
  EXPECT_EQ(outcome()["found"], false);
}

TEST_F(RegistryClientTest, I50_T23_ContentThatIsNotWhatWasAskedForIsRefused) {
  services.on(Method::get, "/manifests/", [](const HttpRequest&) { return served(index_bytes, index_type); });
  read("manifest", digest_of(index_bytes));
  EXPECT_EQ(status(), RunStatus::success);
  read("manifest", some_digest('f'));
  EXPECT_EQ(code(), "digest_mismatch");

  services.on(Method::get, "/manifests/", [](const HttpRequest&) {
    return with_header(served(index_bytes, index_type), "Docker-Content-Digest", some_digest('f'));
  });
  read("manifest", "19.0");
  EXPECT_EQ(code(), "digest_mismatch");
  EXPECT_NE(failure().message.find(some_digest('f')), std::string::npos);
  services.on(Method::get, "/manifests/", [](const HttpRequest&) {
    return with_header(served(index_bytes, index_type), "Docker-Content-Digest", "");
  });
  read("manifest", "19.0");
  EXPECT_EQ(status(), RunStatus::success);

  services.on(Method::get, "/blobs/", [](const HttpRequest&) { return served("bytes", "application/octet-stream"); });
  read("blob", digest_of("bytes"));
  EXPECT_EQ(outcome()["bytes"], "bytes");
  EXPECT_EQ(last_sent(Method::get, "/blobs/").max_body_bytes, 1'000);
  read("blob", some_digest('f'));
  EXPECT_EQ(code(), "digest_mismatch");
  services.on(Method::get, "/blobs/", Json::object(), 404);
  read("blob", digest_of("bytes"));
  EXPECT_EQ(code(), "bad_response");
}

TEST_F(RegistryClientTest, I30_I33_WhatIsNoManifestIsNoImage) {
  for (const HttpResponse& given :
       {answer(200, {{"errors", {{{"code", "MANIFEST_UNKNOWN"}}}}}), answer(200, Json::array()), answer(200),
        answer(200, {{"schemaVersion", 1}}), answer(200, {{"schemaVersion", "2"}}),
        answer(200, {{"schemaVersion", 2.0}}),
        with_header(answer(200, {{"schemaVersion", 2}}), "Content-Type", "text/html"), answer(500), answer(204)}) {
    services.on(Method::get, "/manifests/", [&](const HttpRequest&) { return given; });
    read("manifest", "19.0");
    EXPECT_EQ(status(), RunStatus::failed) << given.body;
    EXPECT_TRUE(code() == "bad_response" || code() == "service_unavailable") << given.body;
  }
}

TEST_F(RegistryClientTest, I50_AnIndexWithTenThousandEntriesIsRead) {
  Json index{{"schemaVersion", 2}, {"manifests", Json::array()}};
  for (int i = 0; i < 10'000; ++i) index["manifests"].push_back({{"digest", some_digest('c')}, {"size", i}});
  const std::string bytes = index.dump();
  services.on(Method::get, "/manifests/", [&](const HttpRequest&) { return served(bytes, index_type); });
  read("manifest", "19.0");
  EXPECT_EQ(outcome()["digest"], digest_of(bytes));
}

TEST_F(RegistryClientTest, ALoginIsDoneOnceForManyRequests) {
  ask_for_login(ghcr);
  read("manifest", "19.0", with_credential);
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  const HttpRequest login = last_sent(Method::get, "/token?");
  EXPECT_EQ(login.url, "https://ghcr.io/token?scope=repository%3Aacme%2Fodoo%3Apull&service=ghcr.io");
  EXPECT_EQ(login.credential->scheme, CredentialScheme::basic);
  EXPECT_EQ(login.credential->secret_name, "ghcr");
  read("manifest", "19.0", with_credential);
  EXPECT_EQ(sent(Method::get, "/token?"), 1);
}

TEST_F(RegistryClientTest, T12_I50_ThePasswordGoesToTheRegistrysOwnOriginOnly) {
  for (const char* realm : {"https://evil.example/token", "https://ghcr.io:8443/token", "http://ghcr.io/token"}) {
    ask_for_login("Bearer realm=\"" + std::string(realm) + "\"");
    read("manifest", "19.0", with_credential);
    EXPECT_FALSE(last_sent(Method::get, realm).credential) << realm;
    world.restart();  // without the token of the round before
  }
}

TEST_F(RegistryClientTest, ChallengesInEverySpelling) {
  for (const char* challenge :
       {R"(Bearer realm="https://ghcr.io/token")", R"(Bearer service=ghcr.io, realm=https://ghcr.io/token)",
        R"(Bearer scope="a,b",realm="https://ghcr.io/token?x=1")", R"(Bearer realm="https://ghcr.io/tok\en?")",
        R"(Bearer realm="https://ghcr.io/token?y)"}) {
    ask_for_login(challenge);
    read("manifest", "19.0");
    EXPECT_EQ(status(), RunStatus::success) << challenge << ": " << failure().message;
    world.restart();
  }
  for (const char* challenge : {"", "Basic realm=\"x\"", "Bearer", "Bearer ", "Bearer realm", "Bearer realm=\"\"",
                                "Bearer realm=\"ftp://ghcr.io\"", "Bearer realm=\"https://u:p@ghcr.io/token\"",
                                "Negotiate realm=\"https://ghcr.io/token\"", "Bearer service=\"x\""}) {
    ask_for_login(challenge);
    read("manifest", "19.0");
    EXPECT_EQ(code(), "bad_response") << challenge;
  }
}

TEST_F(RegistryClientTest, RefusedLoginsSayWhatToDo) {
  ask_for_login(ghcr);
  token = "another";  // the token that is given out is not accepted
  read("manifest", "19.0", with_credential);
  EXPECT_EQ(code(), "registry_denied");
  EXPECT_EQ(sent(Method::get, "/token?"), 1);
  EXPECT_NE(failure().payload["hint"].get<std::string>().find("\"ghcr\""), std::string::npos);

  services.on(Method::get, "/token?", Json::object(), 403);
  read("manifest", "19.0");
  EXPECT_EQ(code(), "registry_denied");
  EXPECT_NE(failure().payload["hint"].get<std::string>().find("Name a credential"), std::string::npos);
  services.on(Method::get, "/token?", Json::object(), 404);
  read("manifest", "19.0");
  EXPECT_EQ(code(), "bad_response");
}

TEST_F(RegistryClientTest, I51_TheLifeOfATokenIsHeldInBounds) {
  const auto logins_after = [&](const Json& given, std::chrono::seconds wait) {
    world.restart();
    token_answer = given;
    ask_for_login(ghcr);
    world.transport.sent.clear();
    read("manifest", "19.0");
    world.clock.advance_to(world.clock.steady_now() + wait);
    read("manifest", "19.0");
    return sent(Method::get, "/token?");
  };
  using std::chrono::seconds;
  EXPECT_EQ(logins_after({{"access_token", "the-token"}}, seconds{45}), 1);
  EXPECT_EQ(logins_after({{"token", "the-token"}}, seconds{55}), 2);
  EXPECT_EQ(logins_after({{"token", "the-token"}, {"expires_in", 300}}, seconds{280}), 1);
  EXPECT_EQ(logins_after({{"token", "the-token"}, {"expires_in", 3'153'600'000}}, seconds{3'595}), 2);
}

TEST_F(RegistryClientTest, I51_ATokenThatHasExpiredIsNotUsed) {
  ask_for_login(ghcr);
  for (const int ended : {0, -300}) {
    token_answer = {{"token", "the-token"}, {"expires_in", ended}};
    read("manifest", "19.0");
    EXPECT_EQ(code(), "bad_response");
    EXPECT_NE(failure().message.find("token that has expired: it lasts " + std::to_string(ended)), std::string::npos);
  }
  for (const HttpRequest& request : world.transport.sent) EXPECT_FALSE(request.session_token);
}

TEST_F(RegistryClientTest, I51_ATokenAnswerWithoutTokenFails) {
  for (const Json& given :
       {Json::object(), Json::array(), Json{{"token", 1}}, Json{{"token", "t"}, {"expires_in", "1"}}}) {
    token_answer = given;
    ask_for_login(ghcr);
    read("manifest", "19.0");
    EXPECT_EQ(code(), "bad_response") << given;
  }
}

TEST_F(RegistryClientTest, I42_T12_RedirectsOfBlobsGetNoToken) {
  ask_for_login(ghcr, "/blobs/");
  read("blob", digest_of(index_bytes));
  services.on(Method::get, "/blobs/", [](const HttpRequest&) { return redirect("https://blob.example/1", 307); });
  services.on(Method::get, "blob.example/1", [](const HttpRequest&) { return redirect("/2?sig=x", 308); });
  services.on(Method::get, "blob.example:443/2", [](const HttpRequest&) { return served("bytes", "x/y"); });
  read("blob", digest_of("bytes"));
  EXPECT_EQ(outcome()["bytes"], "bytes") << failure().message;
  EXPECT_TRUE(last_sent(Method::get, "/blobs/").session_token);
  for (const char* part : {"blob.example/1", "blob.example:443/2"}) {
    EXPECT_FALSE(last_sent(Method::get, part).session_token);
    EXPECT_FALSE(last_sent(Method::get, part).credential);
  }
}

TEST_F(RegistryClientTest, I42_RedirectsEnd) {
  services.on(Method::get, "/blobs/", [](const HttpRequest& request) { return redirect(request.url + "x"); });
  read("blob", some_digest('a'));
  EXPECT_EQ(code(), "bad_response");
  EXPECT_LE(sent(Method::get, "/blobs/"), 5);
  services.on(Method::get, "/blobs/", [](const HttpRequest&) { return redirect("file:///etc/passwd", 301); });
  read("blob", some_digest('a'));
  EXPECT_EQ(code(), "bad_response");
}

TEST(PlatformManifest, IsLinuxAmd64OrTheOnlyOne) {
  EXPECT_EQ(platform_manifest(image_index())->digest, some_digest('a'));
  const auto entry = [](const char* os, const char* architecture, char digit) {
    return Json{
        {"digest", some_digest(digit)}, {"size", 5}, {"platform", {{"os", os}, {"architecture", architecture}}}};
  };
  const auto digest = [](const Json& entries) -> std::string {
    const auto found = platform_manifest({{"manifests", entries}});
    return found ? found->digest : "";
  };
  EXPECT_EQ(digest({entry("linux", "arm64", '1'), entry("linux", "amd64", '2')}), some_digest('2'));
  EXPECT_EQ(digest({entry("linux", "arm64", '1'), entry("unknown", "unknown", '2')}), some_digest('1'));
  EXPECT_EQ(digest({entry("linux", "arm64", '1'), entry("windows", "amd64", '2')}), "");
  EXPECT_EQ(digest(Json::array()), "");
}

TEST(PlatformManifest, I50_OddDescriptorsAreRefused) {
  for (const char* text : {R"({"size": 1})", R"({"digest": 7, "size": 1})", R"({"digest": "latest", "size": 1})",
                           R"({"digest": "sha256:00", "size": 1})", R"({"digest": "D", "size": -1})",
                           R"({"digest": "D"})", R"({"digest": "D", "size": "1"})"}) {
    Json entry = Json::parse(text);
    if (entry.value("digest", Json()) == "D") entry["digest"] = some_digest('d');
    EXPECT_THROW(platform_manifest({{"manifests", {entry}}}), PhaseError) << text;
  }
}

}  // namespace
}  // namespace ops::test
