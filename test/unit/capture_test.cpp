// What is kept of a run: images, attestations, logs, evidence (inputs I32, I49, I50).
#include <gtest/gtest.h>

#include "registry_service.hpp"

namespace ops::test {
namespace {

class Capture : public ::testing::Test, public PhaseWorld {
 protected:
  Capture() {
    attestation = Json::parse(R"({"schemaVersion": 2, "layers": [
        {"mediaType": "application/vnd.in-toto+json", "size": 10,
         "annotations": {"in-toto.io/predicate-type": "https://spdx.dev/Document"}},
        {"mediaType": "application/vnd.in-toto+json", "size": 20,
         "annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}},
        {"mediaType": "application/vnd.in-toto+json", "size": 30,
         "annotations": {"in-toto.io/predicate-type": "https://example.com/other"}},
        {"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 40}]})");
    for (Json& layer : attestation["layers"]) layer["digest"] = some_digest('e');
    attestation["layers"][1]["digest"] = some_digest('f');
    services.on(Method::get, "/manifests/sha256:", [this](const HttpRequest& request) {
      for (const std::string& bytes : {index(), attestation.dump()})
        if (request.url.ends_with(digest_of(bytes))) return served(bytes, index_type);
      return answer(404);
    });
    services.on(Method::put, "s3.example", [this](const HttpRequest& request) {
      stored_bytes = request.body_file ? request.body_file_bytes : static_cast<std::int64_t>(request.body.size());
      return with_header(answer(200), "ETag", "\"tag\"");
    });
    services.on(Method::head, "s3.example", [this](const HttpRequest&) {
      return with_header(answer(200), "Content-Length", std::to_string(stored_bytes));
    });
    services.on(Method::get, "/actions/jobs/77/logs",
                [](const HttpRequest&) { return redirect("https://blob.example/log?sig=hidden"); });
    services.on(Method::get, "blob.example/log", [](const HttpRequest& request) {
      EXPECT_TRUE(request.response_file);
      EXPECT_TRUE(request.scrub_response);  // I49: masked before it is stored
      HttpResponse response = answer(200);
      response.body_bytes = 4'711;
      response.body_sha256 = std::string(64, '9');
      return response;
    });
  }

  std::string index() const {
    Json made = image_index(digest_of(attestation.dump()));
    for (const auto& [pointer, value] : index_changes) made[Json::json_pointer(pointer)] = value;
    return made.dump();
  }
  void keep(Json config = storage()) {
    config["registry"] = {{"image", "acme/odoo"}};
    perform(PhaseWorld::facts("capture", std::move(config)),
            {PhaseWorld::succeeded("github_workflow", {{"digest", digest_of(index())}, {"jobs", jobs}})});
  }
  static Json storage() {
    return Json::parse(R"({"storage": {"endpoint": "https://s3.example/", "bucket": "acme", "region": "fra1"}})");
  }
  std::vector<std::string> kept() {
    std::vector<std::string> types;
    for (const ArtifactRecord& artifact : stored().artifacts) types.push_back(artifact.artifact_type);
    return types;
  }

  Json attestation;
  std::vector<std::pair<std::string, Json>> index_changes;
  Json jobs = Json::parse(R"([{"id": 77, "name": "build / 19.0"}])");
  std::int64_t stored_bytes = -1;
};

TEST_F(Capture, KeepsImagesAttestationsLogsAndEvidence) {
  keep();
  ASSERT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(kept(), (std::vector<std::string>{"image", "image", "sbom", "provenance", "build_log", "evidence"}));
  const auto& artifacts = stored().artifacts;
  EXPECT_EQ(artifacts[0].storage_path, "ghcr.io/acme/odoo@" + digest_of(index()));
  EXPECT_EQ(artifacts[0].size_bytes, static_cast<std::int64_t>(index().size()));
  EXPECT_EQ(artifacts[1].digest, some_digest('a'));
  EXPECT_EQ(artifacts[2].digest, some_digest('e'));
  EXPECT_EQ(artifacts[2].size_bytes, 10);
  EXPECT_EQ(artifacts[3].metadata["predicate_type"], "https://slsa.dev/provenance/v1");
  EXPECT_EQ(artifacts[4].storage_path, "s3://acme/runs/run-1/the_phase/1/build-build---19.0.log");
  EXPECT_EQ(artifacts[4].size_bytes, 4'711);
  EXPECT_EQ(artifacts[4].digest, "sha256:" + std::string(64, '9'));

  const HttpRequest upload = last_sent(Method::put, "evidence.json");
  EXPECT_EQ(artifacts[5].digest, digest_of(upload.body));
  const Json evidence = Json::parse(upload.body);
  EXPECT_EQ(evidence["run_id"], "run-1");
  EXPECT_EQ(evidence["git_sha"], "0123456789abcdef0123456789abcdef01234567");
  EXPECT_EQ(evidence["artifacts"].size(), 5u);
  EXPECT_EQ(evidence["phases"].size(), 2u);
  EXPECT_EQ(evidence["phases"][0]["outcome"]["digest"], digest_of(index()));
  EXPECT_EQ(outcome()["artifacts"], 6);
}

TEST_F(Capture, WithoutStorageTheEvidenceIsAnEvent) {
  keep(Json::object());
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(kept(), (std::vector<std::string>{"image", "image", "sbom", "provenance"}));
  EXPECT_EQ(outcome()["stored"], false);
  EXPECT_TRUE(told("the evidence is kept in this event"));
  EXPECT_EQ(sent(Method::get, "/logs"), 0);
}

TEST_F(Capture, ARunWithoutABuildKeepsItsEvidence) {
  perform(PhaseWorld::facts("capture", storage()));
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(kept(), std::vector<std::string>{"evidence"});
  EXPECT_TRUE(told("no image was built in this run"));
  EXPECT_EQ(sent(Method::get, ""), 0);
}

TEST_F(Capture, AnImageThatIsGoneFails) {
  services.on(Method::get, "/manifests/sha256:", Json::object(), 404);
  keep();
  EXPECT_EQ(code(), "image_missing");
}

TEST_F(Capture, APlainManifestHasNoAttestations) {
  const std::string plain = R"({"schemaVersion": 2, "layers": []})";
  services.on(Method::get, "/manifests/sha256:", [&](const HttpRequest&) { return served(plain, manifest_type); });
  perform(PhaseWorld::facts("capture", {{"registry", {{"image", "acme/odoo"}}}}),
          {PhaseWorld::succeeded("github_workflow", {{"digest", digest_of(plain)}})});
  EXPECT_EQ(kept(), std::vector<std::string>{"image"});
}

TEST_F(Capture, AnImageWithoutAttestationsIsSaidSo) {
  attestation["layers"] = Json::array();
  keep();
  EXPECT_TRUE(told("no SBOM and no provenance"));
  index_changes = {{"/manifests/1/digest", some_digest('d')}};  // the attestation manifest is not there
  keep();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_TRUE(told("no SBOM and no provenance"));
}

TEST_F(Capture, I32_I50_OddDescriptorsFailWithTheirName) {
  const std::vector<std::pair<std::string, Json>> odd{{"/manifests/1/digest", 7},
                                                      {"/manifests/1/digest", "latest"},
                                                      {"/manifests/1/size", -1},
                                                      {"/manifests/0/digest", "sha256:00"},
                                                      {"/manifests/0/size", "12"}};
  for (const auto& change : odd) {
    index_changes = {change};
    keep();
    EXPECT_EQ(code(), "bad_response") << change.first << " = " << change.second;
  }
  index_changes.clear();
  for (const auto& [name, value] : std::vector<std::pair<const char*, Json>>{
           {"size", -1}, {"size", 1.5}, {"digest", "sha256:xyz"}, {"digest", nullptr}}) {
    const Json before = attestation;
    attestation["layers"][0][name] = value;
    keep();
    EXPECT_EQ(code(), "bad_response") << name << " = " << value;
    attestation = before;
  }
}

TEST_F(Capture, I32_OddAnnotationsAreNone) {
  index_changes = {{"/manifests/1/annotations/vnd.docker.reference.type", 17}};
  keep();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  index_changes = {{"/manifests/1/annotations", {1, 2}}};
  keep();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  index_changes.clear();
  attestation["layers"][0]["annotations"] = {{"in-toto.io/predicate-type", Json::array()}};
  attestation["layers"][1]["annotations"] = "text";
  keep();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
}

TEST_F(Capture, ALogThatComesLateIsWaitedForAndOneThatIsGoneIsSaidSo) {
  services.on_each(Method::get, "/actions/jobs/77/logs",
                   {answer(404), redirect("https://blob.example/log?sig=hidden")});
  keep();
  EXPECT_EQ(std::ranges::count(kept(), "build_log"), 1);

  services.on(Method::get, "/actions/jobs/77/logs", Json::object(), 410);
  world.transport.sent.clear();
  keep();
  EXPECT_EQ(status(), RunStatus::success) << failure().message;
  EXPECT_EQ(sent(Method::get, "/actions/jobs/77/logs"), 3);
  EXPECT_EQ(std::ranges::count(kept(), "build_log"), 0);
  EXPECT_TRUE(told("is not available at GitHub (410)"));

  services.on(Method::get, "/actions/jobs/77/logs", Json::object(), 403);
  keep();
  EXPECT_EQ(code(), "github_denied");
}

TEST_F(Capture, NoSignedUrlIsStored) {
  keep();
  std::string text = Json(outcome()).dump();
  for (const EventRecord& event : stored().events) text += event.message + event.payload.dump();
  for (const ArtifactRecord& artifact : stored().artifacts) text += artifact.storage_path + artifact.metadata.dump();
  for (const EffectRecord& effect : stored().run.effects) text += effect.target + Json(effect.outcome).dump();
  EXPECT_EQ(text.find("hidden"), std::string::npos);
}

TEST_F(Capture, NothingIsOutsideWhenItIsCancelled) {
  perform_and_cancel(PhaseWorld::facts("capture", storage()), [this] { return sent(Method::put, "evidence") > 0; });
  EXPECT_EQ(status(), RunStatus::cancelled);
}

}  // namespace
}  // namespace ops::test
