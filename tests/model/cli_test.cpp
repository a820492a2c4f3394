// The programs as a person or a script meets them: exit codes, what goes to which stream, models by name, JSON.
#include <cstdio>
#include <filesystem>

#include "../unit/gguf_builder.hpp"
#include "../unit/offline_compile.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

const std::string kChat = std::string(TESSERA_BIN_DIR) + "/tessera-chat", kEval = std::string(TESSERA_BIN_DIR) + "/tessera-eval";

std::string tiny() { return data_path("conform/models/llama-tied-gqa3.Q4_1.gguf"); }

struct BadUse {
  const char* name;
  std::string command;
  int exit_code;
  const char* said;
};

class BadUseTest : public testing::TestWithParam<BadUse> {};

TEST_P(BadUseTest, SaysWhatIsWrongAndExitsWithItsCode) {
  const ToolRun run = run_tool(GetParam().command + " </dev/null");
  EXPECT_EQ(run.exit_code, GetParam().exit_code) << run.output;
  EXPECT_NE(run.output.find(GetParam().said), std::string::npos) << run.output;
}

std::vector<BadUse> bad_uses() {
  const std::string model = tiny();
  return {
      {"no_model", kChat, 2, "model is required"},
      {"unknown_option", kChat + " " + model + " --frobnicate", 2, "--frobnicate"},
      {"missing_file", kChat + " /nonexistent/m.gguf -p x", 1, "/nonexistent/m.gguf"},
      {"a_directory", kChat + " /tmp -p x", 1, "/tmp"},
      {"no_such_device", kChat + " " + model + " -p x --device 'GPU 9000'", 1, "GPU 9000"},
      {"empty_prompt", kChat + " " + model + " -p ''", 2, "the prompt is empty"},
      {"empty_input", kChat + " " + model, 2, "the prompt is empty"},
      {"negative_temperature", kChat + " " + model + " -p x --temp -1", 2, "temperature"},
      {"top_p_nan", kChat + " " + model + " -p x --temp 1 --top-p nan", 2, "top_p"},
      {"bias_without_value", kChat + " " + model + " -p x --logit-bias 5", 2, "logit_bias"},
      {"bias_of_no_token", kChat + " " + model + " -p x --logit-bias 999999=1", 2, "999999"},
      {"seed_too_large", kChat + " " + model + " -p x --seed 18446744073709551616", 2, "seed"},
      {"json_without_a_prompt", kChat + " " + model + " --json", 2, "the prompt is empty"},
      {"quiet_and_verbose", kChat + " " + model + " -p x -q -v", 2, "--quiet"},
      {"a_folder_as_prompt", kChat + " " + model + " -f /tmp", 2, "is a folder"},
      {"temperature_nan", kChat + " " + model + " -p x --temp nan", 2, "temperature"},
      {"context_too_large", kChat + " " + model + " -p x -c 99999999", 2, "context of 99999999 tokens"},
      {"kv_in_no_such_type", kChat + " " + model + " -p x --kv int4", 2, "int4"},
      {"kv_of_less_than_a_page", kChat + " " + model + " -p x --kv-bytes 1K", 1, "a KV cache of 1.0 KiB: one page of 16 tokens takes"},
      {"kv_bytes_too_many", kChat + " " + model + " -p x --kv-bytes 99999999999G", 2, "--kv-bytes"},
      {"page_of_24_tokens", kChat + " " + model + " -p x --page-tokens 24", 2, "KV pages of 24 tokens"},
      {"unknown_storage", kChat + " " + model + " -p x --weights-in drawer", 2, "drawer"},
      {"unknown_template", kChat + " " + model + " -p x --chat-template nope", 1, "nope"},
      {"not_a_model", kChat + " " + kChat + " -p x", 1, "GGUF"},
      {"eval_without_command", kEval, 2, "subcommand"},
      {"ids_that_are_none", kEval + " logits --model " + model + " --tokens 1,two", 2, "two"},
      {"id_outside_the_vocabulary", kEval + " logits --model " + model + " --tokens 999999", 2, "999999"},
      {"zero_greedy", kEval + " greedy --model " + model + " --tokens 1 --n 0", 2, "--n is 0"},
      {"unwritable_output", kEval + " logits --model " + model + " --tokens 1 --out /nonexistent/x", 1, "/nonexistent/x"},
      {"full_disk", kEval + " logits --model " + model + " --tokens 1 --out /dev/full", 1, "/dev/full"},
      {"bad_jsonl", kEval + " tokenize --model " + model + " --jsonl " TESSERA_SOURCE_DIR "/LICENSE", 1, ":1:"},
  };
}

INSTANTIATE_TEST_SUITE_P(Cli, BadUseTest, testing::ValuesIn(bad_uses()), [](const auto& test) { return std::string(test.param.name); });

TEST(Cli, HelpAndVersionExitWithZero) {
  EXPECT_EQ(run_tool(kChat + " --help").exit_code, 0);
  EXPECT_EQ(run_tool(kEval + " --help").exit_code, 0);
  EXPECT_NE(run_tool(kChat + " --version").output.find(kVersion), std::string::npos);
}

TEST(Cli, OneAnswerGoesToStandardOutputAloneAndStatusToStandardError) {
  TESSERA_NEEDS_DEVICE(shared_device());
  const ToolRun quiet = run_tool("(echo hello | " + kChat + " " + tiny() + " --max-tokens 8 2>/dev/null)");
  EXPECT_EQ(quiet.exit_code, 0);
  EXPECT_FALSE(quiet.output.empty());
  const ToolRun same = run_tool("(echo hello | " + kChat + " " + tiny() + " - --max-tokens 8 -q)");
  EXPECT_EQ(same.output, quiet.output);
  EXPECT_NE(run_tool("(echo hello | " + kChat + " " + tiny() + " --max-tokens 8 2>&1 >/dev/null)").output.find("tok/s"), std::string::npos);
}

TEST(Cli, SeveralAnswersToOnePrompt) {
  TESSERA_NEEDS_DEVICE(shared_device());
  const std::string options = " -p hello --max-tokens 6 --temp 1.5 --seed 4 -q";
  const ToolRun three = run_tool("(" + kChat + " " + tiny() + options + " -n 3 --json 2>/dev/null)");
  EXPECT_EQ(three.exit_code, 0);
  std::istringstream lines(three.output);
  std::string line, shown;
  int count = 0;
  for (; std::getline(lines, line); ++count) {
    const nlohmann::json answer = nlohmann::json::parse(line, nullptr, false);
    ASSERT_TRUE(answer.is_object()) << line;
    EXPECT_EQ(answer["prompt_tokens"], 1) << "the prompt is run once, before all of them";
    shown += (count == 0 ? "--- 1 of 3 ---\n" : "\n--- " + std::to_string(count + 1) + " of 3 ---\n") + answer["text"].get<std::string>();
  }
  EXPECT_EQ(count, 3);
  EXPECT_EQ(run_tool("(" + kChat + " " + tiny() + options + " -n 3)").output, shown + "\n");
  const ToolRun greedy = run_tool("(" + kChat + " " + tiny() + " -p hello -n 2 -q 2>&1)");
  EXPECT_EQ(greedy.exit_code, 2);
  EXPECT_NE(greedy.output.find("temperature"), std::string::npos) << greedy.output;
  EXPECT_EQ(run_tool(kChat + " " + tiny() + " -p hello -n 0").exit_code, 2);
}

TEST(Cli, JsonIsOneObjectAloneOnStandardOutput) {
  TESSERA_NEEDS_DEVICE(shared_device());
  const std::string options = " -p hello --max-tokens 8 --temp 0.9 --top-p 0.95 --logit-bias 5=-1 --logit-bias 6=-inf --seed 18446744073709551615";
  const ToolRun run = run_tool("(" + kChat + " " + tiny() + options + " --json 2>/dev/null)");
  EXPECT_EQ(run.exit_code, 0);
  const nlohmann::json result = nlohmann::json::parse(run.output, nullptr, false);
  ASSERT_TRUE(result.is_object()) << run.output;
  EXPECT_EQ(result["text"].get<std::string>() + "\n", run_tool("(" + kChat + " " + tiny() + options + " -q)").output);
  EXPECT_EQ(result["tokens"], 8);
  EXPECT_EQ(result["stop_reason"], "max tokens");
  EXPECT_EQ(result["settings"]["temperature"], 0.9);
  EXPECT_EQ(result["settings"]["logit_bias"], "5=-1,6=-inf");
  EXPECT_EQ(result["settings"]["seed"], UINT64_MAX);
  const ToolRun failed = run_tool("(" + kChat + " /nonexistent.gguf -p x --json 2>/dev/null)");
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_EQ(nlohmann::json::parse(failed.output, nullptr, false)["error"]["code"], "not found") << failed.output;
}

// The conform models under other names, in a folder that $TESSERA_MODELS names.
TEST(Cli, ModelsAreListedAndFoundByName) {
  TESSERA_NEEDS_DEVICE(shared_device());
  const TemporaryFolder folder;
  std::filesystem::copy_file(tiny(), folder.file("Tiny-A.Q4_1.gguf"));
  std::filesystem::copy_file(tiny(), folder.file("Tiny-B.Q4_1.gguf"));
  folder.file("broken.gguf", "GGUF, but not quite");
  const std::string chat = "cd / && HOME=" + folder.path() + " TESSERA_MODELS=" + folder.path() + " TESSERA_CACHE=off " + kChat;
  const ToolRun list = run_tool(chat + " --list");
  EXPECT_EQ(list.exit_code, 0);
  EXPECT_NE(list.output.find("Tiny-A.Q4_1  llama  0.34M   Q4_1   226.1 KiB  yes"), std::string::npos) << list.output;
  EXPECT_NE(list.output.find("broken       -      -       -      19 B       no: "), std::string::npos) << list.output;
  EXPECT_EQ(run_tool(chat + " tiny-a -p x --max-tokens 1").exit_code, 0);
  EXPECT_EQ(run_tool(chat + " Tiny-B.Q4_1.gguf -p x --max-tokens 1").exit_code, 0);
  const ToolRun several = run_tool(chat + " tiny -p x");
  EXPECT_EQ(several.exit_code, 2);
  EXPECT_NE(several.output.find("several models begin with 'tiny'"), std::string::npos) << several.output;
  const ToolRun miss = run_tool(chat + " tinny-b.q4_1 -p x");
  EXPECT_EQ(miss.exit_code, 1);
  EXPECT_NE(miss.output.find("The nearest names:\n  Tiny-B.Q4_1\n"), std::string::npos) << miss.output;
}

TEST(Cli, ReadersThatLeaveEndTheProgramCleanly) {
  TESSERA_NEEDS_DEVICE(shared_device());
  const ToolRun run = run_tool("((" + kChat + " " + tiny() + " -p hello --max-tokens 100 -q; echo code $? >&2) | head -c 1 >/dev/null)");
  EXPECT_NE(run.output.find("code"), std::string::npos) << run.output;   // an exit code, not a signal
}

TEST(Cli, EvalChecksEveryWeight) {
  const ToolRun sound = run_tool(kEval + " check --model " + tiny());
  EXPECT_EQ(sound.exit_code, 0) << sound.output;
  EXPECT_NE(sound.output.find("every weight is a finite number"), std::string::npos) << sound.output;
  GgufBuilder file = tiny_llama({.type = WeightType::kF32});
  file.tensor_named("token_embd.weight").data.replace(0, 4, std::string("\0\0\xc0\x7f", 4));   // NaN
  const TemporaryFolder folder;
  const ToolRun damaged = run_tool(kEval + " check --model " + folder.file("nan.gguf", file.bytes()));
  EXPECT_EQ(damaged.exit_code, 1);
  EXPECT_NE(damaged.output.find("tensor 'token_embd.weight' has NaN or infinity in row 0, column 0"), std::string::npos) << damaged.output;
}

TEST(Cli, EvalTokenizesAndBack) {
  const ToolRun ids = run_tool("printf 'hello world' | " + kEval + " tokenize --model " + tiny());
  ASSERT_EQ(ids.exit_code, 0) << ids.output;
  const ToolRun text = run_tool(kEval + " detokenize --model " + tiny() + " --tokens " + ids.output.substr(0, ids.output.size() - 1));
  EXPECT_EQ(text.output, "hello world");
}

}  // namespace
}  // namespace tessera::test
