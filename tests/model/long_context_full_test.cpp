// Forks and shared prefixes of long conversations with the real model: what they cost, by counters.
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

class LongContext : public testing::Test {
 protected:
  void SetUp() override {
    TESSERA_NEEDS_DEVICE(shared_device());
    if (real_model().empty()) GTEST_SKIP() << "no model: TESSERA_TEST_MODEL names one";
    auto loaded = Model::load(real_model(), *shared_device(), {.context_tokens = 4096});
    ASSERT_TRUE(loaded) << loaded.error().message();
    model_.emplace(std::move(*loaded));
  }
  const gpu::Counters& counters() const { return model_->runtime()->counters(); }
  // Words that do not repeat themselves.
  std::vector<int32_t> text_of(int32_t length) const {
    std::vector<int32_t> ids(static_cast<size_t>(length));
    for (int32_t i = 0; i < length; ++i) ids[static_cast<size_t>(i)] = (i * 7919 + 1000) % model_->config().vocab_size;
    return ids;
  }
  std::optional<Model> model_;
};

TEST_F(LongContext, ACloneOf2000TokensCopiesAndRunsNothing) {
  Sequence original(model_->runtime());
  ASSERT_TRUE(original.append(text_of(2000)));
  const gpu::Counters before = counters();
  const int32_t pages = model_->runtime()->cache().statistics().live_pages;
  auto clone = original.fork();
  ASSERT_TRUE(clone) << clone.error().message();
  EXPECT_EQ(clone->length(), 2000);
  EXPECT_EQ(counters().submissions, before.submissions);
  EXPECT_EQ(counters().bytes_written, before.bytes_written);
  EXPECT_EQ(counters().bytes_read, before.bytes_read);
  EXPECT_EQ(counters().device_bytes, before.device_bytes);
  EXPECT_EQ(model_->runtime()->cache().statistics().live_pages, pages);
  // Each goes on by itself, the clone as the original would have.
  const std::vector<int32_t> next{42};
  const int32_t of_clone = *clone->append(next);
  EXPECT_EQ(*original.append(next), of_clone);
  EXPECT_EQ(counters().submissions - before.submissions, 2u);
}

TEST_F(LongContext, ASecondRequestWithTheSame1000TokensRunsAtMostAPage) {
  std::vector<int32_t> prompt = text_of(1003);
  int32_t first = 0;
  {
    Sequence sequence(model_->runtime());
    first = *sequence.append(prompt);
  }   // gone, and still known
  Sequence second(model_->runtime());
  const auto kept = second.keep(prompt);
  ASSERT_TRUE(kept) << kept.error().message();
  EXPECT_GE(*kept, 1003 - 16);
  EXPECT_EQ(*second.append(std::span(prompt).subspan(static_cast<size_t>(*kept))), first) << "up to a tie: GEMM and GEMV add in other orders";
}

// A token behind 700 others: chosen in a decode step, whose workgroups share the context, and in a chunk of a prompt, whose do not. Both sum the same numbers.
TEST_F(LongContext, ADecodeStepThatSharesTheContextGivesThePrefillsLogits) {
  auto loaded = Model::load(real_model(), *shared_device(), {.context_tokens = 1024, .precision = Precision::kFloat});
  ASSERT_TRUE(loaded) << loaded.error().message();
  Runtime& runtime = *loaded->runtime();
  const std::vector<int32_t> text = text_of(701);
  std::vector<float> logits[2];
  uint64_t dispatches[2] = {};
  for (const int64_t last : {1, 8}) {
    Sequence sequence(loaded->runtime());
    ASSERT_TRUE(sequence.append(std::span(text).first(700)));
    const std::scoped_lock lock(runtime.mutex());
    const size_t which = last == 1 ? 0 : 1;
    const uint64_t before = counters().dispatches;
    const Status status = runtime.forward(sequence.id(), std::span(text).last(1), {last, LogitRows::kLast});
    ASSERT_TRUE(status) << status.error().message();
    ASSERT_TRUE(runtime.read_logits(1, logits[which]));
    dispatches[which] = counters().dispatches - before;
  }
  const int32_t layers = loaded->config().n_layers;
  EXPECT_EQ(dispatches[0], static_cast<uint64_t>(6 * layers + 4)) << "attention and its combination";
  double mean = 0.0, square = 0.0, worst = 0.0;
  for (const float logit : logits[1]) mean += static_cast<double>(logit) / static_cast<double>(logits[1].size());
  for (size_t i = 0; i < logits[1].size(); ++i) {
    square += (static_cast<double>(logits[1][i]) - mean) * (static_cast<double>(logits[1][i]) - mean) / static_cast<double>(logits[1].size());
    worst = std::max(worst, std::abs(static_cast<double>(logits[0][i]) - static_cast<double>(logits[1][i])));
  }
  EXPECT_LT(worst, 1e-3 * std::sqrt(square)) << "as golden_test allows against another implementation";
}

}  // namespace
}  // namespace tessera::test
