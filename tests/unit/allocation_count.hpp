// Counts the host allocations of a test program and the bytes they hold: replaces the global operator new. To be included in the one source
// file of a test.
#pragma once
#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace tessera {
inline std::atomic<int64_t> allocation_count{0};
inline std::atomic<int64_t> allocated_bytes{0};       // alive
inline std::atomic<int64_t> peak_allocated_bytes{0};  // the most that were alive since the test set it
}  // namespace tessera

// Not inlined: g++ 12 would see free() meet operator new, and warn.
[[gnu::noinline]] void* operator new(size_t bytes) {
  ++tessera::allocation_count;
  void* memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  const int64_t now = tessera::allocated_bytes += static_cast<int64_t>(malloc_usable_size(memory));
  int64_t peak = tessera::peak_allocated_bytes;
  while (now > peak && !tessera::peak_allocated_bytes.compare_exchange_weak(peak, now)) {
  }
  return memory;
}
// As the standard library's own; said here because the address sanitizer replaces that one by one of its own.
[[gnu::noinline]] void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return operator new(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  if (memory != nullptr) tessera::allocated_bytes -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { operator delete(memory); }
