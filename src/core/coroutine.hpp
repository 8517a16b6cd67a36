// Coroutine<T>: a lazily started coroutine that is awaited by another one or driven by the loop.
// Awaiting hands control over by symmetric transfer, so nesting costs no stack. Exceptions travel through co_await.
// Destroying a suspended Coroutine destroys its frame and everything nested in it.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

namespace ops {

template <class T = void>
class Coroutine;

namespace detail {

struct FinalAwaiter {
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> finished) const noexcept {
    const std::coroutine_handle<> next = finished.promise().continuation;
    return next ? next : std::noop_coroutine();
  }
  void await_resume() const noexcept {}
};

struct PromiseBase {
  std::coroutine_handle<> continuation;
  std::exception_ptr error;

  std::suspend_always initial_suspend() const noexcept { return {}; }
  FinalAwaiter final_suspend() const noexcept { return {}; }
  void unhandled_exception() noexcept { error = std::current_exception(); }
};

template <class T>
struct Promise : PromiseBase {
  std::optional<T> value;
  Coroutine<T> get_return_object() noexcept;
  template <class U>
  void return_value(U&& result) {
    value.emplace(std::forward<U>(result));
  }
  T take() {
    if (error) std::rethrow_exception(error);
    return std::move(*value);
  }
};

template <>
struct Promise<void> : PromiseBase {
  Coroutine<void> get_return_object() noexcept;
  void return_void() const noexcept {}
  void take() const {
    if (error) std::rethrow_exception(error);
  }
};

}  // namespace detail

template <class T>
class [[nodiscard]] Coroutine {
 public:
  using promise_type = detail::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  Coroutine() = default;
  explicit Coroutine(Handle handle) noexcept : handle_(handle) {}
  Coroutine(Coroutine&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Coroutine& operator=(Coroutine&& other) noexcept {
    if (this != &other) {
      reset();
      handle_ = std::exchange(other.handle_, {});
    }
    return *this;
  }
  Coroutine(const Coroutine&) = delete;
  Coroutine& operator=(const Coroutine&) = delete;
  ~Coroutine() { reset(); }

  bool await_ready() const noexcept { return !handle_ || handle_.done(); }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> caller) noexcept {
    handle_.promise().continuation = caller;
    return handle_;
  }
  T await_resume() { return handle_.promise().take(); }

  /// For the driver of the outermost coroutine: runs it to its first suspension.
  void start() const { handle_.resume(); }
  bool done() const noexcept { return handle_ && handle_.done(); }
  /// After done(): the result, or the exception it ended with.
  T take() { return handle_.promise().take(); }
  explicit operator bool() const noexcept { return static_cast<bool>(handle_); }
  void reset() noexcept {
    if (handle_) handle_.destroy();
    handle_ = {};
  }

 private:
  Handle handle_;
};

namespace detail {
template <class T>
Coroutine<T> Promise<T>::get_return_object() noexcept {
  return Coroutine<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Coroutine<void> Promise<void>::get_return_object() noexcept {
  return Coroutine<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}
}  // namespace detail

}  // namespace ops
