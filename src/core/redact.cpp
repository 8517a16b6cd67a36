#include "core/redact.hpp"

#include <algorithm>
#include <array>

namespace ops {

namespace {

constexpr std::string_view mask = "[redacted]";
constexpr int deepest = 64;

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}
char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

/// Where `word` begins in `text` at or after `from`, in any letter case.
std::size_t find_word(std::string_view text, std::string_view word, std::size_t from) {
  const auto found = std::search(text.begin() + static_cast<std::ptrdiff_t>(std::min(from, text.size())), text.end(),
                                 word.begin(), word.end(), [](char a, char b) { return lower(a) == lower(b); });
  return found == text.end() ? std::string_view::npos : static_cast<std::size_t>(found - text.begin());
}

struct TokenForm {
  std::string_view prefix;
  std::size_t shortest;  ///< characters after the prefix
  bool dots;             ///< dots belong to it
};
constexpr std::array token_forms{
    TokenForm{"github_pat_", 10, false}, TokenForm{"ghp_", 10, false},    TokenForm{"gho_", 10, false},
    TokenForm{"ghu_", 10, false},        TokenForm{"ghs_", 10, true},     TokenForm{"ghr_", 10, false},
    TokenForm{"dop_v1_", 10, false},     TokenForm{"doo_v1_", 10, false}, TokenForm{"dor_v1_", 10, false},
    TokenForm{"AKIA", 16, false},        TokenForm{"ASIA", 16, false},    TokenForm{"eyJ", 20, true},
};

/// Length of a token that begins at `at`, 0 if none does.
std::size_t token_at(std::string_view text, std::size_t at) {
  if (at > 0 && is_word(text[at - 1])) return 0;
  for (const TokenForm& form : token_forms) {
    if (!text.substr(at).starts_with(form.prefix)) continue;
    std::size_t end = at + form.prefix.size();
    while (end < text.size() && (is_word(text[end]) || (form.dots && text[end] == '.'))) ++end;
    const std::size_t length = end - at;
    const std::string_view token = text.substr(at, length);
    if (length - form.prefix.size() < form.shortest) continue;
    if (form.prefix == "eyJ" && std::ranges::count(token, '.') < 2) continue;
    return length;
  }
  return 0;
}

std::string mask_tokens(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    const bool may_begin = c == 'g' || c == 'd' || c == 'A' || c == 'e';
    if (const std::size_t length = may_begin ? token_at(text, i) : 0) {
      result += mask;
      i += length;
    } else {
      result += c;
      ++i;
    }
  }
  return result;
}

/// Replaces what stands between the end of `begin_word` and the first of `ends` after it.
void mask_after(std::string& text, std::string_view begin_word, std::string_view ends, bool at_word_begin = false) {
  for (std::size_t from = 0;;) {
    const std::size_t found = find_word(text, begin_word, from);
    if (found == std::string::npos) return;
    const std::size_t begin = found + begin_word.size();
    from = begin;
    if (at_word_begin && found > 0 && is_word(text[found - 1])) continue;
    const std::size_t end = std::min(text.find_first_of(ends, begin), text.size());
    if (end == begin || std::string_view(text).substr(begin, end - begin) == mask) continue;
    text.replace(begin, end - begin, mask);
    from = begin + mask.size();
  }
}

void mask_pem(std::string& text) {
  for (std::size_t from = 0;;) {
    const std::size_t begin = text.find("-----BEGIN", from);
    if (begin == std::string::npos) return;
    const std::size_t header_end = text.find("-----", begin + 10);
    if (header_end == std::string::npos) return;
    if (text.substr(begin, header_end - begin).find("PRIVATE KEY") == std::string::npos) {
      from = header_end;
      continue;
    }
    const std::size_t footer = text.find("-----END", header_end);
    const std::size_t footer_end = footer == std::string::npos ? std::string::npos : text.find("-----", footer + 8);
    const std::size_t end = footer_end == std::string::npos ? text.size() : footer_end + 5;
    text.replace(begin, end - begin, mask);
    from = begin + mask.size();
  }
}

/// user:password@ in URLs
void mask_user_info(std::string& text) {
  for (std::size_t from = 0;;) {
    const std::size_t scheme = text.find("://", from);
    if (scheme == std::string::npos) return;
    const std::size_t begin = scheme + 3;
    const std::size_t end = std::min(text.find_first_of("/?# \t\n\"'<>", begin), text.size());
    const std::size_t at = text.rfind('@', end);
    from = begin;
    if (at == std::string::npos || at < begin || at >= end) continue;
    text.replace(begin, at - begin, mask);
  }
}

constexpr std::array query_names{"x-amz-signature=",
                                 "x-amz-credential=",
                                 "x-amz-security-token=",
                                 "signature=",
                                 "sig=",
                                 "token=",
                                 "access_token=",
                                 "key=",
                                 "code=",
                                 "se=",
                                 "skoid=",
                                 "sktid="};

/// Names whose value is a secret, whatever it looks like.
bool names_a_secret(std::string_view key) {
  std::string name(key);
  std::ranges::transform(name, name.begin(), lower);
  std::erase_if(name, [](char c) { return c == '_' || c == '-' || c == ' '; });
  constexpr std::array whole{"authorization", "cookie", "setcookie", "token", "pat", "pwd", "passwd", "passphrase"};
  constexpr std::array parts{"password",     "secret",       "privatekey",          "apikey",
                             "accesskey",    "accesstoken",  "authtoken",           "bearertoken",
                             "refreshtoken", "sessiontoken", "registrycredentials", "githubtoken",
                             "clientsecret"};
  return std::ranges::any_of(whole, [&](std::string_view word) { return name == word; }) ||
         std::ranges::any_of(parts, [&](std::string_view word) { return name.find(word) != std::string::npos; });
}

Json redacted(const Json& value, int depth) {
  if (value.is_string()) return redact(value.get_ref<const std::string&>());
  if (depth == 0) return value.is_structured() ? Json("[too deep]") : value;
  if (value.is_array()) {
    Json result = Json::array();
    for (const Json& element : value) result.push_back(redacted(element, depth - 1));
    return result;
  }
  if (value.is_object()) {
    Json result = Json::object();
    for (const auto& [key, member] : value.items())
      result[key] =
          names_a_secret(key) && !member.is_null() && !member.is_boolean() ? Json(mask) : redacted(member, depth - 1);
    return result;
  }
  return value;
}

}  // namespace

std::string redact(std::string_view text) {
  std::string result = mask_tokens(text);
  mask_pem(result);
  mask_user_info(result);
  mask_after(result, "authorization: ", "\r\n\"'");
  mask_after(result, "cookie: ", "\r\n\"'");
  mask_after(result, "bearer ", " \t\r\n\"',;", true);
  mask_after(result, "password=", "& \t\r\n\"',;");
  if (result.find('?') != std::string::npos || result.find('&') != std::string::npos)
    for (const std::string_view name : query_names) {
      mask_after(result, std::string("?") + std::string(name), "& \t\r\n\"'<>");
      mask_after(result, std::string("&") + std::string(name), "& \t\r\n\"'<>");
    }
  return result;
}

Json redact_json(const Json& value) {
  return redacted(value, deepest);
}

}  // namespace ops
