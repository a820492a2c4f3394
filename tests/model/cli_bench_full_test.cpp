// A cold start of tessera-bench is cold: nothing compiled is found, by us or by the driver.
#include <nlohmann/json.hpp>

#include "../unit/offline_compile.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

TEST(CliBenchFull, AColdStartCompilesAndAWarmOneDoesNot) {
  TESSERA_NEEDS_DEVICE(shared_device());
  const ToolRun run = run_tool("(" + std::string(TESSERA_BIN_DIR) + "/tessera-bench -m " + data_path("conform/models/llama-tied-gqa3.Q4_1.gguf") + " -p 8 -n 0 -r 1 --starts 1 --no-check -q -o jsonl)");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const nlohmann::json row = nlohmann::json::parse(run.output, nullptr, false);
  ASSERT_TRUE(row.is_object()) << run.output;
  EXPECT_GT(row["ttft_cold_compiled"], 0);
  EXPECT_EQ(row["ttft_cold_loaded"], 0);
  EXPECT_EQ(row["ttft_warm_compiled"], 0);
  EXPECT_EQ(row["ttft_warm_loaded"], row["ttft_cold_compiled"]);
  EXPECT_GT(row["ttft_warm_ms"], 0);
  EXPECT_EQ(row["ttft_cold_samples_ms"].size(), 1u);
}

}  // namespace
}  // namespace tessera::test
