// What must never be stored: secrets in events, errors and logs.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "core/redact.hpp"

namespace ops {
namespace {

const std::vector<std::string> secrets{
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "gho_0123456789abcdefghijABCDEFGHIJ012345",
    "ghs_0123456789abcdefghijABCDEFGHIJ012345",
    "github_pat_11ABCDEFG0abcdefghijkl_0123456789abcdefghijklmnopqrstuvwxyz",
    "dop_v1_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiI0NzExIiwiZXhwIjoxfQ.c2lnbmF0dXJlc2lnbmF0dXJl",
};

TEST(Redact, T12_TokensGoWhereverTheyStand) {
  for (const std::string& secret : secrets)
    for (const std::string& text :
         {secret, "token " + secret + " was refused", "https://x-access-token:" + secret + "@github.com/a/b",
          "(" + secret + ")", "\"" + secret + "\"", "Authorization: Bearer " + secret, "a=" + secret + "&b=1",
          secret + secret}) {
      const std::string masked = redact(text);
      EXPECT_EQ(masked.find(secret), std::string::npos) << text << " became " << masked;
      EXPECT_NE(masked.find("[redacted]"), std::string::npos) << text;
    }
}

TEST(Redact, HeadersUrlsAndKeysGo) {
  const struct {
    std::string text;
    std::string secret;
  } cases[] = {
      {"Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "QWxhZGRpbjpvcGVu"},
      {"cookie: session_id=0123abcd", "0123abcd"},
      {"https://acme:hunter2pass@registry.example/v2/", "hunter2pass"},
      {"https://s3.example/key?X-Amz-Signature=abcdef0123&X-Amz-Date=1", "abcdef0123"},
      {"https://blob.example/log?sig=abc%2Fdef0123", "abc%2Fdef0123"},
      {"-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----", "MIIEowIBAAKCAQEA"},
      {"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq", "MIIEvQIBADANBgkq"},
  };
  for (const auto& [text, secret] : cases) {
    const std::string masked = redact(text);
    EXPECT_EQ(masked.find(secret), std::string::npos) << masked;
  }
}

TEST(Redact, PlainTextStays) {
  for (const char* text :
       {"phase build_image succeeded", "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "https://github.com/acme/odoo/actions/runs/1", "check /shop passes", "", "ghp_", "token"})
    EXPECT_EQ(redact(text), text);
}

TEST(Redact, ValuesOfSecretKeysGoAtAnyDepth) {
  const Json masked = redact_json({{"a", {{"password", "hunter2"}, {"list", {{{"private_key", "k"}}}}}},
                                   {"credential", "github"},
                                   {"note", "used ghp_0123456789abcdefghijABCDEFGHIJ012345"},
                                   {"count", 3}});
  const std::string text = masked.dump();
  EXPECT_EQ(text.find("hunter2"), std::string::npos);
  EXPECT_EQ(masked["a"]["list"][0]["private_key"], "[redacted]");
  EXPECT_EQ(masked["credential"], "github");
  EXPECT_EQ(masked["count"], 3);
  EXPECT_EQ(text.find("ghp_0123"), std::string::npos);
}

TEST(Redact, AssignmentsOfPasswordsGo) {
  for (const char* name : {"password=", "PGPASSWORD=", "DB_PASSWORD=", "db.password=", "&password=", "--password="})
    for (const char* end : {"", " next", "\n", "&b=1", "\"", ";x"}) {
      const std::string masked = redact("run " + std::string(name) + "hunter2" + end);
      EXPECT_EQ(masked, "run " + std::string(name) + "[redacted]" + end);
    }
  EXPECT_EQ(redact("password= "), "password= ");
}

TEST(Redact, EachTokenFormAtItsShortest) {
  for (const char* prefix : {"github_pat_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "dop_v1_", "doo_v1_", "dor_v1_"}) {
    EXPECT_EQ(redact(prefix + std::string(10, 'x')), "[redacted]") << prefix;
    EXPECT_EQ(redact(prefix + std::string(9, 'x')), prefix + std::string(9, 'x'));
    EXPECT_EQ(redact("a" + std::string(prefix) + std::string(30, 'x')),
              "a" + std::string(prefix) + std::string(30, 'x'));
  }
  EXPECT_EQ(redact("ASIA" + std::string(16, 'B')), "[redacted]");
  EXPECT_EQ(redact("ghs_123_eyJhbGciOi.payload.signature!"), "[redacted]!");  // the stateless form
  EXPECT_EQ(redact("ghp_0123456789ab.example"), "[redacted].example");
  EXPECT_EQ(redact("eyJhbGciOiJSUzI1NiJ9.only-two-parts"), "eyJhbGciOiJSUzI1NiJ9.only-two-parts");
  EXPECT_EQ(redact("Ada eats good gherkins"), "Ada eats good gherkins");
}

TEST(Redact, KeysInPemForm) {
  const auto pem = [](const std::string& kind) {
    return "-----BEGIN " + kind + "-----\nMIIB\n-----END " + kind + "-----";
  };
  EXPECT_EQ(redact("a " + pem("EC PRIVATE KEY") + " b " + pem("PRIVATE KEY") + " c"), "a [redacted] b [redacted] c");
  EXPECT_EQ(redact(pem("CERTIFICATE")), pem("CERTIFICATE"));
  EXPECT_EQ(redact(pem("CERTIFICATE") + pem("ENCRYPTED PRIVATE KEY")), pem("CERTIFICATE") + "[redacted]");
  EXPECT_EQ(redact("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIV"), "[redacted]");
  EXPECT_EQ(redact("-----BEGIN PRIVATE"), "-----BEGIN PRIVATE");
}

TEST(Redact, UserInfoAndSignedUrls) {
  EXPECT_EQ(redact("clone https://x:y@github.com/a and http://t@h/p?q=a@b"),
            "clone https://[redacted]@github.com/a and http://[redacted]@h/p?q=a@b");
  EXPECT_EQ(redact("see https://a.b/ or mail@a.b, https://"), "see https://a.b/ or mail@a.b, https://");
  for (const char* name : {"X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "Signature", "sig", "token",
                           "access_token", "key", "code", "se", "skoid", "sktid"}) {
    EXPECT_EQ(redact("https://a.b/c?" + std::string(name) + "=s3cr3t"),
              "https://a.b/c?" + std::string(name) + "=[redacted]");
    EXPECT_EQ(redact("https://a.b/c?x=1&" + std::string(name) + "=s3cr3t&y=2"),
              "https://a.b/c?x=1&" + std::string(name) + "=[redacted]&y=2");
  }
  EXPECT_EQ(redact("https://a.b/c?monkey=1&passcode=2"), "https://a.b/c?monkey=1&passcode=2");
}

TEST(Redact, HeadersInAnyCase) {
  EXPECT_EQ(redact("AUTHORIZATION: Basic abc\r\nX: y"), "AUTHORIZATION: [redacted]\r\nX: y");
  EXPECT_EQ(redact("Set-Cookie: session=1"), "Set-Cookie: [redacted]");
  EXPECT_EQ(redact("with bearer abc, bearer def"), "with bearer [redacted], bearer [redacted]");
  EXPECT_EQ(redact("forbearer abc"), "forbearer abc");
}

TEST(Redact, JsonKeepsItsShape) {
  const Json value = Json::parse(R"({"Private-Key": ["a"], "api key": 17, "token": null, "secret": true, "PAT": "x",
      "pwd": {"a": 1}, "pattern": "x", "tokens_used": 5, "deep": [[["ghp_0123456789abcdef"]]], "empty": {}})");
  EXPECT_EQ(redact_json(value), Json::parse(R"({"Private-Key": "[redacted]", "api key": "[redacted]", "token": null,
      "secret": true, "PAT": "[redacted]", "pwd": "[redacted]", "pattern": "x", "tokens_used": 5,
      "deep": [[["[redacted]"]]], "empty": {}})"));
  Json deep = "bottom";
  for (int i = 0; i < 100; ++i) deep = Json::array({deep});
  EXPECT_NE(redact_json(deep).dump().find("[too deep]"), std::string::npos);
  Json edge = 17;
  for (int i = 0; i < 64; ++i) edge = Json::array({edge});
  EXPECT_EQ(redact_json(edge), edge);
}

RC_GTEST_PROP(Redact, ASecretBetweenAnyTextsGoes, (const std::string& before, const std::string& after)) {
  const std::string secret = *rc::gen::elementOf(secrets);
  RC_ASSERT(redact(before + " " + secret + " " + after).find(secret) == std::string::npos);
}

}  // namespace
}  // namespace ops
