// Two small tools of the benchmark. Both print CLOCK_MONOTONIC in nanoseconds, so that their lines can be joined.
//
//   probe serve PORT DELAY_MS        an HTTP/1.1 server on loopback that answers each request DELAY_MS after it came;
//   prints
//                                    `arrival NS PATH` for each request, and `ready` first
//   probe statements COUNT MIN_MS MAX_MS SQL PROCESSOR
//                                    one statement at a time through libpq, with a random pause in between; prints
//                                    `statement BEGIN_NS END_NS FIRST_COLUMN` when its answer was read. It and its
//                                    server process keep to that processor (-1: to none)
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>

#include <libpq-fe.h>

namespace {

long long now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "probe: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

class Server {
 public:
  Server(int port, long long delay_ns) : delay_ns_(delay_ns) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("bind");
    if (listen(listener_, 4096) != 0) die("listen");
    epoll_ = epoll_create1(0);
    watch(listener_);
  }

  void run() {
    std::puts("ready");
    for (;;) {
      std::fflush(stdout);
      epoll_event events[256];
      const int count = epoll_wait(epoll_, events, 256, time_to_wait());
      for (int i = 0; i < count; ++i)
        if (events[i].data.fd == listener_) {
          take_connections();
        } else {
          take_bytes(events[i].data.fd);
        }
      for (; !due_.empty() && due_.front().at <= now_ns(); due_.pop_front()) answer(due_.front());
    }
  }

 private:
  struct Connection {
    unsigned life = 0;  // tells a later connection with the same descriptor apart
    std::string read;
  };
  struct Due {
    long long at;
    int descriptor;
    unsigned life;
  };

  int time_to_wait() const {
    if (due_.empty()) return -1;
    const long long left = due_.front().at - now_ns();
    return left <= 0 ? 0 : static_cast<int>(left / 1'000'000 + 1);
  }
  void watch(int descriptor) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = descriptor;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event) != 0) die("epoll_ctl");
  }
  void take_connections() {
    for (;;) {
      const int descriptor = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
      if (descriptor < 0 && (errno == EAGAIN || errno == ECONNABORTED)) return;
      if (descriptor < 0) die("accept");
      const int on = 1;
      setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      connections_[descriptor] = {++lives_, {}};
      watch(descriptor);
    }
  }
  void take_bytes(int descriptor) {
    char bytes[8192];
    const ssize_t got = recv(descriptor, bytes, sizeof bytes, 0);
    const long long at = now_ns();
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      connections_.erase(descriptor);
      close(descriptor);
      return;
    }
    Connection& connection = connections_[descriptor];
    connection.read.append(bytes, static_cast<std::size_t>(got));
    for (std::size_t end; (end = connection.read.find("\r\n\r\n")) != std::string::npos;) {
      const std::size_t path = connection.read.find(' ') + 1;
      const std::string shown = connection.read.substr(path, connection.read.find(' ', path) - path);
      std::printf("arrival %lld %s\n", at, shown.c_str());
      connection.read.erase(0, end + 4);
      due_.push_back({at + delay_ns_, descriptor, connection.life});
    }
  }
  void answer(const Due& due) {
    static constexpr char text[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
    const auto found = connections_.find(due.descriptor);
    if (found != connections_.end() && found->second.life == due.life)
      (void)!send(due.descriptor, text, sizeof text - 1, MSG_NOSIGNAL);
  }

  long long delay_ns_;
  int listener_ = -1;
  int epoll_ = -1;
  unsigned lives_ = 0;
  std::unordered_map<int, Connection> connections_;
  std::deque<Due> due_;
};

void keep_to(int processor, pid_t process) {
  cpu_set_t processors;
  CPU_ZERO(&processors);
  CPU_SET(static_cast<unsigned>(processor), &processors);
  if (sched_setaffinity(process, sizeof processors, &processors) != 0) die("sched_setaffinity");
}

int run_statements(int count, double min_ms, double max_ms, const char* sql, int processor) {
  PGconn* connection = PQconnectdb("");
  if (processor >= 0) {
    keep_to(processor, 0);
    keep_to(processor, PQbackendPID(connection));
  }
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> pause_ms(min_ms, max_ms);
  for (int i = 0; i < count; ++i) {
    const long long begin = now_ns();
    PGresult* result = PQexec(connection, sql);
    const long long end = now_ns();
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1) {
      std::fprintf(stderr, "probe: %s", PQerrorMessage(connection));
      return 1;
    }
    std::printf("statement %lld %lld %s\n", begin, end, PQgetvalue(result, 0, 0));
    PQclear(result);
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(pause_ms(random)));
  }
  PQfinish(connection);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "";
  if (what == "serve" && count == 4) Server(std::atoi(arguments[2]), std::atoll(arguments[3]) * 1'000'000).run();
  if (what == "statements" && count == 7)
    return run_statements(std::atoi(arguments[2]), std::atof(arguments[3]), std::atof(arguments[4]), arguments[5],
                          std::atoi(arguments[6]));
  std::fputs("probe: serve PORT DELAY_MS | statements COUNT MIN_MS MAX_MS SQL PROCESSOR\n", stderr);
  return 2;
}
