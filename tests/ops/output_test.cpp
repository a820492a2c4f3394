// take_row: the row that is asked for, and nothing else.
#include "tessera/ops/output.hpp"

#include "op_harness.hpp"

namespace tessera::ops_test {
namespace {

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

class TakeRow : public OpTest, public testing::WithParamInterface<OutputCase> {};
TEST_P(TakeRow, CopiesOneRow) {
  const OutputCase& c = GetParam();
  Random random(4);
  const Matrix x = c.tuning.stored(random.matrix(8, c.channels));
  OpRunner run(device(), c.tuning);
  run.output(ops::take_row(run.g, run.g.activation("x", 8, c.channels), run.rows()));
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
