// The chat in a terminal that somebody else wrote: tmux types, resizes the window, and tells what is on the screen.
#include <unistd.h>

#include <chrono>
#include <thread>

#include "../unit/offline_compile.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// A tmux server of our own with one window.
class Tmux {
 public:
  explicit Tmux(const std::string& command) : tmux_("env -u TMUX tmux -f /dev/null -S " + quoted(folder_.file("socket")) + " ") {
    const ToolRun run = run_tool(tmux_ + "new-session -d -x 90 -y 30 " + quoted(command + "; echo exit code $?; exec sleep 600"));
    EXPECT_EQ(run.exit_code, 0) << run.output;
  }
  ~Tmux() { run_tool(tmux_ + "kill-server"); }

  void type(const std::string& text) const { EXPECT_EQ(run_tool(tmux_ + "send-keys -l " + quoted(text)).exit_code, 0); }
  void key(const std::string& name) const { EXPECT_EQ(run_tool(tmux_ + "send-keys " + name).exit_code, 0); }
  void enter(const std::string& text) const {
    type(text);
    key("Enter");
  }
  void resize(int columns, int rows) const { EXPECT_EQ(run_tool(cat(tmux_, "resize-window -x ", columns, " -y ", rows)).exit_code, 0); }
  std::string screen() const { return run_tool(tmux_ + "capture-pane -p").output; }
  // Until `text` is on the screen. A minute in which nothing changes there is a guard against hanging, not a measure.
  bool sees(const std::string& text) const { return sees_that([&](const std::string& screen) { return screen.find(text) != std::string::npos; }); }
  // Until the last line that is not empty is `line`: with "> " the chat waits for input.
  bool waits_at(const std::string& line) const {
    return sees_that([&](std::string screen) {
      while (!screen.empty() && (screen.back() == '\n' || screen.back() == ' ')) screen.pop_back();
      return screen.substr(screen.rfind('\n') + 1) == line;
    });
  }

 private:
  template <class Test>
  bool sees_that(Test test) const {
    std::string seen;
    for (int unchanged = 0; unchanged < 600; ++unchanged) {
      const std::string now = screen();
      if (test(now)) return true;
      if (now != seen) unchanged = 0;
      seen = now;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return false;
  }
  TemporaryFolder folder_;
  std::string tmux_;
};

class CliTmux : public testing::Test {
 protected:
  void SetUp() override {
    if (run_tool("command -v tmux").exit_code != 0) GTEST_SKIP() << "tmux is not installed";
    TESSERA_NEEDS_DEVICE(shared_device());
  }
  const std::string& state() const { return folder_.path(); }
  std::string chat(const std::string& arguments) const {
    return "XDG_STATE_HOME=" + quoted(state()) + " TESSERA_HISTORY= " + quoted(std::string(TESSERA_BIN_DIR) + "/tessera-chat") + " " + arguments;
  }
  TemporaryFolder folder_;
};

#define SEES(tmux, text) ASSERT_TRUE((tmux).sees(text)) << (tmux).screen()
#define WAITS(tmux) ASSERT_TRUE((tmux).waits_at(">")) << (tmux).screen()

TEST_F(CliTmux, TypeSeeResizeRecallSaveLoadUndoRegenerate) {
  const std::string file = state() + "/talk.json";
  Tmux tmux(chat(quoted(data_path("conform/models/llama-tied-gqa3.Q4_1.gguf")) + " --max-tokens 4 --temp 0.9 --seed 5"));
  WAITS(tmux);
  tmux.enter("helo");
  SEES(tmux, "4 tok ");
  WAITS(tmux);
  tmux.enter("/undo");
  SEES(tmux, "taken back: helo");
  tmux.key("Up");   // past /undo to the question
  tmux.key("Up");
  tmux.key("Left");
  tmux.type("l");
  SEES(tmux, "> hello");
  tmux.key("Enter");
  WAITS(tmux);
  tmux.enter("/regen");
  WAITS(tmux);
  tmux.enter("/save " + file);
  SEES(tmux, "saved 2 messages");
  tmux.enter("/clear");
  tmux.enter("/load " + file);
  SEES(tmux, "2 messages, ");
  tmux.enter("/undo");
  SEES(tmux, "taken back: hello");

  // A narrower window: what is said is wrapped at words, and a long line is edited over several rows.
  tmux.key("C-l");
  tmux.resize(40, 30);
  tmux.enter("/help");
  SEES(tmux, "//TEXT");
  WAITS(tmux);
  SEES(tmux, "\n                        replaces another\n");
  tmux.type("abcdefghi abcdefghi abcdefghi abcdefghi abcdefghi");
  ASSERT_TRUE(tmux.waits_at("i abcdefghi")) << tmux.screen();
  tmux.resize(90, 30);
  ASSERT_TRUE(tmux.waits_at("> abcdefghi abcdefghi abcdefghi abcdefghi abcdefghi")) << tmux.screen();
  tmux.key("C-u");
  WAITS(tmux);
  tmux.key("C-c");
  SEES(tmux, "Ctrl-C again or /exit to leave");
  tmux.enter("/exit");
  SEES(tmux, "exit code 0");
}

TEST_F(CliTmux, CtrlCInAnAnswer) {
  if (real_model().empty()) GTEST_SKIP() << "the real model could not be had: set TESSERA_TEST_MODEL";
  Tmux tmux(chat(quoted(real_model()) + " -c 2048 --max-tokens 2000 --logit-bias " + without_end(real_model())));
  WAITS(tmux);
  tmux.key("C-l");   // an empty screen, so that the next words are the answer's
  tmux.enter("Why is it so?");
  SEES(tmux, "the");   // no English answer of 2,000 tokens is without it
  tmux.key("C-c");
  SEES(tmux, "cancelled");
  WAITS(tmux);
  tmux.enter("/tokens");
  SEES(tmux, " messages");   // the program goes on, and knows the answer so far
  tmux.key("C-d");
  SEES(tmux, "exit code 0");
}

}  // namespace
}  // namespace tessera::test
