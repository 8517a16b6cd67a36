// Where requests may go: URLs and addresses in every spelling (input I20, threat T10).
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "core/host_rules.hpp"
#include "core/tls_pins.hpp"
#include "core/url.hpp"

namespace ops {
namespace {

TEST(Url, I20_UnusualSpellingsAreRefusedNotRepaired) {
  for (const char* text : {"",
                           "api.github.com",
                           "//api.github.com/",
                           "ftp://api.github.com/",
                           "file:///etc/passwd",
                           "gopher://a.b/",
                           "javascript:alert(1)",
                           "https:/api.github.com",
                           "https://",
                           "https:///path",
                           "https://user@api.github.com/",
                           "https://user:pw@api.github.com/",
                           "https://api.github.com@evil.example/",
                           "https://api.github.com%40evil/",
                           "https://127.1/",
                           "https://127.0.0.1.nip.0/",
                           "https://0/",
                           "https://00.0.0.0/",
                           "https://1.2.3/",
                           "https://1.2.3.1234/",
                           "https://1.2.3.",
                           "https://a.0xff/",
                           "https://[::1%lo]/",
                           "https://[]/",
                           "https://[1.2.3.4]/",
                           "https://[::g]/",
                           "https://[::1]:99999/",
                           "https://127.0.1/",
                           "https://2130706433/",
                           "https://0x7f000001/",
                           "https://0x7f.0.0.1/",
                           "https://0177.0.0.1/",
                           "https://127.0.0.01/",
                           "https://127.0.0.1./",
                           "https://256.1.1.1/",
                           "https://1.2.3.4.5/",
                           "https://localhost./",
                           "https://a..b/",
                           "https://.a.b/",
                           "https://-a.b/",
                           "https://a-.b/",
                           "https://a.b:0/",
                           "https://a.b:65536/",
                           "https://a.b:/",
                           "https://a.b:80x/",
                           "https://a.b:+80/",
                           "https://a.b:-1/",
                           "https://[::1",
                           "https://[::1]x/",
                           "https://[127.0.0.1]/",
                           "https://[fe80::1%25eth0]/",
                           "https://[::ffff:127.0.0.1%250]/",
                           "https://::1/",
                           "https://a.b/#fragment",
                           "https://a.b\\@evil.example/",
                           "https://a.b/ x",
                           "https://a.b/\t",
                           "https://a.b/\r\nHost: evil",
                           "https://\xe2\x93\x9b.example/",
                           "https://ex\xc2\xadmple.com/",
                           "https://a.b/<script>",
                           "https://a.b/`x`",
                           "https://a b.c/",
                           "https://a,b.c/",
                           "https://*.github.com/",
                           "https://a.b:443:443/"}) {
    std::string why;
    EXPECT_FALSE(parse_url(text, &why)) << text;
    EXPECT_FALSE(why.empty()) << text;
  }
  EXPECT_FALSE(parse_url("https://a.b/" + std::string(9'000, 'x')));
  EXPECT_FALSE(parse_url("https://" + std::string(64, 'a') + ".b/"));
}

TEST(Url, PartsOfUsualOnes) {
  const auto url = parse_url("HTTPS://API.GitHub.com/repos/a%2Fb?x=1&y=2");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->origin(), "https://api.github.com:443");
  EXPECT_EQ(url->path, "/repos/a%2Fb");
  EXPECT_EQ(url->query, "x=1&y=2");
  EXPECT_EQ(url->without_query(), "https://api.github.com/repos/a%2Fb");
  EXPECT_EQ(parse_url("http://[2001:DB8::1]:8080")->origin(), "http://[2001:db8::1]:8080");
  EXPECT_EQ(parse_url("http://a.b?q")->path, "/");
  EXPECT_EQ(parse_url("http://a.b")->port, 80);
  EXPECT_EQ(parse_url("https://a.b:65535/")->port, 65535);
  EXPECT_EQ(parse_url("https://1.2.3.4/")->host, "1.2.3.4");
  EXPECT_EQ(parse_url("https://a-1.b_c.d9/")->host, "a-1.b_c.d9");
  EXPECT_EQ(parse_url("https://xn--e1afmkfd.example/")->host, "xn--e1afmkfd.example");
  EXPECT_EQ(parse_url("http://a.b:8069/x?token=t")->without_query(), "http://a.b:8069/x");
  EXPECT_EQ(parse_url("https://[2001:db8::1]/x")->without_query(), "https://[2001:db8::1]/x");
  EXPECT_EQ(percent_encode_path("a b/ü%"), "a%20b/%C3%BC%25");
  EXPECT_EQ(percent_encode("-a~1^ b/..@{u}?#"), "-a~1%5E%20b%2F..%40%7Bu%7D%3F%23");  // I22
}

TEST(Url, LocationsAreResolved) {
  const std::string base = "https://a.b/x/y?q";
  EXPECT_EQ(resolve_location(base, "/z"), "https://a.b:443/z");
  EXPECT_EQ(resolve_location(base, "z"), "https://a.b:443/x/z");
  EXPECT_EQ(resolve_location(base, "//c.d/z"), "https://c.d/z");
  EXPECT_EQ(resolve_location(base, "http://c.d/z#f"), "http://c.d/z");
  EXPECT_EQ(resolve_location(base, "?r=1"), "https://a.b:443/x/y?r=1");
  EXPECT_EQ(resolve_location("https://a.b", "z"), "https://a.b:443/z");
  EXPECT_EQ(resolve_location("http://[::1]:81/", "/z"), "http://[::1]:81/z");
  // A URL inside of the query does not make a relative one absolute.
  EXPECT_EQ(resolve_location(base, "/login?next=https://a.b/x"), "https://a.b:443/login?next=https://a.b/x");
  EXPECT_EQ(resolve_location(base, "?next=https://c.d/"), "https://a.b:443/x/y?next=https://c.d/");
  EXPECT_EQ(resolve_location(base, "login?next=https://c.d/"), "https://a.b:443/x/login?next=https://c.d/");
  EXPECT_EQ(resolve_location("not a url", "/z"), std::nullopt);
  EXPECT_EQ(resolve_location(base, "/z y"), std::nullopt);
  EXPECT_EQ(resolve_location(base, ""), std::nullopt);
  EXPECT_EQ(resolve_location(base, "file:///etc/passwd"), std::nullopt);
  EXPECT_EQ(resolve_location(base, "https://user@evil/"), std::nullopt);
}

RC_GTEST_PROP(Url, NoTextBreaksTheParserAndWhatItTakesItTakesAgain, (const std::string& text)) {
  for (const std::string& tried : {text, "https://" + text, "https://a.b/" + text}) {
    const auto url = parse_url(tried);
    if (!url) continue;
    const auto again = parse_url(url->origin() + url->path + (url->query.empty() ? "" : "?" + url->query));
    RC_ASSERT(again.has_value());
    RC_ASSERT(again->origin() == url->origin());
  }
}

RC_GTEST_PROP(Url, EncodedTextIsAPathSegment, (const std::string& text)) {
  const std::string encoded = percent_encode(text);
  RC_ASSERT(encoded.find_first_of("/?# \\") == std::string::npos);
  if (encoded.size() < 8'000) RC_ASSERT(parse_url("https://a.b/" + encoded).has_value());
}

TEST(HostRules, T10_InternalAddressesInEverySpelling) {
  for (const char* text : {"0.0.0.0",
                           "0.1.2.3",
                           "10.0.0.1",
                           "10.255.255.255",
                           "100.64.0.1",
                           "100.127.255.255",
                           "127.0.0.1",
                           "127.255.255.254",
                           "169.254.0.1",
                           "169.254.169.254",
                           "172.16.0.1",
                           "172.31.255.255",
                           "192.0.0.1",
                           "192.0.2.1",
                           "192.88.99.1",
                           "192.168.0.1",
                           "198.18.0.1",
                           "198.19.255.255",
                           "198.51.100.1",
                           "203.0.113.1",
                           "224.0.0.1",
                           "239.255.255.255",
                           "240.0.0.1",
                           "255.255.255.255",
                           "::",
                           "::1",
                           "::127.0.0.1",
                           "::10.0.0.1",
                           "::ffff:127.0.0.1",
                           "::ffff:10.0.0.1",
                           "::ffff:169.254.169.254",
                           "::ffff:7f00:1",
                           "0:0:0:0:0:ffff:c0a8:1",
                           "64:ff9b::7f00:1",
                           "64:ff9b::8.8.8.8",
                           "64:ff9b:1::1",
                           "2002:7f00:1::",
                           "2002:a00:1::",
                           "2002:c0a8:1::1",
                           "2002:a9fe:a9fe::",
                           "2001::1",
                           "2001:0:53aa:64c:0:0:f5ff:fffe",
                           "2001:db8::1",
                           "fc00::1",
                           "fd00:ec2::254",
                           "fe80::1",
                           "febf::1",
                           "fec0::1",
                           "ff02::1",
                           "100::1",
                           "4000::1",
                           "1::1"}) {
    const auto address = parse_ip(text);
    ASSERT_TRUE(address) << text;
    EXPECT_TRUE(is_internal(*address)) << text;
  }
}

TEST(HostRules, PublicAddressesAreNotInternal) {
  for (const char* text : {"8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "140.82.121.6", "172.15.0.1",
                           "172.32.0.1", "192.0.1.1", "192.169.0.1", "198.17.0.1", "198.20.0.1", "223.255.255.255",
                           "2606:4700::1111", "2a00:1450:4001::1", "2002:808:808::1", "::ffff:8.8.8.8"}) {
    const auto address = parse_ip(text);
    ASSERT_TRUE(address) << text;
    EXPECT_FALSE(is_internal(*address)) << text;
  }
}

std::string refusal(const char* setting, const char* url) {
  return HostRules::parse(setting)->refusal(*parse_url(url));
}

TEST(HostRules, EntriesMatchWholeNamesSchemesAndPorts) {
  const char* setting = "api.github.com, *.blob.core.windows.net, https://registry.example:8443, http://127.0.0.1:8081";
  for (const char* allowed :
       {"https://api.github.com/x", "https://API.github.com:443/", "https://a.blob.core.windows.net/",
        "https://a.b.blob.core.windows.net/", "https://registry.example:8443/", "http://127.0.0.1:8081/"})
    EXPECT_EQ(refusal(setting, allowed), "") << allowed;
  for (const char* refused :
       {"http://api.github.com/", "https://api.github.com:444/", "https://xapi.github.com/",
        "https://api.github.com.evil.example/", "https://blob.core.windows.net/", "https://evilblob.core.windows.net/",
        "https://registry.example/", "http://registry.example:8443/", "http://127.0.0.1:8082/",
        "https://127.0.0.1:8081/", "http://[::1]:8081/", "http://[::ffff:127.0.0.1]:8081/", "https://other.example/"})
    EXPECT_NE(refusal(setting, refused), "") << refused;
}

TEST(HostRules, TheRefusalNamesTheEntryThatWouldAllowIt) {
  EXPECT_NE(refusal("", "https://api.github.com/").find("\"api.github.com\""), std::string::npos);
  EXPECT_NE(refusal("", "http://odoo.example:8069/").find("\"http://odoo.example:8069\""), std::string::npos);
}

TEST(HostRules, T10_ANameThatResolvesToAnInternalAddressIsRefusedAtConnect) {
  const HostRules rules = *HostRules::parse("odoo.example, http://inside.example:80");
  const Url named = *parse_url("https://odoo.example/");
  EXPECT_EQ(rules.refusal(named, *parse_ip("8.8.8.8")), "");
  for (const char* address : {"127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00::1"})
    EXPECT_NE(rules.refusal(named, *parse_ip(address)), "") << address;
  EXPECT_EQ(rules.refusal(*parse_url("http://inside.example/"), *parse_ip("10.0.0.1")), "");
}

TEST(HostRules, MalformedEntriesAreNamed) {
  for (const char* setting : {"https://a.b/path", "a.b:8443", "*", "*.com", "*.127.0.0.1", "ftp://a.b", "a b",
                              "ok.example, user@a.b", "https://a.b?x", "a.*.b"}) {
    std::string why;
    EXPECT_FALSE(HostRules::parse(setting, &why)) << setting;
    EXPECT_NE(why.find("entry \""), std::string::npos) << setting;
  }
  EXPECT_TRUE(HostRules::parse(" , ,a.b, "));
}

// Pins ---------------------------------------------------------------------------------------------------------------

const std::string one_pin = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const std::string another_pin = "sha256//" + std::string(43, 'A') + "=";

TEST(TlsPins, F60_AreOfHosts) {
  const auto pins =
      TlsPins::parse(" API.github.com = " + one_pin + " ; " + another_pin + ",\n10.0.0.1=" + one_pin + ",");
  ASSERT_TRUE(pins);
  EXPECT_EQ(pins->of("api.github.com"), one_pin + ";" + another_pin);
  EXPECT_EQ(pins->of("10.0.0.1"), one_pin);
  EXPECT_EQ(pins->of("github.com"), "");
  EXPECT_EQ(TlsPins::parse("")->of("api.github.com"), "");
}

TEST(TlsPins, F60_WhatIsNoneIsNamed) {
  for (const std::string& wrong :
       {std::string("api.github.com"), std::string("="), "=" + one_pin, one_pin, "h=" + one_pin + ";x", "h=;" + one_pin,
        "h=sha1//" + std::string(43, 'A') + "=", "h=sha256//" + std::string(44, 'A'), "h=" + one_pin + "=",
        "h=sha256//" + std::string(42, 'A') + "B=", "h=sha256//" + std::string(42, 'A') + "-=", "*.h=" + one_pin,
        "https://h=" + one_pin, "h:443=" + one_pin, "h/=" + one_pin, "u@h=" + one_pin, "h h=" + one_pin,
        "h=" + one_pin + ",H=" + one_pin}) {
    std::string why;
    EXPECT_FALSE(TlsPins::parse(wrong, &why)) << wrong;
    EXPECT_NE(why.find("entry \""), std::string::npos) << wrong;
    EXPECT_FALSE(TlsPins::parse(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace ops
