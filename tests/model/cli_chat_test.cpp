// The chat in a terminal: what is typed, what is seen, what is kept.
#include <sys/stat.h>

#include <filesystem>

#include "../unit/offline_compile.hpp"
#include "model_fixture.hpp"
#include "pty_terminal.hpp"

namespace tessera::test {
namespace {

const std::string kChat = std::string(TESSERA_BIN_DIR) + "/tessera-chat";
constexpr const char* kUp = "\033[A";

std::string tiny() { return data_path("conform/models/llama-tied-gqa3.Q4_1.gguf"); }

class CliChat : public testing::Test {
 protected:
  void SetUp() override {
    TESSERA_NEEDS_DEVICE(shared_device());
  }
  std::string path(const std::string& name) const { return folder_.file(name); }
  TemporaryFolder folder_;
};

// Sends a line and waits for what answers it, then for the next prompt.
#define SAY(terminal, line, answer)                                          \
  do {                                                                       \
    (terminal).type(std::string(line) + "\n");                               \
    ASSERT_TRUE((terminal).wait_for(answer)) << (terminal).shown();          \
    ASSERT_TRUE((terminal).wait_for("> ")) << (terminal).shown();            \
  } while (false)

#define START(terminal) ASSERT_TRUE((terminal).wait_for("> ")) << (terminal).shown()

TEST_F(CliChat, AConversationInATerminal) {
  Terminal terminal({kChat, tiny(), "--max-tokens", "8"});
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

TEST_F(CliChat, CtrlCEndsTheAnswerAndNotTheProgram) {
  if (real_model().empty()) GTEST_SKIP() << "the real model could not be had: set TESSERA_TEST_MODEL";
  Terminal terminal({kChat, real_model(), "-c", "2048", "--max-tokens", "2000", "--logit-bias", without_end(real_model())});
  ASSERT_TRUE(terminal.wait_for("> ")) << terminal.shown();
  terminal.type("Why is the sky blue?\n");
  ASSERT_TRUE(terminal.wait_for("blue?"));
  ASSERT_TRUE(terminal.wait_for("the")) << terminal.shown();   // no English answer of 2,000 tokens is without it
  terminal.type("\x03");
  ASSERT_TRUE(terminal.wait_for("cancelled")) << terminal.shown();
  ASSERT_TRUE(terminal.wait_for("> ")) << terminal.shown();   // typed earlier, the terminal itself would take it
  terminal.type("\x04");   // Ctrl-D at the prompt leaves
  EXPECT_EQ(terminal.exit_code(), 0);
}

TEST_F(CliChat, UndoAndRegenerate) {
  Terminal terminal({kChat, tiny(), "--max-tokens", "4", "--temp", "1", "--seed", "3"});
  START(terminal);
  SAY(terminal, "/undo", "nothing was asked yet");
  SAY(terminal, "/regen", "nothing was asked yet");
  SAY(terminal, "hello", "tok/s");
  SAY(terminal, "/regen", "4 tok ");
  SAY(terminal, "/tokens", "2 messages");
  SAY(terminal, "/undo", "taken back: hello");
  SAY(terminal, "/tokens", "context 0 of 1024 tokens, 0 messages");
  SAY(terminal, "/tokens to be", "tokens: ");
  terminal.type("/exit\n");
  EXPECT_EQ(terminal.exit_code(), 0);
}

TEST_F(CliChat, SettingsAreCheckedAndShown) {
  Terminal terminal({kChat, tiny(), "--max-tokens", "4", "--top-p", "0.9", "--repeat-penalty", "1.1"});
  START(terminal);
  SAY(terminal, "/set", "order: repetition 1.1 over the last 64 → greatest");
  SAY(terminal, "/set temperature 0.5", "order: repetition 1.1 over the last 64 → top-p 0.9 → temperature 0.5 → draw, seed 0");
  SAY(terminal, "/set temperature hot", "no value for temperature");
  SAY(terminal, "/set temperature -1", "temperature is -1; it must be");
  SAY(terminal, "/set temprature 1", "(did you mean temperature?)");
  SAY(terminal, "/set logit_bias 99999999=1", "logit_bias names token 99999999");
  SAY(terminal, "/set logit_bias 5=-inf,6=2", "logit bias of 2");
  SAY(terminal, "/system", "no system message");
  SAY(terminal, "/system be brief", "the system message is set");
  SAY(terminal, "/clear", "forgotten");
  SAY(terminal, "/system", "be brief");
  SAY(terminal, "/stauts", "unknown command /stauts (did you mean /stats?)");
  SAY(terminal, "/load", "/load needs FILE");
  SAY(terminal, "/clear all", "/clear takes no arguments");
  terminal.type("\x04");
  EXPECT_EQ(terminal.exit_code(), 0);
}

TEST_F(CliChat, SaveAndLoadKeepTheConversation) {
  const std::string file = path("talk.json"), bad = folder_.file("bad.json", "{\"format\": \"tessera-chat\", \"version\": 1, \"model\": \"m\", \"messages\": [{\"role\": \"user\"}]}");
  const std::string deep = folder_.file("deep.json", std::string(100000, '['));
  const std::string order = folder_.file("order.json", "{\"format\": \"tessera-chat\", \"version\": 1, \"model\": \"m\", \"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}");
  Terminal terminal({kChat, tiny(), "--max-tokens", "4"});
  START(terminal);
  SAY(terminal, "hello", "tok/s");
  SAY(terminal, "/set temperature 0.8", "temperature 0.8");
  SAY(terminal, "/save " + file, "saved 2 messages");
  SAY(terminal, "/save " + file, "saved 2 messages");   // it is this conversation's own
  SAY(terminal, "/save " + bad, "exists; --force replaces it");
  SAY(terminal, "/save /nonexistent/x", "cannot write /nonexistent/x");
  SAY(terminal, "/load " + bad, "message 0: 'content' must be a text");
  SAY(terminal, "/load " + deep, "JSON nested deeper than 16");
  SAY(terminal, "/load " + order, "message 0 has the role 'assistant'");
  SAY(terminal, "/load /nonexistent", "cannot read /nonexistent");
  SAY(terminal, "/load /tmp", "is a folder");
  SAY(terminal, "/tokens", "2 messages");   // it stayed as it was
  SAY(terminal, "/clear", "forgotten");
  SAY(terminal, "/set temperature 0", "greatest");
  SAY(terminal, "/load " + file, "2 messages");
  SAY(terminal, "/set", "temperature 0.8 ");
  SAY(terminal, "/undo", "taken back: hello");
  terminal.type("/exit\n");
  EXPECT_EQ(terminal.exit_code(), 0);
  const nlohmann::json saved = nlohmann::json::parse(read_bytes(file), nullptr, false);
  EXPECT_EQ(saved["format"], "tessera-chat");
  EXPECT_EQ(saved["messages"][0]["content"], "hello");
  EXPECT_EQ(saved["settings"]["temperature"], 0.8);
  struct stat status {};
  ASSERT_EQ(stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u) << "a conversation is its owner's";
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(file).parent_path()))
    EXPECT_EQ(entry.path().filename().string().find("talk.json."), std::string::npos) << "a temporary file stayed: " << entry.path();
}

TEST_F(CliChat, MessagesOfSeveralLines) {
  const std::string file = path("lines.json");
  Terminal terminal({kChat, tiny(), "--max-tokens", "2"});
  START(terminal);
  terminal.type("\"\"\"one\n");
  ASSERT_TRUE(terminal.wait_for(". ")) << terminal.shown();
  SAY(terminal, "two\"\"\"", "tok/s");
  SAY(terminal, "\033[200~three\rz\u00e4hl\r/four\033[201~", "tok/s");   // what a terminal sends when text is pasted
  SAY(terminal, "//five", "tok/s");
  terminal.type("\"\"\"six\n");
  ASSERT_TRUE(terminal.wait_for(". ")) << terminal.shown();
  terminal.type("\x03");
  ASSERT_TRUE(terminal.wait_for("the message is dropped")) << terminal.shown();
  SAY(terminal, "/file " + folder_.file("question.txt", "seven\n"), "tok/s");
  SAY(terminal, "/save " + file, "saved 8 messages");
  terminal.type("/exit\n");
  EXPECT_EQ(terminal.exit_code(), 0);
  const nlohmann::json saved = nlohmann::json::parse(read_bytes(file), nullptr, false);
  EXPECT_EQ(saved["messages"][0]["content"], "one\ntwo");
  EXPECT_EQ(saved["messages"][2]["content"], "three\nz\u00e4hl\n/four");
  EXPECT_EQ(saved["messages"][4]["content"], "/five");
  EXPECT_EQ(saved["messages"][6]["content"], "seven\n");
}

TEST_F(CliChat, HistoryIsKeptForItsOwnerAlone) {
  const std::string state = path("state"), file = state + "/tessera/history";
  const Terminal::Environment environment = {{"TESSERA_HISTORY", ""}, {"XDG_STATE_HOME", state}};
  {
    Terminal terminal({kChat, tiny(), "--max-tokens", "2"}, environment);
    START(terminal);
    SAY(terminal, "/tokens remember me", "tokens: ");
  }   // killed
  struct stat status {};
  ASSERT_EQ(stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  {
    Terminal terminal({kChat, tiny(), "--max-tokens", "2"}, environment);
    START(terminal);
    terminal.type(kUp);
    ASSERT_TRUE(terminal.wait_for("/tokens remember me")) << terminal.shown();
    terminal.type("\n");
    ASSERT_TRUE(terminal.wait_for("tokens: ")) << terminal.shown();
  }
  std::filesystem::remove_all(state);
  Terminal terminal({kChat, tiny(), "--max-tokens", "2"}, {{"TESSERA_HISTORY", "off"}, {"XDG_STATE_HOME", state}});
  START(terminal);
  SAY(terminal, "/tokens", "messages");
  EXPECT_FALSE(std::filesystem::exists(state));
}

TEST_F(CliChat, TabCompletesCommands) {
  Terminal terminal({kChat, tiny(), "--max-tokens", "2"});
  START(terminal);
  terminal.type("/tok\t");
  ASSERT_TRUE(terminal.wait_for("ens ")) << terminal.shown();
  terminal.type("x\n");
  ASSERT_TRUE(terminal.wait_for("1 token:")) << terminal.shown();
}

TEST_F(CliChat, CtrlCTwiceAtThePromptLeaves) {
  Terminal terminal({kChat, tiny()});
  START(terminal);
  terminal.type("half a line\x03");
  ASSERT_TRUE(terminal.wait_for("again or /exit")) << terminal.shown();
  START(terminal);
  terminal.type("\x03");
  EXPECT_EQ(terminal.exit_code(), 130);
}

TEST_F(CliChat, ColourOnlyWhereItIsWanted) {
  const auto start = [](const Terminal::Environment& environment) {
    Terminal terminal({kChat, tiny()}, environment);
    EXPECT_TRUE(terminal.wait_for("Ctrl-D leaves."));
    return terminal.seen();
  };
  EXPECT_NE(start({}).find("\033[2m"), std::string::npos);
  EXPECT_EQ(start({{"NO_COLOR", "1"}}).find("\033[2m"), std::string::npos);
  EXPECT_EQ(start({{"TERM", "dumb"}}).find("\033["), std::string::npos);
}

// A person's message is answered with control characters: the terminal must not be given them. Token 27 of a byte-level vocabulary need not
// be ESC, so that its id is looked up.
TEST_F(CliChat, AnswersDoNotSteerTheTerminal) {
  const auto tables = read_tokenizer_tables(tiny());
  ASSERT_TRUE(tables);
  const auto tokenizer = Tokenizer::create(*tables);
  ASSERT_TRUE(tokenizer);
  const std::vector<int32_t> escape = tokenizer->encode("\033", false);
  if (escape.size() != 1) GTEST_SKIP() << "this vocabulary has no token ESC";
  const std::string bias = std::to_string(escape[0]) + "=10000";
  EXPECT_EQ(run_tool("(" + kChat + " " + tiny() + " -p x --max-tokens 3 -q --logit-bias " + bias + ")").output, "\033\033\033\n") << "a pipe gets what the model wrote";
  Terminal terminal({kChat, tiny(), "--max-tokens", "3", "--no-color", "--logit-bias", bias});
  START(terminal);
  terminal.type("x\n");
  ASSERT_TRUE(terminal.wait_for("tok/s")) << terminal.shown();
  EXPECT_EQ(terminal.seen().find("\033\033"), std::string::npos);
}

}  // namespace
}  // namespace tessera::test
