// The type of JSON values, with what keeps a lack of memory an exception. The library needs memory in places that may
// not throw. Two of them get it from reserves where the heap has none left:
//
// - A destructor takes a value apart by moving what is nested onto a stack. Failing there ends the process, and with it
//   the whole server. The stack's reserve grows with the documents that are read (reserve_teardown).
// - A null that becomes an object or a list is marked as one before its container exists. Failing there leaves a value
//   whose destructor follows a null pointer. Containers, not their elements, have a reserve of a fixed number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

#include <nlohmann/json.hpp>

namespace ops {

/// Found by the compiler where a Json is involved, and nowhere else.
namespace json_value {
template <class T>
struct JsonAllocator;
}  // namespace json_value

using Json = nlohmann::basic_json<std::map, std::vector, std::string, bool, std::int64_t, std::uint64_t, double,
                                  json_value::JsonAllocator>;

/// Sets memory aside that taking a document of so many values apart needs; kept for the life of the process.
/// For one thread, as the whole core is. @throws std::bad_alloc
void reserve_teardown(std::size_t values);

namespace detail {
/// Ends the process where neither heap nor reserve have so much.
void* allocate_teardown(std::size_t bytes) noexcept;
void deallocate_teardown(void* memory) noexcept;
constexpr std::size_t largest_container = 64;
/// @throws std::bad_alloc
void* allocate_container(std::size_t bytes);
void deallocate_container(void* memory) noexcept;
}  // namespace detail

namespace json_value {

template <class T>
struct JsonAllocator {
  using value_type = T;
  using is_always_equal = std::true_type;
  JsonAllocator() = default;
  template <class U>
  JsonAllocator(const JsonAllocator<U>&) noexcept {}  // NOLINT(google-explicit-constructor): allocators convert

  T* allocate(std::size_t count) {
    if constexpr (is_container()) return static_cast<T*>(detail::allocate_container(sizeof(T)));
    return static_cast<T*>(::operator new(count * sizeof(T)));
  }
  void deallocate(T* memory, std::size_t) noexcept {
    if constexpr (is_container()) return detail::deallocate_container(memory);
    ::operator delete(memory);
  }
  template <class U>
  bool operator==(const JsonAllocator<U>&) const noexcept {
    return true;
  }

 private:
  static constexpr bool is_container() {
    constexpr bool container = std::is_same_v<T, Json::object_t> || std::is_same_v<T, Json::array_t>;
    static_assert(!container || sizeof(T) <= detail::largest_container);
    return container;
  }
};

/// The library's own comparison makes a value of the text where it may not throw.
inline bool operator==(const Json& value, const char* text) {
  return value.is_string() && value.get_ref<const std::string&>() == text;
}
inline bool operator!=(const Json& value, const char* text) {
  return !(value == text);
}

}  // namespace json_value

}  // namespace ops

/// Of the stack in the library's destructor; nothing else has a std::vector<Json>.
template <>
class std::allocator<ops::Json> {
 public:
  using value_type = ops::Json;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using propagate_on_container_move_assignment = std::true_type;
  using is_always_equal = std::true_type;
  constexpr allocator() noexcept = default;
  template <class U>
  constexpr allocator(const allocator<U>&) noexcept {}  // NOLINT(google-explicit-constructor): allocators convert
  ops::Json* allocate(std::size_t count);
  void deallocate(ops::Json* values, std::size_t) noexcept { ops::detail::deallocate_teardown(values); }
  friend constexpr bool operator==(const allocator&, const allocator&) noexcept { return true; }
};

inline ops::Json* std::allocator<ops::Json>::allocate(std::size_t count) {
  return static_cast<ops::Json*>(ops::detail::allocate_teardown(count * sizeof(ops::Json)));
}
