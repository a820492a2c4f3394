// The numbers of the op tests: what goes in, and how far off what comes out may be.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "../test_device.hpp"
#include "../unit/random_blocks.hpp"
#include "tessera/model/model_file.hpp"
#include "tessera/tensor/dtype.hpp"
#include "tessera/tensor/quant.hpp"

namespace tessera::ops_test {

// ---- data ------------------------------------------------------------------------------------------------------------------------

// Rows of channels as the host thinks of them: no padding.
struct Matrix {
  int64_t rows = 0;
  int64_t channels = 0;
  std::vector<float> values;
  DType stored_as = DType::kF32;  // on the device that it was read from

  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), channels(c), values(static_cast<size_t>(r * c), 0.0f) {}
  float& at(int64_t r, int64_t c) { return values[static_cast<size_t>(r * channels + c)]; }
  float at(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * channels + c)]; }
  const float* row(int64_t r) const { return values.data() + r * channels; }
};

// The same numbers everywhere: the standard's engine is portable, its distributions are not.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t bits() { return engine_(); }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint32_t>(n)); }
  float uniform(float low, float high) { return low + (high - low) * static_cast<float>(bits() >> 8) * 0x1p-24f; }
  Matrix matrix(int64_t rows, int64_t channels, float size = 1.0f) {
    Matrix m(rows, channels);
    for (float& v : m.values) v = uniform(-size, size);
    return m;
  }

 private:
  std::mt19937 engine_;
};

// A weight as in a file, with what its numbers are and how large the terms are that they are made of: |scale| · (|q| + zero) + |min|.
struct TestWeight {
  WeightRef ref;
  std::vector<std::byte> bytes;
  Matrix values;
  Matrix magnitudes;
};

inline TestWeight make_weight(const std::string& name, WeightType type, int64_t rows, int64_t columns, uint32_t seed) {
  Random random(seed);
  const WeightFormat& format = format_of(type);
  TestWeight w{{name, type, rows, columns, {}}, {}, Matrix(rows, columns), Matrix(rows, columns)};
  const float size = is_quantized(type) ? 1.6f / static_cast<float>(1 << format.bits) : 1.0f;  // scales of both signs, as files have them
  w.bytes = test::random_blocks(type, rows * columns / format.block, [&] { return random.bits(); }, size);
  for (int64_t r = 0; r < rows; ++r) {
    const std::byte* row = w.bytes.data() + r * row_bytes(type, columns);
    dequantize_row(type, row, columns, &w.values.at(r, 0));
    for (int64_t c = 0; c < columns; ++c) {
      w.magnitudes.at(r, c) = std::abs(w.values.at(r, c));
      if (!is_quantized(type)) continue;
      const QuantGroup group = decode_group(format, row, c / format.group);
      const int q = quant_value(format, group.q[static_cast<size_t>(c % format.group)]);
      w.magnitudes.at(r, c) = std::abs(scale_of(format, group)) * static_cast<float>(std::abs(q) + format.zero_point) + std::abs(min_of(format, group));
    }
  }
  return w;
}

// ---- error bounds ------------------------------------------------------------------------------------------------------------------

inline bool on_vulkan() { return test::shared_device() && test::shared_device()->info().api == Api::kVulkan; }

inline constexpr double kUnit = 0x1p-24;  // u: half the distance from 1 to the next float, what one rounding to the nearest float is off by
// What one rounding of the device is off by. OpenCL rounds to nearest; Vulkan promises one of the two neighbours (Vulkan 1.3, "Precision and Operation
// of SPIR-V Instructions": "correctly rounded").
inline double device_unit() { return on_vulkan() ? 2 * kUnit : kUnit; }

// n roundings in a row make a relative error of at most γₙ = n·u / (1 − n·u) (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
template <class Number>
double gamma_of(Number roundings) {
  const double nu = static_cast<double>(roundings) * device_unit();
  return nu / (1.0 - nu);
}
// Roundings that a built-in counts for; one ulp is at most two u. OpenCL C 3.0, table of relative errors, full profile: exp ≤ 3 ulp, rsqrt ≤ 2, division ≤ 2.5.
// The section of Vulkan's named above: exp(x) ≤ 3 + 2|x|, the others the same.
inline double exp_roundings(double x) { return on_vulkan() ? 3.0 + 2.0 * std::abs(x) : 6.0; }
// The exp of gate / (1 + exp(−gate)): for a positive gate g what |x| adds is weighed with exp(−g), and 2·g·exp(−g) < 1; below −90 exp overflows and the result is 0.
inline double gate_exp_roundings(float gate) { return exp_roundings(std::clamp(-static_cast<double>(gate), 0.5, 90.0)); }
inline double rsqrt_roundings() { return 2.0 * 2.0 * kUnit / device_unit(); }
inline double division_roundings() { return 2.5 * 2.0 * kUnit / device_unit(); }
// Below the smallest normal float a device may flush to zero.
inline constexpr double kSmallest = 0x1p-126;

// What storing a number of this size is off by. f16: half an ulp is 2⁻¹¹ of a normal number, 2⁻²⁵ of a subnormal one, of which Vulkan drivers, and stores
// to images of OpenCL's, may cut a whole ulp (kernels round what is normal themselves). The sizes themselves were computed: 1e-4 is slack for that.
inline double stored_error(DType type, double size) { return type == DType::kF16 ? std::max(size * 0x1p-11 * (1.0 + 1e-4), 0x1p-24) : 0.0; }

}  // namespace tessera::ops_test
