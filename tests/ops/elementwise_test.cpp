// add and gated_silu: the host references against Eigen, the kernels against the references.
#include "tessera/ops/elementwise.hpp"

#include <Eigen/Dense>
#include <array>

#include "op_harness.hpp"

namespace tessera::ops_test {
namespace {

// Where silu changes its nature: signs, the flat ends, the overflow of exp, subnormal results.
const std::vector<float> kGates = {0.0f, -0.0f, 1.0f, -1.0f, 1e-30f, -1e-30f, 10.0f, -10.0f, 80.0f, -80.0f, 90.0f, -90.0f, 120.0f, -120.0f, 1e30f, -1e30f};

// Below −88.7 exp(−gate) is infinite in f32 and the kernel says 0; the truth, |gate| · exp(gate), falls from there on.
constexpr double kOverflowLoss = 88.73 / 3.4028234e38;

Matrix gates(Random& random, int64_t rows, int64_t channels) {
  Matrix m = random.matrix(rows, channels, 8.0f);
  for (size_t i = 0; i < m.values.size(); i += 3) m.values[i] = kGates[i / 3 % kGates.size()];
  return m;
}

TEST(AddReference, EqualsEigen) {
  Random random(1);
  const Matrix a = random.matrix(5, 127), b = random.matrix(5, 127);
  Matrix y(5, 127);
  ops::add_reference(a.values.data(), b.values.data(), y.values.data(), 5 * 127);
  const Eigen::Map<const Eigen::ArrayXf> ea(a.values.data(), 5 * 127), eb(b.values.data(), 5 * 127), ey(y.values.data(), 5 * 127);
  EXPECT_TRUE((ey == ea + eb).all());
}

TEST(GatedSiluReference, EqualsEigen) {
  Random random(2);
  const Matrix gate = gates(random, 5, 127), up = random.matrix(5, 127);
  Matrix y(5, 127);
  ops::gated_silu_reference(gate.values.data(), up.values.data(), y.values.data(), 5 * 127);
  const Eigen::ArrayXd g = Eigen::Map<const Eigen::ArrayXf>(gate.values.data(), 5 * 127).cast<double>();
  // x · sigmoid(x) through tanh, another formula than the reference's.
  const Eigen::ArrayXd expected = g * (0.5 + 0.5 * (0.5 * g).tanh()) * Eigen::Map<const Eigen::ArrayXf>(up.values.data(), 5 * 127).cast<double>();
  for (int64_t i = 0; i < 5 * 127; ++i)  // the tanh form cancels for large negative g: absolute error |g| · 2⁻⁵³ there
    EXPECT_NEAR(static_cast<double>(y.values[static_cast<size_t>(i)]), expected(i), kUnit * std::abs(expected(i)) + 1e-15 * std::abs(g(i)) + kSmallest) << g(i);
}

struct ElementwiseCase {
  std::string op;
  int64_t channels = 1;
  TestTuning tuning;
};

class Elementwise : public OpTest, public testing::WithParamInterface<ElementwiseCase> {};

TEST_P(Elementwise, EqualsReference) {
  const ElementwiseCase& c = GetParam();
  const bool is_add = c.op == "add";
  Random random(7);
  for (const auto& [shape, tokens] : {std::array<int64_t, 2>{1, 1}, {8, 2}, {32, 17}, {32, 32}}) {
    SCOPED_TRACE(cat(tokens, " of ", shape, " tokens"));
    Matrix a = gates(random, tokens, c.channels);
    if (!is_add && c.tuning.activation_type == DType::kF16)
      for (float& v : a.values) v = std::clamp(v, -60000.0f, 60000.0f);  // f16 ends at 65504
    if (!is_add) a = c.tuning.stored(std::move(a));                        // what a sum is added to is f32 always
    const Matrix b = c.tuning.stored(random.matrix(tokens, c.channels));
    OpRunner run(device(), c.tuning);
    const ValueId va = is_add ? run.g.residual("a", shape, c.channels) : run.g.activation("gate", shape, c.channels), vb = run.g.activation("b", shape, c.channels);
    const ValueId vy = is_add ? ops::add(run.g, va, vb) : ops::gated_silu(run.g, va, vb);
    run.intermediate(vy);
    TESSERA_ASSERT_OK(run.prepare({shape, LogitRows::kNone}));
    TESSERA_ASSERT_OK(run.write(c.op, is_add ? "a" : "gate", a));
    TESSERA_ASSERT_OK(run.write(c.op, is_add ? "b" : "up", b));
    TESSERA_ASSERT_OK(run.run({.position = 0, .tokens = static_cast<int32_t>(tokens), .last_row = 0}));
    Matrix expected(tokens, c.channels);
    (is_add ? ops::add_reference : ops::gated_silu_reference)(a.values.data(), b.values.data(), expected.values.data(), tokens * c.channels);
    const auto found = run.read(c.op, "y");
    TESSERA_ASSERT_OK(found);
    const auto tolerance = [&](int64_t r, int64_t ch) {
      // add: one operation on both sides, which OpenCL rounds as the host does. silu: exp, 1 + e, division, product, and the reference's own rounding.
      if (is_add) return on_vulkan() ? 2.0 * kUnit * std::abs(static_cast<double>(expected.at(r, ch))) : 0.0;
      const double relative = gamma_of(gate_exp_roundings(a.at(r, ch)) + 1.0 + division_roundings() + 1.0 + 1.0);
      return relative * std::abs(static_cast<double>(expected.at(r, ch))) + kOverflowLoss * std::abs(static_cast<double>(b.at(r, ch))) + kSmallest;
    };
    expect_close(*found, expected, tolerance, tokens);
    EXPECT_EQ(run.stray_write().value(), -1);
  }
}

std::vector<ElementwiseCase> cases() {
  std::vector<ElementwiseCase> all;
  int turn = 0;
  for (const char* op : {"add", "gated_silu"})
    for (const int64_t channels : {int64_t{1}, int64_t{3}, int64_t{5}, int64_t{127}, int64_t{192}})
      for (const Storage storage : kStorages)  // the width, which pads rows alone, takes turns
        if (const int pick = turn++; full_tier() || channels == 127 || storage == storage_in_turn(static_cast<int>(channels))) all.push_back({op, channels, {.width = width_in_turn(pick), .activations = storage}});
  return all;
}
std::string name_of_case(const testing::TestParamInfo<ElementwiseCase>& info) {
  return cat(info.param.op, "_channels", info.param.channels, "_w", info.param.tuning.width, "_", info.param.tuning.name_of_activations());
}
INSTANTIATE_TEST_SUITE_P(Elementwise, Elementwise, testing::ValuesIn(with_halves(cases())), name_of_case);

}  // namespace
}  // namespace tessera::ops_test
