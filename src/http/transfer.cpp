#include "http/transfer.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/redact.hpp"
#include "core/stop_point.hpp"

namespace ops {

namespace {

constexpr int most_header_lines = 100;
constexpr std::size_t most_header_bytes = 64 * 1024;
constexpr std::int64_t low_speed_bytes = 10;  // a second
constexpr std::chrono::seconds low_speed_time{30};
/// To one origin. More than this are left over only where many transfers end and few begin.
constexpr std::size_t most_idle_connections = 200;

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

/// A value that could end the header and begin another one.
bool breaks_header(std::string_view text) {
  return std::ranges::any_of(text, [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
}

TransportFailure failure_of(CURLcode code) {
  switch (code) {
    case CURLE_OK:
      return TransportFailure::none;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      return TransportFailure::dns;
    case CURLE_COULDNT_CONNECT:
    case CURLE_INTERFACE_FAILED:
      return TransportFailure::connect;
    case CURLE_OPERATION_TIMEDOUT:
      return TransportFailure::timeout;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
      return TransportFailure::tls;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
      return TransportFailure::refused_by_rule;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
      return TransportFailure::protocol;
    case CURLE_READ_ERROR:
      return TransportFailure::scratch_file;
    default:
      return TransportFailure::reset;
  }
}

}  // namespace

HttpClient::Transfer::Transfer(TransferId id, HttpRequest request, std::shared_ptr<const Settings> settings, Url url,
                               Origin& origin, SteadyTime started)
    : id_(id),
      request_(std::move(request)),
      settings_(std::move(settings)),
      url_(std::move(url)),
      origin_(origin),
      started_(started) {
  ++origin_.transfers;
}

HttpClient::Transfer::~Transfer() {
  --origin_.transfers;
  if (handle_ != nullptr) curl_easy_cleanup(handle_);
  curl_slist_free_all(header_list_);
  if (body_file_ != nullptr) std::fclose(body_file_);
  if (response_file_ != nullptr) std::fclose(response_file_);
}

std::optional<HttpResponse> HttpClient::Transfer::prepare() {
  const auto refuse = [](TransportFailure failure, std::string text) {
    HttpResponse response;
    response.failure = failure;
    response.failure_text = redact(text);
    return response;
  };
  for (const Header& header : request_.headers)
    if (header.name.empty() || breaks_header(header.name) || breaks_header(header.value) ||
        header.name.find_first_of(": \t") != std::string::npos)
      return refuse(TransportFailure::refused_by_rule, "header \"" + header.name.substr(0, 40) + "\" holds a line end");

  handle_ = curl_easy_init();
  if (handle_ == nullptr) return refuse(TransportFailure::exhausted, "out of memory");
  if (request_.body_file) {
    body_file_ = std::fopen(request_.body_file->path().c_str(), "rbe");
    if (body_file_ == nullptr)
      return refuse(TransportFailure::scratch_file, std::string("body file: ") + std::strerror(errno));
  }
  if (request_.response_file) {
    response_file_ = std::fopen(request_.response_file->path().c_str(), "wbe");
    if (response_file_ == nullptr)
      return refuse(TransportFailure::scratch_file, std::string("temporary file: ") + std::strerror(errno));
    response_hash_.emplace();
  }

  bool out_of_memory = false;
  const auto add_header = [&](const std::string& line) {
    curl_slist* longer = curl_slist_append(header_list_, line.c_str());
    out_of_memory |= longer == nullptr;
    if (longer != nullptr) header_list_ = longer;
  };
  for (const Header& header : request_.headers)
    add_header(header.value.empty() ? header.name + ";" : header.name + ": " + header.value);
  add_header("Expect:");
  const bool typed =
      std::ranges::any_of(request_.headers, [](const Header& h) { return lower(h.name) == "content-type"; });
  if (!typed) add_header("Content-Type:");  // curl would add a form's

  const auto set = [&](auto option, auto value) {
    out_of_memory |= curl_easy_setopt(handle_, option, value) == CURLE_OUT_OF_MEMORY;
  };
  set(CURLOPT_PRIVATE, static_cast<void*>(this));
  set(CURLOPT_URL, request_.url.c_str());
  set(CURLOPT_HTTPHEADER, header_list_);
  set(CURLOPT_USERAGENT, settings_->user_agent.c_str());
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_QUICK_EXIT, 1L);
  set(CURLOPT_PROXY, "");
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_HTTP09_ALLOWED, 0L);
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  if (!settings_->ca_file.empty()) set(CURLOPT_CAINFO, settings_->ca_file.c_str());
  const std::string pins(settings_->pins.of(url_.host));
  if (!pins.empty() && curl_easy_setopt(handle_, CURLOPT_PINNEDPUBLICKEY, pins.c_str()) != CURLE_OK)
    return refuse(TransportFailure::tls, "this libcurl cannot check the pins of " + url_.host);
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request_.connect_timeout.count()));
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(request_.total_timeout.count()));
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  // The length that a HEAD tells is not that of its own body.
  if (request_.method != Method::head) set(CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(request_.max_body_bytes));
  set(CURLOPT_WRITEFUNCTION, Callbacks::write);
  set(CURLOPT_WRITEDATA, static_cast<void*>(this));
  set(CURLOPT_HEADERFUNCTION, Callbacks::header);
  set(CURLOPT_HEADERDATA, static_cast<void*>(this));
  set(CURLOPT_OPENSOCKETFUNCTION, Callbacks::open_socket);
  set(CURLOPT_OPENSOCKETDATA, static_cast<void*>(this));
  // The connection may outlive this transfer: nothing of it is handed over here.
  set(CURLOPT_CLOSESOCKETFUNCTION, Callbacks::close_socket);
  set(CURLOPT_CLOSESOCKETDATA, static_cast<void*>(&origin_));
  set(CURLOPT_PREREQFUNCTION, Callbacks::before_send);
  set(CURLOPT_PREREQDATA, static_cast<void*>(this));
  // Never without a header, a CA file or a limit that found no room.
  if (out_of_memory) return refuse(TransportFailure::exhausted, "out of memory");
  if (!set_body()) return refuse(TransportFailure::scratch_file, "body file cannot be read");
  return std::nullopt;
}

bool HttpClient::Transfer::set_body() {
  const auto set = [&](auto option, auto value) { return curl_easy_setopt(handle_, option, value) == CURLE_OK; };
  if (finds_no_connection() && !set(CURLOPT_FRESH_CONNECT, 1L)) return false;
  if (request_.method == Method::head) return set(CURLOPT_NOBODY, 1L);
  if (request_.method == Method::get) return set(CURLOPT_HTTPGET, 1L);
  // On a reused connection that turns out dead libcurl sends again by itself. A changing request must never be repeated
  // behind our back, so it gets a connection of its own.
  bool done = set(CURLOPT_FRESH_CONNECT, 1L);
  if (body_file_ != nullptr) {
    done = done && set(CURLOPT_UPLOAD, 1L) &&
           set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request_.body_file_bytes)) &&
           set(CURLOPT_READFUNCTION, Callbacks::read) && set(CURLOPT_READDATA, static_cast<void*>(this)) &&
           set(CURLOPT_SEEKFUNCTION, Callbacks::seek) && set(CURLOPT_SEEKDATA, static_cast<void*>(this));
  } else {
    done = done && set(CURLOPT_POST, 1L) &&
           set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body.size())) &&
           set(CURLOPT_POSTFIELDS, request_.body.c_str());
  }
  const std::string method(to_string(request_.method));
  return done && set(CURLOPT_CUSTOMREQUEST, method.c_str());
}

/// No connection is idle and one more is allowed, so that libcurl need not look for any. It may find one all the same
/// when a transfer ends meanwhile: then there is one connection more.
bool HttpClient::Transfer::finds_no_connection() const {
  return !origin_.may_multiplex && origin_.sockets < origin_.transfers &&
         origin_.transfers <= settings_->max_connections_per_host;
}

void HttpClient::Transfer::keep_few_idle() {
  if (!origin_.may_multiplex && origin_.sockets > origin_.transfers + most_idle_connections)
    (void)curl_easy_setopt(handle_, CURLOPT_FORBID_REUSE, 1L);
}

/// libcurl could do this, but it would wake up two or three times a second for each transfer.
bool HttpClient::Transfer::stands_still(SteadyTime now) {
  if (!sent_) return false;
  curl_off_t received = 0, sent = 0;
  curl_easy_getinfo(handle_, CURLINFO_SIZE_DOWNLOAD_T, &received);
  curl_easy_getinfo(handle_, CURLINFO_SIZE_UPLOAD_T, &sent);
  const std::int64_t moved = received + sent;
  if (!moving_at_ || moved - moved_bytes_ >= low_speed_bytes * (now - *moving_at_) / std::chrono::seconds{1}) {
    moving_at_ = now;
    moved_bytes_ = moved;
    return false;
  }
  if (now - *moving_at_ < low_speed_time) return false;
  limit(TransportFailure::timeout, "fewer than 10 bytes a second for 30 s");
  return true;
}

void HttpClient::Transfer::limit(TransportFailure failure, std::string text) {
  if (own_failure_) return;
  own_failure_ = failure;
  own_failure_text_ = std::move(text);
}

bool HttpClient::Transfer::take_header(std::string_view line) {
  header_bytes_ += line.size();
  if (++header_lines_ > most_header_lines || header_bytes_ > most_header_bytes) {
    limit(TransportFailure::too_large, "more than 100 header lines or 64 kB of headers");
    return false;
  }
  if (line.starts_with("HTTP/")) {
    if (is_changing(request_.method))
      OPS_STOP_POINT("after_send",
                     std::string_view());  // of a 1xx answer or the final one: what came before does not count
    origin_.may_multiplex = !line.starts_with("HTTP/1.");
    keep_few_idle();
    response_.headers.clear();
    content_length_.reset();
    chunked_ = false;
    return true;
  }
  const std::string_view text = trimmed(line);
  if (text.empty()) return true;
  const std::size_t colon = text.find(':');
  const bool control = std::ranges::any_of(text, [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 0x7f; });
  if (colon == std::string_view::npos || colon == 0 || control) {
    limit(TransportFailure::protocol, "a header line without a name or with control characters");
    return false;
  }
  Header header{std::string(text.substr(0, colon)), std::string(trimmed(text.substr(colon + 1)))};
  const std::string name = lower(header.name);
  if (name == "content-length") {
    if (content_length_ && *content_length_ != header.value) {
      limit(TransportFailure::protocol, "two different Content-Length headers");
      return false;
    }
    content_length_ = header.value;
  }
  chunked_ |= name == "transfer-encoding";
  if (chunked_ && content_length_) {
    limit(TransportFailure::protocol, "Content-Length together with Transfer-Encoding");
    return false;
  }
  if (name == "content-encoding" && header.value != "identity") {
    limit(TransportFailure::protocol, "a content encoding that was not asked for");
    return false;
  }
  response_.headers.push_back(std::move(header));
  return true;
}

bool HttpClient::Transfer::take_body(std::string_view bytes) {
  response_.body_bytes += static_cast<std::int64_t>(bytes.size());
  if (response_.body_bytes > request_.max_body_bytes) {
    limit(TransportFailure::too_large, "the body is larger than " + std::to_string(request_.max_body_bytes) + " bytes");
    return false;
  }
  if (response_file_ == nullptr) {
    response_.body.append(bytes);
    return true;
  }
  if (!request_.scrub_response) return store(bytes);
  std::string clean;
  scrubber_.feed(bytes, clean);
  return store(clean);
}

bool HttpClient::Transfer::store(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), response_file_) != bytes.size()) {
    limit(TransportFailure::scratch_file, std::string("temporary file: ") + std::strerror(errno));
    return false;
  }
  response_hash_->update(bytes);
  return true;
}

bool HttpClient::Transfer::close_response_file() {
  if (response_file_ == nullptr) return true;
  bool stored = true;
  if (request_.scrub_response) {
    std::string rest;
    scrubber_.finish(rest);
    stored = store(rest);
  }
  const long size = std::ftell(response_file_);
  stored = std::fclose(std::exchange(response_file_, nullptr)) == 0 && stored;
  if (!stored) limit(TransportFailure::scratch_file, std::string("temporary file: ") + std::strerror(errno));
  response_.body_bytes = size;
  response_.body_sha256 = response_hash_->finish_hex();
  return stored;
}

HttpResponse HttpClient::Transfer::result(CURLcode code, SteadyTime now) {
  response_.elapsed = now - started_;
  long status = 0;
  curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &status);
  response_.status = static_cast<int>(status);
  long sent_bytes = 0;
  curl_easy_getinfo(handle_, CURLINFO_REQUEST_SIZE, &sent_bytes);
  response_.request_sent = sent_ || sent_bytes > 0;
  if (request_.credential) response_.credential_version = request_.credential->version;

  TransportFailure failure = failure_of(code);
  // libcurl's word for an answer that claims a protocol it does not speak; the request has been heard.
  if (failure == TransportFailure::refused_by_rule && response_.request_sent) failure = TransportFailure::protocol;
  std::string text = code == CURLE_OK ? std::string() : curl_easy_strerror(code);
  if (code == CURLE_OK && !close_response_file()) failure = TransportFailure::scratch_file;
  if (code == CURLE_SSL_PINNEDPUBKEYNOTMATCH)
    text = "the key of the certificate is none of those that ops_runner.tls_pins names for " + url_.host;
  if (code == CURLE_FILESIZE_EXCEEDED) {
    failure = TransportFailure::too_large;
    text = "the body is larger than " + std::to_string(request_.max_body_bytes) + " bytes";
  }
  if (failure == TransportFailure::none && (status < 100 || status > 599)) {
    failure = TransportFailure::protocol;
    text = "status " + std::to_string(status) + " is none of HTTP's";
  }
  if (own_failure_) {
    failure = *own_failure_;
    text = own_failure_text_;
  }
  // A TLS handshake that ends before the request left has sent nothing.
  response_.failure = failure;
  response_.failure_text = text.empty() ? std::string() : redact(text);
  return std::move(response_);
}

// Callbacks: called by C code, so nothing leaves them but a return value
// -------------------------------------------------

std::size_t HttpClient::Callbacks::write(char* bytes, std::size_t size, std::size_t count, void* transfer) noexcept {
  try {
    return static_cast<Transfer*>(transfer)->take_body({bytes, size * count}) ? size * count : 0;
  } catch (...) {
    return 0;
  }
}

std::size_t HttpClient::Callbacks::header(char* bytes, std::size_t size, std::size_t count, void* transfer) noexcept {
  try {
    return static_cast<Transfer*>(transfer)->take_header({bytes, size * count}) ? size * count : 0;
  } catch (...) {
    return 0;
  }
}

std::size_t HttpClient::Callbacks::read(char* bytes, std::size_t size, std::size_t count, void* transfer) noexcept {
  std::FILE* file = static_cast<Transfer*>(transfer)->body_file_;
  const std::size_t got = std::fread(bytes, 1, size * count, file);
  return got == 0 && std::ferror(file) != 0 ? CURL_READFUNC_ABORT : got;
}

int HttpClient::Callbacks::seek(void* transfer, curl_off_t offset, int origin) noexcept {
  return std::fseek(static_cast<Transfer*>(transfer)->body_file_, static_cast<long>(offset), origin) == 0
             ? CURL_SEEKFUNC_OK
             : CURL_SEEKFUNC_FAIL;
}

/// Every connect passes here with the address it goes to, so a name that changes its address gains nothing.
curl_socket_t HttpClient::Callbacks::open_socket(void* transfer_pointer, curlsocktype,
                                                 curl_sockaddr* address) noexcept {
  auto* transfer = static_cast<Transfer*>(transfer_pointer);
  try {
    IpAddress ip{};
    if (address->family == AF_INET) {
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address->addr);
      ip[10] = ip[11] = 0xff;
      std::memcpy(&ip[12], &v4->sin_addr, 4);
    } else if (address->family == AF_INET6) {
      const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address->addr);
      std::memcpy(ip.data(), &v6->sin6_addr, 16);
    } else {
      return CURL_SOCKET_BAD;
    }
    const std::string refusal = transfer->settings_->rules.refusal(transfer->url_, ip);
    if (!refusal.empty()) {
      transfer->limit(TransportFailure::refused_by_rule, refusal);
      return CURL_SOCKET_BAD;
    }
    const int made = ::socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->protocol);
    if (made < 0 && (errno == EMFILE || errno == ENFILE))
      transfer->limit(TransportFailure::exhausted, std::string("no socket: ") + std::strerror(errno));
    if (made >= 0) ++transfer->origin_.sockets;
    return made;
  } catch (...) {
    return CURL_SOCKET_BAD;
  }
}

/// Called for idle connections too, long after the transfer that made them.
int HttpClient::Callbacks::close_socket(void* origin, curl_socket_t socket) noexcept {
  --static_cast<Origin*>(origin)->sockets;
  return ::close(socket);
}

int HttpClient::Callbacks::before_send(void* transfer, char*, char*, int, int) noexcept {
  static_cast<Transfer*>(transfer)->sent_ = true;
  return CURL_PREREQFUNC_OK;
}

}  // namespace ops
