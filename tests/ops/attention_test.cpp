// attention: the host reference against Eigen, the kernel against the reference over grouped heads, positions across pages, KV types.
#include "tessera/ops/attention.hpp"

#include <Eigen/Dense>
#include <array>

#include "op_harness.hpp"

namespace tessera::ops_test {
namespace {

const std::vector<int32_t> kBlockTable = {3, 0, 5, 1};  // pages of 16 positions, out of order
constexpr int64_t kPages = 6;

// One (token, head): softmax of the scores and what a kernel in f32 may be off by, all in double.
struct HeadTruth {
  Eigen::VectorXd y, tolerance;
};

HeadTruth head_truth(const float* q, const std::vector<const float*>& k, const std::vector<const float*>& v, int64_t dim, int64_t page) {
  const auto as_double = [dim](const float* p) -> Eigen::VectorXd { return Eigen::Map<const Eigen::VectorXf>(p, dim).cast<double>(); };
  const auto n = static_cast<Eigen::Index>(k.size());
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
  Eigen::VectorXd scores(n), sizes(n);
  Eigen::MatrixXd values(dim, n);
  for (Eigen::Index j = 0; j < n; ++j) {
    const Eigen::VectorXd key = as_double(k[static_cast<size_t>(j)]), query = as_double(q);
    scores(j) = query.dot(key) * scale;
    sizes(j) = query.cwiseAbs().dot(key.cwiseAbs()) * scale;
    values.col(j) = as_double(v[static_cast<size_t>(j)]);
  }
  Eigen::VectorXd p = (scores.array() - scores.maxCoeff()).exp();
  p /= p.sum();
  // A score is a sum of `dim` products of a scaled query: off by γ of its terms' sizes, twice where it meets the maximum. The exponents
  // telescope over the pages: their roundings add up to at most u times twice the scores' range, and so does what exp's error grows by with its
  // argument; every page rounds one exp and one product.
  const int64_t pages = (n + page - 1) / page;
  const double range = scores.maxCoeff() - scores.minCoeff(), exp_growth = exp_roundings(range) - exp_roundings(0.0);
  const double weight_error = 2.0 * gamma_of(dim + 5) * sizes.maxCoeff() + 2.0 * device_unit() * range + gamma_of(static_cast<double>(pages + 1) * (exp_roundings(0.0) + 2.0) + exp_growth);
  // Numerator and denominator are sums of n such weights; then a reciprocal, a product, the reference's rounding.
  const double relative = 2.0 * weight_error / (1.0 - weight_error) + 2.0 * gamma_of(n + 2) + gamma_of(division_roundings() + 2.0);
  return {values * p, relative * (values.cwiseAbs() * p) + Eigen::VectorXd::Constant(dim, kSmallest)};
}

struct AttentionCase {
  ops::AttentionShape shape;
  DType kv = DType::kF32;
  TestTuning tuning;
};

// K or V of `count` positions, as the pages' type holds them: [position, kv_heads · head_dim].
Matrix pages_content(Random& random, const AttentionCase& c, int64_t count, float size) {
  Matrix m = random.matrix(count, c.shape.kv_heads * c.shape.head_dim, size);
  if (c.kv == DType::kF16)
    for (float& v : m.values) v = half_to_float(float_to_half(v));
  return m;
}

// The same at its place in the pages; all other positions are NaN, and who reads them shows it.
std::vector<uint8_t> in_pages(const AttentionCase& c, const Matrix& m) {
  const int64_t unit = byte_size(c.kv), dim = c.shape.padded_dim();
  std::vector<uint8_t> raw(static_cast<size_t>(kPages * c.shape.kv_heads * c.shape.page * dim * unit), 0xff);
  for (int64_t at = 0; at < m.rows; ++at)
    for (int64_t kv = 0; kv < c.shape.kv_heads; ++kv)
      for (int64_t d = 0; d < dim; ++d) {
        const float value = d < c.shape.head_dim ? m.at(at, kv * c.shape.head_dim + d) : 0.0f;
        const uint16_t half = float_to_half(value);
        const int64_t page = kBlockTable[static_cast<size_t>(at / c.shape.page)];
        uint8_t* place = raw.data() + (((page * c.shape.kv_heads + kv) * c.shape.page + at % c.shape.page) * dim + d) * unit;
        c.kv == DType::kF16 ? std::memcpy(place, &half, 2) : std::memcpy(place, &value, 4);
      }
  return raw;
}

TEST(AttentionReference, EqualsEigen) {
  const AttentionCase c{{6, 2, 10, 16}, DType::kF32, {}};
  Random random(1);
  const int64_t tokens = 5, position = 7;
  const Matrix q = random.matrix(tokens, 60), k = pages_content(random, c, position + tokens, 2.0f), v = pages_content(random, c, position + tokens, 2.0f);
  Matrix y(tokens, 60);
  ops::attention_reference(q.values.data(), k.values.data(), v.values.data(), y.values.data(), tokens, position, c.shape);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < 6; ++h) {
      std::vector<const float*> keys, values;
      for (int64_t j = 0; j <= position + t; ++j) {
        keys.push_back(k.row(j) + h / 3 * 10);
        values.push_back(v.row(j) + h / 3 * 10);
      }
      const HeadTruth truth = head_truth(q.row(t) + h * 10, keys, values, 10, 16);
      for (int64_t d = 0; d < 10; ++d)  // doubles on both sides, one rounding to float
        EXPECT_NEAR(static_cast<double>(y.at(t, h * 10 + d)), truth.y(d), kUnit * std::abs(truth.y(d)) + 1e-13) << t << ", " << h << ", " << d;
    }
}

class Attention : public OpTest, public testing::WithParamInterface<AttentionCase> {};

TEST_P(Attention, EqualsReference) {
  const AttentionCase& c = GetParam();
  const int64_t dim = c.shape.padded_dim(), width = c.shape.heads * dim;
  for (const int64_t shape : {1, 8, 32}) {
    OpRunner run(device(), c.tuning);
    const std::vector<int64_t> grid{kPages, c.shape.kv_heads, c.shape.page, c.shape.slices()};
    const ops::KvPages kv{run.g.state("k", c.kv, 4, grid), run.g.state("v", c.kv, 4, grid), run.rows(), run.g.input("block_tables", DType::kI32, 1, {static_cast<int64_t>(kBlockTable.size())}), static_cast<int64_t>(kBlockTable.size())};
    const ValueId y = ops::attention(run.g, run.g.activation("q", shape, width), kv, c.shape);
    run.intermediate(y);
    TESSERA_ASSERT_OK(run.prepare({shape, LogitRows::kNone}));
    for (const int64_t position : {0, 5, 17, 33}) {
      const int64_t tokens = shape == 1 ? 1 : shape == 8 ? 2 : 17;
      const float size = position % 2 == 0 ? 1.0f : 6.0f;  // flat and sharp softmax
      SCOPED_TRACE(cat(tokens, " of ", shape, " tokens from ", position));
      Random random(static_cast<uint32_t>(shape * 100 + position));
      const Matrix q = c.tuning.stored(random.matrix(tokens, c.shape.heads * c.shape.head_dim, size)), k = pages_content(random, c, position + tokens, size), v = pages_content(random, c, position + tokens, 1.0f);
      Matrix padded(tokens, width), expected(tokens, c.shape.heads * c.shape.head_dim), padded_expected(tokens, width), tolerance(tokens, width);
      ops::attention_reference(q.values.data(), k.values.data(), v.values.data(), expected.values.data(), tokens, position, c.shape);
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t h = 0; h < c.shape.heads; ++h) {
          std::vector<const float*> keys, values;
          for (int64_t j = 0; j <= position + t; ++j) {
            keys.push_back(k.row(j) + h / (c.shape.heads / c.shape.kv_heads) * c.shape.head_dim);
            values.push_back(v.row(j) + h / (c.shape.heads / c.shape.kv_heads) * c.shape.head_dim);
          }
          const HeadTruth truth = head_truth(q.row(t) + h * c.shape.head_dim, keys, values, c.shape.head_dim, c.shape.page);
          for (int64_t d = 0; d < c.shape.head_dim; ++d) {
            padded.at(t, h * dim + d) = q.at(t, h * c.shape.head_dim + d);
            padded_expected.at(t, h * dim + d) = expected.at(t, h * c.shape.head_dim + d);
            tolerance.at(t, h * dim + d) = static_cast<float>(truth.tolerance(d));
          }
        }
      TESSERA_ASSERT_OK(run.clear());
      TESSERA_ASSERT_OK(run.write("attention", "q", padded));
      TESSERA_ASSERT_OK(run.write_raw("attention", "k_pages", in_pages(c, k)));
      TESSERA_ASSERT_OK(run.write_raw("attention", "v_pages", in_pages(c, v)));
      TESSERA_ASSERT_OK(run.write_raw("attention", "block_tables", kBlockTable));
      TESSERA_ASSERT_OK(run.run({.position = static_cast<int32_t>(position), .tokens = static_cast<int32_t>(tokens), .last_row = 0}));
      const auto found = run.read("attention", "y");
      TESSERA_ASSERT_OK(found);
      expect_close(*found, padded_expected, [&](int64_t r, int64_t ch) { return static_cast<double>(tolerance.at(r, ch)); }, tokens);
      EXPECT_EQ(run.stray_write().value(), -1);
    }
  }
}

std::vector<AttentionCase> cases() {
  std::vector<AttentionCase> all;
  int turn = 0;
  for (const auto& [heads, kv_heads] : {std::array<int64_t, 2>{1, 1}, {3, 1}, {8, 1}, {9, 3}})
    for (const int64_t head_dim : {4, 64, 80, 6})
      for (const DType kv : {DType::kF32, DType::kF16})
        for (const Storage storage : kStorages)
          if (const int pick = turn++; in_tier(pick, 11)) all.push_back({{heads, kv_heads, head_dim, 16}, kv, {.width = width_in_turn(pick), .activations = storage}});
  return all;
}
std::string name_of_case(const testing::TestParamInfo<AttentionCase>& info) {
  const AttentionCase& c = info.param;
  return cat("heads", c.shape.heads, "_kv", c.shape.kv_heads, "_dim", c.shape.head_dim, "_", name_of(c.kv), "_w", c.tuning.width, "_", c.tuning.name_of_activations());
}
INSTANTIATE_TEST_SUITE_P(Attention, Attention, testing::ValuesIn(with_halves(cases())), name_of_case);

}  // namespace
}  // namespace tessera::ops_test
