// Forks: sequences and conversations that share their pages, what that costs by counters, and that nobody sees what another one writes.
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

const Model* tiny_model() {
  static const Model* model = []() -> const Model* {
    auto loaded = Model::load(data_path("conform/models/llama-tied-gqa3.Q4_1.gguf"), *shared_device(), {.context_tokens = 256});
    EXPECT_TRUE(loaded) << loaded.error().message();
    loaded->set_chat_template(*ChatTemplate::named("chatml"));
    return new Model(std::move(*loaded));
  }();
  return model;
}

class ForkTest : public testing::Test {
 protected:
  void SetUp() override { TESSERA_NEEDS_DEVICE(shared_device()); }

  static const gpu::Counters& counters() { return tiny_model()->runtime()->counters(); }
  static PagedCacheStatistics pages() { return tiny_model()->runtime()->cache().statistics(); }
  static std::vector<int32_t> some_ids(size_t count, int32_t first) {
    std::vector<int32_t> ids(count);
    for (size_t i = 0; i < count; ++i) ids[i] = (first + static_cast<int32_t>(i) * 7) % 250;
    return ids;
  }
  // The logits behind `ids`, run through `sequence`.
  static std::vector<float> logits_after(Sequence& sequence, std::span<const int32_t> ids) {
    std::vector<float> row;
    const auto sampled = sequence.append(ids, nullptr, [&](std::span<const float> rows) -> Status {
      row.assign(rows.begin(), rows.end());
      return {};
    });
    EXPECT_TRUE(sampled) << sampled.error().message();
    return row;
  }
  static GenerateOptions drawn(uint32_t attempt = 0) { return {.max_tokens = 12, .sampler = {.temperature = 1.5f, .seed = 5, .attempt = attempt}}; }
};

TEST_F(ForkTest, AForkCopiesNothingAndRunsNothing) {
  Sequence parent(tiny_model()->runtime());
  ASSERT_TRUE(parent.append(some_ids(70, 3)));
  const gpu::Counters before = counters();
  const PagedCacheStatistics held = pages();
  const auto child = parent.fork();
  ASSERT_TRUE(child) << child.error().message();
  const gpu::Counters& after = counters();
  EXPECT_EQ(after.bytes_written, before.bytes_written);
  EXPECT_EQ(after.bytes_read, before.bytes_read);
  EXPECT_EQ(after.dispatches, before.dispatches);
  EXPECT_EQ(after.submissions, before.submissions);
  EXPECT_EQ(pages().live_pages, held.live_pages);
  EXPECT_TRUE(std::ranges::equal(child->ids(), parent.ids()));
}

// 70 tokens are four full pages and six tokens of a fifth, which the first to write copies and then has for itself.
TEST_F(ForkTest, EachGoesOnAsIfItWereAlone) {
  const std::vector<int32_t> shared = some_ids(70, 3);
  for (const bool child_first : {false, true}) {
    SCOPED_TRACE(child_first);
    Sequence parent(tiny_model()->runtime());
    ASSERT_TRUE(parent.append(shared));
    auto child = parent.fork();
    ASSERT_TRUE(child);
    const PagedCacheStatistics held = pages();
    Sequence* const order[] = {child_first ? &*child : &parent, child_first ? &parent : &*child};
    const std::vector<int32_t> first{9, 8, 7}, second{100, 90, 80, 70};
    const gpu::Counters before = counters();
    const std::vector<float> a = logits_after(*order[0], first);
    EXPECT_EQ(pages().live_pages, held.live_pages + 1) << "the last page is two now";
    EXPECT_LT(counters().bytes_written - before.bytes_written, 1024u) << "ids, parameters and the block table; a page is copied on the device";
    const std::vector<float> b = logits_after(*order[1], second);
    EXPECT_EQ(pages().live_pages, held.live_pages + 1);
    // Of chunks of the same sizes, so to the last bit.
    Sequence alone_a(tiny_model()->runtime()), alone_b(tiny_model()->runtime());
    ASSERT_TRUE(alone_a.append(shared));
    ASSERT_TRUE(alone_b.append(shared));
    EXPECT_EQ(a, logits_after(alone_a, first));
    EXPECT_EQ(b, logits_after(alone_b, second));
    EXPECT_EQ(order[0]->length(), 73);
    EXPECT_EQ(order[1]->length(), 74);
  }
}

TEST_F(ForkTest, AForkOutlivesItsParentAndGivesItsPagesBack) {
  const int32_t before = pages().live_pages;
  {
    auto parent = std::make_unique<Sequence>(tiny_model()->runtime());
    ASSERT_TRUE(parent->append(some_ids(40, 11)));
    auto child = parent->fork();
    ASSERT_TRUE(child);
    auto grandchild = child->fork();
    ASSERT_TRUE(grandchild);
    parent.reset();
    EXPECT_EQ(pages().live_pages, before + 3);
    EXPECT_TRUE(grandchild->append(some_ids(5, 1)));
    EXPECT_TRUE(child->append(some_ids(20, 2)));
  }
  EXPECT_EQ(pages().live_pages, before);
}

TEST_F(ForkTest, AConversationGoesOnTwice) {
  Session session(*tiny_model(), {.system = "be brief"});
  ASSERT_TRUE(session.reply("one", drawn()));
  auto other = session.fork();
  ASSERT_TRUE(other) << other.error().message();
  EXPECT_EQ(other->messages().size(), session.messages().size());
  const auto left = session.reply("two", drawn()), right = other->reply("two", drawn()), third = other->reply("three", drawn());
  ASSERT_TRUE(left && right && third);
  EXPECT_EQ(left->text, right->text) << "the same conversation, question and seed";
  EXPECT_EQ(left->prompt_tokens, right->prompt_tokens) << "what was said before is not run again";
  EXPECT_EQ(session.messages().size(), 5u);
  EXPECT_EQ(other->messages().size(), 7u);
}

TEST_F(ForkTest, BranchesAreTheAttemptsOfOneSeed) {
  Session session(*tiny_model());
  ASSERT_TRUE(session.reply("before", drawn()));
  std::vector<std::string> heard(3);
  const auto branches = session.branches("a question", 3, drawn(), [&](int32_t branch, std::string_view text) {
    heard[static_cast<size_t>(branch)] += text;
    return true;
  });
  ASSERT_TRUE(branches) << branches.error().message();
  ASSERT_EQ(branches->size(), 3u);
  EXPECT_EQ(session.messages().size(), 2u) << "the conversation itself does not go on";
  for (uint32_t i = 0; i < 3; ++i) {
    const Branch& branch = (*branches)[i];
    Session alone(*tiny_model());
    ASSERT_TRUE(alone.reply("before", drawn()));
    const auto reply = alone.reply("a question", drawn(i));
    ASSERT_TRUE(reply);
    EXPECT_EQ(branch.reply.text, reply->text) << i;
    EXPECT_EQ(branch.reply.text, heard[i]) << i;
    EXPECT_EQ(branch.reply.prompt_tokens, 1) << "the prompt is run once for all";
    EXPECT_EQ(branch.session.messages().size(), 4u);
    EXPECT_EQ(branch.session.messages().back().content, branch.reply.text);
  }
  EXPECT_NE((*branches)[0].reply.text, (*branches)[1].reply.text);
  EXPECT_TRUE(session.reply("and so on", drawn()));
}

TEST_F(ForkTest, BranchesThatMakeNoSenseAreRefused) {
  Session session(*tiny_model());
  EXPECT_EQ(session.branches("x", 0, drawn()).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(session.branches("x", -3, drawn()).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(session.branches("x", 2, {.max_tokens = 4}).error().code(), ErrorCode::kInvalidArgument) << "greedy answers are all the same";
  const auto one = session.branches("x", 1, {.max_tokens = 4});
  ASSERT_TRUE(one) << one.error().message();
  EXPECT_EQ(one->size(), 1u);
  EXPECT_TRUE(session.messages().empty());
  const auto too_long = session.branches(std::string(4000, 'q'), 2, drawn());
  EXPECT_EQ(too_long.error().code(), ErrorCode::kContextFull);
}

TEST_F(ForkTest, CancelledBranchesAreFewer) {
  Session session(*tiny_model());
  const auto branches = session.branches("x", 4, drawn(), [&](int32_t branch, std::string_view) {
    if (branch == 1) session.cancel();
    return true;
  });
  ASSERT_TRUE(branches) << branches.error().message();
  ASSERT_EQ(branches->size(), 2u);
  EXPECT_EQ((*branches)[1].reply.stop_reason, StopReason::kCancelled);
}

// The pool has 16 pages. Each branch needs some of its own; when they run out the error says so and the conversation stands.
TEST_F(ForkTest, BranchesThatDoNotFitAreAnErrorAndLeaveNoPages) {
  Session session(*tiny_model());
  ASSERT_TRUE(session.reply("before", drawn()));
  const int32_t before = pages().live_pages;
  GenerateOptions long_answers = drawn();
  long_answers.max_tokens = 120;
  long_answers.sampler.logit_bias = {{0, -INFINITY}, {2, -INFINITY}};
  const auto branches = session.branches("x", 4, long_answers);
  if (branches) GTEST_SKIP() << "the answers ended early: " << (*branches)[0].reply.tokens << " tokens";
  EXPECT_EQ(branches.error().code(), ErrorCode::kOutOfMemory) << branches.error().message();
  EXPECT_LE(pages().live_pages, before + 2) << "only the prompt's, in this conversation's cache";
  EXPECT_EQ(session.messages().size(), 2u);
  EXPECT_TRUE(session.reply("y", drawn()));
}

}  // namespace
}  // namespace tessera::test
