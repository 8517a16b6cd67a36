// What must never be stored: secrets in events, errors and logs.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "core/log_scrubber.hpp"
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

RC_GTEST_PROP(Redact, ASecretBetweenAnyTextsGoes, (const std::string& before, const std::string& after)) {
  const std::string secret = *rc::gen::elementOf(secrets);
  RC_ASSERT(redact(before + " " + secret + " " + after).find(secret) == std::string::npos);
}

std::string scrubbed(const std::string& text, const std::vector<std::size_t>& cuts) {
  LogScrubber scrubber;
  std::string out;
  std::string_view rest = text;
  for (const std::size_t cut : cuts) {
    const std::size_t length = std::min(cut, rest.size());
    scrubber.feed(rest.substr(0, length), out);
    rest.remove_prefix(length);
  }
  scrubber.feed(rest, out);
  scrubber.finish(out);
  return out;
}

TEST(LogScrubber, ColoursControlCodesAndSecretsGo) {
  EXPECT_EQ(scrubbed("\x1b[31mred\x1b[0m\r\nbell\x07 end\n", {}), "red\nbell end\n");
  EXPECT_EQ(scrubbed("no newline", {}), "no newline\n");
  EXPECT_EQ(scrubbed("", {}), "");
  EXPECT_EQ(scrubbed("use " + secrets[0] + "\n", {}), "use [redacted]\n");
  EXPECT_NE(scrubbed("bad \xff\xfe utf8\n", {}).find("\xef\xbf\xbd"), std::string::npos);
}

TEST(LogScrubber, MemoryIsBoundedByOneLine) {
  const std::string out = scrubbed(std::string(1'000'000, 'x') + "\nnext\n", {});
  EXPECT_LT(out.size(), 70'000U);
  EXPECT_NE(out.find("[line cut]\nnext\n"), std::string::npos);
}

RC_GTEST_PROP(LogScrubber, TheChunksMakeNoDifference,
              (const std::vector<std::string>& lines, const std::vector<std::uint8_t>& cuts)) {
  std::string text;
  for (const std::string& line : lines) text += line + " " + *rc::gen::elementOf(secrets) + "\n";
  const std::vector<std::size_t> sizes(cuts.begin(), cuts.end());
  const std::string out = scrubbed(text, sizes);
  RC_ASSERT(out == scrubbed(text, {}));
  for (const std::string& secret : secrets) RC_ASSERT(out.find(secret) == std::string::npos);
}

}  // namespace
}  // namespace ops
