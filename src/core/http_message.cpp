#include "core/http_message.hpp"

#include <algorithm>
#include <charconv>
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

std::optional<WallTime> rfc3339_time(std::string_view text) {
  const auto number = [&](std::size_t at, std::size_t digits) {
    int value = -1;
    const std::string_view part = text.substr(std::min(at, text.size()), digits);
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    return error == std::errc{} && end == part.data() + part.size() && part.size() == digits ? value : -1;
  };
  constexpr std::string_view form = "0000-00-00T00:00:00";
  if (text.size() <= form.size()) return std::nullopt;
  for (const std::size_t at : {4, 7, 10, 13, 16})
    if (text[at] != form[at]) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year{number(0, 4)},
                                         std::chrono::month{static_cast<unsigned>(number(5, 2))},
                                         std::chrono::day{static_cast<unsigned>(number(8, 2))}};
  const int hour = number(11, 2);
  const int minute = number(14, 2);
  const int second = number(17, 2);
  const auto is_time = [](int h, int m) { return h >= 0 && h < 24 && m >= 0 && m < 60; };
  if (number(0, 4) < 0 || !date.ok() || !is_time(hour, minute) || second < 0 || second > 60) return std::nullopt;

  std::size_t zone = form.size();
  if (text[zone] == '.') zone = std::min(text.find_first_not_of("0123456789", zone + 1), text.size());
  std::chrono::minutes offset{0};
  if (text.substr(zone) != "Z") {
    const bool has_form = text.size() == zone + 6 && (text[zone] == '+' || text[zone] == '-') && text[zone + 3] == ':';
    if (!has_form || !is_time(number(zone + 1, 2), number(zone + 4, 2))) return std::nullopt;
    offset = std::chrono::minutes{(number(zone + 1, 2) * 60 + number(zone + 4, 2)) * (text[zone] == '-' ? -1 : 1)};
  }
  return std::chrono::sys_days{date} + std::chrono::hours{hour} + std::chrono::minutes{minute} - offset +
         std::chrono::seconds{second};
}

WallTime service_time(const HttpResponse& response, WallTime now) {
  return http_date(response.header("date")).value_or(now);
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
