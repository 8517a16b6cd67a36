// A server on loopback that says exactly the bytes a test gives it: answers that no well-behaved server would send.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace ops::test {

/// One accepted connection, in the clear or under TLS.
class Connection {
 public:
  Connection(int socket, SSL_CTX* tls, const std::atomic<bool>& over) : socket_(socket), over_(over) {
    if (tls == nullptr) return;
    ssl_ = SSL_new(tls);
    SSL_set_fd(ssl_, socket_);
    if (SSL_accept(ssl_) != 1) closed_ = true;
  }
  ~Connection() {
    if (ssl_ != nullptr) SSL_free(ssl_);
    close(socket_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Reads one request: head and as much body as Content-Length says. Empty when the peer has gone.
  std::string receive() {
    std::string request;
    for (;;) {
      const std::size_t head = request.find("\r\n\r\n");
      if (head != std::string::npos) {
        const std::size_t length = request.find("Content-Length: ");
        const std::size_t body = length < head ? std::stoul(request.substr(length + 16)) : 0;
        if (request.size() >= head + 4 + body) return request;
      }
      char bytes[16384];
      const long count = read_some(bytes, sizeof bytes);
      if (count <= 0) return {};
      request.append(bytes, static_cast<std::size_t>(count));
    }
  }
  /// False when the peer has gone.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      if (over_ || closed_) return false;
      const long count = ssl_ != nullptr ? SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size()))
                                         : ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }
  /// Waits until the peer closes or the test ends.
  void wait_for_close() {
    char byte = 0;
    while (!over_ && read_some(&byte, 1) > 0) {
    }
  }
  /// The connection ends with RST instead of FIN.
  void reset() {
    const linger now{1, 0};
    setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }

 private:
  long read_some(char* bytes, std::size_t size) {
    while (!over_ && !closed_) {
      if (ssl_ != nullptr) return SSL_read(ssl_, bytes, static_cast<int>(size));
      pollfd ready{socket_, POLLIN, 0};
      if (poll(&ready, 1, 50) > 0) return recv(socket_, bytes, size, 0);
    }
    return 0;
  }

  int socket_;
  const std::atomic<bool>& over_;
  SSL* ssl_ = nullptr;
  bool closed_ = false;
};

/// A certificate that signs itself, valid from now + `from` to now + `to` seconds.
class Certificate {
 public:
  explicit Certificate(const char* subject_name, long from = -3'600, long to = 3'600)
      : key_(EVP_EC_gen("P-256")), certificate_(X509_new()) {
    X509_set_version(certificate_, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate_), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate_), from);
    X509_gmtime_adj(X509_getm_notAfter(certificate_), to);
    X509_NAME* name = X509_get_subject_name(certificate_);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("test"), -1, -1, 0);
    X509_set_issuer_name(certificate_, name);
    X509_set_pubkey(certificate_, key_);
    X509_EXTENSION* alternative = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, subject_name);
    X509_add_ext(certificate_, alternative, -1);
    X509_EXTENSION_free(alternative);
    X509_sign(certificate_, key_, EVP_sha256());
  }
  ~Certificate() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  Certificate(const Certificate&) = delete;
  Certificate& operator=(const Certificate&) = delete;

  void write_pem(const std::string& path) const {
    BIO* file = BIO_new_file(path.c_str(), "w");
    PEM_write_bio_X509(file, certificate_);
    BIO_free(file);
  }
  SSL_CTX* server_context(int newest_version) const {
    SSL_CTX* context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context, newest_version);
    SSL_CTX_use_certificate(context, certificate_);
    SSL_CTX_use_PrivateKey(context, key_);
    return context;
  }

 private:
  EVP_PKEY* key_;
  X509* certificate_;
};

class LoopbackServer {
 public:
  using Behaviour = std::function<void(Connection&)>;

  explicit LoopbackServer(Behaviour behaviour, SSL_CTX* tls = nullptr) : behaviour_(std::move(behaviour)), tls_(tls) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 512) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      throw std::runtime_error("no loopback socket");
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { accept_all(); });
  }
  ~LoopbackServer() {
    over_ = true;
    thread_.join();
    for (std::thread& worker : workers_) worker.join();
    close(listener_);
    if (tls_ != nullptr) SSL_CTX_free(tls_);
  }
  LoopbackServer(const LoopbackServer&) = delete;
  LoopbackServer& operator=(const LoopbackServer&) = delete;

  std::string url(const std::string& host = "127.0.0.1") const {
    return std::string(tls_ != nullptr ? "https" : "http") + "://" + host + ":" + std::to_string(port_);
  }
  int connections() const { return connections_; }

 private:
  void accept_all() {
    while (!over_) {
      pollfd ready{listener_, POLLIN, 0};
      if (poll(&ready, 1, 20) <= 0) continue;
      const int accepted = accept(listener_, nullptr, nullptr);
      if (accepted < 0) continue;
      ++connections_;
      workers_.emplace_back([this, accepted] {
        Connection connection(accepted, tls_, over_);
        behaviour_(connection);
      });
    }
  }

  Behaviour behaviour_;
  SSL_CTX* tls_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> over_{false};
  std::atomic<int> connections_{0};
  std::vector<std::thread> workers_;
  std::thread thread_;
};

}  // namespace ops::test
