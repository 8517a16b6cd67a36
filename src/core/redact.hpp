// Masks what looks like a secret in text that is stored or shown: token prefixes (ghp_, ghs_, gho_, ghu_, ghr_,
// github_pat_, dop_v1_, doo_v1_, dor_v1_, AKIA…, eyJ….….…), PEM private keys, Authorization and Cookie header values,
// user:password@ in URLs, query values of signed URLs (X-Amz-*, sig, signature, token, key, code).
#pragma once

#include <string>
#include <string_view>

#include "core/run.hpp"

namespace ops {

std::string redact(std::string_view text);
/// Every string value, at any depth; values of keys that name a secret (password, secret, token, authorization,
/// private_key, api_key, access_key…) are replaced whole. Keys named credential stay: they hold names.
Json redact_json(const Json& value);

}  // namespace ops
