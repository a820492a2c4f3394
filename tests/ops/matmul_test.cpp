// matmul as GEMV and GEMM: the host reference against Eigen, the kernels against the reference over weight types, widths and storages.
#include "tessera/ops/matmul.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <array>

#include "op_harness.hpp"
#include "tessera/ops/elementwise.hpp"
#include "tessera/ops/rms_norm.hpp"

namespace tessera::ops_test {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

TEST(MatmulReference, EqualsEigen) {
  Random random(1);
  for (const auto& [tokens, rows, columns] : {std::array<int64_t, 3>{1, 1, 1}, {2, 3, 5}, {3, 5, 127}, {17, 127, 3}}) {
    const Matrix x = random.matrix(tokens, columns), w = random.matrix(rows, columns);
    Matrix y(tokens, rows);
    ops::matmul_reference(x.values.data(), w.values.data(), y.values.data(), tokens, rows, columns);
    const Eigen::MatrixXd xd = Eigen::Map<const RowMajor>(x.values.data(), tokens, columns).cast<double>();
    const Eigen::MatrixXd wd = Eigen::Map<const RowMajor>(w.values.data(), rows, columns).cast<double>();
    const Eigen::MatrixXd expected = xd * wd.transpose(), terms = xd.cwiseAbs() * wd.cwiseAbs().transpose();
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t r = 0; r < rows; ++r)  // one rounding to float; the sums of doubles differ by n · 2⁻⁵³ of the terms, far below that
        EXPECT_NEAR(static_cast<double>(y.at(t, r)), expected(t, r), kUnit * std::abs(expected(t, r)) + 1e-13 * terms(t, r)) << t << ", " << r;
  }
}

struct MatmulCase {
  WeightType type = WeightType::kF32;
  TestTuning tuning;
  int64_t rows = 1;
  std::vector<int64_t> columns{};
  bool norm = false;      // GEMV, and products of bytes
  bool residual = false;
  bool gated = false;
  bool bias = false;
  bool exact_bytes = false;  // int8 products: x is given as what bytes hold exactly
  // Makes the planner's device smaller than it is, so that the weight lies in `parts` objects, folded at `fold` rows.
  void (*limit)(DeviceInfo&) = nullptr;
  size_t parts = 1;
  int64_t fold = 0;
  std::string label = {};
};

struct Operands {
  Matrix x, gamma, residual;
  std::vector<TestWeight> weights;  // one, or gate and up
  TestWeight gain;
  std::vector<TestWeight> biases;   // of each weight
};

// Whole multiples of a power of two a group of 32, the greatest 127: what int8 products round, they hold exactly.
Matrix bytes_matrix(Random& random, int64_t rows, int64_t columns) {
  Matrix m = random.matrix(rows, columns);
  for (int64_t i = 0; i < rows * columns; i += ops::kQuantizedGroup) {
    const float scale = std::ldexp(1.0f, -static_cast<int>(i / ops::kQuantizedGroup % 5) - 5);
    for (int64_t k = i; k < i + ops::kQuantizedGroup; ++k) {
      float& v = m.values[static_cast<size_t>(k)];
      v = std::clamp(std::nearbyint(v * 100.0f), -127.0f, 127.0f) * scale;
    }
    m.values[static_cast<size_t>(i + i / ops::kQuantizedGroup % ops::kQuantizedGroup)] = (i % 64 == 0 ? 127.0f : -127.0f) * scale;
  }
  return m;
}

// The most that one value of x is off once it is a byte: half a step of its group's scale, and a little for the rounding of x / scale itself.
double byte_error(const Matrix& x, int64_t t, int64_t k) {
  float top = 0.0f;
  for (int64_t i = k / ops::kQuantizedGroup * ops::kQuantizedGroup, end = i + ops::kQuantizedGroup; i < end; ++i) top = std::max(top, std::abs(x.at(t, i)));
  return static_cast<double>(top) / 127.0 * 0.5001;
}

Operands make_operands(const MatmulCase& c, int64_t tokens, int64_t columns) {
  Random random(static_cast<uint32_t>(c.rows * 1000 + columns));
  Operands o{c.tuning.stored(c.tuning.int8 && c.exact_bytes ? bytes_matrix(random, tokens, columns) : random.matrix(tokens, columns)), {}, random.matrix(tokens, c.rows), {}, make_weight("gain", WeightType::kF32, 1, columns, 5), {}};
  o.weights.push_back(make_weight("w", c.type, c.rows, columns, 17));
  if (c.gated) o.weights.push_back(make_weight("up", c.type, c.rows, columns, 18));
  const WeightType bias_type = columns % 2 == 0 ? WeightType::kF32 : WeightType::kF16;   // files have either
  for (const TestWeight& w : o.weights) o.biases.push_back(make_weight(w.ref.name + ".bias", bias_type, 1, c.rows, 19 + static_cast<uint32_t>(o.biases.size())));
  return o;
}

constexpr float kEps = 1e-5f;

// What the kernel computes, from the references of the ops that are fused, and how far it may be off.
struct Expected {
  Matrix y;
  Matrix tolerance;
};

Expected expect(const MatmulCase& c, const Operands& o, int64_t tokens) {
  const int64_t columns = o.x.channels;
  Matrix x(tokens, columns);
  std::copy_n(o.x.values.begin(), x.values.size(), x.values.begin());
  // n terms, each of a dequantized weight (two roundings in w · scale + min), times x: sums in any order stay within γ of the sum of the
  // terms' sizes. The norm adds n/2 + rsqrt for itself (a root halves a relative error) and two products; 8 is slack for the zero point's path.
  int64_t roundings = columns + 8;
  if (c.norm) {
    Matrix normed(tokens, columns);
    ops::rms_norm_reference(x.values.data(), o.gain.values.values.data(), normed.values.data(), tokens, columns, kEps);
    x = normed;
    roundings += columns / 2 + 4 + static_cast<int64_t>(rsqrt_roundings());
  }
  std::vector<Matrix> results, errors;
  for (size_t i = 0; i < o.weights.size(); ++i) {
    const TestWeight& w = o.weights[i];
    Matrix y(tokens, c.rows), error(tokens, c.rows);
    ops::matmul_reference(x.values.data(), w.values.values.data(), y.values.data(), tokens, c.rows, columns);
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t r = 0; r < c.rows; ++r) {
        double terms = 0.0, terms_of_bytes = 0.0;
        for (int64_t k = 0; k < columns; ++k) terms += static_cast<double>(w.magnitudes.at(r, k)) * std::abs(static_cast<double>(x.at(t, k)));
        if (c.tuning.int8 && !c.exact_bytes)
          for (int64_t k = 0; k < columns; ++k) terms_of_bytes += static_cast<double>(std::abs(w.values.at(r, k))) * byte_error(x, t, k);
        error.at(t, r) = static_cast<float>(gamma_of(roundings) * terms + terms_of_bytes + kSmallest);
        if (!c.bias) continue;
        y.at(t, r) += o.biases[i].values.at(0, r);
        error.at(t, r) += static_cast<float>(kUnit + device_unit()) * std::abs(y.at(t, r));  // our sum and the kernel's
      }
    results.push_back(std::move(y));
    errors.push_back(std::move(error));
  }
  Expected e{results[0], errors[0]};
  for (size_t i = 0; c.gated && i < e.y.values.size(); ++i) {
    const float gate = results[0].values[i], up = results[1].values[i];
    ops::gated_silu_reference(&gate, &up, &e.y.values[i], 1);
    // |silu′| ≤ 1.1 and |silu(g)| ≤ |g|: the errors of gate and up pass through the product; exp, sum, division, product round.
    e.tolerance.values[i] = 1.1f * errors[0].values[i] * (std::abs(up) + errors[1].values[i]) + std::abs(gate) * errors[1].values[i] +
                            static_cast<float>(gamma_of(gate_exp_roundings(gate) + division_roundings() + 4.0)) * std::abs(e.y.values[i]);
  }
  for (size_t i = 0; c.residual && i < e.y.values.size(); ++i) {
    e.y.values[i] += o.residual.values[i];
    e.tolerance.values[i] += static_cast<float>(kUnit + device_unit()) * std::abs(e.y.values[i]);  // our sum and the kernel's
  }
  for (size_t i = 0; i < e.tolerance.values.size(); ++i) e.tolerance.values[i] += static_cast<float>(2.0 * kUnit) * std::abs(e.y.values[i]);  // the reference is rounded to float too
  return e;
}

// Builds the graph that the passes turn into the one fused dispatch.
Status prepare(const MatmulCase& c, OpRunner& run, const Operands& o, int64_t tokens) {
  if (c.limit != nullptr) c.limit(run.limits());
  const ValueId x = run.g.activation("x", tokens, o.x.channels);
  const ValueId input = c.norm ? ops::rms_norm(run.g, x, run.weight(o.gain), kEps) : x;
  const auto product = [&](size_t i) { return ops::matmul(run.g, input, run.weight(o.weights[i]), c.bias ? run.bias(o.biases[i]) : kNoValue); };
  ValueId y = product(0);
  if (c.gated) y = ops::gated_silu(run.g, y, product(1));
  if (c.residual) {
    const ValueId residual = run.g.residual("residual", tokens, c.rows);
    if (c.tuning.int8 && tokens > 1) run.output(residual);   // no part of the arena: the first of two dispatches may use what the second reads
    y = ops::add(run.g, residual, y);
  }
  run.intermediate(y);
  return run.prepare({tokens, LogitRows::kNone});
}

class Matmul : public OpTest {
 protected:
  // One program per number of columns, run for each of `active` tokens of a step of `tokens`.
  void check(const MatmulCase& c, int64_t tokens, const std::vector<int64_t>& active) {
    const std::string kernel = cat(tokens == 1 ? "gemv" : "gemm", c.tuning.int8 ? "_int8" : ""), first = c.tuning.int8 && tokens > 1 ? "quantize" : kernel;
    for (const int64_t columns : c.columns) {
      SCOPED_TRACE(cat("columns ", columns));
      const Operands o = make_operands(c, tokens, columns);
      OpRunner run(device(), c.tuning);
      TESSERA_ASSERT_OK(prepare(c, run, o, tokens));
      if (c.tuning.gemv_lanes > 0) {
        ASSERT_EQ(run.plan().dispatches.front().variant.consts.at("SPLIT"), c.tuning.workgroup / 4);
      }
      for (const Dispatch& dispatch : run.plan().dispatches) ASSERT_TRUE(dispatch.variant.kernel == kernel || dispatch.variant.kernel == first || dispatch.variant.kernel == "take_row") << dump(run.plan());
      for (const int64_t count : active) {
        SCOPED_TRACE(cat(count, " of ", tokens, " tokens"));
        TESSERA_ASSERT_OK(run.clear());
        Matrix x = o.x, residual = o.residual;
        x.rows = residual.rows = count;
        TESSERA_ASSERT_OK(run.write(first, "x", x));
        if (c.residual) TESSERA_ASSERT_OK(run.write(kernel, "residual", residual));
        TESSERA_ASSERT_OK(run.run({.position = 0, .tokens = static_cast<int32_t>(count), .last_row = 0}));
        const Expected e = expect(c, o, count);
        const auto y = run.read(kernel, "y");
        TESSERA_ASSERT_OK(y);
        // A tile of GEMM computes all its tokens; tiles past the active tokens return at once.
        const bool reused = first != kernel && run.object_of(kernel, "y").home == Home::kArenaBuffer;   // memory that x had in the dispatch before
        const int64_t untouched_from = tokens == 1 ? 1 : reused ? tokens : round_up(count, c.tuning.tokens_a_lane);
        expect_close(*y, e.y, [&](int64_t r, int64_t ch) { return static_cast<double>(e.tolerance.at(r, ch)); }, untouched_from);
        EXPECT_EQ(run.stray_write().value(), -1);
      }
    }
  }
};

class GemvCase : public Matmul, public testing::WithParamInterface<MatmulCase> {};
class GemmCase : public Matmul, public testing::WithParamInterface<MatmulCase> {};
TEST_P(GemvCase, EqualsReference) { check(GetParam(), 1, {1}); }
TEST_P(GemmCase, EqualsReference) {
  check(GetParam(), 8, {1, 2, 8});
  // Small bindings would not hold 32 tokens; what more tokens do to a weight does not depend on where it lies.
  if (full_tier() && GetParam().limit == nullptr && GetParam().tuning.weights == Storage::kBuffer) check(GetParam(), 32, {17, 32});
}

std::string name_of_case(const testing::TestParamInfo<MatmulCase>& info) {
  const MatmulCase& c = info.param;
  return cat(format_of(c.type).name, "_", c.tuning.name(), "_rows", c.rows, c.norm ? "_norm" : "", c.residual ? "_residual" : "", c.gated ? "_gated" : "", c.bias ? "_bias" : "", c.exact_bytes ? "_exact" : "", c.label);
}

std::vector<int64_t> columns_for(WeightType type) {
  const int block = format_of(type).block;
  return block == 1 ? std::vector<int64_t>{127, 1, 3, 5} : block == 32 ? std::vector<int64_t>{96, 32, 160} : std::vector<int64_t>{512, 256};
}

constexpr int64_t kRows[] = {127, 3, 192, 1, 5};

// Full: every type × storage of the weights, two widths and the columns but in buffers taking turns. Quick: every type × width, storages and columns taking
// turns; so too in full at width 16, which no device's row names.
// Rows and the activations' storage take turns in both.
std::vector<MatmulCase> plain_cases() {
  std::vector<MatmulCase> cases;
  const auto add = [&](WeightType type, int width, Storage weights) {
    const int turn = static_cast<int>(cases.size());
    const Storage activations = storage_in_turn(turn + turn / 5);
    MatmulCase c{.type = type, .tuning = {.width = width, .weights = weights, .activations = activations, .blocks_a_lane = 1 + turn % 2}, .rows = kRows[turn % 5], .columns = columns_for(type)};
    if (!full_tier() || weights != Storage::kBuffer) c.columns = {c.columns[static_cast<size_t>(turn) % c.columns.size()]};
    cases.push_back(std::move(c));
  };
  for (const WeightFormat& format : kWeightFormats)
    for (const int width : widths())
      for (const Storage weights : kStorages)
        if ((full_tier() && width < 16 && (static_cast<int>(format.type) + static_cast<int>(weights) + width / 8) % 2 == 0) || weights == storage_in_turn(static_cast<int>(format.type) + width / 8 * 2)) add(format.type, width, weights);
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Gemv, GemvCase, testing::ValuesIn(with_halves(plain_cases())), name_of_case);
INSTANTIATE_TEST_SUITE_P(Gemm, GemmCase, testing::ValuesIn(with_halves(plain_cases())), name_of_case);

std::vector<MatmulCase> fused_cases(bool gemv) {
  std::vector<MatmulCase> cases;
  const int forms = static_cast<int>(widths().size() * kStorages.size());
  int turn = 0;
  for (int form = 1; form < 16; ++form) {
    const bool norm = (form & 1) != 0, residual = (form & 2) != 0, gated = (form & 4) != 0, bias = (form & 8) != 0;
    if (norm && !gemv) continue;
    for (const WeightFormat& format : kWeightFormats) {
      const int type = static_cast<int>(format.type), mixed = form + type;
      // Quick: of each form every fourth weight type; with a bias, which meets the sum after all that a type does, one. Full: all; with a bias every other one.
      if (full_tier() ? bias && mixed % 2 != 0 : (bias ? type != form % static_cast<int>(kWeightFormats.size()) : mixed % 4 != 0)) continue;
      for (const int width : widths())
        for (const Storage storage : kStorages) {
          const Storage activations = storage_in_turn(turn + turn / forms);
          // Widths and storages take turns: one of the fifteen; of five, one.
          if (const int pick = turn++ % forms; pick != (full_tier() ? mixed + 4 * form : mixed / 4 + 4 * form) % forms) continue;
          cases.push_back({.type = format.type, .tuning = {.width = width, .weights = storage, .activations = activations, .tokens_a_lane = 2}, .rows = turn % 3 == 0 ? 127 : 20,
                           .columns = {columns_for(format.type)[0]}, .norm = norm, .residual = residual, .gated = gated, .bias = bias});
        }
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(GemvFused, GemvCase, testing::ValuesIn(with_halves(fused_cases(true))), name_of_case);
INSTANTIATE_TEST_SUITE_P(GemmFused, GemmCase, testing::ValuesIn(with_halves(fused_cases(false))), name_of_case);

// Products of bytes: exact where x is bytes already, within half a step of each value's scale where it is not. Forms of the dots, storages and what is fused
// take turns; a norm comes before bytes of its own, in prefill too.
std::vector<MatmulCase> int8_cases() {
  std::vector<MatmulCase> cases;
  int turn = 0;
  for (const WeightFormat& format : kWeightFormats) {
    if (!is_quantized(format.type) || format.codebook != nullptr) continue;
    for (const int width : widths()) {
      if (width == 16) continue;   // as 4: plain dots
      for (int form = 0; form < (full_tier() ? 4 : 2); ++form, ++turn) {
        MatmulCase c{.type = format.type, .tuning = {.width = width, .weights = storage_in_turn(turn / 2), .activations = storage_in_turn(turn / 3), .blocks_a_lane = 1 + turn % 2, .interleave = turn % 2 == 0 ? 4 : 1, .int8 = true},
                     .rows = kRows[turn % 3], .columns = {columns_for(format.type)[static_cast<size_t>(turn) % 2]}, .residual = turn % 3 == 1, .gated = turn % 5 == 2, .bias = turn % 7 == 3, .exact_bytes = form % 2 == 0};
        c.norm = !c.exact_bytes && turn % 4 > 1;
        cases.push_back(std::move(c));
      }
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(GemvInt8, GemvCase, testing::ValuesIn(with_halves(int8_cases())), name_of_case);
INSTANTIATE_TEST_SUITE_P(GemmInt8, GemmCase, testing::ValuesIn(with_halves(int8_cases())), name_of_case);

// Lanes that share the columns of a block: 2, 4 or 8 of them, with fewer groups than take turns evenly, blocks that end inside a workgroup, and all that is fused.
std::vector<MatmulCase> shared_cases() {
  std::vector<MatmulCase> cases;
  int turn = 0;
  for (const WeightFormat& format : kWeightFormats)
    for (const bool int8 : {false, true}) {
      if (int8 && (!is_quantized(format.type) || format.codebook != nullptr)) continue;
      const int workgroup = 8 << turn % 3, columns = format.block == 1 ? 127 : format.block == 32 ? 320 : 512;
      cases.push_back({.type = format.type, .tuning = {.width = turn % 4 == 3 ? at_most_wide(8) : 4, .weights = storage_in_turn(turn / 2), .activations = storage_in_turn(turn), .workgroup = workgroup, .gemv_lanes = 1024, .blocks_a_lane = 1 + turn / 2 % 2, .interleave = turn % 2 == 0 ? 4 : 1, .int8 = int8},
                       .rows = kRows[turn % 3], .columns = {columns}, .norm = turn % 5 < 2, .residual = turn % 3 == 1, .gated = turn % 4 == 2, .bias = turn % 7 == 3, .exact_bytes = int8 && turn % 5 > 1});
      ++turn;
    }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(GemvShared, GemvCase, testing::ValuesIn(shared_cases()), name_of_case);

// Weights in several objects, because one binding or image does not hold them or because the tuning says so, and images folded for their height.
// In buffers: 127 rows are 32 blocks of width 4. In images: 16 blocks, whatever the width; one of Q4_1 or Q8_0 is 24 or 48 texels, of F32, 192.
std::vector<MatmulCase> limited_cases() {
  const int width = at_most_wide(8);
  const auto in = [width](Storage storage, int parts = 1) { return TestTuning{.width = width, .weights = storage, .parts = parts}; };
  std::vector<MatmulCase> cases = {
      {.type = WeightType::kF32, .tuning = {}, .residual = true, .limit = [](DeviceInfo& d) { d.max_binding_bytes = 12 * 1536; }, .parts = 3, .label = "_binding"},
      {.type = WeightType::kQ8_0, .tuning = {}, .residual = true, .gated = true, .bias = true, .limit = [](DeviceInfo& d) { d.max_binding_bytes = 5000; }, .parts = 6, .label = "_binding"},
      {.type = WeightType::kF32, .tuning = in(Storage::kImageBuffer), .limit = [](DeviceInfo& d) { d.max_image_buffer_texels = 5 * 192; }, .parts = 4, .label = "_texels"},
      {.type = WeightType::kQ4_1, .tuning = in(Storage::kImage2D), .limit = [](DeviceInfo& d) { d.max_image_height = 4; }, .fold = 4, .label = "_folded"},
      {.type = WeightType::kF16, .tuning = in(Storage::kImage2D), .gated = true, .limit = [](DeviceInfo& d) { d.max_image_height = 8; }, .fold = 8, .label = "_folded"},
      {.type = WeightType::kQ4_1, .tuning = in(Storage::kImage2D), .limit = [](DeviceInfo& d) { d.max_image_height = 2, d.max_image_width = 48; }, .parts = 4, .fold = 2, .label = "_panels"},
      {.type = WeightType::kQ8_0, .tuning = in(Storage::kImage2DArray), .gated = true, .limit = [](DeviceInfo& d) { d.max_image_height = 7; }, .fold = 4, .label = "_folded"},
      {.type = WeightType::kF16, .tuning = in(Storage::kImage2DArray), .limit = [](DeviceInfo& d) { d.max_image_height = 2, d.max_image_layers = 3; }, .parts = 3, .fold = 2, .label = "_layers"},
      {.type = WeightType::kQ4_0, .tuning = in(Storage::kImage3D), .residual = true, .limit = [](DeviceInfo& d) { d.max_image3d_height = 4; }, .fold = 4, .label = "_folded"},
      {.type = WeightType::kQ4_1, .tuning = in(Storage::kImage3D), .limit = [](DeviceInfo& d) { d.max_image3d_height = 1, d.max_image3d_depth = 5; }, .parts = 4, .fold = 1, .label = "_layers"},
      {.type = WeightType::kQ4_1, .tuning = in(Storage::kBuffer, 2), .residual = true, .bias = true, .parts = 2, .label = "_by_tuning"},
      {.type = WeightType::kQ4_0, .tuning = in(Storage::kImage2D, 4), .bias = true, .parts = 4, .label = "_by_tuning"},
      {.type = WeightType::kQ8_0, .tuning = in(Storage::kImage2D, 4), .gated = true, .parts = 4, .label = "_by_tuning"},
      {.type = WeightType::kF32, .tuning = in(Storage::kImage2DArray, 99), .parts = 16, .fold = 16, .label = "_one_block_each"},
  };
  for (MatmulCase& c : cases) {
    const bool by_width = c.tuning.width == width && (is_image(c.tuning.weights) || c.tuning.parts > 1);
    c.rows = by_width ? 16 * width - 1 : 127, c.columns = {by_width ? 8 * 96 / width : 96};
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(GemvLimits, GemvCase, testing::ValuesIn(limited_cases()), name_of_case);
INSTANTIATE_TEST_SUITE_P(GemmLimits, GemmCase, testing::ValuesIn(limited_cases()), name_of_case);

// A byte would hide what is not a number: it comes out as one, in its own row alone.
TEST_F(Matmul, BytesHideNoNaNAndNoInfinity) {
  for (const int64_t tokens : {1, 8})
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      SCOPED_TRACE(cat(tokens, " tokens, ", bad));
      const MatmulCase c{.type = WeightType::kQ4_1, .tuning = {.width = at_most_wide(8), .int8 = true}, .rows = 20};
      const Operands o = make_operands(c, tokens, 96);
      OpRunner run(device(), c.tuning);
      TESSERA_ASSERT_OK(prepare(c, run, o, tokens));
      Matrix x = o.x;
      x.at(tokens - 1, 40) = bad;
      TESSERA_ASSERT_OK(run.clear());
      TESSERA_ASSERT_OK(run.write(tokens == 1 ? "gemv_int8" : "quantize", "x", x));
      TESSERA_ASSERT_OK(run.run({.position = 0, .tokens = static_cast<int32_t>(tokens), .last_row = 0}));
      const auto y = run.read(tokens == 1 ? "gemv_int8" : "gemm_int8", "y");
      TESSERA_ASSERT_OK(y);
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t r = 0; r < c.rows; ++r) EXPECT_EQ(std::isfinite(y->at(t, r)), t != tokens - 1) << t << ", " << r;
    }
}

// The cases above are what their names say.
TEST_F(Matmul, SmallLimitsMakePartsAndFolds) {
  for (const MatmulCase& c : limited_cases()) {
    SCOPED_TRACE(c.label);
    const Operands o = make_operands(c, 1, c.columns[0]);
    OpRunner run(device(), c.tuning);
    TESSERA_ASSERT_OK(prepare(c, run, o, 1));
    const size_t parts = run.plan().weights.at(c.gated ? "w|up" : "w").placement.parts.size();
    EXPECT_EQ(parts, run.plan().dispatches.size());
    EXPECT_EQ(parts, c.parts);
    EXPECT_EQ(run.object_of("gemv", is_quantized(c.type) ? "quants" : "floats").layout.fold, c.fold);
  }
}

}  // namespace
}  // namespace tessera::ops_test
