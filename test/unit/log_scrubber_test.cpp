// Build logs on their way to storage (input I49): bounded, clean, without secrets.
#include "core/log_scrubber.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

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

TEST(LogScrubber, I49_AKeyInPemFormGoesOverAllItsLines) {
  for (const char* kind : {"RSA PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY"}) {
    const std::string key =
        "-----BEGIN " + std::string(kind) + "-----\nMIIEowIBAAKCAQEA\nq83vEjRWeJq8\n-----END " + kind + "-----";
    EXPECT_EQ(scrubbed("before\nkey: " + key + " after\nnext\n", {}),
              "before\nkey: [redacted]\n[redacted] after\nnext\n");
    EXPECT_EQ(scrubbed("-----BEGIN " + std::string(kind) + "-----\nMIIEowIBAAKCAQEA\n", {}).find("MIIE"),
              std::string::npos);
  }
  const std::string certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
  EXPECT_EQ(scrubbed(certificate, {}), certificate);
}

TEST(LogScrubber, I49_AForgottenEndHidesABoundedPart) {
  std::string text = "-----BEGIN PRIVATE KEY-----\n";
  for (int i = 0; i < 1'000; ++i) text += "line " + std::to_string(i) + "\n";
  const std::string out = scrubbed(text, {});
  EXPECT_EQ(out.find("line 50\n"), std::string::npos);
  EXPECT_NE(out.find("line 999\n"), std::string::npos);
}

TEST(LogScrubber, SequencesThatAreCutStillGo) {
  EXPECT_EQ(scrubbed("a\x1b[", {}), "a\n");
  EXPECT_EQ(scrubbed("a\x1b", {}), "a\n");
  EXPECT_EQ(scrubbed("a\x1b[31;1\nb\n", {}), "a\nb\n");
  EXPECT_EQ(scrubbed("\x1b]0;title\x07z\n", {}), "]0;titlez\n");
  EXPECT_EQ(scrubbed("\n\n", {}), "\n\n");
}

}  // namespace
}  // namespace ops
