// One request on its way: the curl handle, its limits and what has arrived. Private to src/http.
#pragma once

#include <curl/curl.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "core/crypto.hpp"
#include "core/log_scrubber.hpp"
#include "http/http_client.hpp"

namespace ops {

class HttpClient::Transfer {
 public:
  Transfer(TransferId id, HttpRequest request, std::shared_ptr<const Settings> settings, Url url, Origin& origin,
           SteadyTime started);
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  /// Prepares the handle. Empty, or why it cannot be sent.
  std::optional<HttpResponse> prepare();
  CURL* handle() const noexcept { return handle_; }
  TransferId id() const noexcept { return id_; }
  /// Looked at every few seconds; true when it is not worth going on.
  bool stands_still(SteadyTime now);
  /// The answer, after curl has said how the transfer ended.
  HttpResponse result(CURLcode code, SteadyTime now);

 private:
  friend struct HttpClient::Callbacks;
  bool set_body();
  bool finds_no_connection() const;
  void keep_few_idle();
  void limit(TransportFailure failure, std::string text);
  bool take_header(std::string_view line);
  bool take_body(std::string_view bytes);
  bool store(std::string_view bytes);
  bool close_response_file();

  TransferId id_;
  HttpRequest request_;
  std::shared_ptr<const Settings> settings_;
  Url url_;
  Origin& origin_;
  SteadyTime started_;
  CURL* handle_ = nullptr;
  curl_slist* header_list_ = nullptr;
  std::FILE* body_file_ = nullptr;
  std::FILE* response_file_ = nullptr;
  std::optional<Sha256> response_hash_;
  LogScrubber scrubber_;
  HttpResponse response_;
  int header_lines_ = 0;
  std::size_t header_bytes_ = 0;
  std::optional<std::string> content_length_;
  bool chunked_ = false;
  bool sent_ = false;
  std::int64_t moved_bytes_ = 0;         ///< until moving_at_
  std::optional<SteadyTime> moving_at_;  ///< when it was last seen to be fast enough
  /// Why we ended the transfer ourselves; curl then only knows that a callback said no.
  std::optional<TransportFailure> own_failure_;
  std::string own_failure_text_;
};

struct HttpClient::Callbacks {
  static std::size_t write(char* bytes, std::size_t size, std::size_t count, void* transfer) noexcept;
  static std::size_t header(char* bytes, std::size_t size, std::size_t count, void* transfer) noexcept;
  static std::size_t read(char* bytes, std::size_t size, std::size_t count, void* transfer) noexcept;
  static int seek(void* transfer, curl_off_t offset, int origin) noexcept;
  static curl_socket_t open_socket(void* transfer, curlsocktype purpose, curl_sockaddr* address) noexcept;
  static int close_socket(void* origin, curl_socket_t socket) noexcept;
  static int before_send(void* transfer, char*, char*, int, int) noexcept;
  static int socket(CURL* handle, curl_socket_t socket, int what, void* client, void*) noexcept;
  static int timer(CURLM* multi, long timeout_ms, void* client) noexcept;
};

}  // namespace ops
