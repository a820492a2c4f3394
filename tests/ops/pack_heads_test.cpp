// pack_heads: the host reference against Eigen, the kernel against the reference. Copies: exact.
#include "tessera/ops/pack_heads.hpp"

#include <Eigen/Dense>
#include <array>
#include <set>

#include "op_harness.hpp"

namespace tessera::ops_test {
namespace {

TEST(PackHeadsReference, EqualsEigen) {
  Random random(1);
  const Matrix x = random.matrix(3, 4 * 8);  // 4 heads of 6, padded to 8
  Matrix y(3, 4 * 6);
  ops::pack_heads_reference(x.values.data(), y.values.data(), 3, {4, 1, 6, 16});
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const RowMajor> padded(x.values.data(), 12, 8), packed(y.values.data(), 12, 6);
  EXPECT_TRUE((packed == padded.leftCols(6)));
}

class PackHeads : public OpTest, public testing::WithParamInterface<std::tuple<std::array<int64_t, 2>, int, Storage, DType>> {};

TEST_P(PackHeads, EqualsReference) {
  const auto& [sizes, width, storage, type] = GetParam();
  const TestTuning tuning{.width = width, .activations = storage, .activation_type = type};
  const ops::AttentionShape shape{sizes[0], 1, sizes[1], 16};
  Random random(2);
  for (const auto& [step, tokens] : {std::array<int64_t, 2>{1, 1}, {8, 2}, {32, 17}}) {
    SCOPED_TRACE(cat(tokens, " of ", step, " tokens"));
    OpRunner run(device(), tuning);
    const ValueId y = ops::pack_heads(run.g, run.g.activation("x", step, shape.heads * shape.padded_dim()), shape);
    run.intermediate(y);
    TESSERA_ASSERT_OK(run.prepare({step, LogitRows::kNone}));
    const Matrix x = tuning.stored(random.matrix(tokens, shape.heads * shape.padded_dim()));  // not zero between the heads: that part must not come through
    TESSERA_ASSERT_OK(run.write("pack_heads", "x", x));
    TESSERA_ASSERT_OK(run.run({.position = 0, .tokens = static_cast<int32_t>(tokens), .last_row = 0}));
    Matrix expected(tokens, shape.heads * shape.head_dim);
    ops::pack_heads_reference(x.values.data(), expected.values.data(), tokens, shape);
    const auto found = run.read("pack_heads", "y");
    TESSERA_ASSERT_OK(found);
    expect_close(*found, expected, [](int64_t, int64_t) { return 0.0; }, tokens);
    EXPECT_EQ(run.stray_write().value(), -1);
  }
}

std::string name_of_case(const testing::TestParamInfo<PackHeads::ParamType>& info) {
  const auto& [sizes, width, storage, type] = info.param;
  return cat("heads", sizes[0], "_dim", sizes[1], "_w", width, "_", name_of(storage), "_", name_of(type));
}
using Sizes = std::array<int64_t, 2>;  // heads, head_dim
INSTANTIATE_TEST_SUITE_P(PackHeads, PackHeads, testing::Combine(testing::Values(Sizes{1, 2}, Sizes{3, 6}, Sizes{8, 10}), testing::ValuesIn(std::set{4, widths().back()}), testing::ValuesIn(kStorages), testing::Values(DType::kF32, DType::kF16)), name_of_case);

}  // namespace
}  // namespace tessera::ops_test
