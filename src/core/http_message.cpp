#include "core/http_message.hpp"

#include <algorithm>
#include <cstdlib>
#include <ctime>

namespace ops {

std::string_view to_string(Method method) {
  switch (method) {
    case Method::get:
      return "GET";
    case Method::head:
      return "HEAD";
    case Method::post:
      return "POST";
    case Method::put:
      return "PUT";
    case Method::patch:
      return "PATCH";
    case Method::delete_:
      return "DELETE";
  }
  return "?";
}

bool is_changing(Method method) {
  return method != Method::get && method != Method::head;
}

std::string_view to_string(TransportFailure failure) {
  switch (failure) {
    case TransportFailure::none:
      return "none";
    case TransportFailure::refused_by_rule:
      return "refused by rule";
    case TransportFailure::secret_missing:
      return "secret missing";
    case TransportFailure::secret_malformed:
      return "secret malformed";
    case TransportFailure::dns:
      return "name not resolved";
    case TransportFailure::connect:
      return "not connected";
    case TransportFailure::exhausted:
      return "not tried";
    case TransportFailure::tls:
      return "TLS";
    case TransportFailure::timeout:
      return "timed out";
    case TransportFailure::reset:
      return "connection lost";
    case TransportFailure::too_large:
      return "too large";
    case TransportFailure::protocol:
      return "not HTTP";
    case TransportFailure::scratch_file:
      return "temporary file";
  }
  return "?";
}

std::string_view HttpResponse::header(std::string_view name) const {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  for (const Header& header : headers)
    if (std::ranges::equal(header.name, name, {}, lower, lower)) return header.value;
  return {};
}

std::optional<WallTime> http_date(std::string_view text) {
  std::tm parts{};
  const std::string terminated(text);
  const char* end = strptime(terminated.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  if (end == nullptr || *end != '\0') return std::nullopt;
  return WallTime{std::chrono::seconds{timegm(&parts)}};
}

std::string clock_remark(const HttpResponse& response, WallTime now) {
  constexpr std::int64_t tolerated = 60;
  const auto date = http_date(response.header("date"));
  if (!date) return {};
  const auto ahead = std::chrono::duration_cast<std::chrono::seconds>(now - *date).count();
  if (std::abs(ahead) < tolerated) return {};
  return "; the clock of this server is " + std::to_string(std::abs(ahead)) + " s " +
         (ahead > 0 ? "ahead of" : "behind") + " the service's clock, set it right first";
}

}  // namespace ops
