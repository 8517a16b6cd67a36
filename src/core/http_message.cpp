#include "core/http_message.hpp"

#include <algorithm>

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

}  // namespace ops
