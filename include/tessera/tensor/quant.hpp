// Weight types of model files: block formats, and how each becomes planes of small integers, scales and minima.
// A weight value is scale · (q − zero_point) + min. With two levels of scales, scale and min are integers times two f16 of the whole block.
// Source of the block formats: the GGUF specification (ggml types 0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 20, 30).
#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "tessera/base/half.hpp"
#include "tessera/tensor/dtype.hpp"

namespace tessera {

enum class WeightType : uint8_t { kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K, kIQ4_NL };

// The values of a quantized type that share a scale. scale, min: as the device stores them, f16 bits or, with two levels, one byte.
struct QuantGroup {
  std::array<uint8_t, 32> q{};    // below 2^bits; 8-bit types: the bits of an int8
  uint16_t scale = 0;
  uint16_t min = 0;
  uint16_t super_scale = 0;       // f16 bits, with two levels
  uint16_t super_min = 0;         // the same; what the file subtracts has its sign turned
};

struct WeightFormat {
  WeightType type;
  std::string_view name;          // as users write it: "Q4_0"
  uint32_t ggml_type;             // the id in GGUF files
  int block = 1;                  // values per block
  int block_bytes;
  int bits;                       // per value on the device: 4, 5, 6, 8 (quantized), 16, 32 (plain floats)
  DType element = DType::kF16;    // of plain floats; of scales and minima: f16, or bytes (u8, i8), which means that there are two levels
  int group = 32;                 // values that share a scale: 16 or 32
  int zero_point = 0;             // subtracted from q in the kernel
  bool has_min = false;           // a plane of minima exists
  const std::array<int8_t, 16>* codebook = nullptr;  // 4-bit types whose q says which of these is meant
  void (*decode)(const std::byte* block, int group, QuantGroup& out) = nullptr;  // group: within the block; null for plain floats

  bool two_levels() const { return decode != nullptr && element != DType::kF16; }
  int low_bits() const { return bits < 8 ? 4 : 8; }   // of a quantized value: in the plane of quants …
  int high_bits() const { return bits - low_bits(); }  // … and in a plane of their own
};

namespace detail {
inline uint16_t load_u16(const std::byte* p) { uint16_t v; std::memcpy(&v, p, 2); return v; }
inline constexpr std::array<int8_t, 16> kIQ4_NLCodes = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
// 16 bytes: value i in the low nibble of byte i, value i + 16 in the high nibble.
inline void split_nibbles(const std::byte* p, QuantGroup& group) {
  for (int i = 0; i < 16; ++i) {
    group.q[static_cast<size_t>(i)] = static_cast<uint8_t>(p[i]) & 15u;
    group.q[static_cast<size_t>(i) + 16] = static_cast<uint8_t>(p[i]) >> 4;
  }
}
inline void decode_q4_0(const std::byte* p, int, QuantGroup& g) { g.scale = load_u16(p); split_nibbles(p + 2, g); }
inline void decode_q4_1(const std::byte* p, int, QuantGroup& g) { g.scale = load_u16(p); g.min = load_u16(p + 2); split_nibbles(p + 4, g); }
// Bit i of 32 is the fifth bit of value i.
inline void add_fifth_bits(const std::byte* p, QuantGroup& group) {
  for (size_t i = 0; i < 32; ++i) group.q[i] |= static_cast<uint8_t>(((static_cast<unsigned>(p[i / 8]) >> (i % 8)) & 1u) << 4);
}
inline void decode_q5_0(const std::byte* p, int, QuantGroup& g) { g.scale = load_u16(p); split_nibbles(p + 6, g); add_fifth_bits(p + 2, g); }
inline void decode_q5_1(const std::byte* p, int, QuantGroup& g) { g.scale = load_u16(p); g.min = load_u16(p + 2); split_nibbles(p + 8, g); add_fifth_bits(p + 4, g); }
inline void decode_q8_0(const std::byte* p, int, QuantGroup& g) { g.scale = load_u16(p); std::memcpy(g.q.data(), p + 2, 32); }
// Two halves, then 6 bits each of eight scales and eight minima that are subtracted: the first four of both whole bytes' lower 6 bits, the
// last four 4 bits in a byte for both and 2 bits on top of the first four.
inline void decode_k_levels(const std::byte* p, int group, QuantGroup& out) {
  const auto byte = [p](int i) { return static_cast<unsigned>(p[4 + i]); };
  out.super_scale = load_u16(p);
  out.super_min = load_u16(p + 2) ^ 0x8000u;
  const bool first = group < 4;
  out.scale = static_cast<uint16_t>(first ? byte(group) & 63u : (byte(group + 4) & 15u) | byte(group - 4) >> 6 << 4);
  out.min = static_cast<uint16_t>(first ? byte(group + 4) & 63u : byte(group + 4) >> 4 | byte(group) >> 6 << 4);
}
// Groups 2n and 2n + 1 are the low and the high nibbles of 32 bytes.
inline void decode_k_nibbles(const std::byte* p, int group, QuantGroup& out) {
  for (size_t i = 0; i < 32; ++i) out.q[i] = static_cast<uint8_t>(static_cast<unsigned>(p[group / 2 * 32 + static_cast<int>(i)]) >> (group % 2 * 4)) & 15u;
}
inline void decode_q4_k(const std::byte* p, int group, QuantGroup& out) { decode_k_levels(p, group, out); decode_k_nibbles(p + 16, group, out); }
// Bit g of byte i is the fifth bit of value i of group g.
inline void decode_q5_k(const std::byte* p, int group, QuantGroup& out) {
  decode_k_levels(p, group, out);
  decode_k_nibbles(p + 48, group, out);
  for (size_t i = 0; i < 32; ++i) out.q[i] |= static_cast<uint8_t>((static_cast<unsigned>(p[16 + i]) >> group & 1u) << 4);
}
// Each half of 128 values: 64 bytes whose low nibbles are its first 64 values' lower bits, whose high nibbles the others'; 32 bytes of two upper bits,
// of values 32 apart. 128 + 64 bytes for both, 16 signed scales, one half.
inline void decode_q6_k(const std::byte* p, int group, QuantGroup& out) {
  const int half = group / 8, quarter = group % 8 / 2, first = group % 2 * 16;
  const std::byte* low = p + half * 64 + quarter % 2 * 32 + first;
  const std::byte* high = p + 128 + half * 32 + first;
  for (size_t i = 0; i < 16; ++i)
    out.q[i] = static_cast<uint8_t>((static_cast<unsigned>(low[i]) >> (quarter / 2 * 4) & 15u) | (static_cast<unsigned>(high[i]) >> (quarter * 2) & 3u) << 4);
  out.scale = static_cast<uint8_t>(p[192 + group]);
  out.super_scale = load_u16(p + 208);
}
}  // namespace detail

inline constexpr std::array<WeightFormat, 12> kWeightFormats{{
    {.type = WeightType::kF32, .name = "F32", .ggml_type = 0, .block_bytes = 4, .bits = 32, .element = DType::kF32},
    {.type = WeightType::kF16, .name = "F16", .ggml_type = 1, .block_bytes = 2, .bits = 16},
    {.type = WeightType::kBF16, .name = "BF16", .ggml_type = 30, .block_bytes = 2, .bits = 16, .element = DType::kBF16},
    {.type = WeightType::kQ4_0, .name = "Q4_0", .ggml_type = 2, .block = 32, .block_bytes = 18, .bits = 4, .zero_point = 8, .decode = detail::decode_q4_0},
    {.type = WeightType::kQ4_1, .name = "Q4_1", .ggml_type = 3, .block = 32, .block_bytes = 20, .bits = 4, .has_min = true, .decode = detail::decode_q4_1},
    {.type = WeightType::kQ5_0, .name = "Q5_0", .ggml_type = 6, .block = 32, .block_bytes = 22, .bits = 5, .zero_point = 16, .decode = detail::decode_q5_0},
    {.type = WeightType::kQ5_1, .name = "Q5_1", .ggml_type = 7, .block = 32, .block_bytes = 24, .bits = 5, .has_min = true, .decode = detail::decode_q5_1},
    {.type = WeightType::kQ8_0, .name = "Q8_0", .ggml_type = 8, .block = 32, .block_bytes = 34, .bits = 8, .decode = detail::decode_q8_0},
    {.type = WeightType::kQ4_K, .name = "Q4_K", .ggml_type = 12, .block = 256, .block_bytes = 144, .bits = 4, .element = DType::kU8, .has_min = true, .decode = detail::decode_q4_k},
    {.type = WeightType::kQ5_K, .name = "Q5_K", .ggml_type = 13, .block = 256, .block_bytes = 176, .bits = 5, .element = DType::kU8, .has_min = true, .decode = detail::decode_q5_k},
    {.type = WeightType::kQ6_K, .name = "Q6_K", .ggml_type = 14, .block = 256, .block_bytes = 210, .bits = 6, .element = DType::kI8, .group = 16, .zero_point = 32, .decode = detail::decode_q6_k},
    {.type = WeightType::kIQ4_NL, .name = "IQ4_NL", .ggml_type = 20, .block = 32, .block_bytes = 18, .bits = 4, .codebook = &detail::kIQ4_NLCodes, .decode = detail::decode_q4_0},
}};

constexpr const WeightFormat& format_of(WeightType type) { return kWeightFormats[static_cast<size_t>(type)]; }
constexpr const WeightFormat* format_from_ggml(uint32_t ggml_type) {
  for (const WeightFormat& format : kWeightFormats)
    if (format.ggml_type == ggml_type) return &format;
  return nullptr;
}
constexpr bool is_quantized(WeightType type) { return format_of(type).decode != nullptr; }

// Bytes of one row of `columns` values (columns a multiple of the block) in the file.
constexpr int64_t row_bytes(WeightType type, int64_t columns) { return columns / format_of(type).block * format_of(type).block_bytes; }

// Group `index` of a row of a quantized type.
inline QuantGroup decode_group(const WeightFormat& format, const std::byte* row, int64_t index) {
  QuantGroup group;
  const int64_t groups = format.block / format.group;
  format.decode(row + index / groups * format.block_bytes, static_cast<int>(index % groups), group);
  return group;
}
// q as the kernel sees it, before the zero point is taken off.
constexpr int quant_value(const WeightFormat& format, uint8_t q) {
  return format.codebook != nullptr ? (*format.codebook)[q] : format.bits == 8 ? static_cast<int8_t>(q) : q;
}

namespace detail {
// Exact: 11 bits by 8.
inline float level(const WeightFormat& format, uint16_t value, uint16_t super) {
  if (!format.two_levels()) return half_to_float(value);
  return half_to_float(super) * static_cast<float>(format.element == DType::kI8 ? static_cast<int8_t>(value) : static_cast<int>(value));
}
inline float plain_value(DType element, const std::byte* p) {
  float value = 0.0f;
  if (element == DType::kF32) std::memcpy(&value, p, 4);
  else value = element == DType::kF16 ? half_to_float(load_u16(p)) : std::bit_cast<float>(uint32_t{load_u16(p)} << 16);
  return value;
}
}  // namespace detail
inline float scale_of(const WeightFormat& format, const QuantGroup& group) { return detail::level(format, group.scale, group.super_scale); }
inline float min_of(const WeightFormat& format, const QuantGroup& group) { return detail::level(format, group.min, group.super_min); }

// The float32 values of one row as the file means them: the slow truth that kernels and packing are checked against.
inline void dequantize_row(WeightType type, const std::byte* row, int64_t columns, float* out) {
  const WeightFormat& format = format_of(type);
  if (!is_quantized(type)) {
    for (int64_t i = 0; i < columns; ++i) out[i] = detail::plain_value(format.element, row + i * format.block_bytes);
    return;
  }
  for (int64_t g = 0; g < columns / format.group; ++g, out += format.group) {
    const QuantGroup group = decode_group(format, row, g);
    const float scale = scale_of(format, group), min = min_of(format, group);
    for (int i = 0; i < format.group; ++i) {
      const float product = scale * static_cast<float>(quant_value(format, group.q[static_cast<size_t>(i)]) - format.zero_point);
      out[i] = format.has_min ? product + min : product;  // −0 + 0 would be 0
    }
  }
}

}  // namespace tessera
