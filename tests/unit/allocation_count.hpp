// Counts the host allocations of a test program: replaces the global operator new. To be included in the one source file of a test.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace tessera {
inline std::atomic<int64_t> allocation_count{0};
}

// Not inlined: g++ 12 would see free() meet operator new, and warn.
[[gnu::noinline]] void* operator new(size_t bytes) {
  ++tessera::allocation_count;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }
