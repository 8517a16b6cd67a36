/* Preloaded into a server: after fail_memory(n, more) the n-th allocation of the calling thread fails, and so many after it.
 * Takes in what every part of the process allocates: the module, the C++ library, libcurl, OpenSSL, blocks of the server's
 * memory contexts. The same file is loaded as a module, for fail_memory() in SQL. */
#include "postgres.h"

#include <errno.h>
#include <unistd.h>

#include "fmgr.h"

PG_MODULE_MAGIC;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static __thread long until_failure, failures_left;

static const char told[] = "fail_memory: an allocation fails\n";

static bool fails(void) {
  if (until_failure == 0) return false;
  if (until_failure > 1) {
    --until_failure;
    return false;
  }
  if (--failures_left == 0) until_failure = 0;
  if (write(STDERR_FILENO, told, sizeof told - 1) < 0) return true;
  errno = ENOMEM;
  return true;
}

PGDLLEXPORT void fail_memory(long nth, long more);
PGDLLEXPORT long fail_memory_left(void);

void fail_memory(long nth, long more) {
  until_failure = nth;
  failures_left = 1 + more;
}

/* Nothing when the failure has come to pass. */
long fail_memory_left(void) { return until_failure; }

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *memory, size_t size) { return size > 0 && fails() ? NULL : __libc_realloc(memory, size); }
void *memalign(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
int posix_memalign(void **memory, size_t alignment, size_t size) {
  *memory = memalign(alignment, size);
  return *memory == NULL ? ENOMEM : 0;
}

PG_FUNCTION_INFO_V1(fail_memory_sql);
Datum fail_memory_sql(PG_FUNCTION_ARGS) {
  long left = fail_memory_left();
  fail_memory(PG_GETARG_INT32(0), PG_GETARG_INT32(1));
  PG_RETURN_INT32((int32)left);
}
