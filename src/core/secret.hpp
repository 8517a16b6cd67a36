// A string that is wiped when it goes and that cannot be printed by accident.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace ops {

class SecretString {
 public:
  SecretString() = default;
  explicit SecretString(std::string value) : value_(std::move(value)) { wipe(value); }
  SecretString(const SecretString&) = delete;
  SecretString& operator=(const SecretString&) = delete;
  SecretString(SecretString&& other) noexcept : value_(std::move(other.value_)) { other.wipe(); }
  SecretString& operator=(SecretString&& other) noexcept {
    if (this != &other) {
      wipe();
      value_ = std::move(other.value_);
      other.wipe();
    }
    return *this;
  }
  ~SecretString() { wipe(); }

  /// The only way out; call sites are few and easy to review.
  std::string_view reveal() const noexcept { return value_; }
  bool empty() const noexcept { return value_.empty(); }

 private:
  void wipe() noexcept { wipe(value_); }
  static void wipe(std::string& text) noexcept;
  std::string value_;
};

}  // namespace ops
