// Rate limits told by services (F62) and the pause between changing requests.
#include <gtest/gtest.h>

#include "core/host_budget.hpp"

namespace ops {
namespace {

using std::chrono::seconds;
const SteadyTime now{seconds{1'000}};
const WallTime wall{seconds{1'800'000'000}};

HttpRequest request(Method method = Method::get, const std::string& url = "https://api.github.com/x",
                    const std::string& secret = "github") {
  HttpRequest made;
  made.method = method;
  made.url = url;
  made.credential = CredentialUse{CredentialScheme::bearer, secret, "https://api.github.com", ""};
  return made;
}
HttpResponse response(int status, std::vector<Header> headers = {}, const std::string& body = "") {
  HttpResponse made;
  made.status = status;
  made.headers = std::move(headers);
  made.body = body;
  return made;
}
/// Seconds until the next request may leave after this answer.
long wait_after(const HttpResponse& answer) {
  HostBudget budget(Millis{0});
  budget.observe(request(), answer, now, wall);
  return std::chrono::duration_cast<seconds>(budget.earliest(request(), now) - now).count();
}

TEST(HostBudget, F62_TheServiceSaysHowLongToWait) {
  EXPECT_EQ(wait_after(response(429, {{"Retry-After", "7"}})), 7);
  EXPECT_EQ(wait_after(response(403, {{"retry-after", "90"}})), 90);
  EXPECT_EQ(wait_after(response(429, {{"Retry-After", "Fri, 15 Jan 2027 08:00:20 GMT"}})), 20);
  EXPECT_EQ(wait_after(response(403, {{"X-RateLimit-Remaining", "0"}, {"X-RateLimit-Reset", "1800000042"}})), 42);
  EXPECT_EQ(wait_after(response(429, {{"ratelimit-remaining", "0"}, {"ratelimit-reset", "1800000030"}})), 30);
  EXPECT_EQ(wait_after(response(403, {}, R"({"message":"You have exceeded a secondary rate limit"})")), 60);
  EXPECT_EQ(wait_after(response(429)), 60);
}

TEST(HostBudget, I38_WaitsAreHeldInBounds) {
  EXPECT_EQ(wait_after(response(429, {{"Retry-After", "0"}})), 1);
  EXPECT_EQ(wait_after(response(429, {{"Retry-After", "-5"}})), 1);
  EXPECT_EQ(wait_after(response(429, {{"Retry-After", "99999999999999999999"}})), 3600);
  EXPECT_EQ(wait_after(response(429, {{"Retry-After", "86400"}})), 3600);
  EXPECT_EQ(wait_after(response(429, {{"Retry-After", "soon"}})), 60);
  for (const char* odd : {"NaN", "1e9", "", "Fri, 32 Jan 2027 08:00:20 GMT", "Fri, 15 Jan 2027 08:00:20 CET", "7 s"})
    EXPECT_EQ(wait_after(response(429, {{"Retry-After", odd}})), 60) << odd;
  EXPECT_EQ(wait_after(response(429, {{"Retry-After", "1.5"}})), 3600);
  EXPECT_EQ(wait_after(response(429, {{"Retry-After", "Thu, 01 Jan 1970 00:00:00 GMT"}})), 1);
  EXPECT_EQ(wait_after(response(429, {{"Retry-After", "7"}, {"Retry-After", "9"}})), 7);
  // Every odd remainder or reset, at both ends of what a number holds.
  for (const char* reset : {"", "soon", "-9223372036854775808", "9223372036854775807", "-1", "1e99"}) {
    const long wait = wait_after(response(403, {{"X-RateLimit-Remaining", "0"}, {"X-RateLimit-Reset", reset}}));
    EXPECT_GE(wait, 1) << reset;
    EXPECT_LE(wait, 3600) << reset;
  }
  for (const char* remaining : {"", "-1", "none", "0x0"})
    EXPECT_EQ(wait_after(response(403, {{"X-RateLimit-Remaining", remaining}, {"X-RateLimit-Reset", "1800000042"}})),
              0);
  EXPECT_EQ(wait_after(response(403, {{"X-RateLimit-Remaining", "0"}, {"X-RateLimit-Reset", "1"}})), 1);
  EXPECT_EQ(wait_after(response(403, {{"X-RateLimit-Remaining", "0"}, {"X-RateLimit-Reset", "9999999999999"}})), 3600);
}

TEST(HostBudget, ARealRefusalIsNoRateLimit) {
  HostBudget budget(Millis{0});
  EXPECT_FALSE(budget.observe(request(), response(403, {}, R"({"message":"Resource not accessible"})"), now, wall));
  EXPECT_FALSE(budget.observe(request(), response(200), now, wall));
  EXPECT_EQ(budget.earliest(request(), now), now);
}

TEST(HostBudget, TheLastAllowedAnswerClosesTheBudgetForTheNext) {
  EXPECT_EQ(wait_after(response(200, {{"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", "1800000009"}})), 9);
  EXPECT_EQ(wait_after(response(200, {{"x-ratelimit-remaining", "1"}, {"x-ratelimit-reset", "1800000009"}})), 0);
}

TEST(HostBudget, AnAnswerThatDidNotComeTeachesNothing) {
  HostBudget budget(Millis{0});
  HttpResponse lost = response(429, {{"Retry-After", "60"}});
  lost.failure = TransportFailure::reset;
  EXPECT_FALSE(budget.observe(request(), lost, now, wall));
  EXPECT_EQ(budget.earliest(request(), now), now);
}

TEST(HostBudget, TheTextOfALimitIsReadInAnyCaseAndOnlyAtTheBegin) {
  EXPECT_EQ(wait_after(response(403, {}, "API RATE LIMIT exceeded")), 60);
  EXPECT_EQ(wait_after(response(403, {}, "You have triggered an Abuse Detection mechanism")), 60);
  EXPECT_EQ(wait_after(response(403, {}, std::string(4'096, ' ') + "rate limit")), 0);
}

TEST(HostBudget, AShorterWaitDoesNotOpenALongerOne) {
  HostBudget budget(Millis{0});
  budget.observe(request(), response(429, {{"Retry-After", "600"}}), now, wall);
  budget.observe(request(), response(429, {{"Retry-After", "5"}}), now, wall);
  EXPECT_EQ(budget.earliest(request(), now), now + seconds{600});
  budget.observe(request(), response(200, {{"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", "1800000009"}}), now,
                 wall);
  EXPECT_EQ(budget.earliest(request(), now), now + seconds{600});
}

TEST(HostBudget, RequestsWithoutCredentialOrUsableUrlHaveAccountsToo) {
  HostBudget budget(Millis{1'000});
  HttpRequest anonymous = request(Method::post);
  anonymous.credential.reset();
  budget.sent(anonymous, now);
  EXPECT_EQ(budget.earliest(anonymous, now), now + seconds{1});
  EXPECT_EQ(budget.earliest(request(Method::post), now), now);
  HttpRequest odd = request(Method::delete_, "not a url");
  budget.sent(odd, now);
  EXPECT_EQ(budget.earliest(odd, now), now + seconds{1});
  budget.set_mutation_interval(Millis{0});
  budget.sent(odd, now + seconds{5});
  EXPECT_EQ(budget.earliest(odd, now + seconds{5}), now + seconds{1});
}

TEST(HostBudget, SecondaryLimitsDoubleUntilOneAnswerIsGood) {
  HostBudget budget(Millis{0});
  const auto wait = [&] { return *budget.observe(request(), response(429), now, wall) - now; };
  EXPECT_EQ(wait(), seconds{60});
  EXPECT_EQ(wait(), seconds{120});
  EXPECT_EQ(wait(), seconds{240});
  budget.observe(request(), response(200), now, wall);
  EXPECT_EQ(wait(), seconds{60} + seconds{180});  // begins anew; what is closed stays closed
  HostBudget other(Millis{0});
  for (int i = 0; i < 20; ++i) other.observe(request(), response(429), now, wall);
  EXPECT_LE(other.earliest(request(), now) - now, seconds{3600});
}

TEST(HostBudget, OneAccountPerOriginAndCredential) {
  HostBudget budget(Millis{1'000});
  budget.observe(request(), response(429, {{"Retry-After", "60"}}), now, wall);
  EXPECT_EQ(budget.earliest(request(Method::get, "https://api.github.com/other"), now), now + seconds{60});
  EXPECT_EQ(budget.earliest(request(Method::get, "https://api.github.com/x", "another"), now), now);
  EXPECT_EQ(budget.earliest(request(Method::get, "https://api.digitalocean.com/x"), now), now);
}

TEST(HostBudget, ChangingRequestsKeepTheirDistanceAndReadsDoNotWait) {
  HostBudget budget(Millis{1'000});
  budget.sent(request(Method::post), now);
  EXPECT_EQ(budget.earliest(request(Method::put), now), now + seconds{1});
  EXPECT_LE(budget.earliest(request(Method::get), now), now);
  budget.sent(request(Method::get), now + seconds{5});
  EXPECT_LE(budget.earliest(request(Method::post), now + seconds{5}), now + seconds{5});
}

}  // namespace
}  // namespace ops
