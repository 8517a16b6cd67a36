#include "phases/object_storage.hpp"

#include <charconv>

#include "core/json.hpp"
#include "core/url.hpp"

namespace ops {

namespace {
constexpr Millis upload_time = std::chrono::minutes{10};
}

std::string key_part(std::string_view text) {
  std::string part;
  for (const char c : text.substr(0, 100)) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
    part += plain ? c : '-';
  }
  return part.empty() ? "-" : part;
}

std::optional<ObjectStorage> ObjectStorage::from(PhaseContext& context) {
  if (!value_at(context.config(), "/storage").is_object()) return std::nullopt;
  return ObjectStorage(context);
}

ObjectStorage::ObjectStorage(PhaseContext& context)
    : context_(&context),
      endpoint_(text_at(context.config(), "/storage/endpoint")),
      region_(optional_text_at(context.config(), "/storage/region").value_or("us-east-1")),
      bucket_(text_at(context.config(), "/storage/bucket")),
      prefix_(optional_text_at(context.config(), "/storage/prefix").value_or("runs")),
      credential_(optional_text_at(context.config(), "/storage/credential").value_or("storage")) {
  while (endpoint_.ends_with('/')) endpoint_.pop_back();
}

HttpRequest ObjectStorage::prepared(Method method, const std::string& key) const {
  HttpRequest request;
  request.method = method;
  request.url = endpoint_ + "/" + bucket_ + "/" + percent_encode_path(key);
  request.total_timeout = upload_time;
  request.credential = CredentialUse{CredentialScheme::aws_sigv4, credential_, endpoint_, region_};
  return request;
}

Coroutine<std::string> ObjectStorage::upload(StoredObject object) {
  PhaseContext& ctx = *context_;
  std::string attempt = std::to_string(ctx.run().attempt);
  // Where the newest commits were lost, an attempt with this number may have stored other bytes.
  if (ctx.run().look_first) attempt += "-" + object.sha256.substr(0, 8);
  const std::string key = prefix_ + "/" + ctx.run().run_id + "/" + ctx.phase().name + "/" + attempt + "/" + object.name;
  const std::string where = "s3://" + bucket_ + "/" + key;
  EffectSpec spec;
  spec.key = "upload:" + object.name + ":" + std::to_string(ctx.run().attempt);
  spec.kind = EffectKind::repeatable;  // the same bytes under the same key
  spec.request = prepared(Method::put, key);
  spec.request.headers.push_back({"Content-Type", object.media_type});
  spec.request.body = std::move(object.body);
  spec.request.body_file = std::move(object.file);
  spec.request.body_file_bytes = object.size_bytes;
  spec.request.body_sha256 = object.sha256;
  spec.interpret = [where, &ctx](const HttpResponse& response) {
    if (response.status == 200) return EffectVerdict::done({{"etag", response.header("etag")}});
    const std::string text = "the object store answered " + std::to_string(response.status) + " for " + where;
    if (response.status == 403)
      return EffectVerdict::rejected(
          {"storage_denied", text + clock_remark(response, ctx.now()),
           "Check the storage credential, its rights on the bucket and this server's clock."});
    if (response.status == 404)
      return EffectVerdict::rejected(
          {"storage_not_found", text, "Check storage.endpoint and storage.bucket of the environment."});
    return EffectVerdict::rejected(
        {"storage_rejected", text, "Check storage.endpoint and storage.region of the environment."});
  };
  co_await ctx.effect(std::move(spec));

  HttpRequest head = prepared(Method::head, key);
  RequestPolicy policy;
  policy.retry_not_found = true;  // some stores show a new object late
  const HttpResponse stored = co_await ctx.request(std::move(head), policy);
  std::int64_t size = -1;
  const std::string_view length = stored.header("content-length");
  std::from_chars(length.data(), length.data() + length.size(), size);
  if (stored.status != 200 || size != object.size_bytes)
    throw PhaseError("upload_incomplete",
                     where + " should hold " + std::to_string(object.size_bytes) + " bytes; the store answers " +
                         std::to_string(stored.status) + " with " + std::to_string(size),
                     "Retry the run; if it stays, look at the object store.");
  co_return where;
}

}  // namespace ops
