// What libcurl's multi interface alone does on this machine: GETs of one URL with a fixed number in flight, no
// database.
//   curl_limit URL REQUESTS IN_FLIGHT       prints `requests_per_second N` and `kib_per_transfer N` (memory at its
//   peak)
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <curl/curl.h>

namespace {

std::size_t ignore(char*, std::size_t size, std::size_t count, void*) {
  return size * count;
}

long peak_kib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) return 2;
  long left = std::atol(arguments[2]);
  const long in_flight = std::atol(arguments[3]);
  curl_global_init(CURL_GLOBAL_DEFAULT);
  CURLM* multi = curl_multi_init();
  curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, in_flight);
  const long before = peak_kib();
  const auto begin = std::chrono::steady_clock::now();
  const auto add = [&](CURL* transfer) {
    --left;
    curl_multi_add_handle(multi, transfer);
  };
  long failed = 0, done = 0;
  const long all = left;
  for (long i = 0; i < in_flight && left > 0; ++i) {
    CURL* transfer = curl_easy_init();
    curl_easy_setopt(transfer, CURLOPT_URL, arguments[1]);
    curl_easy_setopt(transfer, CURLOPT_WRITEFUNCTION, ignore);
    curl_easy_setopt(transfer, CURLOPT_NOSIGNAL, 1L);
    add(transfer);
  }
  for (int running = 0; done < all;) {
    curl_multi_perform(multi, &running);
    int messages = 0;
    while (CURLMsg* message = curl_multi_info_read(multi, &messages)) {
      CURL* transfer = message->easy_handle;
      failed += message->data.result != CURLE_OK;
      ++done;
      curl_multi_remove_handle(multi, transfer);
      if (left > 0) add(transfer);
    }
    if (done < all) curl_multi_poll(multi, nullptr, 0, 1000, nullptr);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::printf("requests_per_second %.0f\n", static_cast<double>(all) / took.count());
  std::printf("kib_per_transfer %.1f\n", static_cast<double>(peak_kib() - before) / static_cast<double>(in_flight));
  return failed == 0 ? 0 : 1;
}
