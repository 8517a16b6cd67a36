#include "core/json_value.hpp"

#include <algorithm>
#include <cstdint>
#include <exception>
#include <utility>

namespace ops {

namespace {

bool lies_in(const void* memory, const std::byte* begin, std::size_t size) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const auto first = reinterpret_cast<std::uintptr_t>(begin);
  return address >= first && address < first + size;
}

// The stack -----------------------------------------------------------------------------------------------------------

/// What a stack of so many values takes while it grows by doubling, when nothing it gives up is used again.
constexpr std::size_t bytes_per_value = 4 * sizeof(Json);

/// Enough for what the core itself builds.
constexpr std::size_t first_bytes = 64 * 1024;

alignas(Json) std::byte first_reserve[first_bytes];

/// Handed out from front to back; empty again when everything was given back.
struct Reserve {
  std::byte* begin = first_reserve;
  std::size_t size = first_bytes;
  std::size_t used = 0;
  std::size_t pieces = 0;
};

Reserve reserve;

// Containers ----------------------------------------------------------------------------------------------------------

constexpr std::size_t reserved_containers = 1'000;

union Container {
  Container* next_free;
  alignas(std::max_align_t) std::byte memory[detail::largest_container];
};

Container containers[reserved_containers];
std::size_t untouched = reserved_containers;
Container* free_containers = nullptr;

}  // namespace

void reserve_teardown(std::size_t values) {
  const std::size_t wanted = values * bytes_per_value;
  if (wanted <= reserve.size) return;
  if (reserve.pieces > 0) throw std::bad_alloc();
  const std::size_t size = std::max(wanted, 2 * reserve.size);
  auto* larger = static_cast<std::byte*>(::operator new(size));
  if (reserve.begin != first_reserve) ::operator delete(reserve.begin);
  reserve = {larger, size};
}

namespace detail {

void* allocate_teardown(std::size_t bytes) noexcept {
  if (void* memory = ::operator new(bytes, std::nothrow)) return memory;
  if (bytes > reserve.size - reserve.used) std::terminate();
  void* memory = reserve.begin + reserve.used;
  reserve.used += bytes;
  ++reserve.pieces;
  return memory;
}

void deallocate_teardown(void* memory) noexcept {
  if (!lies_in(memory, reserve.begin, reserve.size)) return ::operator delete(memory);
  if (--reserve.pieces == 0) reserve.used = 0;
}

void* allocate_container(std::size_t bytes) {
  if (void* memory = ::operator new(bytes, std::nothrow)) return memory;
  if (free_containers != nullptr) return std::exchange(free_containers, free_containers->next_free);
  if (untouched == 0) throw std::bad_alloc();
  return &containers[--untouched];
}

void deallocate_container(void* memory) noexcept {
  if (!lies_in(memory, reinterpret_cast<const std::byte*>(containers), sizeof containers))
    return ::operator delete(memory);
  auto* container = static_cast<Container*>(memory);
  container->next_free = std::exchange(free_containers, container);
}

}  // namespace detail

}  // namespace ops
