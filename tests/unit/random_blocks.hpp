// Raw blocks of every weight type with random bits and sane scales.
#pragma once
#include <bit>
#include <cstring>
#include <vector>

#include "tessera/base/bytes.hpp"
#include "tessera/tensor/quant.hpp"

namespace tessera::test {

// Where a block has its f16 numbers. Source: the GGUF specification, not the decoders that are tested with this.
struct HalfFields {
  WeightType type;
  int scale;
  int min = -1;        // −1: has none
  float levels = 1.0f;  // of the integers that scale and min are multiplied by
};
inline constexpr HalfFields kHalfFields[] = {{WeightType::kQ4_0, 0}, {WeightType::kQ4_1, 0, 2}, {WeightType::kQ5_0, 0}, {WeightType::kQ5_1, 0, 2}, {WeightType::kQ8_0, 0}, {WeightType::kQ4_K, 0, 2, 63.0f}, {WeightType::kQ5_K, 0, 2, 63.0f}, {WeightType::kQ6_K, 208, -1, 128.0f}, {WeightType::kIQ4_NL, 0}};

// `count` blocks; `bits()` gives 32 random bits. Floats are in ±size; scales too (of two levels: the greatest product), minima in ±5 · size.
template <class Bits>
std::vector<std::byte> random_blocks(WeightType type, int64_t count, Bits&& bits, float size) {
  const WeightFormat& format = format_of(type);
  std::vector<std::byte> out(static_cast<size_t>(count * format.block_bytes));
  const auto uniform = [&](float most) { return most * (static_cast<float>(bits() >> 8) * 0x1p-23f - 1.0f); };
  for (auto at = out.begin(); at != out.end(); at += format.block_bytes) {
    const auto put_half = [&](int offset, float value) {
      const uint16_t half = float_to_half(value);
      std::memcpy(&*at + offset, &half, 2);
    };
    if (!is_quantized(type)) {
      const float value = uniform(size);
      const uint16_t half = float_to_half(value), upper = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
      if (format.element == DType::kF32) std::memcpy(&*at, &value, 4);
      else std::memcpy(&*at, format.element == DType::kF16 ? &half : &upper, 2);
      continue;
    }
    for (int i = 0; i < format.block_bytes; ++i) at[i] = static_cast<std::byte>(bits());
    for (const HalfFields& fields : kHalfFields) {
      if (fields.type != type) continue;
      put_half(fields.scale, uniform(size / fields.levels));
      if (fields.min >= 0) put_half(fields.min, uniform(5.0f * size / fields.levels));
    }
  }
  return out;
}

}  // namespace tessera::test
