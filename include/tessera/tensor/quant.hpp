// Weight types of model files: block formats, and how each becomes planes of small integers, scales and minima.
// A weight value is scale · (q − zero_point) + min. Source of the block formats: the GGUF specification (ggml types 0, 1, 2, 3, 8).
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "tessera/base/half.hpp"

namespace tessera {

enum class WeightType : uint8_t { kF32, kF16, kQ4_0, kQ4_1, kQ8_0 };

// One decoded block of a quantized type: at most 32 values that share a scale.
struct QuantGroup {
  std::array<uint8_t, 32> q;  // 4-bit types: 0..15; 8-bit types: the bits of an int8
  uint16_t scale;             // f16 bits, as in the file
  uint16_t min;               // f16 bits; 0 for types without a minimum
};

struct WeightFormat {
  WeightType type;
  std::string_view name;      // as users write it: "Q4_0"
  uint32_t ggml_type;         // the id in GGUF files
  int block;                  // values per block
  int block_bytes;
  int bits;                   // per value on the device: 4, 8 (quantized), 16, 32 (plain floats)
  int zero_point;             // subtracted from q in the kernel
  bool has_min;               // a plane of minima exists
  void (*decode)(const std::byte* block, QuantGroup& group);  // null for plain floats
};

namespace detail {
inline uint16_t load_u16(const std::byte* p) { uint16_t v; std::memcpy(&v, p, 2); return v; }
// 16 bytes: value i in the low nibble of byte i, value i + 16 in the high nibble.
inline void split_nibbles(const std::byte* p, QuantGroup& group) {
  for (int i = 0; i < 16; ++i) {
    group.q[static_cast<size_t>(i)] = static_cast<uint8_t>(p[i]) & 15u;
    group.q[static_cast<size_t>(i) + 16] = static_cast<uint8_t>(p[i]) >> 4;
  }
}
inline void decode_q4_0(const std::byte* p, QuantGroup& g) { g.scale = load_u16(p); g.min = 0; split_nibbles(p + 2, g); }
inline void decode_q4_1(const std::byte* p, QuantGroup& g) { g.scale = load_u16(p); g.min = load_u16(p + 2); split_nibbles(p + 4, g); }
inline void decode_q8_0(const std::byte* p, QuantGroup& g) { g.scale = load_u16(p); g.min = 0; std::memcpy(g.q.data(), p + 2, 32); }
}  // namespace detail

inline constexpr std::array<WeightFormat, 5> kWeightFormats{{
    {WeightType::kF32, "F32", 0, 1, 4, 32, 0, false, nullptr},
    {WeightType::kF16, "F16", 1, 1, 2, 16, 0, false, nullptr},
    {WeightType::kQ4_0, "Q4_0", 2, 32, 18, 4, 8, false, detail::decode_q4_0},
    {WeightType::kQ4_1, "Q4_1", 3, 32, 20, 4, 0, true, detail::decode_q4_1},
    {WeightType::kQ8_0, "Q8_0", 8, 32, 34, 8, 0, false, detail::decode_q8_0},
}};

constexpr const WeightFormat& format_of(WeightType type) { return kWeightFormats[static_cast<size_t>(type)]; }
constexpr const WeightFormat* format_from_ggml(uint32_t ggml_type) {
  for (const WeightFormat& format : kWeightFormats)
    if (format.ggml_type == ggml_type) return &format;
  return nullptr;
}
constexpr bool is_quantized(WeightType type) { return format_of(type).bits < 16; }
// q as the kernel sees it, before the zero point is taken off.
constexpr int quant_value(const WeightFormat& format, uint8_t q) { return format.bits == 8 ? static_cast<int8_t>(q) : q; }

// Bytes of one row of `columns` values (columns a multiple of the block) in the file.
constexpr int64_t row_bytes(WeightType type, int64_t columns) { return columns / format_of(type).block * format_of(type).block_bytes; }

// The float32 values of one row as the file means them: the slow truth that kernels and packing are checked against.
inline void dequantize_row(WeightType type, const std::byte* row, int64_t columns, float* out) {
  const WeightFormat& format = format_of(type);
  if (type == WeightType::kF32) { std::memcpy(out, row, static_cast<size_t>(columns) * 4); return; }
  if (type == WeightType::kF16) {
    for (int64_t i = 0; i < columns; ++i) out[i] = half_to_float(detail::load_u16(row + i * 2));
    return;
  }
  QuantGroup group;
  for (int64_t i = 0; i < columns; ++i) {
    if (i % 32 == 0) format.decode(row + i / 32 * format.block_bytes, group);
    const float q = static_cast<float>(quant_value(format, group.q[static_cast<size_t>(i % 32)]) - format.zero_point);
    out[i] = half_to_float(group.scale) * q + half_to_float(group.min);
  }
}

}  // namespace tessera
