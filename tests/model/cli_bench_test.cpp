// tessera-bench as a person or a script meets it: exit codes, what goes to which stream, and what its rows hold.
#include <nlohmann/json.hpp>

#include "../unit/offline_compile.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

const std::string kBench = std::string(TESSERA_BIN_DIR) + "/tessera-bench";
std::string tiny() { return data_path("conform/models/llama-tied-gqa3.Q4_1.gguf"); }

struct BadUse {
  const char* name;
  std::string arguments;
  int exit_code;
  const char* said;
};
class CliBenchBadUse : public testing::TestWithParam<BadUse> {};

TEST_P(CliBenchBadUse, SaysWhatIsWrongAndExitsWithItsCode) {
  const ToolRun run = run_tool(kBench + " " + GetParam().arguments);
  EXPECT_EQ(run.exit_code, GetParam().exit_code) << run.output;
  EXPECT_NE(run.output.find(GetParam().said), std::string::npos) << run.output;
}

INSTANTIATE_TEST_SUITE_P(CliBench, CliBenchBadUse, testing::ValuesIn(std::vector<BadUse>{
    {"no_model", "", 2, "--model is required"},
    {"missing_model", "-m /nonexistent/m.gguf", 1, "/nonexistent/m.gguf: no such file"},
    {"not_a_model", "-m " + kBench, 1, "GGUF"},
    {"unknown_output", "-m " + tiny() + " -o xml", 2, "xml not in"},
    {"half_a_pair", "-m " + tiny() + " -pg 512", 2, "'512' is no PP,TG like 512,128"},
    {"no_tests", "-m " + tiny() + " -p 0 -n 0", 2, "every -p and -n is 0"},
    {"longer_than_trained", "-m " + tiny() + " -p 8 -d 1000000", 1, "needs a context of 1000009 tokens"},
    {"no_repetitions", "-m " + tiny() + " -r 0", 2, "-r"},
    {"no_such_device", "-m " + tiny() + " --device 'GPU 9000'", 1, "GPU 9000"},
    {"unknown_storage", "-m " + tiny() + " --weights-in drawer", 2, "no storage named 'drawer'"},
    {"tune_no_model", "tune", 2, "--model is required"},
    {"tune_no_time", "tune -m " + tiny() + " --budget soon", 2, "'soon' is no time like 90s or 5m"},
    {"tune_into_another_file", "tune -m " + tiny() + " -o " + tiny(), 1, "tuned rows"},
    {"unknown_kv", "-m " + tiny() + " --kv int4", 2, "int4"},
}), [](const auto& test) { return std::string(test.param.name); });

TEST(CliBench, HelpNamesTheFlagsOfLlamaBenchAndNoHiddenCommand) {
  const ToolRun help = run_tool(kBench + " --help");
  EXPECT_EQ(help.exit_code, 0);
  for (const char* flag : {"-m,", "-p,", "-n,", "-pg", "-d,", "-r,", "-o,"}) EXPECT_NE(help.output.find(flag), std::string::npos) << flag << " in " << help.output;
  EXPECT_EQ(help.output.find("first-token"), std::string::npos);
}

// One run that all of the numbers' properties are looked at in: it costs seconds.
TEST(CliBench, JsonHasTheKeysOfLlamaBenchAndOurs) {
  TESSERA_NEEDS_DEVICE(shared_device());
  // Weights of halves: rounding x to bytes moves 3 of 32 choices of a random model, whose logits lie close, and 3 is all that the self-check allows.
  const std::string model = data_path("conform/models/llama-tied-gqa3.F16.gguf");
  const ToolRun run = run_tool("(" + kBench + " -m " + model + " -p 8 -n 16 -pg 4,8 -d 0,16 -r 3 --starts 0 -q -o json)");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const nlohmann::json rows = nlohmann::json::parse(run.output, nullptr, false);
  ASSERT_TRUE(rows.is_array()) << run.output;
  std::vector<std::string> tests;
  for (const nlohmann::json& row : rows) {
    tests.push_back(row.at("test"));
    for (const char* key : {"build_commit", "build_number", "cpu_info", "gpu_info", "backends", "model_filename", "model_type", "model_size", "model_n_params", "n_batch", "n_ubatch", "type_k", "type_v",
                            "n_prompt", "n_gen", "n_depth", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "samples_ns", "samples_ts"})
      EXPECT_TRUE(row.contains(key)) << key;
    ASSERT_EQ(row.at("samples_ns").size(), 3u);
    EXPECT_GE(row.at("median_ts"), row.at("min_ts"));
    EXPECT_GE(row.at("max_ts"), row.at("median_ts"));
    const double tokens = row.at("n_prompt").get<double>() + row.at("n_gen").get<double>();
    EXPECT_NEAR(row.at("samples_ts")[0].get<double>(), 1e9 * tokens / row.at("samples_ns")[0].get<double>(), row.at("samples_ts")[0].get<double>() * 1e-3);
    EXPECT_GT(row.at("dispatches_per_token"), 0);
    EXPECT_GT(row.at("read_gb_s"), 0);
    EXPECT_GT(row.at("peak_host_bytes"), 1 << 20);
    EXPECT_EQ(row.at("peak_device_bytes"), row.at("planned_device_bytes"));
    EXPECT_EQ(row.at("check"), "passed");
    EXPECT_EQ(row.at("same_ids"), true);
    EXPECT_TRUE(row.at("ttft_cold_ms").is_null());
    // Of decode alone there is a roofline.
    const bool decode = row.at("n_prompt") == 0;
    EXPECT_EQ(row.at("roofline_percent").is_number(), decode);
    EXPECT_EQ(row.at("itl_p95_ms").is_number(), row.at("n_gen") != 0);
    if (!decode) continue;
    EXPECT_DOUBLE_EQ(row.at("submissions_per_token"), 1.0 / 8) << "eight tokens a submission";
    EXPECT_GE(row.at("bytes_per_token"), row.at("bytes_per_token_once"));
    EXPECT_GE(row.at("bytes_per_token_once"), row.at("model_size")) << "every weight is read, and the KV cache";
    EXPECT_GE(row.at("itl_p95_ms"), row.at("itl_p50_ms"));
  }
  EXPECT_EQ(tests, (std::vector<std::string>{"pp8", "tg16", "pp4+tg8", "pp8 @ d16", "tg16 @ d16", "pp4+tg8 @ d16"}));
}

// Search, file, and what later starts say of it; how much is found in the time is not looked at.
TEST(CliBench, TuneKeepsRowsThatPlansName) {
  TESSERA_NEEDS_DEVICE(shared_device());
  const TemporaryFolder folder;
  const std::string rows = folder.file("rows.json"), facts = folder.file("device.json");
  const ToolRun run = run_tool("(" + kBench + " tune -m " + tiny() + " -o " + rows + " --budget 3s --shapes-only -r 1)");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  EXPECT_NE(run.output.find("| op | of its step | shipped | tuned | gain | row |"), std::string::npos) << run.output;
  EXPECT_NE(run.output.find("rows in " + rows), std::string::npos) << run.output;
  EXPECT_EQ(nlohmann::json::parse(read_bytes(rows), nullptr, false).value("format", 0), 1);
  const std::string eval = std::string(TESSERA_BIN_DIR) + "/tessera-eval";
  ASSERT_EQ(run_tool(eval + " device --out " + facts).exit_code, 0);
  const std::string plan = eval + " plan --profile " + facts + " --model " + tiny();
  const ToolRun tuned = run_tool("(TESSERA_TUNING=" + rows + " " + plan + ")"), shipped = run_tool("(TESSERA_TUNING=off " + plan + ")");
  EXPECT_EQ(tuned.exit_code, 0) << tuned.output;
  EXPECT_NE(tuned.output.find("rows measured on the device, from " + rows), std::string::npos) << tuned.output;
  EXPECT_EQ(shipped.output.find("rows measured on the device"), std::string::npos);
  const ToolRun missing = run_tool("(TESSERA_TUNING=/nonexistent/rows.json " + plan + ")");
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_NE(missing.output.find("/nonexistent/rows.json: no such file"), std::string::npos) << missing.output;
}

TEST(CliBench, TablesHaveOneRowATest) {
  TESSERA_NEEDS_DEVICE(shared_device());
  const std::string command = kBench + " -m " + tiny() + " -p 4 -n 4 -r 1 --starts 0 --no-check -q -o ";
  const auto lines_of = [&](const std::string& format) {
    const ToolRun run = run_tool("(" + command + format + ")");
    EXPECT_EQ(run.exit_code, 0) << run.output;
    std::vector<std::string> lines;
    std::istringstream text(run.output);
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  };
  const auto csv = lines_of("csv"), md = lines_of("md");
  ASSERT_EQ(csv.size(), 3u);
  EXPECT_TRUE(csv[0].starts_with("build_commit,build_number,"));
  ASSERT_GT(md.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(std::count(md[i].begin(), md[i].end(), '|'), 13) << md[i];
}

}  // namespace
}  // namespace tessera::test
