// Checked integer arithmetic on sizes: nothing that comes from a file or from a user is added or multiplied without it.
#pragma once
#include <cstdint>
#include <optional>

namespace tessera {

inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

inline std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// The smallest multiple of `alignment` (> 0) that is ≥ `value`.
inline std::optional<uint64_t> checked_round_up(uint64_t value, uint64_t alignment) {
  const uint64_t rest = value % alignment;
  return rest == 0 ? std::optional(value) : checked_add(value, alignment - rest);
}

// For values that are known to be small: shapes, counts of a checked model.
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t value, int64_t alignment) { return ceil_div(value, alignment) * alignment; }

}  // namespace tessera
