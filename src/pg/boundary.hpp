// The only crossing between C++ and the PostgreSQL server, both ways.
//
// Rules. An ereport is a long jump: it skips destructors. So a server function that can raise is called only inside
// guarded(), and no object with a destructor is alive inside the guarded call. A C++ exception that reaches the
// server's C code ends the process and restarts the cluster. So every function the server calls is a shell around
// entry().
//
//   guarded([&] { SPI_execute_plan(...); });           C++ zone -> server: a server error arrives as PgError
//   Datum f(PG_FUNCTION_ARGS) { return entry([&]() -> Datum { ... }); }   server -> C++ zone: exceptions become errors
#pragma once

#include <cstdio>
#include <exception>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "pg/compat.hpp"

namespace ops::pg {

/// A server error on its way through C++ frames, complete with SQLSTATE, detail, hint and location.
class PgError : public std::runtime_error {
 public:
  explicit PgError(ErrorData* data)
      : std::runtime_error(data->message != nullptr ? data->message : "unknown server error"),
        data_(data),
        sqlstate_(data->sqlerrcode) {}
  /// Lives in the memory context that was current when the guard was entered: not after the end of its transaction.
  ErrorData* data() const noexcept { return data_; }
  int sqlstate() const noexcept { return sqlstate_; }

 private:
  ErrorData* data_;
  int sqlstate_;
};

/// An error of ours that is meant for the caller of a SQL function.
class SqlError : public std::exception {
 public:
  SqlError(int sqlstate, std::string message, std::string detail = {}, std::string hint = {})
      : sqlstate_(sqlstate), message_(std::move(message)), detail_(std::move(detail)), hint_(std::move(hint)) {}
  const char* what() const noexcept override { return message_.c_str(); }
  int sqlstate() const noexcept { return sqlstate_; }
  const std::string& detail() const noexcept { return detail_; }
  const std::string& hint() const noexcept { return hint_; }

 private:
  int sqlstate_;
  std::string message_, detail_, hint_;
};

namespace detail {
/// The current server error as memory of that context, or nothing when there is no memory for it. Ends the error state.
ErrorData* take_error(MemoryContext context);
[[noreturn]] void throw_error(ErrorData* error);
}  // namespace detail

/// Calls `call`, which may raise server errors, and turns one into a thrown PgError. `call` and everything it keeps
/// alive must be trivially destructible; its result too.
template <class F>
auto guarded(F&& call) -> std::invoke_result_t<F> {
  using Result = std::invoke_result_t<F>;
  static_assert(std::is_void_v<Result> || std::is_trivially_destructible_v<Result>,
                "a result with a destructor would be skipped by a server error");
  const MemoryContext caller_context = CurrentMemoryContext;
  ErrorData* volatile error = nullptr;
  volatile bool failed = false;
  if constexpr (std::is_void_v<Result>) {
    PG_TRY();
    {
      call();
    }
    PG_CATCH();
    {
      failed = true;
      error = detail::take_error(caller_context);
    }
    PG_END_TRY();
    if (failed) detail::throw_error(const_cast<ErrorData*>(error));
  } else {
    // Raw storage: survives the long jump without a constructor that the compiler could move around.
    alignas(Result) unsigned char storage[sizeof(Result)];  // NOLINT(bugprone-sizeof-expression): also for pointers
    PG_TRY();
    {
      new (storage) Result(call());
    }
    PG_CATCH();
    {
      failed = true;
      error = detail::take_error(caller_context);
    }
    PG_END_TRY();
    if (failed) detail::throw_error(const_cast<ErrorData*>(error));
    return *std::launder(reinterpret_cast<Result*>(storage));
  }
}

namespace detail {
/// What entry() caught, as plain memory: raised only after every C++ object of the call is gone.
struct Raise {
  ErrorData* server_error = nullptr;
  int sqlstate = 0;
  char message[1024] = "";
  char detail[1024] = "";
  char hint[1024] = "";
};
/// Copies as much of `from` as fits, always terminated.
void copy_cut(char* to, std::size_t size, const char* from) noexcept;
[[noreturn]] void raise(const Raise& raise);
}  // namespace detail

/// Runs C++ code for the server: every exception becomes a server error with SQLSTATE, detail and hint.
template <class F>
auto entry(F&& body) -> std::invoke_result_t<F> {
  detail::Raise failure;
  try {
    return body();
  } catch (const PgError& error) {
    failure.server_error = error.data();
  } catch (const SqlError& error) {
    failure.sqlstate = error.sqlstate();
    detail::copy_cut(failure.message, sizeof failure.message, error.what());
    detail::copy_cut(failure.detail, sizeof failure.detail, error.detail().c_str());
    detail::copy_cut(failure.hint, sizeof failure.hint, error.hint().c_str());
  } catch (const std::bad_alloc&) {
    failure.sqlstate = ERRCODE_OUT_OF_MEMORY;
    detail::copy_cut(failure.message, sizeof failure.message, "out of memory");
  } catch (const std::exception& error) {
    failure.sqlstate = ERRCODE_INTERNAL_ERROR;
    detail::copy_cut(failure.message, sizeof failure.message, error.what());
  } catch (...) {
    failure.sqlstate = ERRCODE_INTERNAL_ERROR;
    detail::copy_cut(failure.message, sizeof failure.message, "unknown C++ exception");
  }
  detail::raise(failure);
}

}  // namespace ops::pg
