// Conversations that outgrow a model's sliding window, or the context behind attention sinks: what is let go is run again where it is needed, and nothing else
// is noticed. Answers are compared with those of sessions that never had to.
#include <stdexcept>

#include "../unit/gguf_builder.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

constexpr uint32_t kWindow = 40;

// In float: a chunk cut elsewhere rounds otherwise, and what is drawn must not depend on it.
Model load(int context, uint32_t window) {
  const TemporaryFolder folder;
  GgufBuilder file = tiny_llama({.shape = {.context = context}});
  file.set("llama.attention.sliding_window", window);
  auto loaded = Model::load(folder.file("model.gguf", file.bytes()), *shared_device(), {.precision = Precision::kFloat});
  EXPECT_TRUE(loaded) << loaded.error().message();
  loaded->set_chat_template(*ChatTemplate::named("chatml"));
  return std::move(*loaded);
}

// Tokens that see 40, in a pool of the default size: a window and a chunk.
const Model& window_model() {
  static const Model model = load(1024, kWindow);
  return model;
}
const Model& small_model() {
  static const Model model = load(256, 0);
  return model;
}

GenerateOptions of_tokens(const Model& model, int32_t count, int32_t sinks = 0) {
  GenerateOptions options{.max_tokens = count, .sampler = {.temperature = 0.8f, .seed = 3}, .sinks = sinks};
  options.sampler.logit_bias = never_ending(model);
  return options;
}

const std::string kLong(150, 'l');   // more tokens than there is room for beside the window

using Turns = std::vector<std::pair<std::string, GenerateOptions>>;

// The last answer of a conversation of which nothing is taken back.
std::string straight(const Model& model, const Turns& turns) {
  Session session(model);
  std::string text;
  for (const auto& [question, options] : turns) {
    const auto reply = session.reply(question, options);
    EXPECT_TRUE(reply) << reply.error().message();
    text = reply ? reply->text : "";
  }
  return text;
}

class Rolling : public testing::Test {
 protected:
  void SetUp() override { TESSERA_NEEDS_DEVICE(shared_device()); }
};

TEST_F(Rolling, AConversationGoesOnPastTheWindowTurnAfterTurn) {
  const Model& model = window_model();
  PagedCache& cache = model.runtime()->cache();
  ASSERT_EQ(cache.pool().total_pages(), cache.page_size().pages_for_window(kWindow, 128));
  Session session(model);
  for (int turn = 0; turn < 4; ++turn) {
    const auto reply = session.reply(turn % 2 == 0 ? kLong : "and then?", of_tokens(model, 60));
    ASSERT_TRUE(reply) << turn << ": " << reply.error().message();
    EXPECT_EQ(reply->tokens, 60);
    EXPECT_LE(cache.statistics().live_pages, static_cast<int32_t>(kWindow) / 16 + 2);
  }
  const std::string last = session.messages().back().content;
  const auto again = session.regenerate(of_tokens(model, 60));   // behind the window: run anew from the beginning
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_EQ(again->text, last);
  ASSERT_TRUE(session.clear());
  EXPECT_EQ(cache.statistics().live_pages, 0);
}

TEST_F(Rolling, TakingBackForkingAndBranchingPastTheWindow) {
  const Model& model = window_model();
  Session session(model);
  ASSERT_TRUE(session.reply("a question", of_tokens(model, 30)));
  ASSERT_TRUE(session.reply("another", of_tokens(model, 100)));
  auto fork = session.fork();
  ASSERT_TRUE(fork);
  ASSERT_TRUE(session.undo());
  const auto other = session.reply("a third", of_tokens(model, 20));
  ASSERT_TRUE(other) << other.error().message();
  const auto forked = fork->reply("a third", of_tokens(model, 20));
  ASSERT_TRUE(forked) << forked.error().message();
  auto branches = fork->branches("a fourth", 2, of_tokens(model, 10));
  ASSERT_TRUE(branches) << branches.error().message();
  const std::string text = branches->front().reply.text;
  for (Session* each : {&session, &*fork, &branches->front().session, &branches->back().session}) ASSERT_TRUE(each->clear());
  EXPECT_EQ(other->text, straight(model, {{"a question", of_tokens(model, 30)}, {"a third", of_tokens(model, 20)}}));
  Turns turns{{"a question", of_tokens(model, 30)}, {"another", of_tokens(model, 100)}, {"a third", of_tokens(model, 20)}};
  EXPECT_EQ(forked->text, straight(model, turns));
  turns.emplace_back("a fourth", of_tokens(model, 10));
  EXPECT_EQ(text, straight(model, turns));
}

// The answer is given up long after its conversation's pages were let go, or fell out of the context: the conversation is as before.
TEST_F(Rolling, AnExceptionOfTheCallbackLeavesTheConversation) {
  for (const auto& [model, sinks] : {std::pair<const Model*, int32_t>{&window_model(), 0}, {&small_model(), 16}})
    for (const size_t at : {size_t{1}, size_t{150}, size_t{390}}) {   // characters that were shown: nearly all of them are a token's alone
      SCOPED_TRACE(cat(sinks, " sinks, at ", at));
      Session session(*model);
      ASSERT_TRUE(session.reply("hello", of_tokens(*model, 100)));
      const int32_t used = session.context_used();
      size_t shown = 0;
      const auto throws = [&](std::string_view text) -> bool { return (shown += text.size()) < at ? true : throw std::runtime_error("of the app"); };
      EXPECT_THROW((void)session.reply("more", of_tokens(*model, 400, sinks), throws), std::runtime_error);
      EXPECT_EQ(session.context_used(), used);
      const auto after = session.reply("more", of_tokens(*model, 20));
      ASSERT_TRUE(after) << after.error().message();
      ASSERT_TRUE(session.clear());
      EXPECT_EQ(after->text, straight(*model, {{"hello", of_tokens(*model, 100)}, {"more", of_tokens(*model, 20)}}));
    }
}

// reply() rolls on from a conversation that does not fit any more, and so do branches.
TEST_F(Rolling, BranchesOfAFullContextRollOnAsReplyDoes) {
  const Model& model = small_model();
  Session session(model);
  ASSERT_TRUE(session.reply("hello", of_tokens(model, 200)));
  const GenerateOptions options = of_tokens(model, 20, 16);
  auto branches = session.branches(std::string(40, 'b'), 1, options);
  ASSERT_TRUE(branches) << branches.error().message();
  const std::string text = branches->front().reply.text;
  branches->clear();
  const auto reply = session.reply(std::string(40, 'b'), options);
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_EQ(text, reply->text);
}

}  // namespace
}  // namespace tessera::test
