// Rate limits told by services (F62), the pause between changing requests, outages (F65) and refusals (F61).
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

TEST(HostBudget, I43_WaitsAreHeldInBounds) {
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
  budget.configure(Millis{0}, seconds{10});
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

// Outages ----------------------------------------------------------------------------------------------------------

HostBudget with_failures(int count) {
  HostBudget budget(Millis{0}, seconds{10});
  for (int i = 0; i < count; ++i) budget.observe_health(request(), true, now);
  return budget;
}

TEST(HostBudget, F65_SeveralFailuresInARowAreAnOutageAndOneAnswerEndsIt) {
  HostBudget budget = with_failures(HostBudget::failures_until_outage - 1);
  EXPECT_FALSE(budget.has_outage(request()));
  EXPECT_EQ(budget.next_probe(request(), now), now);
  budget.observe_health(request(), true, now);
  EXPECT_TRUE(budget.has_outage(request()));
  EXPECT_EQ(budget.next_probe(request(), now), now + seconds{10});
  budget.observe_health(request(), false, now);
  EXPECT_FALSE(budget.has_outage(request()));
  EXPECT_EQ(budget.next_probe(request(), now), now);
}

TEST(HostBudget, F65_AnAnswerBetweenFailuresKeepsTheServiceWell) {
  HostBudget budget(Millis{0}, seconds{10});
  for (int i = 0; i < 50; ++i) budget.observe_health(request(), i % 3 != 0, now);
  EXPECT_FALSE(budget.has_outage(request()));
}

TEST(HostBudget, F65_InAnOutageOneProbeLeavesInEachInterval) {
  HostBudget budget = with_failures(HostBudget::failures_until_outage);
  const SteadyTime then = now + seconds{10};
  EXPECT_EQ(budget.next_probe(request(), then), then);
  budget.probe_sent(request(), then);
  EXPECT_EQ(budget.next_probe(request(), then), then + seconds{10});
  budget.observe_health(request(), true, then + seconds{1});
  EXPECT_EQ(budget.next_probe(request(), then + seconds{1}), then + seconds{10});
}

TEST(HostBudget, F65_AnOutageIsOfOneOriginWithAllItsCredentials) {
  const HostBudget budget = with_failures(HostBudget::failures_until_outage);
  EXPECT_TRUE(budget.has_outage(request(Method::post, "https://api.github.com/other", "another")));
  EXPECT_FALSE(budget.has_outage(request(Method::get, "https://api.digitalocean.com/x")));
}

// Credentials --------------------------------------------------------------------------------------------------------

HttpResponse answered(int status, const std::string& version = "v1") {
  HttpResponse made = response(status);
  made.credential_version = version;
  return made;
}
HostBudget refused(int status = 401) {
  HostBudget budget(Millis{0}, seconds{10});
  budget.credential_shown("acme", request(), now);
  budget.observe_credential("acme", request(), answered(status), now);
  return budget;
}

TEST(HostBudget, F61_ARefusedCredentialIsShownAgainAfterAPauseThatDoubles) {
  HostBudget budget = refused();
  const auto next_probe = [&](SteadyTime at) { return budget.refusal("acme", request(), at).value().next_probe; };
  EXPECT_EQ(budget.refusal("acme", request(), now)->version, "v1");
  SteadyTime probe = now + seconds{60};
  EXPECT_EQ(next_probe(now), probe);
  budget.observe_credential("acme", request(), answered(401), now + seconds{1});  // was on its way
  EXPECT_EQ(next_probe(now + seconds{1}), probe);
  for (const long pause : {120, 240, 480, 960, 1920, 3600, 3600}) {
    EXPECT_FALSE(budget.refusal("acme", request(), probe));
    budget.credential_shown("acme", request(), probe);
    EXPECT_TRUE(budget.refusal("acme", request(), probe)) << "one probe at a time";
    budget.observe_credential("acme", request(), answered(401), probe + seconds{1});
    EXPECT_EQ(next_probe(probe + seconds{1}), probe + seconds{1 + pause});
    probe += seconds{1 + pause};
  }
  budget.credential_shown("acme", request(), probe);
  budget.observe_credential("acme", request(), answered(404), probe);
  EXPECT_FALSE(budget.refusal("acme", request(), probe)) << "it has been taken";
}

TEST(HostBudget, F61_ARefusalIsOfOneProjectOriginAndCredential) {
  const HostBudget budget = refused(403);
  EXPECT_TRUE(budget.refusal("acme", request(Method::post, "https://api.github.com/other"), now));
  EXPECT_FALSE(budget.refusal("bolt", request(), now));
  EXPECT_FALSE(budget.refusal("acme", request(Method::get, "https://api.github.com/x", "another"), now));
  EXPECT_FALSE(budget.refusal("acme", request(Method::get, "https://api.digitalocean.com/x"), now));
  HttpRequest anonymous = request();
  anonymous.credential.reset();
  EXPECT_FALSE(budget.refusal("acme", anonymous, now));
}

TEST(HostBudget, F61_ASecretThatWasReplacedIsShownAtOnceAndItsRefusalBeginsAnew) {
  HostBudget budget = refused();
  budget.forget_refusal("acme", request());
  EXPECT_FALSE(budget.refusal("acme", request(), now));
  budget.credential_shown("acme", request(), now);
  budget.observe_credential("acme", request(), answered(401, "v2"), now);
  EXPECT_EQ(budget.refusal("acme", request(), now)->version, "v2");
  EXPECT_EQ(budget.refusal("acme", request(), now)->next_probe, now + seconds{60});
}

TEST(HostBudget, F61_WhatSpeaksOfSomethingElseIsNoRefusal) {
  for (const int status : {200, 304, 404, 422, 500, 503}) EXPECT_FALSE(refused(status).refusal("acme", request(), now));
  HostBudget budget(Millis{0}, seconds{10});
  budget.observe_credential("acme", request(Method::head), answered(403), now);  // S3: not there
  EXPECT_FALSE(budget.refusal("acme", request(), now));
  HttpResponse lost = answered(401);
  lost.failure = TransportFailure::reset;
  budget.observe_credential("acme", request(), lost, now);
  EXPECT_FALSE(budget.refusal("acme", request(), now));
}

TEST(HostBudget, F61_OneRequestShowsACredentialFirstAndTheOthersWaitShortlyForItsAnswer) {
  HostBudget budget(Millis{0}, seconds{10});
  EXPECT_EQ(budget.first_shown("acme", request(), now), now);
  budget.credential_shown("acme", request(), now);
  EXPECT_EQ(budget.first_shown("acme", request(), now), now + Millis{50});
  EXPECT_EQ(budget.first_shown("bolt", request(), now), now);
  budget.observe_credential("acme", request(), answered(200), now);
  EXPECT_EQ(budget.first_shown("acme", request(), now), now);
  // Not heard of for a while, and the service does not answer: the credential is not what it is slow about.
  const SteadyTime later = now + seconds{60};
  budget.credential_shown("acme", request(), later);
  EXPECT_GT(budget.first_shown("acme", request(), later + seconds{9}), later + seconds{9});
  EXPECT_EQ(budget.first_shown("acme", request(), later + seconds{10}), later + seconds{10});
  budget.credential_shown("acme", request(), later + seconds{10});
  EXPECT_EQ(budget.first_shown("acme", request(), later + seconds{10}), later + seconds{10});
}

// Clocks -------------------------------------------------------------------------------------------------------------

TEST(ClockRemark, F50_AClockFarAwayIsNamed) {
  const auto remark = [](std::int64_t ahead) {
    return clock_remark(response(401, {{"Date", "Fri, 15 Jan 2027 08:00:00 GMT"}}), wall + seconds{ahead});
  };
  EXPECT_EQ(remark(0), "");
  EXPECT_EQ(remark(59), "");
  EXPECT_EQ(remark(-59), "");
  EXPECT_NE(remark(600).find("clock of this server is 600 s ahead of"), std::string::npos);
  EXPECT_NE(remark(-600).find("clock of this server is 600 s behind"), std::string::npos);
  EXPECT_EQ(clock_remark(response(401), wall), "");
  EXPECT_EQ(clock_remark(response(401, {{"Date", "yesterday"}}), wall), "");
}

}  // namespace
}  // namespace ops
