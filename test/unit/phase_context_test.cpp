// What a phase may await: reads that are tried again, effects that are not, checkpoints (faults F52 to F62, F80).
#include "core/phase_context.hpp"

#include <gtest/gtest.h>

#include "phase_world.hpp"

namespace ops::test {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

const std::string url = "https://service.example/thing?signature=hidden";

Coroutine<std::string> nothing_outside(PhaseContext&) {
  co_return std::string();
}
RequestPolicy policy_of(const PhaseContext& ctx) {
  RequestPolicy policy;
  policy.max_attempts = static_cast<int>(optional_integer_at(ctx.config(), "/attempts").value_or(3));
  policy.retry_not_found = value_at(ctx.config(), "/retry_not_found") == true;
  return policy;
}
HttpRequest the_request() {
  HttpRequest request;
  request.url = url;
  request.credential = CredentialUse{CredentialScheme::bearer, "the_secret", "https://service.example", ""};
  return request;
}
Coroutine<Json> read(PhaseContext& ctx) {
  HttpRequest request = the_request();
  const HttpResponse response = co_await ctx.request(std::move(request), policy_of(ctx));
  co_return Json{{"status", response.status}};
}
Coroutine<Json> read_once(PhaseContext& ctx) {
  HttpRequest request = the_request();
  const HttpResponse response = co_await ctx.request_once(std::move(request));
  co_return Json{{"failure", to_string(response.failure)}, {"status", response.status}};
}
Coroutine<Json> effect(PhaseContext& ctx) {
  EffectSpec spec;
  spec.key = "the_effect";
  const std::string kind = optional_text_at(ctx.config(), "/kind").value_or("keyed");
  spec.kind = *effect_kind_from(kind);
  spec.request = the_request();
  spec.request.method = Method::post;
  spec.request.body_file = kind == "repeatable" ? ctx.scratch_file() : nullptr;
  spec.request.body_sha256 = "hash of the file";
  spec.interpret = [](const HttpResponse& response) {
    if (response.status == 200) return EffectVerdict::done({{"id", 7}});
    if (response.status == 299) return EffectVerdict::ambiguous();
    return EffectVerdict::rejected({"it_broke", "rejected with hidden words", "hint"});
  };
  spec.look = [&ctx]() -> Coroutine<std::optional<Json>> {
    HttpRequest request;
    request.url = "https://service.example/look";
    const HttpResponse response = co_await ctx.request(std::move(request));
    if (response.status == 200) co_return Json{{"id", 8}};
    co_return std::nullopt;
  };
  Json outcome = co_await ctx.effect(std::move(spec));
  co_return outcome;
}
Coroutine<Json> records(PhaseContext& ctx) {
  const Json first = ctx.remember("key", 1);
  const Json second = ctx.remember("key", 2);
  const bool known = ctx.recall("key").has_value();
  ctx.event(Level::info, "told once", Json::object(), "once");
  ctx.event(Level::info, "told once", Json::object(), "once");
  ctx.event(Level::info, "told twice");
  ctx.event(Level::info, "told twice with ghp_0123456789abcdefghijABCDEFGHIJ012345", {{"password", "hunter2"}});
  ctx.artifact({"evidence", "s3://b/k", "sha256:" + std::string(64, '0'), 1, Json::object()});
  co_await ctx.committed();
  co_return Json{{"first", first}, {"second", second}, {"known", known}, {"unknown", ctx.recall("other").has_value()}};
}

class PhaseContextTest : public ::testing::Test, public PhaseWorld {
 protected:
  PhaseContextTest()
      : PhaseWorld(PhaseCatalog({{"read", {}, std::chrono::hours{1}, read, nothing_outside},
                                 {"once", {}, std::chrono::hours{1}, read_once, nothing_outside},
                                 {"effect", {}, std::chrono::hours{1}, effect, nothing_outside},
                                 {"records", {}, std::chrono::hours{1}, records, nothing_outside}})) {
    services.on(Method::get, "/thing", Json::object());
    services.on(Method::post, "/thing", Json::object());
  }
  void run(const std::string& kind, const Json& config = Json::object()) {
    begin = world.clock.steady_now();
    perform(PhaseWorld::facts(kind, config));
  }
  std::chrono::microseconds taken() const { return world.clock.steady_now() - begin; }
  const EffectRecord& recorded() { return stored().run.effects.at(0); }

  SteadyTime begin;
};

TEST_F(PhaseContextTest, PermanentFailuresHaveACodeAndAreNotRepeated) {
  const std::pair<TransportFailure, const char*> permanent[] = {
      {TransportFailure::refused_by_rule, "refused_by_rule"},
      {TransportFailure::tls, "tls_failed"},
      {TransportFailure::secret_malformed, "secret_malformed"},
      {TransportFailure::too_large, "bad_response"},
      {TransportFailure::protocol, "bad_response"},
      {TransportFailure::scratch_file, "disk_full"}};
  for (const auto& [permanent_failure, expected] : permanent)
    for (const Method method : {Method::get, Method::post}) {
      services.on(method, "/thing", [given = permanent_failure](const HttpRequest&) { return failed(given); });
      world.transport.sent.clear();
      run(method == Method::get ? "read" : "effect");
      EXPECT_EQ(code(), expected);
      EXPECT_EQ(world.transport.sent.size(), 1u);
      EXPECT_NE(failure().message.find("https://service.example/thing"), std::string::npos);
      EXPECT_NE(failure().message.find("why it failed"), std::string::npos);
      EXPECT_EQ(failure().message.find("hidden"), std::string::npos);
      EXPECT_FALSE(failure().payload["hint"].get<std::string>().empty());
    }
}

TEST_F(PhaseContextTest, F80_AMissingSecretParksTheRunUnderItsName) {
  for (const char* kind : {"read", "effect"}) {
    for (const Method method : {Method::get, Method::post})
      services.on(method, "/thing", [](const HttpRequest&) { return failed(TransportFailure::secret_missing); });
    run(kind);
    EXPECT_EQ(status(), RunStatus::waiting) << kind;
    EXPECT_EQ(stored().run.phases[0].state, PhaseState::pending);
    EXPECT_EQ(stored().events.back().payload["waiting_for"], "secret:the_secret");
  }
  EXPECT_EQ(recorded().state, EffectState::absent);
}

TEST_F(PhaseContextTest, F52_LostConnectionsAreTriedAgainWithGrowingWaits) {
  for (const TransportFailure passing :
       {TransportFailure::dns, TransportFailure::connect, TransportFailure::timeout, TransportFailure::reset}) {
    services.on_each(Method::get, "/thing", {failed(passing), failed(passing), answer(200)});
    run("read");
    EXPECT_EQ(outcome()["status"], 200);
    EXPECT_GE(taken(), seconds{2});  // 0.75 s and 1.5 s with the middle of the jitter
    EXPECT_TRUE(told(to_string(passing).data()));
  }
}

TEST_F(PhaseContextTest, StatusesThatPassAreTriedAgainAndOthersAreAnswers) {
  for (const int passing : {408, 425, 500, 502, 503, 504, 599}) {
    services.on_each(Method::get, "/thing", {answer(passing), answer(200)});
    run("read");
    EXPECT_EQ(outcome()["status"], 200) << passing;
  }
  for (const int lasting : {200, 204, 304, 400, 401, 403, 404, 409, 422, 600}) {
    services.on(Method::get, "/thing", [=](const HttpRequest&) { return answer(lasting); });
    world.transport.sent.clear();
    run("read");
    EXPECT_EQ(outcome()["status"], lasting);
    EXPECT_EQ(world.transport.sent.size(), 1u);
  }
  services.on_each(Method::get, "/thing", {answer(404), answer(200)});
  run("read", {{"retry_not_found", true}});
  EXPECT_EQ(outcome()["status"], 200);
}

TEST_F(PhaseContextTest, F65_RetriesEnd) {
  services.on(Method::get, "/thing", [](const HttpRequest&) { return answer(503); });
  run("read", {{"attempts", 4}});
  EXPECT_EQ(code(), "service_unavailable");
  EXPECT_EQ(world.transport.sent.size(), 4u);
  EXPECT_EQ(failure().payload["attempts"], 4);
  EXPECT_NE(failure().message.find("failed 4 times, the last time with status 503"), std::string::npos);
  services.on(Method::get, "/thing", [](const HttpRequest&) { return failed(TransportFailure::dns); });
  run("read", {{"attempts", 1'000}});  // ends by its time
  EXPECT_EQ(code(), "service_unavailable");
  EXPECT_LE(taken(), minutes{15});
  EXPECT_NE(failure().message.find("name not resolved: why it failed"), std::string::npos);
}

TEST_F(PhaseContextTest, I43_AWaitThatIsAskedForIsKept) {
  services.on_each(Method::get, "/thing", {with_header(answer(503), "Retry-After", "90"), answer(200)});
  run("read");
  EXPECT_EQ(outcome()["status"], 200);
  EXPECT_GE(taken(), seconds{90});
}

TEST_F(PhaseContextTest, F62_ARateLimitIsWaitedOutAndIsNoAttempt) {
  std::vector<HttpResponse> answers(5, with_header(answer(429), "Retry-After", "20"));
  answers.push_back(answer(200));
  services.on_each(Method::get, "/thing", answers);
  run("read", {{"attempts", 1}});
  EXPECT_EQ(outcome()["status"], 200);
  EXPECT_EQ(taken(), seconds{100});
  EXPECT_TRUE(told("rate limited by the service; going on in 20 s"));

  services.on(Method::get, "/thing",
              [](const HttpRequest&) { return with_header(answer(429), "Retry-After", "3000"); });
  run("read");
  EXPECT_EQ(code(), "rate_limited");
  EXPECT_NE(failure().message.find("rate limited for another 3000 s"), std::string::npos);
}

TEST_F(PhaseContextTest, OneTryReturnsWhateverCame) {
  services.on(Method::get, "/thing", [](const HttpRequest&) { return failed(TransportFailure::tls); });
  run("once");
  EXPECT_EQ(outcome()["failure"], "TLS");
  services.on(Method::get, "/thing", [](const HttpRequest&) { return answer(503); });
  run("once");
  EXPECT_EQ(outcome()["status"], 503);
  EXPECT_EQ(world.transport.sent.size(), 2u);
}

TEST_F(PhaseContextTest, AnEffectIsRecordedWithWhatWasSent) {
  run("effect");
  EXPECT_EQ(recorded().state, EffectState::done);
  EXPECT_EQ(recorded().outcome["id"], 7);
  EXPECT_EQ(recorded().attempt, 1);
  EXPECT_EQ(recorded().target, "POST https://service.example/thing");
  EXPECT_EQ(recorded().request_hash.size(), 64u);
  const std::string hash = recorded().request_hash;
  run("effect", {{"kind", "repeatable"}});
  EXPECT_NE(recorded().request_hash, hash);  // of the file's hash instead of the body
}

TEST_F(PhaseContextTest, ARejectedEffectIsAbsentAndFails) {
  services.on(Method::post, "/thing", Json::object(), 422);
  run("effect");
  EXPECT_EQ(code(), "it_broke");
  EXPECT_EQ(recorded().state, EffectState::absent);
}

TEST_F(PhaseContextTest, F54_AnAmbiguousAnswerIsLookedFor) {
  for (const HttpResponse& ambiguous :
       {lost(true), answer(500), answer(408), answer(299), failed(TransportFailure::tls, true),
        failed(TransportFailure::too_large, true), failed(TransportFailure::protocol, true)}) {
    services.on(Method::post, "/thing", [&](const HttpRequest&) { return ambiguous; });
    services.on(Method::get, "/look", Json::object());
    world.transport.sent.clear();
    run("effect");
    EXPECT_EQ(outcome()["id"], 8);
    EXPECT_EQ(sent(Method::post, "/thing"), 1);
    EXPECT_TRUE(told("was found and adopted"));
  }
}

TEST_F(PhaseContextTest, F53_ARepeatableEffectIsSentAgainWithoutLooking) {
  services.on_each(Method::post, "/thing", {lost(true), answer(500), answer(200)});
  run("effect", {{"kind", "repeatable"}});
  EXPECT_EQ(status(), RunStatus::success);
  EXPECT_EQ(sent(Method::post, "/thing"), 3);
  EXPECT_EQ(sent(Method::get, "/look"), 0);
  EXPECT_EQ(recorded().attempt, 3);
}

TEST_F(PhaseContextTest, AnEffectIsNotSentForEver) {
  // Not lost often enough in a row to be called an outage: the answers to looking are good.
  services.on(Method::post, "/thing", [](const HttpRequest&) { return answer(299); });
  run("effect");
  EXPECT_EQ(code(), "service_unavailable");
  EXPECT_EQ(sent(Method::post, "/thing"), 8);
  EXPECT_EQ(recorded().state, EffectState::absent);
  EXPECT_NE(failure().message.find("POST https://service.example/thing failed 8 times"), std::string::npos);
}

TEST_F(PhaseContextTest, F65_AnEffectOutlivesAnOutageOfAQuarterOfAnHour) {
  services.on(Method::post, "/thing", [](const HttpRequest&) { return lost(false); });
  run("effect");
  EXPECT_EQ(code(), "service_unavailable");
  EXPECT_EQ(recorded().state, EffectState::absent);
  EXPECT_GE(taken(), minutes{15});
  EXPECT_LE(taken(), minutes{16});
  EXPECT_LE(sent(Method::post, "/thing"), 100);  // one each ten seconds
}

TEST_F(PhaseContextTest, F48_NoMoreDescriptorsIsNotTheServicesFault) {
  services.on_each(Method::get, "/thing", {failed(TransportFailure::exhausted), answer(200)});
  run("read");
  EXPECT_EQ(outcome()["status"], 200);
  services.on(Method::get, "/thing", [](const HttpRequest&) { return failed(TransportFailure::exhausted); });
  run("read", {{"attempts", 9}});
  EXPECT_EQ(code(), "service_unavailable");
  EXPECT_NE(failure().payload["hint"].get<std::string>().find("open files"), std::string::npos);
  EXPECT_EQ(failure().payload["attempts"], 9);  // no outage, which would not count them
}

TEST_F(PhaseContextTest, F62_AThrottledEffectHadNoEffectAndIsSentLater) {
  services.on_each(
      Method::post, "/thing",
      {with_header(answer(429), "Retry-After", "30"), with_header(answer(403), "Retry-After", "30"), answer(200)});
  run("effect", {{"kind", "unkeyed"}});
  EXPECT_EQ(status(), RunStatus::success);
  EXPECT_EQ(taken(), seconds{60});
  EXPECT_TRUE(told("the_effect is sent later"));
}

TEST_F(PhaseContextTest, F03_ALookThatACrashInterruptedIsDoneAgain) {
  services.on(Method::post, "/thing", [](const HttpRequest&) { return lost(true); });
  services.on(Method::get, "/look", Json::object());
  queue(PhaseWorld::facts("effect", Json::object()));
  world.run_until_idle([this] { return sent(Method::get, "/look") > 0; });
  EXPECT_EQ(recorded().state, EffectState::uncertain);
  restart();
  world.run_until_idle();
  EXPECT_EQ(outcome()["id"], 8);
  EXPECT_EQ(sent(Method::get, "/look"), 2);
  EXPECT_EQ(sent(Method::post, "/thing"), 1);
}

TEST_F(PhaseContextTest, AnUnkeyedEffectWithLostAnswerWaitsForAPersonInEveryLife) {
  services.on(Method::post, "/thing", [](const HttpRequest&) { return lost(true); });
  run("effect", {{"kind", "unkeyed"}});
  EXPECT_EQ(status(), RunStatus::waiting);
  EXPECT_EQ(recorded().state, EffectState::needs_decision);
  stored().run.status = RunStatus::queued;  // somebody queues it without having decided
  world.loop->ring_queue();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::waiting);
  EXPECT_EQ(sent(Method::post, "/thing"), 1);
  stored().run.effects[0].state = EffectState::done;
  stored().run.effects[0].outcome = {{"id", 9}};
  stored().run.status = RunStatus::queued;
  world.loop->ring_queue();
  world.run_until_idle();
  EXPECT_EQ(status(), RunStatus::success);
  EXPECT_EQ(outcome()["id"], 9);
  EXPECT_EQ(sent(Method::post, "/thing"), 1);
}

TEST_F(PhaseContextTest, CheckpointsEventsAndArtifactsAreKeptAsPromised) {
  run("records");
  EXPECT_EQ(outcome(), Json::parse(R"({"first": 1, "second": 1, "known": true, "unknown": false})"));
  EXPECT_EQ(stored().run.phases[0].remembered, Json({{"key", 1}}));
  const auto texts = world.messages("run-1");
  EXPECT_EQ(std::ranges::count(texts, "told once"), 1);
  EXPECT_EQ(std::ranges::count(texts, "told twice with [redacted]"), 1);
  EXPECT_EQ(stored().artifacts.size(), 1u);
  for (const EventRecord& event : stored().events) EXPECT_EQ(event.payload.dump().find("hunter2"), std::string::npos);
}

}  // namespace
}  // namespace ops::test
