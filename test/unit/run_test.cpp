// The words of states and kinds, as the database writes them.
#include "core/run.hpp"

#include <gtest/gtest.h>

#include "core/http_message.hpp"

namespace ops {
namespace {

template <class Enum>
void expect_words(const std::vector<std::string>& words, std::optional<Enum> (*from)(std::string_view)) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    EXPECT_EQ(to_string(static_cast<Enum>(i)), words[i]);
    EXPECT_EQ(from(words[i]), static_cast<Enum>(i));
  }
  for (const char* unknown : {"", "?", "Running", "running ", "none"})
    EXPECT_EQ(from(unknown), std::nullopt) << unknown;
  EXPECT_EQ(to_string(static_cast<Enum>(words.size())), "?");
}

TEST(Words, AreReadBackAsTheyAreWritten) {
  expect_words<RunStatus>({"waiting", "queued", "claimed", "running", "success", "failed", "cancelled"},
                          run_status_from);
  expect_words<PhaseState>({"pending", "running", "succeeded", "failed", "skipped", "cancelled"}, phase_state_from);
  expect_words<EffectKind>({"repeatable", "keyed", "unkeyed"}, effect_kind_from);
  expect_words<EffectState>({"intended", "done", "absent", "uncertain", "needs_decision"}, effect_state_from);
  EXPECT_EQ(to_string(Level::debug), "debug");
  EXPECT_EQ(to_string(Level::info), "info");
  EXPECT_EQ(to_string(Level::warn), "warn");
  EXPECT_EQ(to_string(Level::error), "error");
}

// sql/transitions.sql prints the whole table.
TEST(Words, AllowedChangesOfStatus) {
  const RunStatus all[] = {RunStatus::waiting, RunStatus::queued, RunStatus::claimed,  RunStatus::running,
                           RunStatus::success, RunStatus::failed, RunStatus::cancelled};
  for (const RunStatus from : all)
    for (const RunStatus to : all) {
      SCOPED_TRACE(std::string(to_string(from)) + " to " + std::string(to_string(to)));
      const bool allowed = transition_allowed(from, to);
      if (is_final(from) || from == to) EXPECT_FALSE(allowed);
      if (to == RunStatus::claimed) EXPECT_EQ(allowed, from == RunStatus::queued);
      if (to == RunStatus::running) EXPECT_EQ(allowed, from == RunStatus::claimed);
      if (to == RunStatus::success) EXPECT_EQ(allowed, from == RunStatus::claimed || from == RunStatus::running);
      if (to == RunStatus::cancelled) EXPECT_EQ(allowed, !is_final(from));
    }
}

TEST(Words, FinalStates) {
  for (const RunStatus status : {RunStatus::success, RunStatus::failed, RunStatus::cancelled})
    EXPECT_TRUE(is_final(status));
  for (const RunStatus status : {RunStatus::waiting, RunStatus::queued, RunStatus::claimed, RunStatus::running})
    EXPECT_FALSE(is_final(status));
  for (const PhaseState state : {PhaseState::succeeded, PhaseState::failed, PhaseState::skipped, PhaseState::cancelled})
    EXPECT_TRUE(is_final(state));
  for (const PhaseState state : {PhaseState::pending, PhaseState::running}) EXPECT_FALSE(is_final(state));
}

TEST(Words, MethodsAsTheyGoOverTheWire) {
  const std::pair<Method, const char*> methods[] = {{Method::get, "GET"},     {Method::head, "HEAD"},
                                                    {Method::post, "POST"},   {Method::put, "PUT"},
                                                    {Method::patch, "PATCH"}, {Method::delete_, "DELETE"}};
  for (const auto& [method, word] : methods) EXPECT_EQ(to_string(method), word);
  EXPECT_EQ(to_string(static_cast<Method>(99)), "?");
}

TEST(Words, EveryTransportFailureHasItsOwn) {
  std::vector<std::string_view> words;
  for (int i = 0; i <= static_cast<int>(TransportFailure::scratch_file); ++i) {
    const std::string_view word = to_string(static_cast<TransportFailure>(i));
    EXPECT_NE(word, "?") << i;
    EXPECT_EQ(std::ranges::count(words, word), 0) << word;
    words.push_back(word);
  }
  EXPECT_EQ(to_string(static_cast<TransportFailure>(99)), "?");
}

TEST(HttpResponse, HeadersAreFoundInAnyCaseAndTheFirstCounts) {
  HttpResponse response;
  response.headers = {{"ETAG", "one"}, {"etag", "two"}, {"X-[", "odd"}};
  EXPECT_EQ(response.header("etag"), "one");
  EXPECT_EQ(response.header("Etag"), "one");
  EXPECT_EQ(response.header("x-["), "odd");
  EXPECT_EQ(response.header("x-{"), "");  // letters alone have a case
  EXPECT_EQ(response.header("eta"), "");
}

TEST(HttpResponse, OkIsAStatusOf2xxWithoutFailure) {
  HttpResponse response;
  for (const auto& [status, ok] : {std::pair(199, false), {200, true}, {299, true}, {300, false}, {0, false}}) {
    response.status = status;
    EXPECT_EQ(response.ok(), ok) << status;
  }
  response.status = 200;
  response.failure = TransportFailure::reset;
  EXPECT_FALSE(response.ok());
}

TEST(HttpDate, IsReadStrictly) {
  EXPECT_EQ(http_date("Fri, 15 Jan 2027 08:00:20 GMT"), WallTime{std::chrono::seconds{1'800'000'020}});
  for (const char* odd : {"", "Fri, 15 Jan 2027 08:00:20", "Fri, 15 Jan 2027 08:00:20 GMT ", "2027-01-15T08:00:20Z",
                          "Fri, 15 Jom 2027 08:00:20 GMT", "Fri, 15 Jan 2027 25:00:20 GMT"})
    EXPECT_EQ(http_date(odd), std::nullopt) << odd;  // I48
}

TEST(Rfc3339Time, IsReadStrictly) {
  const WallTime expected{std::chrono::seconds{1'800'000'020}};
  for (const char* text : {"2027-01-15T08:00:20Z", "2027-01-15T08:00:20.999Z", "2027-01-15T08:00:20.Z",
                           "2027-01-15T09:30:20+01:30", "2027-01-15T00:00:20-08:00"})
    EXPECT_EQ(rfc3339_time(text), expected) << text;
  for (const char* odd :
       {"", "2027-01-15", "2027-01-15T08:00:20", "2027-13-15T08:00:20Z", "2027-02-29T08:00:20Z", "2027-01-15T24:00:20Z",
        "2027-01-15T08:60:20Z", "2027-01-15T08:00:61Z", "2027-01-15 08:00:20Z", "2027-01-15T08:00:20+0100",
        "2027-01-15T08:00:20+25:00", "2027-01-15T08:00:20Zx", "-027-01-15T08:00:20Z", "2027-1-15T08:00:20Z",
        "1800000020", "20x7-01-15T08:00:20Z"})
    EXPECT_EQ(rfc3339_time(odd), std::nullopt) << odd;  // I48
}

TEST(HttpDate, F50_AClockThatIsAMinuteAwayIsNamed) {
  HttpResponse response;
  const WallTime now{std::chrono::seconds{1'800'000'000}};
  EXPECT_EQ(clock_remark(response, now), "");
  response.headers = {{"Date", "Fri, 15 Jan 2027 08:00:20 GMT"}};
  EXPECT_EQ(clock_remark(response, now), "");
  response.headers = {{"Date", "Fri, 15 Jan 2027 08:10:00 GMT"}};
  EXPECT_EQ(clock_remark(response, now),
            "; the clock of this server is 600 s behind the service's clock, set it right first");
  response.headers = {{"Date", "Fri, 15 Jan 2027 07:59:00 GMT"}};
  EXPECT_NE(clock_remark(response, now).find("60 s ahead of"), std::string::npos);
}

}  // namespace
}  // namespace ops
