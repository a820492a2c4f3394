// embed: the host reference against Eigen, the kernel against the reference. Exact: one value is scale · (q − zero) + min, a product of
// 11 by 8 bits (of two-level scales: 11 by 7 by 5) that a float holds, and at most one rounding, which the reference makes too.
#include "tessera/ops/embed.hpp"

#include <Eigen/Dense>
#include <array>

#include "op_harness.hpp"

namespace tessera::ops_test {
namespace {

TEST(EmbedReference, EqualsEigen) {
  Random random(1);
  const Matrix table = random.matrix(127, 5);
  const std::vector<int32_t> ids = {126, 0, 63, 63};
  Matrix y(4, 5);
  ops::embed_reference(ids.data(), table.values.data(), y.values.data(), 4, 5);
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const RowMajor> t(table.values.data(), 127, 5);
  EXPECT_TRUE((Eigen::Map<const RowMajor>(y.values.data(), 4, 5) == t(ids, Eigen::all)));
}

struct EmbedCase {
  WeightType type = WeightType::kF32;
  TestTuning tuning;
  int64_t vocab = 127;
  int64_t channels = 96;
  void (*limit)(DeviceInfo&) = nullptr;   // makes the planner's device smaller than it is, so that the table lies in at least `parts` objects
  size_t parts = 1;
  std::string label = {};
};

class Embed : public OpTest, public testing::WithParamInterface<EmbedCase> {};

TEST_P(Embed, EqualsReference) {
  const EmbedCase& c = GetParam();
  Random random(9);
  const TestWeight table = make_weight("table", c.type, c.vocab, c.channels, 11);
  for (const auto& [shape, tokens] : {std::array<int64_t, 2>{1, 1}, {8, 2}, {32, 17}}) {
    SCOPED_TRACE(cat(tokens, " of ", shape, " tokens"));
    OpRunner run(device(), c.tuning);
    if (c.limit != nullptr) c.limit(run.limits());
    const ValueId y = ops::embed(run.g, run.rows(), run.weight(table), shape);
    run.intermediate(y);
    TESSERA_ASSERT_OK(run.prepare({shape, LogitRows::kNone}));
    ASSERT_GE(run.plan().weights.begin()->second.placement.parts.size(), c.parts);
    // The first, the last, one twice; ids out of range are clamped: a kernel must not read outside its table whatever it is given.
    std::vector<int32_t> ids(64, 0);
    for (int32_t& id : ids) id = static_cast<int32_t>(random.below(c.vocab));
    ids[0] = static_cast<int32_t>(c.vocab - 1);
    ids[1] = 0;
    ids[2] = 0;
    ids[3] = static_cast<int32_t>(c.vocab);
    ids[4] = -1;
    ids[5] = INT32_MAX;
    ids[6] = INT32_MIN;
    std::vector<StepRow> rows(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) rows[i].id = ids[i];
    rows[0].logits_of = 0;
    TESSERA_ASSERT_OK(run.run(rows, static_cast<int32_t>(tokens)));
    for (int32_t& id : ids) id = std::clamp(id, 0, static_cast<int32_t>(c.vocab - 1));
    Matrix expected(tokens, c.channels);
    ops::embed_reference(ids.data(), table.values.values.data(), expected.values.data(), tokens, c.channels);
    const auto found = run.read("embed", "y");
    TESSERA_ASSERT_OK(found);
    expect_close(*found, expected, [](int64_t, int64_t) { return 0.0; }, tokens);
    EXPECT_EQ(run.stray_write().value(), -1);
  }
}

std::vector<EmbedCase> cases() {
  std::vector<EmbedCase> all;
  int turn = 0;
  for (const WeightFormat& format : kWeightFormats)
    for (const int width : widths())
      for (const Storage weights : kStorages) {
        const std::vector<int64_t> sizes = format.block == 1 ? std::vector<int64_t>{127, 1, 3, 5} : format.block == 32 ? std::vector<int64_t>{96, 32, 160} : std::vector<int64_t>{256, 512};
        const int64_t channels = sizes[static_cast<size_t>(turn) % sizes.size()], vocab = std::array<int64_t, 3>{127, 5, 1}[static_cast<size_t>(turn / 2 % 3)];
        const int pick = turn++;   // quick: two or three a type; full: half of all. The activations' storage takes turns.
        if (pick % (full_tier() ? 2 : 7) == 0) all.push_back({format.type, {.width = width, .weights = weights, .activations = storage_in_turn(pick + pick / 5)}, vocab, channels});
      }
  const TestTuning buffers{.width = 4};
  // Sixteen blocks, the last one not full, of 8 · 96 numbers each, whatever the width.
  const int width = at_most_wide(8);
  const int64_t rows = 16 * width - 1, columns = 8 * 96 / width;
  const auto in = [width](Storage storage, int parts = 1) { return TestTuning{.width = width, .weights = storage, .parts = parts}; };
  all.push_back({WeightType::kQ4_1, buffers, 1000, 32, [](DeviceInfo& d) { d.max_binding_bytes = 4096; }, 3, "_binding"});  // 4 KiB hold the 32 tokens' result, too
  all.push_back({WeightType::kF16, buffers, 510, 32, [](DeviceInfo& d) { d.max_binding_bytes = 8192; }, 3, "_binding"});
  all.push_back({WeightType::kQ8_0, in(Storage::kImage2D), rows, columns, [](DeviceInfo& d) { d.max_image_height = 4; }, 1, "_folded"});
  all.push_back({WeightType::kQ8_0, in(Storage::kImageBuffer), rows, columns, [](DeviceInfo& d) { d.max_image_buffer_texels = 200; }, 4, "_texels"});
  all.push_back({WeightType::kF32, in(Storage::kImage2DArray), rows, 5, [](DeviceInfo& d) { d.max_image_height = 2, d.max_image_layers = 2; }, 4, "_layers"});
  all.push_back({WeightType::kQ4_0, in(Storage::kImage3D, 4), rows, 32, nullptr, 4, "_by_tuning"});
  return all;
}
std::string name_of_case(const testing::TestParamInfo<EmbedCase>& info) {
  return cat(format_of(info.param.type).name, "_", info.param.tuning.name(), "_vocab", info.param.vocab, "_channels", info.param.channels, info.param.label);
}
INSTANTIATE_TEST_SUITE_P(Embed, Embed, testing::ValuesIn(cases()), name_of_case);

}  // namespace
}  // namespace tessera::ops_test
