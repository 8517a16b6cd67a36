// Phase kind capture: keeps what proves this run. Image digests and attestations from the registry, the build's logs
// and one evidence file in object storage; a row in ops.artifacts for each, with sha256 and size.
#include <algorithm>

#include "core/crypto.hpp"
#include "core/json.hpp"
#include "phases/github_client.hpp"
#include "phases/object_storage.hpp"
#include "phases/phase_kinds.hpp"
#include "phases/registry_client.hpp"

namespace ops {

namespace {

constexpr std::int64_t largest_log = 512LL * 1024 * 1024;
constexpr int log_tries = 3;

/// An annotation of a descriptor: its keys hold slashes. Empty when absent or no text.
std::string annotation(const Json& descriptor, const char* key) {
  const Json& annotations = value_at(descriptor, "/annotations");
  const auto found = annotations.find(key);
  return annotations.is_object() && found != annotations.end() && found->is_string() ? found->get<std::string>() : "";
}

Json times(const PhaseFacts& phase) {
  const auto milliseconds = [](const std::optional<WallTime>& time) {
    return time ? Json(std::chrono::duration_cast<Millis>(time->time_since_epoch()).count()) : Json();
  };
  return {{"name", phase.name},
          {"kind", phase.kind},
          {"state", to_string(phase.state)},
          {"attempt", phase.attempt},
          {"started_at_ms", milliseconds(phase.started_at)},
          {"finished_at_ms", milliseconds(phase.finished_at)},
          {"outcome", phase.outcome}};
}

void keep(PhaseContext& ctx, Json& kept, ArtifactRecord record) {
  kept.push_back({{"type", record.artifact_type},
                  {"path", record.storage_path},
                  {"digest", record.digest},
                  {"size_bytes", record.size_bytes},
                  {"metadata", record.metadata}});
  ctx.artifact(std::move(record));
}

/// SBOM and provenance that BuildKit attached to a platform's manifest. Facts: moby/buildkit docs/attestations.
Coroutine<int> capture_attestations(PhaseContext& ctx, RegistryClient& registry, const Json& index, Json& kept) {
  int found = 0;
  for (const Json& entry : array_at(index, "/manifests")) {
    if (annotation(entry, "vnd.docker.reference.type") != "attestation-manifest") continue;
    std::string reference = descriptor_at(entry).digest;
    const auto manifest = co_await registry.manifest(reference);
    if (!manifest) continue;
    for (const Json& layer : array_at(manifest->document, "/layers")) {
      if (value_at(layer, "/mediaType") != "application/vnd.in-toto+json") continue;
      const std::string predicate = annotation(layer, "in-toto.io/predicate-type");
      const bool sbom =
          predicate.starts_with("https://spdx.dev/Document") || predicate.starts_with("https://cyclonedx.org/bom");
      const bool provenance = predicate.starts_with("https://slsa.dev/provenance/");
      if (!sbom && !provenance) continue;
      const Descriptor content = descriptor_at(layer);
      ArtifactRecord record{sbom ? "sbom" : "provenance",
                            registry.image_name() + "@" + content.digest,
                            content.digest,
                            content.size,
                            {{"predicate_type", predicate},
                             {"subject", annotation(entry, "vnd.docker.reference.digest")},
                             {"verified", false}}};
      keep(ctx, kept, std::move(record));
      ++found;
    }
  }
  co_return found;
}

Coroutine<> capture_image(PhaseContext& ctx, Json& kept) {
  const Json& built = ctx.outcome_of_kind("github_workflow");
  if (!built.contains("digest") || value_at(ctx.config(), "/registry/image").is_null()) {
    ctx.event(Level::info, "no image was built in this run", Json::object(), "no_image");
    co_return;
  }
  RegistryClient registry(ctx);
  std::string digest = text_at(built, "/digest");
  const auto manifest = co_await registry.manifest(digest);
  if (!manifest)
    throw PhaseError("image_missing", registry.image_name() + "@" + digest + " is no longer in the registry",
                     "Check the registry's retention rules.");
  keep(ctx, kept,
       {"image",
        registry.image_name() + "@" + digest,
        digest,
        static_cast<std::int64_t>(manifest->raw.size()),
        {{"media_type", manifest->media_type}}});
  if (!manifest->is_index()) co_return;
  if (const auto platform = platform_manifest(manifest->document))
    keep(ctx, kept,
         {"image",
          registry.image_name() + "@" + platform->digest,
          platform->digest,
          platform->size,
          {{"platform", "linux/amd64"}}});
  const int attestations = co_await capture_attestations(ctx, registry, manifest->document, kept);
  if (attestations == 0)
    ctx.event(Level::info, "the image carries no SBOM and no provenance", Json::object(), "no_attestations");
}

Coroutine<> capture_log(PhaseContext& ctx, GithubClient& github, ObjectStorage& storage, std::int64_t job_id,
                        std::string job_name, Json& kept) {
  for (int attempt = 1;; ++attempt) {
    HttpRequest options;
    options.response_file = ctx.scratch_file();
    options.scrub_response = true;
    options.max_body_bytes = largest_log;
    options.total_timeout = std::chrono::minutes{10};
    const std::shared_ptr<ScratchFile> file = options.response_file;
    std::string url = github.repository_url() + "/actions/jobs/" + std::to_string(job_id) + "/logs";
    const HttpResponse response = co_await github.download(std::move(url), std::move(options));
    if (response.status == 200) {
      StoredObject object{"build-" + key_part(job_name) + ".log",
                          "text/plain; charset=utf-8",
                          {},
                          file,
                          response.body_bytes,
                          response.body_sha256};
      const std::string path = co_await storage.upload(std::move(object));
      keep(ctx, kept,
           {"build_log",
            path,
            "sha256:" + response.body_sha256,
            response.body_bytes,
            {{"job", job_name}, {"job_id", job_id}}});
      co_return;
    }
    if (response.status != 404 && response.status != 410)
      throw github.unexpected(response, "the log of job " + job_name);
    // Logs may come late, and go before the run's record does.
    if (attempt == log_tries) {
      ctx.event(Level::warn,
                "the log of job " + job_name + " is not available at GitHub (" + std::to_string(response.status) + ")",
                {{"job_id", job_id}}, "no_log:" + std::to_string(job_id));
      co_return;
    }
    co_await ctx.sleep(config_duration(ctx, "/github/poll_interval", std::chrono::seconds{5}));
  }
}

Coroutine<> capture_logs(PhaseContext& ctx, ObjectStorage& storage, Json& kept) {
  const Json& built = ctx.outcome_of_kind("github_workflow");
  const Json& jobs = value_at(built, "/jobs");
  if (!jobs.is_array()) co_return;
  GithubClient github(ctx);
  for (const Json& job : jobs) {
    std::string name = text_at(job, "/name");
    co_await capture_log(ctx, github, storage, integer_at(job, "/id"), std::move(name), kept);
  }
}

}  // namespace

Coroutine<Json> perform_capture(PhaseContext& ctx) {
  Json kept = Json::array();
  co_await capture_image(ctx, kept);
  std::optional<ObjectStorage> storage = ObjectStorage::from(ctx);
  if (storage) co_await capture_logs(ctx, *storage, kept);

  Json phases = Json::array();
  for (const PhaseFacts& phase : ctx.phases()) phases.push_back(times(phase));
  const RunFacts& run = ctx.run();
  const Json evidence{
      {"run_id", run.run_id},   {"project_id", run.project_id}, {"env_id", run.env_id},   {"env_type", run.env_type},
      {"git_sha", run.git_sha}, {"git_ref", run.git_ref},       {"attempt", run.attempt}, {"phases", phases},
      {"artifacts", kept}};
  if (!storage) {
    ctx.event(Level::warn, "no storage is configured: the evidence is kept in this event and logs are not kept",
              evidence, "evidence");
    co_return Json{{"artifacts", kept.size()}, {"stored", false}};
  }
  StoredObject object;
  object.name = "evidence.json";
  object.media_type = "application/json";
  object.body = evidence.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  object.size_bytes = static_cast<std::int64_t>(object.body.size());
  object.sha256 = sha256_hex(object.body);
  const std::string digest = "sha256:" + object.sha256;
  const std::int64_t size = object.size_bytes;
  const std::string path = co_await storage->upload(std::move(object));
  keep(ctx, kept, {"evidence", path, digest, size, Json::object()});
  ctx.event(Level::info, std::to_string(kept.size()) + " artifacts kept", {{"evidence", path}}, "kept");
  co_return Json{{"artifacts", kept.size()}, {"stored", true}, {"evidence", path}};
}

}  // namespace ops
