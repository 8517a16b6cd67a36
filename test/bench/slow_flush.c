// For a server of the benchmark: each flush of its log takes SLOW_FLUSH_US microseconds more, without using a processor,
// as on a slower disk. Preloaded by bench.sh when BENCH_FLUSH_US is set.
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int descriptor) {
  static long more_us = -1;
  if (more_us < 0) {
    const char* setting = getenv("SLOW_FLUSH_US");
    more_us = setting != NULL ? atol(setting) : 0;
  }
  const int result = (int)syscall(SYS_fdatasync, descriptor);
  const struct timespec pause = {more_us / 1000000, more_us % 1000000 * 1000};
  nanosleep(&pause, NULL);
  return result;
}
