// rope_kv: host references against Eigen and long double, the kernel against the references: rotated q, and K and V at their places in the
// pages and nowhere else; alone and behind the stacked QKV projection.
#include "tessera/ops/rope_kv.hpp"

#include <Eigen/Geometry>
#include <array>

#include "op_harness.hpp"
#include "tessera/ops/matmul.hpp"

namespace tessera::ops_test {
namespace {

constexpr int64_t kPositions = 64;
const std::vector<int32_t> kBlockTable = {3, 0, 5, 1};  // pages of 16 positions, out of order; 2 and 4 belong to nobody
constexpr int64_t kPages = 6;

ops::Rotation plain_rotation(int64_t dim) {
  ops::Rotation rotation;
  for (int64_t i = 0; i < dim / 2; ++i) rotation.frequencies.push_back(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dim)));
  return rotation;
}

TEST(RopeReference, EqualsEigen) {
  Random random(1);
  const std::vector<float> angles = ops::rope_angles(1, 64, plain_rotation(64), 29);
  Matrix head = random.matrix(1, 64);
  const Matrix before = head;
  ops::rope_reference(head.values.data(), angles.data(), 64);
  for (int64_t i = 0; i < 64; i += 2) {
    const double angle = 29.0 * std::pow(10000.0, -static_cast<double>(i) / 64.0);
    const Eigen::Vector2d pair(before.at(0, i), before.at(0, i + 1)), turned = Eigen::Rotation2Dd(angle) * pair;
    for (int64_t c = 0; c < 2; ++c)  // cos, sin and the result are rounded to float
      EXPECT_NEAR(static_cast<double>(head.at(0, i + c)), turned(c), gamma_of(2) * pair.cwiseAbs().sum());
  }
}

TEST(RopeAngles, EqualLongDouble) {
  const ops::Rotation rotation{{1.0, 0.0063, 2e-5}, 1.25};
  constexpr int64_t kDim = 8, kFirst = 4000;  // the last pair does not rotate, nor grow
  const std::vector<float> table = ops::rope_angles(3, kDim, rotation, kFirst);
  ASSERT_EQ(table.size(), 3u * kDim);
  for (int64_t p = 0; p < 3; ++p)
    for (int64_t i = 0; i < kDim / 2; ++i) {
      const long double angle = i < 3 ? (kFirst + p) * static_cast<long double>(rotation.frequencies[static_cast<size_t>(i)]) : 0.0L, magnitude = i < 3 ? 1.25L : 1.0L;
      const float* pair = table.data() + p * kDim + 2 * i;  // a double angle is off by some 4000 · 2⁻⁵², then one rounding to float
      EXPECT_NEAR(static_cast<double>(pair[0]), static_cast<double>(magnitude * cosl(angle)), 1.25 * kUnit + 1e-11) << p << ", " << i;
      EXPECT_NEAR(static_cast<double>(pair[1]), static_cast<double>(magnitude * sinl(angle)), 1.25 * kUnit + 1e-11) << p << ", " << i;
    }
}

struct RopeCase {
  ops::AttentionShape shape;
  DType kv = DType::kF32;
  TestTuning tuning;
};

// Values and how far they may be off.
struct Bounded {
  Matrix value, tolerance;
};

// Every head of every row turned by its position: two products and a sum, of inputs that are off by `in.tolerance` themselves.
Bounded rotated(const Bounded& in, const std::vector<float>& angles, int64_t position, const ops::AttentionShape& shape) {
  Bounded out = in;
  const int64_t dim = shape.padded_dim();
  for (int64_t t = 0; t < in.value.rows; ++t)
    for (int64_t first = 0; first < in.value.channels; first += dim) {
      ops::rope_reference(&out.value.at(t, first), angles.data() + (position + t) * dim, dim);
      for (int64_t i = 0; i < dim; ++i) {
        const int64_t a = first + i / 2 * 2;
        out.tolerance.at(t, first + i) = in.tolerance.at(t, a) + in.tolerance.at(t, a + 1) +
                                         static_cast<float>(gamma_of(4)) * (std::abs(in.value.at(t, a)) + std::abs(in.value.at(t, a + 1)));
      }
    }
  return out;
}

class RopeTest : public OpTest {
 protected:
  ValueId angles(OpRunner& run, const RopeCase& c) { return run.g.input("angles", DType::kF32, 4, {kPositions, c.shape.slices()}); }

  static int64_t place_of(const RopeCase& c, int64_t at, int64_t kv) {   // [page, kv_head, offset]
    return (kBlockTable[static_cast<size_t>(at / c.shape.page)] * c.shape.kv_heads + kv) * c.shape.page + at % c.shape.page;
  }

  // Heads in bytes: q = x / scale rounded to even, scale = max |x| / 127, a quotient and a product, a rounded 1 / 127 and a product.
  void expect_bytes(OpRunner& run, const RopeCase& c, const char* slot, const char* scale_slot, const Bounded& expected, int64_t position) {
    const int64_t dim = c.shape.padded_dim();
    const auto bytes = run.read_raw<int8_t>("rope_kv", slot);
    const auto scales = run.read_raw<float>("rope_kv", scale_slot);
    TESSERA_ASSERT_OK(bytes);
    TESSERA_ASSERT_OK(scales);
    std::vector<bool> written(scales->size(), false);
    const double roundings = gamma_of(division_roundings() + 3.0);
    for (int64_t t = 0; t < expected.value.rows; ++t)
      for (int64_t kv = 0; kv < c.shape.kv_heads; ++kv) {
        SCOPED_TRACE(cat(slot, " token ", t, " head ", kv));
        const auto place = static_cast<size_t>(place_of(c, position + t, kv));
        written[place] = true;
        double top = 0.0, slack = 0.0;
        for (int64_t d = 0; d < dim; ++d) {
          top = std::max(top, std::abs(static_cast<double>(expected.value.at(t, kv * dim + d))));
          slack = std::max(slack, static_cast<double>(expected.tolerance.at(t, kv * dim + d)));
        }
        const double scale = static_cast<double>((*scales)[place]);
        ASSERT_NEAR(scale, top / 127.0, slack / 127.0 + roundings * top);
        for (int64_t d = 0; d < dim; ++d) {
          const int q = (*bytes)[place * static_cast<size_t>(dim) + static_cast<size_t>(d)];
          const double wanted = static_cast<double>(expected.value.at(t, kv * dim + d));
          ASSERT_TRUE(top != 0.0 || q == 0);
          ASSERT_NEAR(q * scale, wanted, 0.5 * scale + static_cast<double>(expected.tolerance.at(t, kv * dim + d)) * (1.0 + 0x1p-10) + roundings * (std::abs(wanted) + 0.5 * scale)) << "channel " << d;
        }
      }
    const std::vector<std::byte> fresh = untouched(static_cast<int64_t>(bytes->size()), c.kv);
    for (size_t i = 0; i < written.size(); ++i) {
      if (written[i]) continue;
      ASSERT_TRUE(is_untouched((*scales)[i])) << scale_slot << ": " << i << " was written";
      ASSERT_EQ(std::memcmp(bytes->data() + i * static_cast<size_t>(dim), fresh.data() + i * static_cast<size_t>(dim), static_cast<size_t>(dim)), 0) << slot << ": " << i << " was written";
    }
  }

  // What the pages hold at the written positions; all else as it was.
  void expect_pages(OpRunner& run, const RopeCase& c, const char* slot, const Bounded& expected, int64_t position) {
    if (c.kv == DType::kI8) return expect_bytes(run, c, slot, std::string_view(slot) == "k_pages" ? "k_scales" : "v_scales", expected, position);
    const int64_t unit = byte_size(c.kv), dim = c.shape.padded_dim();
    const auto raw = run.read_raw<uint8_t>("rope_kv", slot);
    TESSERA_ASSERT_OK(raw);
    const std::vector<std::byte> fresh = untouched(static_cast<int64_t>(raw->size()), c.kv);
    std::vector<uint8_t> rest(raw->size());
    std::memcpy(rest.data(), fresh.data(), rest.size());
    std::vector<uint8_t> found = *raw;
    for (int64_t t = 0; t < expected.value.rows; ++t) {
      for (int64_t ch = 0; ch < expected.value.channels; ++ch) {
        const size_t offset = static_cast<size_t>((place_of(c, position + t, ch / dim) * dim + ch % dim) * unit);
        float value = 0.0f;
        uint16_t half = 0;
        if (c.kv == DType::kF16) std::memcpy(&half, &found[offset], 2);
        else std::memcpy(&value, &found[offset], 4);
        if (c.kv == DType::kF16) value = half_to_float(half);
        const double wanted = static_cast<double>(expected.value.at(t, ch));
        ASSERT_NEAR(static_cast<double>(value), wanted, static_cast<double>(expected.tolerance.at(t, ch)) * (1.0 + 0x1p-10) + stored_error(c.kv, std::abs(wanted))) << slot << " token " << t << " channel " << ch;
        std::copy_n(rest.begin() + static_cast<std::ptrdiff_t>(offset), unit, found.begin() + static_cast<std::ptrdiff_t>(offset));
      }
    }
    EXPECT_EQ(found, rest) << slot << ": something else was written";
  }
};

class RopeKv : public RopeTest, public testing::WithParamInterface<RopeCase> {};

TEST_P(RopeKv, EqualsReference) {
  const RopeCase& c = GetParam();
  const int64_t dim = c.shape.padded_dim();
  const std::vector<float> table = ops::rope_angles(kPositions, dim, plain_rotation(c.shape.head_dim));
  for (const int64_t shape : {1, 8, 32}) {
    OpRunner run(device(), c.tuning);
    const ValueId q = run.g.activation("q", shape, c.shape.heads * dim), k = run.g.activation("k", shape, c.shape.kv_heads * dim), v = run.g.activation("v", shape, c.shape.kv_heads * dim);
    const ValueId y = ops::rope_kv(run.g, q, k, v, angles(run, c), run.kv_pages(c.shape, c.kv, kPages, static_cast<int64_t>(kBlockTable.size())), c.shape);
    run.intermediate(y);
    TESSERA_ASSERT_OK(run.prepare({shape, LogitRows::kNone}));
    for (const int64_t position : {0, 5, 17, 33}) {
      const int64_t tokens = shape == 1 ? 1 : shape == 8 ? 2 + position % 7 : 17;
      SCOPED_TRACE(cat(tokens, " of ", shape, " tokens from ", position));
      Random random(static_cast<uint32_t>(shape + position));
      const auto random_heads = [&](int64_t heads) { return Bounded{c.tuning.stored(random.matrix(tokens, heads * dim)), Matrix(tokens, heads * dim)}; };
      const Bounded in_q = random_heads(c.shape.heads);
      Bounded in_k = random_heads(c.shape.kv_heads), in_v = random_heads(c.shape.kv_heads);
      for (Bounded* heads : {&in_k, &in_v}) std::fill_n(&heads->value.at(tokens - 1, 0), dim, 0.0f);   // a head without a greatest magnitude
      TESSERA_ASSERT_OK(run.clear());
      TESSERA_ASSERT_OK(run.write("rope_kv", "q", in_q.value));
      TESSERA_ASSERT_OK(run.write("rope_kv", "k", in_k.value));
      TESSERA_ASSERT_OK(run.write("rope_kv", "v", in_v.value));
      TESSERA_ASSERT_OK(run.write_raw("rope_kv", "angles", table));
      TESSERA_ASSERT_OK(run.write_raw("rope_kv", "block_tables", kBlockTable));
      TESSERA_ASSERT_OK(run.run({.position = static_cast<int32_t>(position), .tokens = static_cast<int32_t>(tokens), .last_row = 0}));
      const Bounded out = rotated(in_q, table, position, c.shape);
      const auto found = run.read("rope_kv", "q_out");
      TESSERA_ASSERT_OK(found);
      expect_close(*found, out.value, [&](int64_t r, int64_t ch) { return static_cast<double>(out.tolerance.at(r, ch)); }, tokens);
      expect_pages(run, c, "k_pages", rotated(in_k, table, position, c.shape), position);
      expect_pages(run, c, "v_pages", in_v, position);
      EXPECT_EQ(run.stray_write().value(), -1);
    }
  }
}

std::vector<RopeCase> cases() {
  std::vector<RopeCase> all;
  int turn = 0;
  for (const auto& [heads, kv_heads] : {std::array<int64_t, 2>{1, 1}, {3, 1}, {8, 1}, {9, 3}})
    for (const int64_t head_dim : {4, 64, 80, 6})
      for (const DType kv : {DType::kF32, DType::kF16, DType::kI8})
        for (const Storage storage : kStorages)
          if (const int pick = turn++; in_tier(pick, 11, 7)) all.push_back({{heads, kv_heads, head_dim, 16}, kv, {.width = width_in_turn(pick), .activations = storage}});
  return all;
}
std::string name_of_case(const testing::TestParamInfo<RopeCase>& info) {
  const RopeCase& c = info.param;
  return cat("heads", c.shape.heads, "_kv", c.shape.kv_heads, "_dim", c.shape.head_dim, "_", name_of(c.kv), "_w", c.tuning.width, "_", c.tuning.name_of_activations());
}
INSTANTIATE_TEST_SUITE_P(RopeKv, RopeKv, testing::ValuesIn(with_halves(cases())), name_of_case);

// Bytes cannot hold what is no number: the scale does, and whoever multiplies with it finds it.
TEST_F(RopeTest, WhatIsNoNumberStaysNone) {
  const RopeCase c{{1, 1, 64, 16}, DType::kI8, {}};
  for (const float strange : {NAN, INFINITY, -INFINITY}) {
    OpRunner run(device(), c.tuning);
    const ValueId q = run.g.activation("q", 1, 64), k = run.g.activation("k", 1, 64), v = run.g.activation("v", 1, 64);
    run.output(ops::rope_kv(run.g, q, k, v, angles(run, c), run.kv_pages(c.shape, c.kv, kPages, static_cast<int64_t>(kBlockTable.size())), c.shape));
    TESSERA_ASSERT_OK(run.prepare({1, LogitRows::kNone}));
    Matrix head = Random(1).matrix(1, 64);
    TESSERA_ASSERT_OK(run.write("rope_kv", "q", head));
    head.at(0, 37) = strange;
    TESSERA_ASSERT_OK(run.write("rope_kv", "k", head));
    TESSERA_ASSERT_OK(run.write("rope_kv", "v", head));
    TESSERA_ASSERT_OK(run.write_raw("rope_kv", "angles", ops::rope_angles(kPositions, 64, plain_rotation(64))));
    TESSERA_ASSERT_OK(run.write_raw("rope_kv", "block_tables", kBlockTable));
    TESSERA_ASSERT_OK(run.run({.position = 3, .tokens = 1}));
    for (const char* slot : {"k_scales", "v_scales"}) EXPECT_FALSE(std::isfinite(run.read_raw<float>("rope_kv", slot).value()[static_cast<size_t>(place_of(c, 3, 0))])) << slot << " of " << strange;
  }
}

// x → Q, K, V as one stacked matmul → rope: two dispatches. V may be of another weight type: then it stays a matmul of its own.
class StackedQkv : public RopeTest, public testing::WithParamInterface<std::tuple<int, Storage, WeightType, WeightType>> {};

TEST_P(StackedQkv, EqualsReferences) {
  const auto& [width, storage, type, v_type] = GetParam();
  const RopeCase c{{3, 1, 4, 16}, DType::kF32, {.width = width, .weights = storage, .tokens_a_lane = 2}};  // 12 + 4 + 4 rows: ranges begin inside blocks
  const int64_t columns = 32, position = 5;
  const std::vector<float> table = ops::rope_angles(kPositions, 4, plain_rotation(4));
  const TestWeight wq = make_weight("q", type, 12, columns, 1), wk = make_weight("k", type, 4, columns, 2), wv = make_weight("v", v_type, 4, columns, 3);
  for (const auto& [shape, tokens] : {std::array<int64_t, 2>{1, 1}, {8, 5}}) {
    SCOPED_TRACE(cat(tokens, " of ", shape, " tokens"));
    OpRunner run(device(), c.tuning);
    const ValueId x = run.g.activation("x", shape, columns);
    const ValueId q = ops::matmul(run.g, x, run.weight(wq)), k = ops::matmul(run.g, x, run.weight(wk)), v = ops::matmul(run.g, x, run.weight(wv));
    run.output(ops::rope_kv(run.g, q, k, v, angles(run, c), run.kv_pages(c.shape, c.kv, kPages, static_cast<int64_t>(kBlockTable.size())), c.shape));
    TESSERA_ASSERT_OK(run.prepare({shape, LogitRows::kNone}));
    ASSERT_EQ(run.plan().dispatches.size(), type == v_type ? 2u : 3u) << dump(run.plan());
    const Matrix input = Random(4).matrix(tokens, columns);
    TESSERA_ASSERT_OK(run.write(shape == 1 ? "gemv" : "gemm", "x", input));
    TESSERA_ASSERT_OK(run.write_raw("rope_kv", "angles", table));
    TESSERA_ASSERT_OK(run.write_raw("rope_kv", "block_tables", kBlockTable));
    TESSERA_ASSERT_OK(run.run({.position = position, .tokens = static_cast<int32_t>(tokens), .last_row = 0}));
    const auto projected = [&](const TestWeight& w) {
      Bounded y{Matrix(tokens, w.ref.rows), Matrix(tokens, w.ref.rows)};
      Matrix sizes = input;
      for (float& value : sizes.values) value = std::abs(value);
      ops::matmul_reference(input.values.data(), w.values.values.data(), y.value.values.data(), tokens, w.ref.rows, columns);
      ops::matmul_reference(sizes.values.data(), w.magnitudes.values.data(), y.tolerance.values.data(), tokens, w.ref.rows, columns);
      for (float& value : y.tolerance.values) value *= static_cast<float>(gamma_of(columns + 10));  // as in matmul_test
      return y;
    };
    const Bounded out = rotated(projected(wq), table, position, c.shape);
    expect_close(run.read("rope_kv", "q_out").value(), out.value, [&](int64_t r, int64_t ch) { return static_cast<double>(out.tolerance.at(r, ch)); }, tokens);
    expect_pages(run, c, "k_pages", rotated(projected(wk), table, position, c.shape), position);
    expect_pages(run, c, "v_pages", projected(wv), position);
  }
}
std::string name_of_stack(const testing::TestParamInfo<StackedQkv::ParamType>& info) {
  const auto& [width, storage, type, v_type] = info.param;
  return cat("w", width, "_", name_of(storage), "_", format_of(type).name, "_v_", format_of(v_type).name);
}
INSTANTIATE_TEST_SUITE_P(RopeKv, StackedQkv,
                         testing::Values(std::tuple(4, Storage::kBuffer, WeightType::kQ4_0, WeightType::kQ4_0), std::tuple(at_most_wide(8), Storage::kImage2D, WeightType::kQ8_0, WeightType::kQ8_0),
                                         std::tuple(at_most_wide(16), Storage::kBuffer, WeightType::kQ4_1, WeightType::kQ4_1), std::tuple(at_most_wide(8), Storage::kBuffer, WeightType::kQ4_0, WeightType::kQ8_0),
                                         std::tuple(4, Storage::kImage3D, WeightType::kQ4_1, WeightType::kQ4_1)),
                         name_of_stack);

}  // namespace
}  // namespace tessera::ops_test
