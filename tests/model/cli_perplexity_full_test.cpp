// Default mode against float mode on a text of more than 2,000 tokens: f16 KV pages, and those of bytes, may move the perplexity by at most 0.5 %.
#include "../unit/offline_compile.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

// NaN when the program fails; its output is then part of the failure.
double perplexity(const std::string& options) {
  const ToolRun run = run_tool(std::string(TESSERA_BIN_DIR) + "/tessera-eval perplexity -q --context 512 --stride 256 " + options + " --model " + real_model() + " --file " + TESSERA_SOURCE_DIR + "/LICENSE");
  double value = NAN;
  unsigned long long tokens = 0;
  EXPECT_EQ(std::sscanf(run.output.c_str(), "perplexity %lf mean_nll %*f tokens %llu", &value, &tokens), 2) << run.output;
  EXPECT_GE(tokens, 2000u);
  return value;
}

TEST(Perplexity, FewerBitsStayWithinHalfAPercentOfFloatMode) {
  if (real_model().empty()) GTEST_SKIP() << "the real model could not be had: set TESSERA_TEST_MODEL";
  TESSERA_NEEDS_DEVICE(shared_device());
  const double exact = perplexity("--precision float");
  for (const char* options : {"--precision default", "--precision float --kv int8"}) {
    const double fast = perplexity(options);
    EXPECT_NEAR(fast / exact, 1.0, 0.005) << options << ": " << fast << " against " << exact;
    EXPECT_NE(fast, exact);   // the modes do differ
  }
}

}  // namespace
}  // namespace tessera::test
