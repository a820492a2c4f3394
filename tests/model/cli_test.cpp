// The programs as a person or a script meets them: exit codes, what goes to which stream, a conversation in a real terminal.
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

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
      {"temperature_nan", kChat + " " + model + " -p x --temp nan", 2, "temperature"},
      {"context_too_large", kChat + " " + model + " -p x -c 99999999", 2, "context of 99999999 tokens"},
      {"unknown_storage", kChat + " " + model + " -p x --weights-in drawer", 2, "drawer"},
      {"unknown_template", kChat + " " + model + " -p x --chat-template nope", 1, "nope"},
      {"not_a_model", kChat + " " + kChat + " -p x", 1, "GGUF"},
      {"eval_without_command", kEval, 2, "subcommand"},
      {"ids_that_are_none", kEval + " logits --model " + model + " --tokens 1,two", 2, "two"},
      {"id_outside_the_vocabulary", kEval + " logits --model " + model + " --tokens 999999", 2, "999999"},
      {"zero_greedy", kEval + " greedy --model " + model + " --tokens 1 --n 0", 2, "--n is 0"},
      {"unwritable_output", kEval + " logits --model " + model + " --tokens 1 --out /nonexistent/x", 1, "/nonexistent/x"},
      {"full_disk", kEval + " logits --model " + model + " --tokens 1 --out /dev/full", 1, "/dev/full"},
      {"bad_jsonl", "echo nonsense >/tmp/tessera_bad.jsonl; " + kEval + " tokenize --model " + model + " --jsonl /tmp/tessera_bad.jsonl", 1, ":1:"},
  };
}

INSTANTIATE_TEST_SUITE_P(Cli, BadUseTest, testing::ValuesIn(bad_uses()), [](const auto& test) { return std::string(test.param.name); });

TEST(Cli, HelpAndVersionExitWithZero) {
  EXPECT_EQ(run_tool(kChat + " --help").exit_code, 0);
  EXPECT_EQ(run_tool(kEval + " --help").exit_code, 0);
  EXPECT_NE(run_tool(kChat + " --version").output.find(kVersion), std::string::npos);
}

TEST(Cli, OneAnswerGoesToStandardOutputAloneAndStatusToStandardError) {
  if (!Device::open("auto")) GTEST_SKIP() << "no OpenCL device";
  const ToolRun quiet = run_tool("(echo hello | " + kChat + " " + tiny() + " -n 8 2>/dev/null)");
  EXPECT_EQ(quiet.exit_code, 0);
  EXPECT_FALSE(quiet.output.empty());
  const ToolRun same = run_tool("(echo hello | " + kChat + " " + tiny() + " - -n 8 -q)");
  EXPECT_EQ(same.output, quiet.output);
  EXPECT_NE(run_tool("(echo hello | " + kChat + " " + tiny() + " -n 8 2>&1 >/dev/null)").output.find("tok/s"), std::string::npos);
}

TEST(Cli, ReadersThatLeaveEndTheProgramCleanly) {
  if (!Device::open("auto")) GTEST_SKIP() << "no OpenCL device";
  const ToolRun run = run_tool("((" + kChat + " " + tiny() + " -p hello -n 100 -q; echo code $? >&2) | head -c 1 >/dev/null)");
  EXPECT_NE(run.output.find("code"), std::string::npos) << run.output;   // an exit code, not a signal
}

TEST(Cli, EvalTokenizesAndBack) {
  const ToolRun ids = run_tool("printf 'hello world' | " + kEval + " tokenize --model " + tiny());
  ASSERT_EQ(ids.exit_code, 0) << ids.output;
  const ToolRun text = run_tool(kEval + " detokenize --model " + tiny() + " --tokens " + ids.output.substr(0, ids.output.size() - 1));
  EXPECT_EQ(text.output, "hello world");
}

// A program on a pseudo-terminal: type() sends keys, wait_for() collects what it shows.
class Terminal {
 public:
  explicit Terminal(const std::vector<std::string>& command) {
    pid_ = forkpty(&fd_, nullptr, nullptr, nullptr);
    if (pid_ != 0) return;
    setenv("TERM", "xterm", 1);
    std::vector<char*> argv;
    for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~Terminal() {
    if (pid_ > 0) kill(pid_, SIGKILL), waitpid(pid_, nullptr, 0);
    close(fd_);
  }
  void type(const std::string& keys) const { ASSERT_EQ(write(fd_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size())); }
  // Until `text` was shown since the last wait. A minute without output is a guard against hanging, not a measure.
  bool wait_for(const std::string& text) {
    for (;;) {
      if (const size_t at = shown_.find(text); at != std::string::npos) {
        shown_.erase(0, at + text.size());
        return true;
      }
      pollfd ready{fd_, POLLIN, 0};
      if (poll(&ready, 1, 60000) != 1) return false;
      char part[4096];
      const ssize_t got = read(fd_, part, sizeof part);
      if (got <= 0) return false;
      shown_.append(part, static_cast<size_t>(got));
    }
  }
  int exit_code() {
    int status = 0;
    char part[4096];
    pollfd ready{fd_, POLLIN, 0};
    while (poll(&ready, 1, 60000) == 1 && read(fd_, part, sizeof part) > 0) {
    }
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  const std::string& shown() const { return shown_; }

 private:
  int fd_ = -1;
  pid_t pid_ = -1;
  std::string shown_;
};

TEST(Cli, AConversationInATerminal) {
  if (!Device::open("auto")) GTEST_SKIP() << "no OpenCL device";
  Terminal terminal({kChat, tiny(), "-n", "8"});
  ASSERT_TRUE(terminal.wait_for("> ")) << terminal.shown();
  terminal.type("/help\n");
  ASSERT_TRUE(terminal.wait_for("/clear")) << terminal.shown();
  terminal.type("/nonsense\n");
  ASSERT_TRUE(terminal.wait_for("unknown command /nonsense")) << terminal.shown();
  terminal.type("hello\n");
  ASSERT_TRUE(terminal.wait_for("tok/s")) << terminal.shown();
  terminal.type("/stats\n");
  ASSERT_TRUE(terminal.wait_for("of 1024 tokens")) << terminal.shown();
  ASSERT_TRUE(terminal.wait_for("> ")) << terminal.shown();
  terminal.type("\x03");   // Ctrl-C at the prompt: told how to leave, not thrown out
  ASSERT_TRUE(terminal.wait_for("again or /exit")) << terminal.shown();
  terminal.type("/exit\n");
  EXPECT_EQ(terminal.exit_code(), 0);
}

TEST(Cli, CtrlCEndsTheAnswerAndNotTheProgram) {
  if (!Device::open("auto")) GTEST_SKIP() << "no OpenCL device";
  if (real_model().empty()) GTEST_SKIP() << "the real model could not be had: set TESSERA_TEST_MODEL";
  Terminal terminal({kChat, real_model(), "-c", "2048", "-n", "2000"});
  ASSERT_TRUE(terminal.wait_for("> ")) << terminal.shown();
  terminal.type("Count from one to one thousand.\n");
  ASSERT_TRUE(terminal.wait_for("1"));
  terminal.type("\x03");
  ASSERT_TRUE(terminal.wait_for("cancelled")) << terminal.shown();
  terminal.type("\x04");   // Ctrl-D at the prompt leaves
  EXPECT_EQ(terminal.exit_code(), 0);
}

}  // namespace
}  // namespace tessera::test
