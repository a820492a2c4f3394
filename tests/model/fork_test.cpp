// Forks and the prefix cache: sequences and conversations that share their pages, what that costs by counters, and that nobody sees what another one
// writes.
#include "forwarding_device.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

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

// A device whose copies fail while it is told so.
class NoCopies final : public ForwardingDevice {
 public:
  NoCopies(const tessera::Device& device, const bool& fails) : ForwardingDevice(device), fails_(fails) {}
  Status copy(std::span<const gpu::BufferCopy> copies) override { return fails_ ? fail(ErrorCode::kDriver, "no copies today") : ForwardingDevice::copy(copies); }

 private:
  const bool& fails_;
};

// What the page would have held is then lost to the one that was to write into it, and is run again; nobody reads what is not there.
TEST_F(ForkTest, AFailedCopyLosesTheTokensOfThatPageAlone) {
  bool fails = false;
  const auto model = Model::load(data_path("conform/models/llama-tied-gqa3.Q4_1.gguf"), Device::wrap(std::make_unique<NoCopies>(*shared_device(), fails)), {.context_tokens = 256});
  ASSERT_TRUE(model) << model.error().message();
  const std::vector<int32_t> shared = some_ids(70, 3), next{9, 8, 7};
  Sequence parent(model->runtime());
  ASSERT_TRUE(parent.append(shared));
  auto child = parent.fork();
  ASSERT_TRUE(child);
  fails = true;
  const auto refused = child->append(next);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kDriver);
  fails = false;
  EXPECT_EQ(child->length(), 64);
  EXPECT_EQ(parent.length(), 70);
  EXPECT_TRUE(std::ranges::equal(child->ids(), std::span(shared).first(64)));
  std::vector<int32_t> whole = shared;
  whole.insert(whole.end(), next.begin(), next.end());
  ASSERT_EQ(child->keep(whole).value(), 64);
  const std::vector<float> a = logits_after(*child, std::span(whole).subspan(64));
  Sequence alone(model->runtime());
  ASSERT_TRUE(alone.append(std::span(whole).first(64)));
  EXPECT_EQ(a, logits_after(alone, std::span(whole).subspan(64)));
  const std::vector<float> b = logits_after(parent, next);
  Sequence other(model->runtime());
  ASSERT_TRUE(other.append(shared));
  EXPECT_EQ(b, logits_after(other, next)) << "the parent's page is untouched";
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
  Session session(*tiny_float_model());
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
    Session alone(*tiny_float_model());
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

TEST_F(ForkTest, CancelEndsAllBranches) {
  Session session(*tiny_model());
  GenerateOptions options = drawn();
  options.max_tokens = 100;
  options.sampler.logit_bias = never_ending(*tiny_model());
  const auto branches = session.branches("x", 4, options, [&](int32_t branch, std::string_view) {
    if (branch == 1) session.cancel();
    return true;
  });
  ASSERT_TRUE(branches) << branches.error().message();
  ASSERT_EQ(branches->size(), 4u);
  for (const Branch& branch : *branches) {
    EXPECT_EQ(branch.reply.stop_reason, StopReason::kCancelled);
    EXPECT_LT(branch.reply.tokens, 100);
    EXPECT_FALSE(branch.reply.text.empty());
  }
}

// Of all branches one stops: the others go on as if they were alone.
TEST_F(ForkTest, ABranchThatEndsLeavesTheOthersAsTheyAre) {
  const auto texts_of = [](int32_t stop) {
    Session session(*tiny_float_model());
    const auto branches = session.branches("x", 3, drawn(), [&](int32_t branch, std::string_view) { return branch != stop; });
    EXPECT_TRUE(branches);
    std::vector<std::string> texts;
    for (const Branch& branch : *branches) texts.push_back(branch.reply.text);
    return texts;
  };
  const auto whole = texts_of(-1), cut = texts_of(1);
  ASSERT_EQ(cut.size(), 3u);
  EXPECT_EQ(cut[0], whole[0]);
  EXPECT_EQ(cut[2], whole[2]);
  EXPECT_LT(cut[1].size(), whole[1].size());
  EXPECT_TRUE(whole[1].starts_with(cut[1]));
}

// The pool has 16 pages. Each branch needs some of its own; when they run out the error says so and the conversation stands.
TEST_F(ForkTest, BranchesThatDoNotFitAreAnErrorAndLeaveNoPages) {
  Session session(*tiny_model());
  ASSERT_TRUE(session.reply("before", drawn()));
  const int32_t before = pages().live_pages;
  GenerateOptions long_answers = drawn();
  long_answers.max_tokens = 120;
  long_answers.sampler.logit_bias = never_ending(*tiny_model());
  const auto branches = session.branches("x", 4, long_answers);
  ASSERT_FALSE(branches) << "answers of 120 tokens, three of which take 24 pages";
  EXPECT_EQ(branches.error().code(), ErrorCode::kOutOfMemory) << branches.error().message();
  EXPECT_LE(pages().live_pages, before + 2) << "only the prompt's, in this conversation's cache";
  EXPECT_EQ(session.messages().size(), 2u);
  EXPECT_TRUE(session.reply("y", drawn()));
}

// --- the prefix cache --------------------------------------------------------------------------------------------------------------------

// A model of its own: what other tests left in the cache must not count. In float, as tiny_float_model() is and for its reason.
class PrefixTest : public ForkTest {
 protected:
  void SetUp() override {
    ForkTest::SetUp();
    if (IsSkipped()) return;
    model_ = load(true);
  }
  static std::optional<Model> load(bool prefix_cache) {
    auto loaded = Model::load(data_path("conform/models/llama-tied-gqa3.Q4_1.gguf"), *shared_device(), {.context_tokens = 256, .precision = Precision::kFloat, .prefix_cache = prefix_cache});
    EXPECT_TRUE(loaded) << loaded.error().message();
    loaded->set_chat_template(*ChatTemplate::named("chatml"));
    return std::optional<Model>(std::move(*loaded));
  }
  PagedCacheStatistics pages() const { return model_->runtime()->cache().statistics(); }
  static int32_t run(Sequence& sequence, std::span<const int32_t> ids) {
    const auto kept = sequence.keep(ids);
    EXPECT_TRUE(kept) << kept.error().message();
    EXPECT_TRUE(sequence.append(ids.subspan(static_cast<size_t>(*kept))));
    return static_cast<int32_t>(ids.size()) - *kept;
  }
  std::optional<Model> model_;
};

TEST_F(PrefixTest, ASecondRequestWithThePrefixRunsAtMostAPageOfIt) {
  const std::vector<int32_t> prefix = some_ids(200, 3);
  {
    Sequence first(model_->runtime());
    EXPECT_EQ(run(first, prefix), 200);
  }
  EXPECT_EQ(pages().live_pages, 0);
  const uint64_t before = model_->runtime()->counters().dispatches;
  Sequence second(model_->runtime());
  EXPECT_EQ(run(second, prefix), 8) << "12 whole pages are there";
  const uint64_t dispatches = model_->runtime()->counters().dispatches - before;
  EXPECT_EQ(pages().prefix_cache.tokens_hit, 192);
  // What follows is what follows a prefix that was run at once: the same pages, the same chunk.
  Sequence third(model_->runtime());
  EXPECT_EQ(run(third, prefix), 8);
  EXPECT_EQ(model_->runtime()->counters().dispatches - before, 2 * dispatches);
  const std::vector<int32_t> next{17};
  EXPECT_EQ(logits_after(second, next), logits_after(third, next));
}

// The pages of a prefix hold what running it gives, so the answers are those without the cache, up to the order of sums in chunks of other sizes.
TEST_F(PrefixTest, AnswersAreThoseWithoutTheCache) {
  const auto without = load(false);
  for (const auto& [length, same] : {std::pair<size_t, size_t>{100, 100}, {100, 37}, {90, 64}, {33, 32}, {20, 15}}) {
    SCOPED_TRACE(cat(length, " tokens, ", same, " of them as before"));
    const std::vector<int32_t> first = some_ids(length, 5);
    std::vector<int32_t> second = first;
    for (size_t i = same; i < length; ++i) second[i] = (second[i] + 101) % 250;
    { Sequence seen(model_->runtime()); (void)run(seen, first); }
    Sequence with(model_->runtime()), plain(without->runtime());
    EXPECT_EQ(run(with, second), static_cast<int32_t>(length - std::min(same, length - 1) / 16 * 16));
    EXPECT_EQ(run(plain, second), static_cast<int32_t>(length));
    const std::vector<int32_t> next{17};
    const std::vector<float> a = logits_after(with, next), b = logits_after(plain, next);
    double squares = 0.0;
    for (const float v : b) squares += static_cast<double>(v) * static_cast<double>(v) / static_cast<double>(b.size());
    EXPECT_LE(max_difference(a, b), 2e-4 * std::sqrt(squares));   // as the conformance tests allow in float
  }
  EXPECT_EQ(without->runtime()->cache().statistics().prefix_cache.lookups, 0);
}

TEST_F(PrefixTest, ConversationsShareTheirSystemMessage) {
  const SessionOptions options{.system = "You are a helpful assistant who answers in few words, names the source, and says so when unsure of it."};
  Session first(*model_, options), second(*model_, options);
  const auto a = first.reply("one", drawn()), b = second.reply("another", drawn());
  ASSERT_TRUE(a && b);
  EXPECT_LT(b->prompt_tokens, a->prompt_tokens);
  Session again(*model_, options);
  const auto c = again.reply("one", drawn());
  ASSERT_TRUE(c);
  EXPECT_LE(c->prompt_tokens, 16) << "the whole first prompt is there, but for its last page";
  EXPECT_EQ(c->text, a->text);
}

// Cached pages never stand in the way of a conversation that needs room.
TEST_F(PrefixTest, WhatIsCachedMakesRoom) {
  for (int32_t round = 0; round < 6; ++round) {
    Sequence sequence(model_->runtime());
    EXPECT_EQ(run(sequence, some_ids(250, round * 31)), 250);
    EXPECT_EQ(pages().live_pages, 16);
  }
  EXPECT_GT(pages().prefix_cache.evictions, 0);
  EXPECT_EQ(pages().live_pages, 0);
  EXPECT_EQ(pages().cached_pages + pages().free_pages, 16);
}

}  // namespace
}  // namespace tessera::test
