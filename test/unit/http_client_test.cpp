// The transport against servers that misbehave, over real sockets.
#include <gtest/gtest.h>

#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/crypto.hpp"
#include "http/http_client.hpp"
#include "http/scratch_files.hpp"
#include "loopback_server.hpp"

namespace ops::test {
namespace {

using std::chrono::milliseconds;

class RealClock final : public Clock {
 public:
  WallTime now() const override {
    return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
  }
  SteadyTime steady_now() const override {
    return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::steady_clock::now()) + ahead;
  }
  std::chrono::seconds ahead{0};
};

class OneSecret final : public SecretSource {
 public:
  std::optional<SecretString> find(std::string_view name) override {
    if (name != "token") return std::nullopt;
    return SecretString("ghp_0123456789abcdefghijABCDEFGHIJ012345");
  }
};

class HttpClientTest : public ::testing::Test {
 protected:
  HttpClientTest() : directory_(std::filesystem::temp_directory_path() / ("ops_http." + std::to_string(getpid()))) {
    std::filesystem::create_directories(directory_);
    std::signal(SIGPIPE, SIG_IGN);  // as in every background worker of the server
  }
  ~HttpClientTest() override { std::filesystem::remove_all(directory_); }

  void make_client(const std::string& allowed, const std::string& ca_file = "",
                   std::size_t max_connections_per_host = 1'000) {
    HttpClient::Settings settings;
    settings.rules = HostRules::parse(allowed).value();
    settings.ca_file = ca_file;
    settings.user_agent = "test";
    settings.max_connections_per_host = max_connections_per_host;
    client_ = std::make_unique<HttpClient>(settings, secrets_, clock_);
  }

  /// Drives the client until so many transfers have ended. Bounded by the time limits of the requests.
  std::vector<FinishedTransfer> finish(std::size_t count) {
    std::vector<FinishedTransfer> all;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{30};
    while (all.size() < count && std::chrono::steady_clock::now() < end) {
      const auto timeout = client_->timeout().value_or(Millis{1'000});
      pollfd ready{client_->wait_descriptor(), POLLIN, 0};
      poll(&ready, 1, static_cast<int>(std::min<std::int64_t>(timeout.count(), 1'000)));
      client_->advance();
      std::ranges::move(client_->take_finished(), std::back_inserter(all));
    }
    return all;
  }

  /// One wait and what it brought.
  void advance() {
    pollfd ready{client_->wait_descriptor(), POLLIN, 0};
    poll(&ready, 1, 20);
    client_->advance();
  }
  template <class Condition>
  void advance_until(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{30};
    while (!condition() && std::chrono::steady_clock::now() < end) advance();
    ASSERT_TRUE(condition());
  }

  HttpResponse perform(HttpRequest request) {
    client_->start(1, std::move(request));
    auto finished = finish(1);
    if (finished.size() != 1) throw std::runtime_error("the transfer did not end");
    return std::move(finished.front().response);
  }
  static HttpRequest get(const std::string& url) {
    HttpRequest request;
    request.url = url;
    request.total_timeout = milliseconds{5'000};
    return request;
  }
  HttpResponse answer_of(
      LoopbackServer& server, const std::function<void(HttpRequest&)>& change = [](HttpRequest&) {}) {
    make_client(server.url());
    HttpRequest request = get(server.url() + "/x");
    change(request);
    return perform(std::move(request));
  }
  /// The answer to a server that says these bytes and closes.
  HttpResponse answer_to(std::string bytes, const std::function<void(HttpRequest&)>& change = [](HttpRequest&) {}) {
    LoopbackServer server([&](Connection& peer) {
      if (!peer.receive().empty()) peer.send(bytes);
    });
    return answer_of(server, change);
  }

  std::filesystem::path directory_;
  RealClock clock_;
  OneSecret secrets_;
  std::unique_ptr<HttpClient> client_;
};

std::string plain(const std::string& body) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

TEST_F(HttpClientTest, AGoodAnswerArrivesWhole) {
  const HttpResponse response = answer_to("HTTP/1.1 201 Created\r\nX-Thing: a\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_EQ(response.failure, TransportFailure::none) << response.failure_text;
  EXPECT_EQ(response.status, 201);
  EXPECT_EQ(response.body, "hello");
  EXPECT_EQ(response.header("x-thing"), "a");
  EXPECT_TRUE(response.request_sent);
}

TEST_F(HttpClientTest, I34_AnEndlessBodyIsCutAtTheLimit) {
  LoopbackServer server([](Connection& peer) {
    peer.receive();
    peer.send("HTTP/1.1 200 OK\r\n\r\n");
    while (peer.send(std::string(65'536, 'x'))) {
    }
  });
  const HttpResponse response = answer_of(server, [](HttpRequest& request) { request.max_body_bytes = 1'000'000; });
  EXPECT_EQ(response.failure, TransportFailure::too_large);
  EXPECT_LE(response.body.size(), 1'000'000U);
}

TEST_F(HttpClientTest, I34_ABodyThatSaysItIsTooLargeIsNotRead) {
  EXPECT_NE(answer_to("HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n").failure, TransportFailure::none);
}

TEST_F(HttpClientTest, TheLengthThatAHeadTellsIsNoBody) {
  const HttpResponse response = answer_to("HTTP/1.1 200 OK\r\nContent-Length: 500000000\r\n\r\n",
                                          [](HttpRequest& request) { request.method = Method::head; });
  EXPECT_EQ(response.failure, TransportFailure::none) << response.failure_text;
  EXPECT_EQ(response.header("content-length"), "500000000");
}

TEST_F(HttpClientTest, I35_I36_EncodingsThatWereNotAskedForAreRefused) {
  for (const char* encoding : {"gzip", "br", "gzip, gzip", "unknown", "deflate"})
    EXPECT_EQ(answer_to(std::string("HTTP/1.1 200 OK\r\nContent-Encoding: ") + encoding +
                        "\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08")
                  .failure,
              TransportFailure::protocol)
        << encoding;
}

TEST_F(HttpClientTest, I37_LengthsThatDoNotFit) {
  EXPECT_EQ(answer_to("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort").failure, TransportFailure::reset);
  EXPECT_EQ(answer_to("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc").failure,
            TransportFailure::protocol);
  EXPECT_EQ(answer_to("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
                .failure,
            TransportFailure::protocol);
  EXPECT_NE(answer_to("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc").failure, TransportFailure::none);
}

TEST_F(HttpClientTest, I38_BadChunks) {
  const std::string head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(answer_to(head + "3\r\nabc\r\n0\r\n\r\n").body, "abc");
  for (const char* chunks : {"zz\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n", "ffffffffffffffffff\r\nabc"})
    EXPECT_NE(answer_to(head + chunks).failure, TransportFailure::none) << chunks;
  std::string tiny = head;
  for (int i = 0; i < 100'000; ++i) tiny += "1\r\nx\r\n";
  EXPECT_EQ(answer_to(tiny + "0\r\n\r\n").body.size(), 100'000U);
}

TEST_F(HttpClientTest, I39_I40_HeaderFloodsAreCut) {
  std::string informational;
  for (int i = 0; i < 100'000; ++i) informational += "HTTP/1.1 100 Continue\r\n\r\n";
  EXPECT_NE(answer_to(informational + plain("x")).failure, TransportFailure::none);
  std::string many = "HTTP/1.1 200 OK\r\n";
  for (int i = 0; i < 200'000; ++i) many += "X-A: 1\r\n";
  EXPECT_EQ(answer_to(many + "\r\n").failure, TransportFailure::too_large);
  EXPECT_NE(answer_to("HTTP/1.1 200 OK\r\nX-A: " + std::string(1'000'000, 'a') + "\r\n\r\n").failure,
            TransportFailure::none);
  EXPECT_EQ(answer_to("HTTP/1.1 200 OK\r\nX-A: a\x01"
                      "b\r\nContent-Length: 0\r\n\r\n")
                .failure,
            TransportFailure::protocol);
}

TEST_F(HttpClientTest, I41_WhatIsNotHttp) {
  for (const char* bytes : {"SSH-2.0-OpenSSH_9.2\r\n", "<html>HTTP/0.9</html>", "HTTP/1.1 99 Low\r\n\r\n",
                            "HTTP/1.1 abc OK\r\n\r\n", "\r\n\r\n"})
    EXPECT_NE(answer_to(bytes).failure, TransportFailure::none) << bytes;
  for (const char* bytes :
       {"HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 999 Higher\r\nContent-Length: 0\r\n\r\n"})
    EXPECT_EQ(answer_to(bytes).failure, TransportFailure::protocol) << bytes;
}

TEST_F(HttpClientTest, I42_RedirectsAreAnswersAndNotFollowed) {
  std::atomic<int> requests{0};
  LoopbackServer server([&](Connection& peer) {
    while (!peer.receive().empty()) {
      ++requests;
      peer.send("HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n");
    }
  });
  const HttpResponse response = answer_of(server);
  EXPECT_EQ(response.status, 302);
  EXPECT_EQ(response.header("location"), "/again");
  EXPECT_EQ(requests, 1);
}

TEST_F(HttpClientTest, F57_ADrippingAnswerEndsAtTheTimeLimit) {
  LoopbackServer server([](Connection& peer) {
    peer.receive();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx");
    peer.wait_for_close();
  });
  const HttpResponse response =
      answer_of(server, [](HttpRequest& request) { request.total_timeout = milliseconds{300}; });
  EXPECT_EQ(response.failure, TransportFailure::timeout);
  EXPECT_TRUE(response.request_sent);
}

TEST_F(HttpClientTest, F52_WhetherTheRequestLeftIsKnown) {
  LoopbackServer closing([](Connection& peer) { peer.receive(); });
  const HttpResponse lost = answer_of(closing, [](HttpRequest& request) {
    request.method = Method::post;
    request.body = "{}";
  });
  EXPECT_EQ(lost.failure, TransportFailure::reset);
  EXPECT_TRUE(lost.request_sent);

  std::string nobody;
  {
    LoopbackServer gone([](Connection&) {});
    nobody = gone.url();
  }
  make_client(nobody);
  const HttpResponse refused = perform(get(nobody + "/"));
  EXPECT_EQ(refused.failure, TransportFailure::connect);
  EXPECT_FALSE(refused.request_sent);
}

TEST_F(HttpClientTest, F53_AResetIsALostConnection) {
  LoopbackServer server([](Connection& peer) {
    peer.receive();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    peer.reset();
  });
  EXPECT_EQ(answer_of(server).failure, TransportFailure::reset);
}

TEST_F(HttpClientTest, AChangingRequestIsSentOnceAlsoWhenAnOldConnectionIsDead) {
  std::atomic<int> posts{0};
  LoopbackServer server([&](Connection& peer) {
    const std::string request = peer.receive();
    if (request.starts_with("GET")) {
      peer.send(plain("kept alive, then closed"));
    } else if (!request.empty()) {
      ++posts;  // and closes without an answer: curl would repeat on a reused connection
    }
  });
  make_client(server.url());
  EXPECT_EQ(perform(get(server.url())).status, 200);
  HttpRequest post = get(server.url());
  post.method = Method::post;
  post.body = "{}";
  EXPECT_EQ(perform(std::move(post)).failure, TransportFailure::reset);
  EXPECT_EQ(posts, 1);
}

TEST_F(HttpClientTest, ReadsReuseTheirConnection) {
  LoopbackServer server([](Connection& peer) {
    while (!peer.receive().empty()) peer.send(plain("x"));
  });
  make_client(server.url());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(perform(get(server.url())).status, 200);
  EXPECT_EQ(server.connections(), 1);
}

/// Answers when as many requests have arrived as belong together.
class WaveServer {
 public:
  explicit WaveServer(int wave) : wave_(wave) {}
  int connections() const { return server_.connections(); }
  int closed() const { return closed_; }
  std::string url() const { return server_.url(); }

 private:
  void serve(Connection& peer) {
    while (!peer.receive().empty()) {
      const int mine = arrived_++ / wave_;
      for (int now = arrived_; now < (mine + 1) * wave_; now = arrived_) arrived_.wait(now);
      arrived_.notify_all();
      peer.send(plain("x"));
    }
    ++closed_;
  }

  int wave_;
  std::atomic<int> arrived_{0};
  std::atomic<int> closed_{0};
  LoopbackServer server_{[this](Connection& peer) { serve(peer); }};
};

TEST_F(HttpClientTest, RequestsSideBySideHaveConnectionsOfTheirOwnAndLaterOnesReuseThem) {
  WaveServer server(20);
  make_client(server.url());
  const auto wave = [&](TransferId first) {
    for (TransferId id = first; id < first + 20; ++id) client_->start(id, get(server.url()));
    for (const FinishedTransfer& finished : finish(20)) EXPECT_EQ(finished.response.status, 200);
  };
  wave(100);
  EXPECT_EQ(server.connections(), 20);
  // libcurl itself keeps four connections for each transfer that is under way: fewer while the last ones end.
  wave(200);
  EXPECT_LT(server.connections(), 40);
}

TEST_F(HttpClientTest, RequestsBeyondTheLimitOfAHostWaitAndReuse) {
  WaveServer server(2);
  make_client(server.url(), "", 2);
  for (TransferId id = 1; id <= 10; ++id) client_->start(id, get(server.url()));
  const auto finished = finish(10);
  EXPECT_EQ(finished.size(), 10U);
  for (const auto& [id, response] : finished) EXPECT_EQ(response.status, 200);
  EXPECT_EQ(server.connections(), 2);
}

TEST_F(HttpClientTest, AfterManyRequestsAtOnceMostConnectionsAreClosed) {
  constexpr int at_once = 450;
  WaveServer server(at_once);
  make_client(server.url());
  for (TransferId id = 1; id <= at_once; ++id) {
    HttpRequest request = get(server.url());
    request.total_timeout = milliseconds{20'000};
    client_->start(id, std::move(request));
  }
  EXPECT_EQ(finish(at_once).size(), std::size_t{at_once});
  advance_until([&] { return server.closed() >= at_once / 3; });
  EXPECT_LT(server.closed(), at_once);
}

TEST_F(HttpClientTest, AnOriginWithoutConnectionsIsForgotten) {
  const auto answer_and = [](const char* header) {
    return [header](Connection& peer) {
      while (!peer.receive().empty())
        peer.send(std::string("HTTP/1.1 200 OK\r\n") + header + "Content-Length: 0\r\n\r\n");
    };
  };
  LoopbackServer keeping(answer_and(""));
  LoopbackServer closing(answer_and("Connection: close\r\n"));
  LoopbackServer another(answer_and(""));
  make_client(keeping.url() + ", " + closing.url() + ", " + another.url());
  for (LoopbackServer* server : {&closing, &keeping, &another}) EXPECT_EQ(perform(get(server->url())).status, 200);
  EXPECT_EQ(client_->known_origins(), 2U);
  std::string nobody;
  {
    LoopbackServer gone([](Connection&) {});
    nobody = gone.url();
  }
  make_client(nobody + ", " + another.url());
  EXPECT_EQ(perform(get(nobody)).failure, TransportFailure::connect);
  EXPECT_EQ(perform(get(another.url())).status, 200);
  EXPECT_EQ(client_->known_origins(), 1U);
}

TEST_F(HttpClientTest, ATransferThatStandsStillEnds) {
  std::atomic<int> parts_wanted{0};
  std::atomic<bool> received{false};
  LoopbackServer server([&](Connection& peer) {
    peer.receive();
    received = true;
    parts_wanted.wait(0);
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + std::string(1'000, 'x'));
    peer.wait_for_close();
  });
  make_client(server.url());
  HttpRequest request = get(server.url());
  request.total_timeout = milliseconds{60'000};
  client_->start(1, std::move(request));
  advance_until([&] { return received.load(); });
  const auto pass = [&](int seconds) {
    clock_.ahead += std::chrono::seconds{seconds};
    advance();
  };
  for (int i = 0; i < 8; ++i) pass(3);
  EXPECT_EQ(client_->in_flight(), 1U);
  parts_wanted = 1;
  parts_wanted.notify_all();
  pollfd ready{client_->wait_descriptor(), POLLIN, 0};
  ASSERT_EQ(poll(&ready, 1, 30'000), 1);
  for (int i = 0; i < 9; ++i) pass(3);  // the body's first part arrives with the first of them
  EXPECT_EQ(client_->in_flight(), 1U);
  advance_until([&] {
    pass(3);
    return client_->in_flight() == 0;
  });
  const auto finished = client_->take_finished();
  ASSERT_EQ(finished.size(), 1U);
  EXPECT_EQ(finished.front().response.failure, TransportFailure::timeout);
  EXPECT_TRUE(finished.front().response.request_sent);
}

TEST_F(HttpClientTest, T10_OnlyAllowedHostsAndAddresses) {
  LoopbackServer server([](Connection& peer) { peer.receive(); });
  make_client("api.github.com");
  const HttpResponse other = perform(get(server.url()));
  EXPECT_EQ(other.failure, TransportFailure::refused_by_rule);
  EXPECT_FALSE(other.request_sent);
  // A name that resolves to an internal address, at connect time.
  make_client("localhost");
  const HttpResponse named = perform(get("https://localhost/"));
  EXPECT_EQ(named.failure, TransportFailure::refused_by_rule);
  EXPECT_NE(named.failure_text.find("internal address"), std::string::npos) << named.failure_text;
  EXPECT_EQ(server.connections(), 0);
}

TEST_F(HttpClientTest, ProxyVariablesAreIgnored) {
  std::atomic<int> through_proxy{0};
  LoopbackServer proxy([&](Connection& peer) {
    if (!peer.receive().empty()) ++through_proxy;
  });
  setenv("http_proxy", proxy.url().c_str(), 1);
  setenv("all_proxy", proxy.url().c_str(), 1);
  const HttpResponse response = answer_to(plain("direct"));
  unsetenv("http_proxy");
  unsetenv("all_proxy");
  EXPECT_EQ(response.body, "direct");
  EXPECT_EQ(through_proxy, 0);
}

TEST_F(HttpClientTest, T12_TheSecretIsAddedOnTheWayOutAndInNoErrorText) {
  std::string received;
  LoopbackServer server([&](Connection& peer) { received = peer.receive(); });
  const HttpResponse response = answer_of(server, [&](HttpRequest& request) {
    request.credential = CredentialUse{CredentialScheme::bearer, "token", server.url(), ""};
  });
  EXPECT_NE(received.find("Authorization: Bearer ghp_0123456789"), std::string::npos);
  EXPECT_EQ(response.failure_text.find("ghp_"), std::string::npos);

  HttpRequest missing = get(server.url());
  missing.credential = CredentialUse{CredentialScheme::bearer, "nothing", server.url(), ""};
  EXPECT_EQ(perform(std::move(missing)).failure, TransportFailure::secret_missing);
  HttpRequest injected = get(server.url());
  injected.headers = {{"X-A", "b\r\nX-Evil: 1"}};
  EXPECT_EQ(perform(std::move(injected)).failure, TransportFailure::refused_by_rule);
}

TEST_F(HttpClientTest, LargeBodiesGoThroughFilesAndMemoryStaysFlat) {
  constexpr std::size_t megabytes = 200;
  LoopbackServer server([](Connection& peer) {
    peer.receive();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(megabytes << 20) + "\r\n\r\n");
    const std::string part(1 << 20, 'x');
    for (std::size_t i = 0; i < megabytes && peer.send(part); ++i) {
    }
  });
  ScratchFiles files((directory_ / "scratch").string());
  rusage before{};
  getrusage(RUSAGE_SELF, &before);
  const auto file = files.create();
  const HttpResponse response = answer_of(server, [&](HttpRequest& request) {
    request.response_file = file;
    request.max_body_bytes = std::int64_t{1} << 30;
    request.total_timeout = milliseconds{25'000};
  });
  rusage after{};
  getrusage(RUSAGE_SELF, &after);
  EXPECT_EQ(response.failure, TransportFailure::none) << response.failure_text;
  EXPECT_EQ(std::filesystem::file_size(file->path()), megabytes << 20);
  EXPECT_TRUE(response.body.empty());
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 50'000) << "kB more of memory";
}

TEST_F(HttpClientTest, UploadsComeFromAFile) {
  std::string received;
  LoopbackServer server([&](Connection& peer) {
    received = peer.receive();
    peer.send(plain(""));
  });
  ScratchFiles files((directory_ / "upload").string());
  const auto file = files.create();
  const std::string content(300'000, 'u');
  std::ofstream(file->path()) << content;
  const HttpResponse response = answer_of(server, [&](HttpRequest& request) {
    request.method = Method::put;
    request.body_file = file;
    request.body_file_bytes = static_cast<std::int64_t>(content.size());
  });
  EXPECT_EQ(response.status, 200) << response.failure_text;
  EXPECT_TRUE(received.starts_with("PUT /x HTTP/1.1\r\n"));
  EXPECT_EQ(sha256_hex(received.substr(received.find("\r\n\r\n") + 4)), sha256_hex(content));
}

TEST_F(HttpClientTest, ManyAtOnceThroughOneDescriptorAndAbandonedOnesAreSilent) {
  LoopbackServer server([](Connection& peer) {
    while (!peer.receive().empty()) peer.send(plain("x"));
  });
  LoopbackServer silent([](Connection& peer) {
    peer.receive();
    peer.wait_for_close();
  });
  make_client(server.url() + ", " + silent.url());
  for (TransferId id = 1; id <= 200; ++id) client_->start(id, get(server.url()));
  client_->start(1'000, get(silent.url()));
  EXPECT_EQ(client_->in_flight(), 201U);
  const auto finished = finish(200);
  EXPECT_EQ(std::ranges::count_if(finished, [](const auto& f) { return f.response.status == 200; }), 200);
  client_->abandon(1'000);
  EXPECT_EQ(client_->in_flight(), 0U);
  EXPECT_TRUE(client_->take_finished().empty());
}

// TLS
// --------------------------------------------------------------------------------------------------------------------

class HttpClientTlsTest : public HttpClientTest {
 protected:
  HttpResponse answer_under(const Certificate& certificate, const std::string& host, bool known,
                            int newest_version = TLS1_3_VERSION) {
    std::atomic<int> requests{0};
    LoopbackServer server(
        [&](Connection& peer) {
          if (peer.receive().empty()) return;
          ++requests;
          peer.send(plain("secret"));
        },
        certificate.server_context(newest_version));
    const std::string authorities = (directory_ / "ca.pem").string();
    const Certificate another("DNS:somebody.else");
    (known ? certificate : another).write_pem(authorities);
    make_client(server.url(host), authorities);
    HttpResponse response = perform(get(server.url(host) + "/"));
    requests_ = requests;
    return response;
  }
  void expect_refused(const HttpResponse& response) const {
    EXPECT_EQ(response.failure, TransportFailure::tls) << response.failure_text;
    EXPECT_EQ(requests_, 0);
    EXPECT_FALSE(response.request_sent);
    EXPECT_FALSE(response.failure_text.empty());
  }
  int requests_ = 0;
};

TEST_F(HttpClientTlsTest, AKnownCertificateOfThisHostIsTaken) {
  EXPECT_EQ(answer_under(Certificate("DNS:localhost"), "localhost", true).body, "secret");
  EXPECT_EQ(answer_under(Certificate("IP:127.0.0.1"), "127.0.0.1", true).body, "secret");
}
TEST_F(HttpClientTlsTest, F60_UnknownAuthority) {
  expect_refused(answer_under(Certificate("DNS:localhost"), "localhost", false));
}
TEST_F(HttpClientTlsTest, F60_WrongHost) {
  expect_refused(answer_under(Certificate("DNS:other.example"), "localhost", true));
}
TEST_F(HttpClientTlsTest, F60_Expired) {
  expect_refused(answer_under(Certificate("DNS:localhost", -7'200, -3'600), "localhost", true));
}
TEST_F(HttpClientTlsTest, F60_NotYetValid) {
  expect_refused(answer_under(Certificate("DNS:localhost", 3'600, 7'200), "localhost", true));
}
TEST_F(HttpClientTlsTest, F60_OldProtocol) {
  expect_refused(answer_under(Certificate("DNS:localhost"), "localhost", true, TLS1_1_VERSION));
}

}  // namespace
}  // namespace ops::test
