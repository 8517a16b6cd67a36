// Uploads to S3-compatible storage.
#include "phases/object_storage.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "core/crypto.hpp"
#include "core/url.hpp"
#include "phase_world.hpp"

namespace ops::test {
namespace {

Coroutine<std::string> nothing_outside(PhaseContext&) {
  co_return std::string();
}
Coroutine<Json> upload_hello(PhaseContext& ctx) {
  std::optional<ObjectStorage> storage = ObjectStorage::from(ctx);
  if (!storage) co_return Json{{"storage", false}};
  StoredObject object;
  object.name = "hello.txt";
  object.media_type = "text/plain";
  object.body = "hello";
  object.size_bytes = 5;
  object.sha256 = sha256_hex("hello");
  std::string path = co_await storage->upload(std::move(object));
  co_return Json{{"path", path}};
}

class ObjectStorageTest : public ::testing::Test, public PhaseWorld {
 protected:
  ObjectStorageTest()
      : PhaseWorld(PhaseCatalog({{"upload", {}, std::chrono::hours{1}, upload_hello, nothing_outside}})) {
    services.on(Method::put, "s3.example", [](const HttpRequest&) { return answer(200); });
    services.on(Method::head, "s3.example", [](const HttpRequest&) { return stored_as("5"); });
  }
  static HttpResponse stored_as(const std::string& length) {
    return with_header(answer(200), "Content-Length", length);
  }
  void upload(const std::string& config = R"({"endpoint": "https://s3.example", "bucket": "acme"})") {
    perform(PhaseWorld::facts("upload", {{"storage", Json::parse(config)}}));
  }
};

TEST_F(ObjectStorageTest, PutsTheObjectAndLooksAtIt) {
  upload();
  EXPECT_EQ(outcome()["path"], "s3://acme/runs/run-1/the_phase/1/hello.txt") << failure().message;
  const HttpRequest put = last_sent(Method::put, "");
  EXPECT_EQ(put.url, "https://s3.example/acme/runs/run-1/the_phase/1/hello.txt");
  EXPECT_EQ(put.body, "hello");
  EXPECT_EQ(put.body_sha256, sha256_hex("hello"));
  EXPECT_EQ(put.credential->scheme, CredentialScheme::aws_sigv4);
  EXPECT_EQ(put.credential->region, "us-east-1");
  EXPECT_EQ(put.credential->secret_name, "storage");
  EXPECT_EQ(last_sent(Method::head, "").url, put.url);
}

// An attempt of the same number may be lost: its object is not overwritten, nor does it overwrite ours when it comes
// late.
TEST_F(ObjectStorageTest, F41_AfterAPromotionOtherBytesHaveAnotherKey) {
  queue(PhaseWorld::facts("upload", {{"storage", {{"endpoint", "https://s3.example"}, {"bucket", "acme"}}}}));
  stored().run.facts.look_first = true;
  world.run_until_idle();
  EXPECT_EQ(outcome()["path"], "s3://acme/runs/run-1/the_phase/1-2cf24dba/hello.txt") << failure().message;
}

TEST_F(ObjectStorageTest, TheConfigurationIsFollowed) {
  upload(
      R"({"endpoint": "https://s3.example///", "bucket": "b", "region": "fra1", "prefix": "a/b", "credential": "c"})");
  const HttpRequest put = last_sent(Method::put, "");
  EXPECT_EQ(put.url, "https://s3.example/b/a/b/run-1/the_phase/1/hello.txt");
  EXPECT_EQ(put.credential->region, "fra1");
  EXPECT_EQ(put.credential->secret_name, "c");
  perform(PhaseWorld::facts("upload", Json::object()));
  EXPECT_EQ(outcome()["storage"], false);
}

TEST_F(ObjectStorageTest, RefusalsAreNamed) {
  for (const auto& [refusal, expected] :
       {std::pair(403, "storage_denied"), std::pair(404, "storage_not_found"), std::pair(400, "storage_rejected")}) {
    services.on(Method::put, "s3.example", Json(), refusal);
    upload();
    EXPECT_EQ(code(), expected);
    EXPECT_NE(failure().message.find("s3://acme/"), std::string::npos);
  }
}

TEST_F(ObjectStorageTest, F53_ALostAnswerIsPutAgain) {
  services.on_each(Method::put, "s3.example", {lost(true), answer(503), answer(200)});
  upload();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(sent(Method::put, ""), 3);
}

TEST_F(ObjectStorageTest, AnObjectOfAnotherSizeIsIncomplete) {
  for (const char* length : {"4", "", "many", "-5", "99999999999999999999"}) {
    services.on(Method::head, "s3.example", [&](const HttpRequest&) { return stored_as(length); });
    upload();
    EXPECT_EQ(code(), "upload_incomplete") << length;
  }
  services.on(Method::head, "s3.example", Json(), 403);
  upload();
  EXPECT_EQ(code(), "upload_incomplete");
}

TEST_F(ObjectStorageTest, F66_AnObjectThatIsShownLateIsWaitedFor) {
  services.on_each(Method::head, "s3.example", {answer(404), answer(404), stored_as("5")});
  upload();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
}

TEST(KeyPart, HoldsPlainCharactersOnly) {
  EXPECT_EQ(key_part("build / 19.0"), "build---19.0");
  EXPECT_EQ(key_part("../../etc"), "..-..-etc");
  EXPECT_EQ(key_part(""), "-");
  EXPECT_EQ(key_part(std::string(1'000, 'x')).size(), 100u);
}

RC_GTEST_PROP(KeyPart, IsAPathSegmentOfAnyText, (const std::string& text)) {
  const std::string part = key_part(text);
  RC_ASSERT(!part.empty());
  RC_ASSERT(percent_encode(part) == part);
}

}  // namespace
}  // namespace ops::test
