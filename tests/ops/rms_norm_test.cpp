// rms_norm: the host reference against Eigen, the kernel against the reference.
#include "tessera/ops/rms_norm.hpp"

#include <Eigen/Dense>
#include <array>

#include "op_harness.hpp"

namespace tessera::ops_test {
namespace {

constexpr float kEps = 1e-5f;

TEST(RmsNormReference, EqualsEigen) {
  Random random(1);
  for (const auto& [tokens, channels] : {std::array<int64_t, 2>{1, 1}, {2, 3}, {3, 5}, {17, 127}}) {
    const Matrix x = random.matrix(tokens, channels), gamma = random.matrix(1, channels);
    Matrix y(tokens, channels);
    ops::rms_norm_reference(x.values.data(), gamma.values.data(), y.values.data(), tokens, channels, kEps);
    const Eigen::ArrayXd gain = Eigen::Map<const Eigen::ArrayXf>(gamma.values.data(), channels).cast<double>();
    for (int64_t t = 0; t < tokens; ++t) {
      const Eigen::ArrayXd row = Eigen::Map<const Eigen::ArrayXf>(x.row(t), channels).cast<double>();
      const Eigen::ArrayXd expected = row * gain / std::sqrt(row.square().mean() + static_cast<double>(kEps));
      for (int64_t c = 0; c < channels; ++c) EXPECT_NEAR(static_cast<double>(y.at(t, c)), expected(c), 1.001 * kUnit * std::abs(expected(c))) << t << ", " << c;  // one rounding to float
    }
  }
}

struct RmsNormCase {
  int64_t channels = 1;
  TestTuning tuning;
};

class RmsNorm : public OpTest, public testing::WithParamInterface<RmsNormCase> {};

TEST_P(RmsNorm, EqualsReference) {
  const RmsNormCase& c = GetParam();
  Random random(static_cast<uint32_t>(c.channels));
  const TestWeight gain = make_weight("gain", WeightType::kF32, 1, c.channels, 3);
  for (const auto& [shape, tokens] : {std::array<int64_t, 2>{1, 1}, {8, 2}, {32, 17}}) {
    OpRunner run(device(), c.tuning);
    const ValueId y = ops::rms_norm(run.g, run.g.activation("x", shape, c.channels), run.weight(gain), kEps);
    run.intermediate(y);
    TESSERA_ASSERT_OK(run.prepare({shape, LogitRows::kNone}));
    for (const float size : {1.0f, 1e3f, 1e-4f}) {  // far above eps, and where eps decides
      SCOPED_TRACE(cat(tokens, " of ", shape, " tokens of size ", size));
      const Matrix x = c.tuning.stored(random.matrix(tokens, c.channels, size));
      TESSERA_ASSERT_OK(run.clear());
      TESSERA_ASSERT_OK(run.write("rms_norm", "x", x));
      TESSERA_ASSERT_OK(run.run({.position = 0, .tokens = static_cast<int32_t>(tokens), .last_row = 0}));
      Matrix expected(tokens, c.channels);
      ops::rms_norm_reference(x.values.data(), gain.values.values.data(), expected.values.data(), tokens, c.channels, kEps);
      const auto found = run.read("rms_norm", "y");
      TESSERA_ASSERT_OK(found);
      // A sum of n positive terms is off by γₙ at most, its mean and eps add three roundings, the root halves them all; then rsqrt, two products.
      const double relative = gamma_of(static_cast<double>((c.channels + 3) / 2 + 1) + rsqrt_roundings() + 2.0 + 1.0);
      expect_close(*found, expected, [&](int64_t r, int64_t ch) { return relative * std::abs(static_cast<double>(expected.at(r, ch))) + kSmallest; }, tokens);
      EXPECT_EQ(run.stray_write().value(), -1);
    }
  }
}

// An exact all-zero row: eps alone keeps the result finite.
TEST_F(OpTest, RmsNormOfZerosIsZero) {
  const TestWeight gain = make_weight("gain", WeightType::kF32, 1, 5, 3);
  OpRunner run(device(), {});
  run.output(ops::rms_norm(run.g, run.g.activation("x", 1, 5), run.weight(gain), kEps));
  TESSERA_ASSERT_OK(run.prepare({1, LogitRows::kNone}));
  TESSERA_ASSERT_OK(run.write("rms_norm", "x", Matrix(1, 5)));
  TESSERA_ASSERT_OK(run.run({}));
  expect_close(run.read("rms_norm", "y").value(), Matrix(1, 5), [](int64_t, int64_t) { return 0.0; }, 1);
}

std::vector<RmsNormCase> cases() {
  std::vector<RmsNormCase> all;
  int turn = 0;
  for (const int64_t channels : {int64_t{1}, int64_t{3}, int64_t{5}, int64_t{127}, int64_t{192}})
    for (const int workgroup : {1, 4, 64})
      for (const Storage storage : kStorages)  // the width, which pads rows alone, takes turns
        if (const int pick = turn++; full_tier() || pick % 4 == 0) all.push_back({channels, {.width = width_in_turn(pick), .activations = storage, .workgroup = workgroup}});
  return all;
}
std::string name_of_case(const testing::TestParamInfo<RmsNormCase>& info) {
  return cat("channels", info.param.channels, "_workgroup", info.param.tuning.workgroup, "_w", info.param.tuning.width, "_", info.param.tuning.name_of_activations());
}
INSTANTIATE_TEST_SUITE_P(RmsNorm, RmsNorm, testing::ValuesIn(with_halves(cases())), name_of_case);

}  // namespace
}  // namespace tessera::ops_test
