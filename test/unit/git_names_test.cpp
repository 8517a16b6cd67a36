#include "core/git_names.hpp"

#include <gtest/gtest.h>

#include <string>

namespace ops {
namespace {

TEST(GitNames, CommitIsHexadecimalInLowerCase) {
  EXPECT_TRUE(is_commit("0123abc"));
  EXPECT_TRUE(is_commit(std::string(64, 'f')));
  for (const std::string& text : {std::string(), std::string("012abc"), std::string(65, 'a'), std::string("0123ABC"),
                                  std::string("0123abg"), std::string("0123abc\n"), std::string(" 0123abc")})
    EXPECT_FALSE(is_commit(text)) << text;
}

// I04, I22: the rules of git check-ref-format.
TEST(GitNames, RefFollowsGit) {
  for (const std::string& text :
       {std::string("main"), std::string("feature/x-1"), std::string("v1.0"), std::string("release@2"),
        std::string("\xc3\xbc"
                    "bung"),
        std::string(255, 'r'), std::string("a.locked"), std::string("a{b")})
    EXPECT_TRUE(is_git_ref(text)) << text;
  for (const std::string& text :
       {std::string(),       std::string(256, 'r'), std::string("a b"),      std::string("a..b"),   std::string("-a"),
        std::string("/a"),   std::string(".a"),     std::string("a/"),       std::string("a."),     std::string("a//b"),
        std::string("a/.b"), std::string("a.lock"), std::string("a.lock/b"), std::string("a~1"),    std::string("a^"),
        std::string("a:b"),  std::string("a?"),     std::string("a*"),       std::string("a[b"),    std::string("a\\b"),
        std::string("a@{b"), std::string("a\nb"),   std::string("a\x7f"),    std::string("a\0b", 3)})
    EXPECT_FALSE(is_git_ref(text)) << text;
}

TEST(GitNames, ControlCharactersOfUnicodeCount) {
  EXPECT_TRUE(has_control_characters("a\tb"));
  EXPECT_TRUE(
      has_control_characters("a\xc2\x85"
                             "b"));
  EXPECT_TRUE(
      has_control_characters("a\xe2\x80\xa8"
                             "b"));
  EXPECT_TRUE(has_control_characters("a\xe2\x80\xa9"));
  EXPECT_FALSE(
      has_control_characters("a\xc2\xa0"
                             "b"));
  EXPECT_FALSE(has_control_characters("\xe2\x82\xac 5"));
  EXPECT_FALSE(has_control_characters("\xc2"));
}

}  // namespace
}  // namespace ops
