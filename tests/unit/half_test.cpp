// binary16 against arithmetic in double (exact for every value concerned), the compiler's own type where it has one, and known bit patterns.
#include "tessera/base/half.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace tessera {
namespace {

#if defined(__aarch64__)
using CompilersHalf = __fp16;  // g++ 12 has no _Float16 in C++ there
#elif defined(__FLT16_MAX__)
using CompilersHalf = _Float16;
#endif

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }

// The value of a half by its definition.
double meaning(uint16_t half) {
  const int exponent = (half >> 10) & 31, mantissa = half & 1023;
  const double sign = half & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

// Rounds to the nearest half, ties to even, by the processor's own rounding of integers.
uint16_t nearest(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (magnitude == 0.0) return sign;
  const int exponent = std::max(std::ilogb(magnitude), -14);
  const double steps = std::nearbyint(std::ldexp(magnitude, 10 - exponent));  // of 2^(exponent − 10); 1024..2048 for normal numbers
  const double total = steps + (exponent + 14) * 1024.0;                      // carries into the exponent by itself
  return static_cast<uint16_t>(sign | (total >= 0x7c00 ? 0x7c00 : static_cast<int>(total)));
}

TEST(Half, EveryHalfWidensExactly) {
  for (uint32_t half = 0; half < 65536; ++half) {
    const float value = half_to_float(static_cast<uint16_t>(half));
    const double expected = meaning(static_cast<uint16_t>(half));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(value)) << std::hex << half;
    } else {
      ASSERT_EQ(bits_of(value), bits_of(static_cast<float>(expected))) << std::hex << half;
    }
  }
}

TEST(Half, WideningAndNarrowingReturnsEveryHalf) {
  for (uint32_t half = 0; half < 65536; ++half) {
    const uint16_t back = float_to_half(half_to_float(static_cast<uint16_t>(half)));
    if ((half & 0x7fff) > 0x7c00)
      EXPECT_GT(back & 0x7fff, 0x7c00) << std::hex << half;  // NaN stays NaN, its payload may change
    else
      ASSERT_EQ(back, half);
  }
}

void expect_nearest(float value) {
  if (std::isnan(value)) {
    ASSERT_GT(float_to_half(value) & 0x7fff, 0x7c00);
    return;
  }
  ASSERT_EQ(float_to_half(value), nearest(value)) << std::hexfloat << value;
#ifdef __FLT16_MAX__
  const CompilersHalf half = static_cast<CompilersHalf>(value);
  uint16_t bits = 0;
  std::memcpy(&bits, &half, sizeof bits);
  ASSERT_EQ(float_to_half(value), bits) << std::hexfloat << value;
#endif
}

TEST(Half, NarrowingRoundsToNearestEven) {
  for (uint32_t half = 0; half < 0x7c00; ++half) {  // around every half and every tie between two
    const float low = half_to_float(static_cast<uint16_t>(half)), high = half_to_float(static_cast<uint16_t>(half + 1));
    const float top = std::isinf(high) ? 65536.0f : high;
    for (const float at : {low, low + (top - low) * 0.5f}) {
      for (const float value : {at, std::nextafterf(at, 0.0f), std::nextafterf(at, 1e30f)}) expect_nearest(value), expect_nearest(-value);
    }
  }
  for (uint64_t pattern = 0; pattern < uint64_t{1} << 32; pattern += 4093) expect_nearest(std::bit_cast<float>(static_cast<uint32_t>(pattern)));
}

TEST(Half, KnownPatterns) {
  const struct {
    float value;
    uint16_t half;
  } kKnown[] = {{0.0f, 0x0000},
                {-0.0f, 0x8000},
                {1.0f, 0x3c00},
                {-2.0f, 0xc000},
                {65504.0f, 0x7bff},
                {65519.996f, 0x7bff},
                {65520.0f, 0x7c00},
                {1e30f, 0x7c00},
                {-1e30f, 0xfc00},
                {0x1p-14f, 0x0400},
                {0x1p-24f, 0x0001},
                {0x1p-25f, 0x0000},
                {0x1.000002p-25f, 0x0001},
                {0x1.8p-24f, 0x0002},
                {0x1.ff8p-15f, 0x03ff},
                {0x1.ffcp-15f, 0x0400},
                {0.333251953125f, 0x3555},
                {std::numeric_limits<float>::infinity(), 0x7c00},
                {std::numeric_limits<float>::denorm_min(), 0x0000}};
  for (const auto& known : kKnown) EXPECT_EQ(float_to_half(known.value), known.half) << std::hexfloat << known.value;
}

}  // namespace
}  // namespace tessera
