// Secrets in memory: gone when they are no longer needed (threat T18).
#include "core/secret.hpp"

#include <gtest/gtest.h>

#include <memory>

#include "core/session_tokens.hpp"

namespace ops {
namespace {

constexpr const char* short_text = "hunter2-short";  // stands inside of the string object

/// The bytes of the object in `memory`, which may have ended its life.
std::string bytes_of(const unsigned char* memory) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof(SecretString); ++i) bytes += static_cast<char>(memory[i]);
  return bytes;
}

TEST(SecretString, T18_LeavesNothingWhereItStood) {
  alignas(SecretString) unsigned char memory[sizeof(SecretString)];
  auto* secret = new (memory) SecretString(short_text);
  ASSERT_NE(bytes_of(memory).find("hunter2"), std::string::npos);
  secret->~SecretString();
  EXPECT_EQ(bytes_of(memory).find("unter2"), std::string::npos);
}

TEST(SecretString, T18_LeavesNothingWhereItWasMovedFrom) {
  alignas(SecretString) unsigned char memory[sizeof(SecretString)];
  auto* secret = new (memory) SecretString(short_text);
  SecretString moved(std::move(*secret));
  EXPECT_EQ(moved.reveal(), short_text);
  EXPECT_TRUE(secret->empty());
  EXPECT_EQ(bytes_of(memory).find("unter2"), std::string::npos);
  SecretString assigned;
  *secret = SecretString(short_text);
  assigned = std::move(*secret);
  EXPECT_EQ(assigned.reveal(), short_text);
  EXPECT_EQ(bytes_of(memory).find("unter2"), std::string::npos);
  secret->~SecretString();
}

TEST(SecretString, T18_ANewValueLeavesNothingOfTheOld) {
  alignas(SecretString) unsigned char memory[sizeof(SecretString)];
  auto* secret = new (memory) SecretString(short_text);
  *secret = SecretString("x");
  EXPECT_EQ(secret->reveal(), "x");
  EXPECT_EQ(bytes_of(memory).find("nter2"), std::string::npos);
  secret->~SecretString();
}

TEST(SecretString, KeepsItsValueThroughMoves) {
  const std::string text(1'000, 's');
  SecretString first{text};
  SecretString second(std::move(first));
  SecretString third;
  third = std::move(second);
  SecretString& same = third;
  third = std::move(same);
  EXPECT_EQ(third.reveal(), text);
  EXPECT_TRUE(first.empty());
  EXPECT_TRUE(second.empty());
  EXPECT_TRUE(SecretString().empty());
}

static_assert(!std::is_copy_constructible_v<SecretString> && !std::is_copy_assignable_v<SecretString>);
static_assert(!std::is_convertible_v<SecretString, std::string> && !std::is_convertible_v<std::string, SecretString>);

TEST(SessionTokens, ServeAsLongAsTheyStayValid) {
  using std::chrono::seconds;
  const SteadyTime now{seconds{100}};
  SessionTokens tokens;
  EXPECT_EQ(tokens.find("key", now, Millis{0}), nullptr);
  const auto kept = tokens.keep("key", "first", now + seconds{60});
  EXPECT_EQ(kept->reveal(), "first");
  EXPECT_EQ(tokens.find("key", now, seconds{59}), kept);
  EXPECT_EQ(tokens.find("key", now, seconds{60}), nullptr);
  EXPECT_EQ(tokens.find("another", now, Millis{0}), nullptr);
  const auto second = tokens.keep("key", "second", now + seconds{60});
  EXPECT_EQ(tokens.find("key", now, Millis{0})->reveal(), "second");
  EXPECT_EQ(kept->reveal(), "first");  // who uses it keeps it
  tokens.forget("key", kept);          // refused, but it has been replaced already
  EXPECT_EQ(tokens.find("key", now, Millis{0}), second);
  tokens.forget("never known", second);
  tokens.forget("key", second);
  EXPECT_EQ(tokens.find("key", now, Millis{0}), nullptr);
}

}  // namespace
}  // namespace ops
