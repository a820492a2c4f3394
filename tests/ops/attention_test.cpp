// attention: the host reference against Eigen, the kernel against the reference over grouped heads, positions across pages, KV types.
#include "tessera/ops/attention.hpp"

#include <Eigen/Dense>
#include <array>

#include "op_harness.hpp"
#include "tessera/ops/rope_kv.hpp"

namespace tessera::ops_test {
namespace {

const std::vector<int32_t> kBlockTable = {3, 0, 5, 1};  // pages of 16 positions, out of order
constexpr int64_t kPages = 6;

// One (token, head): softmax of the scores and what a kernel in f32 may be off by, all in double.
struct HeadTruth {
  Eigen::VectorXd y, tolerance, weights;
};

HeadTruth head_truth(const float* q, const std::vector<const float*>& k, const std::vector<const float*>& v, int64_t dim, int64_t page, bool scaled = false, bool turned = false) {
  const auto as_double = [dim](const float* p) -> Eigen::VectorXd { return Eigen::Map<const Eigen::VectorXf>(p, dim).cast<double>(); };
  const auto n = static_cast<Eigen::Index>(k.size());
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
  double turning = 0.0;
  Eigen::VectorXd scores(n), sizes(n);
  Eigen::MatrixXd values(dim, n);
  for (Eigen::Index j = 0; j < n; ++j) {
    const Eigen::VectorXd key = as_double(k[static_cast<size_t>(j)]), query = as_double(q);
    scores(j) = query.dot(key) * scale;
    // q and k that the kernel turns itself: each number is off by at most 4u√2 of its pair's length (two products, a sum, the reference's rounding), a pair's
    // share of the score by 8u of the product of the lengths for q and as much for k; over all pairs that is at most the product of the norms.
    if (turned) turning = std::max(turning, 16.0 * device_unit() * scale * query.norm() * key.norm());
    sizes(j) = query.cwiseAbs().dot(key.cwiseAbs()) * scale;
    values.col(j) = as_double(v[static_cast<size_t>(j)]);
  }
  Eigen::VectorXd p = (scores.array() - scores.maxCoeff()).exp();
  p /= p.sum();
  // A score is a sum of `dim` products of a scaled query: off by γ of its terms' sizes, twice where it meets the maximum; one rounding more where the sum is
  // multiplied with the key's scale. The exponents
  // telescope over the pages: their roundings add up to at most u times twice the scores' range, and so does what exp's error grows by with its
  // argument; every page rounds one exp and one product.
  const int64_t pages = (n + page - 1) / page;
  const double range = scores.maxCoeff() - scores.minCoeff(), exp_growth = exp_roundings(range) - exp_roundings(0.0);
  const double weight_error = 2.0 * turning + 2.0 * gamma_of(dim + 5 + (scaled ? 1 : 0)) * sizes.maxCoeff() + 2.0 * device_unit() * range + gamma_of(static_cast<double>(pages + 1) * (exp_roundings(0.0) + 2.0) + exp_growth);
  // Numerator and denominator are sums of n such weights, those multiplied with the values' scales, if they have them; then a reciprocal, a product, the
  // reference's rounding.
  const double relative = 2.0 * weight_error / (1.0 - weight_error) + 2.0 * gamma_of(n + 2 + (scaled ? 1 : 0)) + gamma_of(division_roundings() + 2.0);
  return {values * p, relative * (values.cwiseAbs() * p) + Eigen::VectorXd::Constant(dim, kSmallest), p};
}

struct AttentionCase {
  ops::AttentionShape shape;
  DType kv = DType::kF32;
  TestTuning tuning;
};

// K or V of `count` positions.
struct Content {
  Matrix values;   // [position, kv_heads · head_dim], as the pages' type holds them
  Matrix scales;   // [position, kv_head], of pages of bytes
  int64_t first = 0;   // positions before it are not in the pages
};

// The first position that the token at `position` sees.
int64_t first_seen(const ops::AttentionShape& shape, int64_t position) { return shape.window == 0 ? 0 : std::max<int64_t>(0, position + 1 - shape.window); }

Content pages_content(Random& random, const AttentionCase& c, int64_t count, float size) {
  Content m{random.matrix(count, c.shape.kv_heads * c.shape.head_dim, size), Matrix(count, c.shape.kv_heads), 0};
  for (float& v : m.values.values) v = c.kv == DType::kF16 ? half_to_float(float_to_half(v)) : v;
  if (c.kv != DType::kI8) return m;
  for (int64_t at = 0; at < count; ++at)
    for (int64_t kv = 0; kv < c.shape.kv_heads; ++kv) {
      // Some of 0, else of 12 bits: a product with a byte is then a float.
      const float scale = random.below(16) == 0 ? 0.0f : static_cast<float>(1 + random.below(4095)) * 0x1p-12f * std::exp2(std::ceil(std::log2(size / 128.0f)));
      m.scales.at(at, kv) = scale;
      for (int64_t d = 0; d < c.shape.head_dim; ++d) m.values.at(at, kv * c.shape.head_dim + d) = scale * static_cast<float>(random.below(255) - 127);
    }
  return m;
}

int8_t byte_of(float value, float scale) { return static_cast<int8_t>(scale == 0.0f ? 0.0f : std::nearbyint(value / scale)); }

// The same at its place in the pages; all other positions (of bytes: their scales) are NaN, and who reads them shows it.
std::vector<uint8_t> in_pages(const AttentionCase& c, const Content& content, const std::vector<int32_t>& table = kBlockTable) {
  const Matrix& m = content.values;
  const int64_t unit = byte_size(c.kv), dim = c.shape.padded_dim();
  std::vector<uint8_t> raw(static_cast<size_t>(kPages * c.shape.kv_heads * c.shape.page * dim * unit), 0xff);
  for (int64_t at = content.first; at < m.rows; ++at)
    for (int64_t kv = 0; kv < c.shape.kv_heads; ++kv)
      for (int64_t d = 0; d < dim; ++d) {
        const float value = d < c.shape.head_dim ? m.at(at, kv * c.shape.head_dim + d) : 0.0f;
        const uint16_t half = float_to_half(value);
        const int8_t byte = c.kv == DType::kI8 ? byte_of(value, content.scales.at(at, kv)) : int8_t{0};
        const int64_t page = table[static_cast<size_t>(at / c.shape.page)];
        uint8_t* place = raw.data() + (((page * c.shape.kv_heads + kv) * c.shape.page + at % c.shape.page) * dim + d) * unit;
        std::memcpy(place, c.kv == DType::kI8 ? static_cast<const void*>(&byte) : c.kv == DType::kF16 ? static_cast<const void*>(&half) : &value, static_cast<size_t>(unit));
      }
  return raw;
}
std::vector<float> scales_in_pages(const AttentionCase& c, const Content& content, const std::vector<int32_t>& table = kBlockTable) {
  std::vector<float> scales(static_cast<size_t>(kPages * c.shape.kv_heads * c.shape.page), NAN);
  for (int64_t at = content.first; at < content.scales.rows; ++at)
    for (int64_t kv = 0; kv < c.shape.kv_heads; ++kv)
      scales[static_cast<size_t>((table[static_cast<size_t>(at / c.shape.page)] * c.shape.kv_heads + kv) * c.shape.page + at % c.shape.page)] = content.scales.at(at, kv);
  return scales;
}

// The kernel that steps of so many rows run.
const char* kernel_of(int64_t rows) { return rows <= ops::kUntiledRows ? "attention" : "attention_tiled"; }

Status write_pages(OpRunner& run, const AttentionCase& c, const char* kernel, const Content& k, const Content& v, const std::vector<int32_t>& table = kBlockTable) {
  TESSERA_TRY(run.write_raw(kernel, "k_pages", in_pages(c, k, table)));
  TESSERA_TRY(run.write_raw(kernel, "v_pages", in_pages(c, v, table)));
  TESSERA_TRY(run.write_raw(kernel, "block_tables", table));
  if (c.kv != DType::kI8) return {};
  TESSERA_TRY(run.write_raw(kernel, "k_scales", scales_in_pages(c, k, table)));
  return run.write_raw(kernel, "v_scales", scales_in_pages(c, v, table));
}

TEST(AttentionReference, EqualsEigen) {
  for (const int64_t window : {0, 1, 4}) {
    const AttentionCase c{{6, 2, 10, 16, window}, DType::kF32, {}};
    Random random(1);
    const int64_t tokens = 5, position = 7;
    const Matrix q = random.matrix(tokens, 60), k = pages_content(random, c, position + tokens, 2.0f).values, v = pages_content(random, c, position + tokens, 2.0f).values;
    Matrix y(tokens, 60);
    ops::attention_reference(q.values.data(), k.values.data(), v.values.data(), y.values.data(), tokens, position, c.shape);
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t h = 0; h < 6; ++h) {
        std::vector<const float*> keys, values;
        for (int64_t j = window == 0 ? 0 : position + t + 1 - window; j <= position + t; ++j) {
          keys.push_back(k.row(j) + h / 3 * 10);
          values.push_back(v.row(j) + h / 3 * 10);
        }
        const HeadTruth truth = head_truth(q.row(t) + h * 10, keys, values, 10, 16);
        for (int64_t d = 0; d < 10; ++d)  // doubles on both sides, one rounding to float
          EXPECT_NEAR(static_cast<double>(y.at(t, h * 10 + d)), truth.y(d), kUnit * std::abs(truth.y(d)) + 1e-13) << window << ", " << t << ", " << h << ", " << d;
      }
  }
}

class Attention : public OpTest, public testing::WithParamInterface<AttentionCase> {};

TEST_P(Attention, EqualsReference) {
  const AttentionCase& c = GetParam();
  const int64_t dim = c.shape.padded_dim(), width = c.shape.heads * dim;
  for (const int64_t shape : {1, 8, 32}) {
    OpRunner run(device(), c.tuning);
    const ValueId y = ops::attention(run.g, run.g.activation("q", shape, width), run.kv_pages(c.shape, c.kv, kPages, static_cast<int64_t>(kBlockTable.size())), c.shape);
    run.intermediate(y);
    TESSERA_ASSERT_OK(run.prepare({shape, LogitRows::kNone}));
    for (const int64_t position : {0, 5, 17, 33}) {
      const int64_t tokens = shape == 1 ? 1 : shape == 8 ? 2 : 17;
      const float size = position % 2 == 0 ? 1.0f : 6.0f;  // flat and sharp softmax
      SCOPED_TRACE(cat(tokens, " of ", shape, " tokens from ", position));
      Random random(static_cast<uint32_t>(shape * 100 + position));
      const Matrix q = c.tuning.stored(random.matrix(tokens, c.shape.heads * c.shape.head_dim, size));
      Content keys_there = pages_content(random, c, position + tokens, size), values_there = pages_content(random, c, position + tokens, 1.0f);
      keys_there.first = values_there.first = first_seen(c.shape, position);   // what lies before the window of all is not read
      const Matrix &k = keys_there.values, &v = values_there.values;
      Matrix padded(tokens, width), expected(tokens, c.shape.heads * c.shape.head_dim), padded_expected(tokens, width), tolerance(tokens, width);
      ops::attention_reference(q.values.data(), k.values.data(), v.values.data(), expected.values.data(), tokens, position, c.shape);
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t h = 0; h < c.shape.heads; ++h) {
          std::vector<const float*> keys, values;
          for (int64_t j = first_seen(c.shape, position + t); j <= position + t; ++j) {
            keys.push_back(k.row(j) + h / (c.shape.heads / c.shape.kv_heads) * c.shape.head_dim);
            values.push_back(v.row(j) + h / (c.shape.heads / c.shape.kv_heads) * c.shape.head_dim);
          }
          const HeadTruth truth = head_truth(q.row(t) + h * c.shape.head_dim, keys, values, c.shape.head_dim, c.shape.page, c.kv == DType::kI8);
          for (int64_t d = 0; d < c.shape.head_dim; ++d) {
            padded.at(t, h * dim + d) = q.at(t, h * c.shape.head_dim + d);
            padded_expected.at(t, h * dim + d) = expected.at(t, h * c.shape.head_dim + d);
            tolerance.at(t, h * dim + d) = static_cast<float>(truth.tolerance(d));
          }
        }
      TESSERA_ASSERT_OK(run.clear());
      TESSERA_ASSERT_OK(run.write(kernel_of(shape), "q", padded));
      TESSERA_ASSERT_OK(write_pages(run, c, kernel_of(shape), keys_there, values_there));
      TESSERA_ASSERT_OK(run.run({.position = static_cast<int32_t>(position), .tokens = static_cast<int32_t>(tokens), .last_row = 0}));
      const auto found = run.read(kernel_of(shape), "y");
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
      for (const DType kv : {DType::kF32, DType::kF16, DType::kI8})
        for (const Storage storage : kStorages)
          if (const int pick = turn++; in_tier(pick, 11, 7)) all.push_back({{heads, kv_heads, head_dim, 16}, kv, {.width = width_in_turn(pick), .activations = storage}});
  return all;
}
// Of a row itself, within a page, over pages and tiles of keys, of nearly all.
std::vector<AttentionCase> window_cases() {
  std::vector<AttentionCase> all;
  int turn = 0;
  for (const int64_t window : {1, 7, 20, 45})
    for (const DType kv : {DType::kF32, DType::kF16, DType::kI8})
      if (const int pick = turn++; in_tier(pick, 5)) all.push_back({{9, 3, 64, 16, window}, kv, {.width = width_in_turn(pick)}});
  return all;
}
// More lanes than a tile of a chunk has sums: each lane keeps its own.
std::vector<AttentionCase> own_sum_cases() {
  std::vector<AttentionCase> all;
  int turn = 0;
  for (const auto& [heads, kv_heads] : {std::array<int64_t, 2>{8, 1}, {9, 3}})
    for (const int64_t head_dim : {80, 6})
      for (const DType kv : {DType::kF32, DType::kF16, DType::kI8})
        if (const int pick = turn++; in_tier(pick, 5)) all.push_back({{heads, kv_heads, head_dim, 16}, kv, {.width = width_in_turn(pick), .activations = storage_in_turn(pick), .workgroup = 128}});
  return all;
}
std::string name_of_case(const testing::TestParamInfo<AttentionCase>& info) {
  const AttentionCase& c = info.param;
  if (c.shape.window != 0) return cat("window", c.shape.window, "_", name_of(c.kv), "_w", c.tuning.width);
  return cat("heads", c.shape.heads, "_kv", c.shape.kv_heads, "_dim", c.shape.head_dim, "_", name_of(c.kv), "_w", c.tuning.width, "_", c.tuning.name_of_activations());
}
INSTANTIATE_TEST_SUITE_P(Attention, Attention, testing::ValuesIn(with_halves(cases())), name_of_case);
INSTANTIATE_TEST_SUITE_P(Windows, Attention, testing::ValuesIn(window_cases()), name_of_case);
INSTANTIATE_TEST_SUITE_P(OwnSums, Attention, testing::ValuesIn(own_sum_cases()), name_of_case);

// Shared memory that is to hold more tiles has fewer keys in each, and fewer queries, which keys and values are read again for, only where there is no other way.
TEST(AttentionTiles, GiveUpKeysBeforeQueries) {
  Graph graph;
  Tuning tuning;
  tuning.attention_tile_workgroup = 256;
  tuning.attention_vectors = 4;
  tuning.attention_block = 1;
  tuning.shared_memory_bytes = 32768;
  const auto tile = [&](int held) {
    tuning.attention_tiles_held = held;
    const ops::AttentionTile found = ops::attention_tile({graph, tuning, {}}, 4, 128);
    EXPECT_TRUE(found.own_sums);
    EXPECT_LE(found.shared_bytes(128, 4) * held, 32768);
    return std::pair{found.vectors(), found.keys};
  };
  EXPECT_EQ(tile(1), (std::pair<int64_t, int64_t>{4, 16}));
  EXPECT_EQ(tile(2), (std::pair<int64_t, int64_t>{4, 12}));
  EXPECT_EQ(tile(4), (std::pair<int64_t, int64_t>{2, 4}));
}

class AttentionPages : public OpTest, public testing::WithParamInterface<std::tuple<DType, int64_t>> {};

// Which pages a sequence has does not matter: the same keys and values in order, from the first page on, and scattered give the same bits.
TEST_P(AttentionPages, MayLieAnywhere) {
  const AttentionCase c{{9, 3, 80, 16}, std::get<0>(GetParam()), {}};
  const int64_t shape = std::get<1>(GetParam());
  constexpr int64_t kTokens = 5, kPosition = 47;   // the fourth page has been begun
  Random random(7);
  const Matrix q = random.matrix(kTokens, c.shape.heads * c.shape.head_dim);
  const Content k = pages_content(random, c, kPosition + kTokens, 2.0f), v = pages_content(random, c, kPosition + kTokens, 1.0f);
  std::vector<Matrix> found;
  for (const std::vector<int32_t>& table : {std::vector<int32_t>{0, 1, 2, 3}, kBlockTable, std::vector<int32_t>{5, 4, 2, 0}}) {
    OpRunner run(device(), c.tuning);
    run.output(ops::attention(run.g, run.g.activation("q", shape, c.shape.heads * c.shape.padded_dim()), run.kv_pages(c.shape, c.kv, kPages, static_cast<int64_t>(kBlockTable.size())), c.shape));
    TESSERA_ASSERT_OK(run.prepare({shape, LogitRows::kNone}));
    TESSERA_ASSERT_OK(run.write(kernel_of(shape), "q", q));
    TESSERA_ASSERT_OK(write_pages(run, c, kernel_of(shape), k, v, table));
    TESSERA_ASSERT_OK(run.run({.position = kPosition, .tokens = kTokens}));
    found.push_back(run.read(kernel_of(shape), "y").value());
    for (int64_t i = 0; i < kTokens * found[0].channels; ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(found.back().values[static_cast<size_t>(i)]), std::bit_cast<uint32_t>(found[0].values[static_cast<size_t>(i)])) << "table " << found.size() << ", number " << i;
  }
}
INSTANTIATE_TEST_SUITE_P(Attention, AttentionPages, testing::Combine(testing::Values(DType::kF32, DType::kF16, DType::kI8), testing::Values(8, 32)),
                         [](const auto& test) { return cat(name_of(std::get<0>(test.param)), "_rows", std::get<1>(test.param)); });

// Rows of several sequences in one step, in any order, each with its own block table; rows of one sequence see of it what lies up to their positions.
class AttentionRows : public OpTest, public testing::WithParamInterface<std::tuple<int64_t, int>> {};

TEST_P(AttentionRows, MayBeOfSeveralSequences) {
  const int64_t shape = std::get<0>(GetParam()), table_pages = 2;
  for (const auto& [type, window] : {std::pair<DType, int64_t>{DType::kF16, 0}, {DType::kI8, 0}, {DType::kF16, 5}}) {
    const AttentionCase c{{9, 3, 20, 16, window}, type, {.workgroup = std::get<1>(GetParam())}};
    const int64_t width = c.shape.heads * c.shape.padded_dim();
    const std::vector<int32_t> tables = {3, 0, 5, 1, 2, 4};   // of slots 0, 1, 2
    Random random(9);
    OpRunner run(device(), c.tuning);
    ops::KvPages kv = run.kv_pages(c.shape, c.kv, kPages, static_cast<int64_t>(tables.size()));
    kv.table_pages = table_pages;
    run.output(ops::attention(run.g, run.g.activation("q", shape, width), kv, c.shape));
    TESSERA_ASSERT_OK(run.prepare({shape, LogitRows::kNone}));
    // All sequences of 32 positions, one after the other in one table.
    const Content k = pages_content(random, c, 96, 2.0f), v = pages_content(random, c, 96, 1.0f);
    TESSERA_ASSERT_OK(write_pages(run, c, kernel_of(shape), k, v, tables));
    const auto tokens = static_cast<int32_t>(shape - 1);
    std::vector<StepRow> rows(OpRunner::kRows);
    for (int32_t t = 0, slot = 0; t < tokens; ++t) {
      if (random.below(3) == 0) slot = static_cast<int32_t>(random.below(3));
      rows[static_cast<size_t>(t)] = {.position = static_cast<int32_t>(random.below(32)), .slot = slot};
    }
    const Matrix q = random.matrix(tokens, width, 2.0f);
    TESSERA_ASSERT_OK(run.write(kernel_of(shape), "q", q));
    TESSERA_ASSERT_OK(run.run(rows, tokens));
    const Matrix found = run.read(kernel_of(shape), "y").value();
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t h = 0; h < c.shape.heads; ++h) {
        const StepRow& row = rows[static_cast<size_t>(t)];
        std::vector<const float*> keys, values;
        for (int64_t j = row.slot * 32 + first_seen(c.shape, row.position); j <= row.slot * 32 + row.position; ++j) {
          keys.push_back(k.values.row(j) + h / 3 * c.shape.head_dim);
          values.push_back(v.values.row(j) + h / 3 * c.shape.head_dim);
        }
        const HeadTruth truth = head_truth(q.row(t) + h * c.shape.head_dim, keys, values, c.shape.head_dim, c.shape.page, type == DType::kI8);
        for (int64_t d = 0; d < c.shape.head_dim; ++d)
          ASSERT_NEAR(static_cast<double>(found.at(t, h * c.shape.head_dim + d)), truth.y(d), truth.tolerance(d)) << "row " << t << " of slot " << row.slot << " at " << row.position << ", " << h << ", " << d;
      }
  }
}
INSTANTIATE_TEST_SUITE_P(Attention, AttentionRows, testing::Combine(testing::Values(8, 32), testing::Values(4, 32)),
                         [](const auto& test) { return cat("rows", std::get<0>(test.param), "_workgroup", std::get<1>(test.param)); });

// One row at the end of a context: rotation inside the kernel or before it (bytes), the context in one piece or shared by workgroups, pages of any size.
struct OneRowCase {
  int64_t page = 16;
  DType kv = DType::kF32;
  int64_t window = 0;
  bool shared = false;
  TestTuning tuning{};
};
class AttentionOfOneRow : public OpTest, public testing::WithParamInterface<OneRowCase> {};

TEST_P(AttentionOfOneRow, SeesWhatWasWrittenAndItself) {
  const OneRowCase& one = GetParam();
  AttentionCase c{{9, 3, 64, one.page, one.window}, one.kv, one.tuning};
  c.tuning.attention_groups = one.shared ? 12 : 0;
  const int64_t dim = 64, width = 9 * dim, positions = kPages * one.page;
  std::vector<int32_t> table;
  for (int32_t page = 0; page < kPages; ++page) table.push_back((page * 5 + 2) % static_cast<int32_t>(kPages));   // 5 and 6 have no common divisor: a permutation
  ops::Rotation rotation;
  for (int64_t i = 0; i < dim / 2; ++i) rotation.frequencies.push_back(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dim)));
  const std::vector<float> angles = ops::rope_angles(positions, dim, rotation);
  OpRunner run(device(), c.tuning);
  const ops::KvPages kv = run.kv_pages(c.shape, c.kv, kPages, static_cast<int64_t>(table.size()));
  const ValueId q_in = run.g.activation("q", 1, width), k_in = run.g.activation("k", 1, 3 * dim), v_in = run.g.activation("v", 1, 3 * dim);
  const ValueId y = ops::attention(run.g, ops::rope_kv(run.g, q_in, k_in, v_in, run.g.input("angles", DType::kF32, 4, {positions, dim / 4}), kv, c.shape), kv, c.shape);
  run.intermediate(y);
  TESSERA_ASSERT_OK(run.prepare({1, LogitRows::kNone, one.shared}));
  const bool folded = one.kv != DType::kI8;
  const char *entry = folded ? "attention" : "rope_kv", *result = one.shared ? "attention_combine" : "attention";
  ASSERT_EQ(run.plan().dispatches.size(), 1u + (folded ? 0u : 1u) + (one.shared ? 1u : 0u) + (c.tuning.activations == Storage::kBuffer && c.tuning.activation_type == DType::kF32 ? 0u : 1u)) << dump(run.plan());
  Random random(12);
  Content k = pages_content(random, c, positions, 2.0f), v = pages_content(random, c, positions, 1.0f);
  for (const int64_t position : {int64_t{0}, int64_t{1}, positions / 2, positions - 2, positions - 1}) {
    SCOPED_TRACE(cat("position ", position));
    const Matrix q = random.matrix(1, width, 2.0f), own_k = random.matrix(1, 3 * dim, 2.0f), own_v = random.matrix(1, 3 * dim);
    // What is there so far; the last one was written by the run before.
    Content keys = k, values = v;
    keys.values.rows = keys.scales.rows = values.values.rows = values.scales.rows = position;
    keys.first = values.first = first_seen(c.shape, position);
    TESSERA_ASSERT_OK(run.clear());
    TESSERA_ASSERT_OK(write_pages(run, c, "attention", keys, values, table));
    TESSERA_ASSERT_OK(run.write_raw(entry, "angles", angles));
    TESSERA_ASSERT_OK(run.write(entry, "q", q));
    TESSERA_ASSERT_OK(run.write(entry, "k", own_k));
    TESSERA_ASSERT_OK(run.write(entry, "v", own_v));
    TESSERA_ASSERT_OK(run.run({.position = static_cast<int32_t>(position), .tokens = 1}));
    const auto found = run.read(result, "y");
    TESSERA_ASSERT_OK(found);
    Matrix turned_q = q, turned_k = own_k;
    for (Matrix* turned : {&turned_q, &turned_k})
      for (int64_t first = 0; first < turned->channels; first += dim) ops::rope_reference(&turned->at(0, first), &angles[static_cast<size_t>(position * dim)], dim);
    for (int64_t h = 0; h < 9; ++h) {
      std::vector<const float*> key_rows, value_rows;
      for (int64_t j = first_seen(c.shape, position); j < position; ++j) key_rows.push_back(k.values.row(j) + h / 3 * dim), value_rows.push_back(v.values.row(j) + h / 3 * dim);
      key_rows.push_back(turned_k.row(0) + h / 3 * dim), value_rows.push_back(own_v.row(0) + h / 3 * dim);
      const HeadTruth truth = head_truth(turned_q.row(0) + h * dim, key_rows, value_rows, dim, 1, !folded, true);
      // The row's own key, at most 2√2 turned, and value, at most 1, are stored: bytes within half a scale, halves within 2⁻¹¹ of themselves. As in
      // IsOffByHalfAScaleANumber, values being at most 1.
      double query_size = 0.0;
      for (int64_t d = 0; d < dim; ++d) query_size += static_cast<double>(std::abs(turned_q.at(0, h * dim + d)));
      const double rounding = one.kv == DType::kI8 ? 0.501 / 127.0 : one.kv == DType::kF16 ? 0x1p-11 : 0.0;
      const double key_error = query_size * 2.0 * std::sqrt(2.0) * rounding / 8.0, stored = std::expm1(2.0 * key_error) + std::exp(2.0 * key_error) * rounding;
      for (int64_t d = 0; d < dim; ++d) ASSERT_NEAR(static_cast<double>(found->at(0, h * dim + d)), truth.y(d), truth.tolerance(d) + stored) << h << ", " << d;
    }
    if (c.kv != DType::kF32) continue;
    // The row is in its page, for rows to come.
    const auto page = run.read_raw<float>("attention", "k_pages"), value_page = run.read_raw<float>("attention", "v_pages");
    ASSERT_TRUE(page && value_page);
    for (int64_t kv_head = 0; kv_head < 3; ++kv_head)
      for (int64_t d = 0; d < dim; ++d) {
        const size_t place = static_cast<size_t>(((table[static_cast<size_t>(position / one.page)] * 3 + kv_head) * one.page + position % one.page) * dim + d);
        ASSERT_NEAR((*page)[place], turned_k.at(0, kv_head * dim + d), 8.0 * device_unit() * 2.0 * std::sqrt(2.0)) << kv_head << ", " << d;
        ASSERT_EQ((*value_page)[place], own_v.at(0, kv_head * dim + d)) << kv_head << ", " << d;
      }
  }
}

std::vector<OneRowCase> one_row_cases() {
  std::vector<OneRowCase> all;
  int turn = 0;
  for (const bool shared : {false, true})
    for (const DType kv : {DType::kF32, DType::kF16, DType::kI8})
      for (const int64_t page : {16, 64, 2})
        for (const int64_t window : {0, 21})
          if (const int pick = turn++; in_tier(pick, 5, 2)) all.push_back({page, kv, window, shared, {.width = width_in_turn(pick), .activations = storage_in_turn(pick), .workgroup = pick % 2 == 0 ? 4 : 1, .attention_width = pick % 4 == 1 ? at_most_wide(16) : 0}});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Attention, AttentionOfOneRow, testing::ValuesIn(one_row_cases()), [](const auto& test) {
  return cat("page", test.param.page, "_", name_of(test.param.kv), "_window", test.param.window, test.param.shared ? "_shared" : "", "_w", test.param.tuning.width, test.param.tuning.attention_width != 0 ? "_wide" : "", "_", test.param.tuning.name_of_activations());
});

// What bytes cost: keys and values through rope_kv into the pages and from there through attention, against attention over the numbers themselves.
class AttentionInBytes : public OpTest {};

TEST_F(AttentionInBytes, IsOffByHalfAScaleANumber) {
  const AttentionCase c{{9, 3, 64, 16}, DType::kI8, {}};
  constexpr int64_t kTokens = 40;
  const int64_t dim = c.shape.head_dim;
  ops::Rotation rotation;
  for (int64_t i = 0; i < dim / 2; ++i) rotation.frequencies.push_back(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dim)));
  const std::vector<float> table = ops::rope_angles(kTokens, dim, rotation);
  Random random(8);
  Matrix q = random.matrix(kTokens, c.shape.heads * dim, 2.0f), k = random.matrix(kTokens, c.shape.kv_heads * dim, 2.0f);
  const Matrix v = random.matrix(kTokens, c.shape.kv_heads * dim);
  OpRunner run(device(), c.tuning);
  const ops::KvPages kv = run.kv_pages(c.shape, c.kv, kPages, static_cast<int64_t>(kBlockTable.size()));
  const ValueId in_q = run.g.activation("q", kTokens, q.channels), in_k = run.g.activation("k", kTokens, k.channels), in_v = run.g.activation("v", kTokens, v.channels);
  run.output(ops::attention(run.g, ops::rope_kv(run.g, in_q, in_k, in_v, run.g.input("angles", DType::kF32, 4, {kTokens, c.shape.slices()}), kv, c.shape), kv, c.shape));
  TESSERA_ASSERT_OK(run.prepare({kTokens, LogitRows::kNone}));
  TESSERA_ASSERT_OK(run.write("rope_kv", "q", q));
  TESSERA_ASSERT_OK(run.write("rope_kv", "k", k));
  TESSERA_ASSERT_OK(run.write("rope_kv", "v", v));
  TESSERA_ASSERT_OK(run.write_raw("rope_kv", "angles", table));
  TESSERA_ASSERT_OK(run.write_raw("rope_kv", "block_tables", kBlockTable));
  TESSERA_ASSERT_OK(run.run({.tokens = kTokens}));
  const Matrix found = run.read("attention_tiled", "y").value();
  for (Matrix* turned : {&q, &k})
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t first = 0; first < turned->channels; first += dim) ops::rope_reference(&turned->at(t, first), &table[static_cast<size_t>(t * dim)], dim);
  // A number in bytes is off by half its head's scale, max / 127; 1.001 leaves room for the rounding of the scale and of q and k when they are turned.
  const auto half_scale = [&](const float* head) { return 1.001 * 0.5 / 127.0 * static_cast<double>(std::abs(*std::max_element(head, head + dim, [](float a, float b) { return std::abs(a) < std::abs(b); }))); };
  double most = 0.0;
  for (int64_t t = 0; t < kTokens; ++t)
    for (int64_t h = 0; h < c.shape.heads; ++h) {
      std::vector<const float*> keys, values;
      for (int64_t j = 0; j <= t; ++j) {
        keys.push_back(k.row(j) + h / 3 * dim);
        values.push_back(v.row(j) + h / 3 * dim);
      }
      const float* query = q.row(t) + h * dim;
      const HeadTruth truth = head_truth(query, keys, values, dim, c.shape.page, true);
      // A score is then off by at most δ = Σ |q| · half a scale / √d, a softmax weight by a factor of at most e^2δ, as it and the sum of all change; a value by
      // half its own scale.
      double query_size = 0.0, key_error = 0.0, value_error = 0.0;
      for (int64_t d = 0; d < dim; ++d) query_size += static_cast<double>(std::abs(query[d]));
      for (const float* key : keys) key_error = std::max(key_error, query_size * half_scale(key) / std::sqrt(static_cast<double>(dim)));
      for (const float* value : values) value_error = std::max(value_error, half_scale(value));
      for (int64_t d = 0; d < dim; ++d) {
        double size = 0.0;
        for (size_t j = 0; j < values.size(); ++j) size += truth.weights(static_cast<Eigen::Index>(j)) * static_cast<double>(std::abs(values[j][d]));
        const double error = std::abs(static_cast<double>(found.at(t, h * dim + d)) - truth.y(d));
        ASSERT_LE(error, std::expm1(2.0 * key_error) * size + std::exp(2.0 * key_error) * value_error + truth.tolerance(d)) << t << ", " << h << ", " << d;
        most = std::max(most, error);
      }
    }
  EXPECT_GT(most, 1e-4);   // bytes they were
}

}  // namespace
}  // namespace tessera::ops_test
