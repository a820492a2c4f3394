// take_row and argmax: the host reference of argmax against Eigen, the kernels against what they are to give.
#include "tessera/ops/output.hpp"

#include <Eigen/Dense>
#include <array>
#include <limits>

#include "op_harness.hpp"

namespace tessera::ops_test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kMax = std::numeric_limits<float>::max();

TEST(ArgmaxReference, EqualsEigen) {
  Random random(1);
  for (const int64_t channels : {1, 3, 5, 127, 4097}) {
    const Matrix x = random.matrix(1, channels);
    Eigen::Index best = 0;
    Eigen::Map<const Eigen::ArrayXf>(x.values.data(), channels).maxCoeff(&best);
    EXPECT_EQ(ops::argmax_reference(x.values.data(), channels), best);
  }
}

struct OutputCase {
  int64_t channels = 1;
  TestTuning tuning;
};
std::string name_of_case(const testing::TestParamInfo<OutputCase>& info) {
  return cat("channels", info.param.channels, "_workgroup", info.param.tuning.workgroup, "_", info.param.tuning.name_of_activations());
}
std::vector<OutputCase> cases() {
  std::vector<OutputCase> all;
  for (const int64_t channels : {1, 3, 5, 127, 192})
    for (const int workgroup : {1, 4, 64})
      for (const Storage storage : kStorages)
        if (full_tier() || storage == storage_in_turn(channels + workgroup) || channels == 5) all.push_back({channels, {.activations = storage, .workgroup = workgroup}});
  return all;
}

class Argmax : public OpTest, public testing::WithParamInterface<OutputCase> {
 protected:
  void SetUp() override {
    OpTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    runner_ = std::make_unique<OpRunner>(device(), GetParam().tuning);
    ops::argmax(runner_->g, runner_->g.activation("x", 1, GetParam().channels), runner_->g.input("id", DType::kI32, 1, {1}));
    TESSERA_ASSERT_OK(runner_->prepare({1, LogitRows::kNone}));
  }
  int32_t argmax(const Matrix& x) {
    const Status written = runner_->write("argmax", "x", x), ran = runner_->run({});
    EXPECT_TRUE(written && ran);
    const auto id = runner_->read_raw<int32_t>("argmax", "id");
    EXPECT_TRUE(id);
    return id ? id->front() : -2;
  }
  Matrix constant(float value) const {
    Matrix m(1, GetParam().channels);
    std::fill(m.values.begin(), m.values.end(), value);
    return m;
  }

 private:
  std::unique_ptr<OpRunner> runner_;
};

TEST_P(Argmax, FindsEveryPlace) {
  Random random(3);
  for (int64_t at = 0; at < GetParam().channels; ++at) {
    Matrix x = random.matrix(1, GetParam().channels);
    x.at(0, at) = 2.0f;
    EXPECT_EQ(argmax(x), at);
  }
}

TEST_P(Argmax, TakesTheFirstOfEquals) {
  const int64_t n = GetParam().channels;
  for (const float value : {0.0f, -1.0f, 1.0f, kMax, std::nextafter(-kMax, 0.0f)}) EXPECT_EQ(argmax(constant(value)), 0) << value;
  for (int64_t first = 0; first < n; first += 1 + n / 5) {
    Matrix x = constant(-3.0f);
    for (int64_t at = first; at < n; at += 3) x.at(0, at) = 5.0f;
    EXPECT_EQ(argmax(x), first);
  }
}

// Zero padding must not win over negative logits.
TEST_P(Argmax, IgnoresPadding) {
  Matrix x = constant(-2.0f);
  x.values.back() = -1.0f;
  EXPECT_EQ(argmax(x), GetParam().channels - 1);
}

TEST_P(Argmax, TellsNumericFaults) {
  for (int64_t at = 0; at < GetParam().channels; at += 1 + GetParam().channels / 7) {
    for (const float bad : {kNan, -kNan, kInf}) {
      Matrix x = constant(1.0f);
      x.at(0, at) = bad;
      EXPECT_EQ(ops::argmax_reference(x.values.data(), GetParam().channels), -1);
      EXPECT_EQ(argmax(x), -1) << bad << " at " << at;
    }
    Matrix x = constant(-kInf);  // a masked token is −inf; all of them is a fault
    EXPECT_EQ(argmax(x), -1);
    x.at(0, at) = -7.0f;
    EXPECT_EQ(argmax(x), at);
    EXPECT_EQ(ops::argmax_reference(x.values.data(), GetParam().channels), at);
  }
}
INSTANTIATE_TEST_SUITE_P(Argmax, Argmax, testing::ValuesIn(cases()), name_of_case);

class TakeRow : public OpTest, public testing::WithParamInterface<OutputCase> {};
TEST_P(TakeRow, CopiesOneRow) {
  const OutputCase& c = GetParam();
  Random random(4);
  const Matrix x = c.tuning.stored(random.matrix(8, c.channels));
  OpRunner run(device(), c.tuning);
  run.output(ops::take_row(run.g, run.g.activation("x", 8, c.channels)));
  TESSERA_ASSERT_OK(run.prepare({8, LogitRows::kNone}));
  for (const int32_t row : {0, 5, 7}) {
    TESSERA_ASSERT_OK(run.write("take_row", "x", x));
    TESSERA_ASSERT_OK(run.run({.position = 0, .tokens = row + 1, .last_row = row}));
    Matrix expected(1, c.channels);
    std::copy_n(x.row(row), c.channels, expected.values.begin());
    expect_close(run.read("take_row", "y").value(), expected, [](int64_t, int64_t) { return 0.0; }, 1);
    EXPECT_EQ(run.stray_write().value(), -1);
  }
}
INSTANTIATE_TEST_SUITE_P(TakeRow, TakeRow, testing::ValuesIn(with_halves(cases())), name_of_case);

}  // namespace
}  // namespace tessera::ops_test
