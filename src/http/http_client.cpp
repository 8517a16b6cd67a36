#include "http/http_client.hpp"

#include <csignal>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <new>
#include <stdexcept>
#include <utility>

#include "core/credential.hpp"
#include "core/crypto.hpp"
#include "core/redact.hpp"
#include "http/transfer.hpp"

static_assert(LIBCURL_VERSION_NUM >= 0x075800, "libcurl 7.88 or later is needed");

namespace ops {

namespace {

constexpr Millis look_interval{2'000};

/// The resolver thread that libcurl starts inherits the signal mask: with everything blocked it can take no signal that
/// is meant for the server's process.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

HttpResponse refused(TransportFailure failure, const std::string& text) {
  HttpResponse response;
  response.failure = failure;
  response.failure_text = redact(text);
  return response;
}

}  // namespace

HttpClient::HttpClient(Settings settings, SecretSource& secrets, const Clock& clock)
    : settings_(std::make_shared<const Settings>(std::move(settings))), secrets_(secrets), clock_(clock) {
  static std::once_flag initialised;
  std::call_once(initialised, [] {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) throw std::runtime_error("libcurl cannot be initialised");
    // OpenSSL makes its tables at their first use, and where that failed half way it follows null pointers at the next.
    (void)sha256_hex({});
    // Without an asynchronous resolver a slow name server would hold up the whole worker.
    if ((curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS) == 0)
      throw std::runtime_error("this libcurl has no asynchronous name resolution");
  });
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  multi_ = curl_multi_init();
  if (epoll_ < 0 || multi_ == nullptr) throw std::runtime_error("no descriptor for the HTTP client");
  curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, Callbacks::socket);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, static_cast<void*>(this));
  curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, Callbacks::timer);
  curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, static_cast<void*>(this));
  curl_multi_setopt(multi_, CURLMOPT_MAX_HOST_CONNECTIONS, static_cast<long>(settings_->max_connections_per_host));
}

HttpClient::~HttpClient() {
  for (const auto& [id, transfer] : transfers_) curl_multi_remove_handle(multi_, transfer->handle());
  transfers_.clear();
  curl_multi_cleanup(multi_);
  close(epoll_);
}

void HttpClient::configure(Settings settings) {
  settings_ = std::make_shared<const Settings>(std::move(settings));
  curl_multi_setopt(multi_, CURLMOPT_MAX_HOST_CONNECTIONS, static_cast<long>(settings_->max_connections_per_host));
}

std::optional<Millis> HttpClient::timeout() const {
  if (!finished_.empty()) return Millis{0};
  std::optional<SteadyTime> next = curl_deadline_;
  if (!transfers_.empty()) next = next ? std::min(*next, next_look_) : next_look_;
  if (!next) return std::nullopt;
  const SteadyTime now = clock_.steady_now();
  return *next <= now ? Millis{0} : std::chrono::ceil<Millis>(*next - now);
}

void HttpClient::start(TransferId id, HttpRequest request) {
  std::string why;
  const auto url = parse_url(request.url, &why);
  if (!url) return finish(id, refused(TransportFailure::refused_by_rule, why));
  if (const std::string refusal = settings_->rules.refusal(*url); !refusal.empty())
    return finish(id, refused(TransportFailure::refused_by_rule, refusal));
  try {
    if (auto refusal = authorize(request)) return finish(id, std::move(*refusal));
  } catch (const std::exception& error) {
    return finish(id, refused(TransportFailure::exhausted, error.what()));
  }

  if (request.only_resolve) {
    HttpResponse resolved;
    if (request.credential) resolved.credential_version = request.credential->version;
    return finish(id, std::move(resolved));
  }
  const SteadyTime now = clock_.steady_now();
  auto transfer = std::make_unique<Transfer>(id, std::move(request), settings_, *url, origin_of(*url), now);
  if (auto refusal = transfer->prepare()) return finish(id, std::move(*refusal));
  const SignalsBlocked blocked;
  if (curl_multi_add_handle(multi_, transfer->handle()) != CURLM_OK)
    return finish(id, refused(TransportFailure::connect, "the HTTP client takes no more requests"));
  if (transfers_.empty()) next_look_ = now + look_interval;
  transfers_.emplace(id, std::move(transfer));
}

std::optional<HttpResponse> HttpClient::authorize(HttpRequest& request) {
  if (!request.credential) {
    if (request.session_token) apply_session_token(request);
    return std::nullopt;
  }
  const std::string& name = request.credential->secret_name;
  const auto secret = secrets_.find(name);
  if (!secret) return refused(TransportFailure::secret_missing, "secret \"" + name + "\" was not found");
  const auto problem = apply_credential(request, *secret, clock_.now());
  if (problem) return refused(problem->failure, problem->text);
  request.credential->version = sha256_hex(secret->reveal());
  return std::nullopt;
}

HttpClient::Origin& HttpClient::origin_of(const Url& url) {
  std::string key = url.origin();
  const auto found = origins_.find(key);
  if (found != origins_.end()) return found->second;
  std::erase_if(origins_, [](const auto& known) { return known.second.sockets + known.second.transfers == 0; });
  return origins_.emplace(std::move(key), url).first->second;
}

void HttpClient::abandon(TransferId id) {
  const auto found = transfers_.find(id);
  if (found != transfers_.end()) {
    curl_multi_remove_handle(multi_, found->second->handle());
    transfers_.erase(found);
  }
  std::erase_if(finished_, [&](const FinishedTransfer& finished) { return finished.id == id; });
}

void HttpClient::finish(TransferId id, HttpResponse response) {
  finished_.push_back({id, std::move(response)});
}

void HttpClient::advance() {
  const SignalsBlocked blocked;
  const auto go_on = [this](curl_socket_t socket, int what) {
    int running = 0;
    // A transfer may have lost its socket: it would be heard of only when its time is over.
    if (curl_multi_socket_action(multi_, socket, what, &running) == CURLM_OUT_OF_MEMORY) throw std::bad_alloc();
  };
  if (curl_deadline_ && *curl_deadline_ <= clock_.steady_now()) {
    curl_deadline_.reset();
    go_on(CURL_SOCKET_TIMEOUT, 0);
  }
  epoll_event events[64];
  const int count = epoll_wait(epoll_, events, 64, 0);
  for (int i = 0; i < count; ++i) {
    int what = 0;
    if ((events[i].events & (EPOLLIN | EPOLLHUP)) != 0) what |= CURL_CSELECT_IN;
    if ((events[i].events & EPOLLOUT) != 0) what |= CURL_CSELECT_OUT;
    if ((events[i].events & EPOLLERR) != 0) what |= CURL_CSELECT_ERR;
    go_on(events[i].data.fd, what);
  }
  collect();
  end_those_that_stand_still();
}

void HttpClient::collect() {
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    void* pointer = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &pointer);
    end(*static_cast<Transfer*>(pointer), message->data.result);
  }
}

void HttpClient::end(Transfer& transfer, int curl_code) {
  const TransferId id = transfer.id();
  curl_multi_remove_handle(multi_, transfer.handle());
  finish(id, transfer.result(static_cast<CURLcode>(curl_code), clock_.steady_now()));
  transfers_.erase(id);
}

void HttpClient::end_those_that_stand_still() {
  const SteadyTime now = clock_.steady_now();
  if (transfers_.empty() || now < next_look_) return;
  next_look_ = now + look_interval;
  for (auto next = transfers_.begin(); next != transfers_.end();) {
    Transfer& transfer = *(next++)->second;
    if (transfer.stands_still(now)) end(transfer, CURLE_OPERATION_TIMEDOUT);
  }
}

std::vector<FinishedTransfer> HttpClient::take_finished() {
  return std::exchange(finished_, {});
}

int HttpClient::Callbacks::socket(CURL*, curl_socket_t socket, int what, void* client_pointer, void*) noexcept {
  auto* client = static_cast<HttpClient*>(client_pointer);
  if (what == CURL_POLL_REMOVE) {
    epoll_ctl(client->epoll_, EPOLL_CTL_DEL, socket, nullptr);
    return 0;
  }
  epoll_event event{};
  event.data.fd = socket;
  if (what == CURL_POLL_IN || what == CURL_POLL_INOUT) event.events |= EPOLLIN;
  if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT) event.events |= EPOLLOUT;
  if (epoll_ctl(client->epoll_, EPOLL_CTL_MOD, socket, &event) != 0)
    epoll_ctl(client->epoll_, EPOLL_CTL_ADD, socket, &event);
  return 0;
}

int HttpClient::Callbacks::timer(CURLM*, long timeout_ms, void* client_pointer) noexcept {
  auto* client = static_cast<HttpClient*>(client_pointer);
  if (timeout_ms < 0) {
    client->curl_deadline_.reset();
  } else {
    client->curl_deadline_ = client->clock_.steady_now() + Millis{timeout_ms};
  }
  return 0;
}

}  // namespace ops
