// How the KV cache is stored, LoadOptions kv, kv_bytes and page_tokens: what the pages take, how far answers move, and that nothing but memory changes where
// nothing else should.
#include "../unit/gguf_builder.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

constexpr KvType kTypes[] = {KvType::kFloat, KvType::kHalf, KvType::kInt8};

class KvOptions : public testing::Test {
 protected:
  void SetUp() override { TESSERA_NEEDS_DEVICE(shared_device()); }

  static std::string path() { return data_path("conform/models/llama-tied-gqa3.Q4_1.gguf"); }
  static Result<Model> load(const LoadOptions& options) { return Model::load(path(), *shared_device(), options); }
  static MemoryPlan plan(const std::string& file, const LoadOptions& options) {
    const auto opened = ModelFile::open(file);
    EXPECT_TRUE(opened) << opened.error().message();
    const auto planned = memory_plan(*opened, shared_device()->info(), options);
    EXPECT_TRUE(planned) << planned.error().message();
    return *planned;
  }
  static ModelConfig config() { return ModelFile::open(path())->config(); }
  // Of all layers: K and V of `tokens`, channels padded to slices, and of bytes a float a head.
  static uint64_t kv_bytes(const ModelConfig& c, KvType type, int64_t tokens) {
    const int64_t element = type == KvType::kFloat ? 4 : type == KvType::kHalf ? 2 : 1, scale = type == KvType::kInt8 ? 4 : 0;
    return static_cast<uint64_t>(c.n_layers * 2 * tokens * c.n_kv_heads * (round_up(c.head_dim, 4) * element + scale));
  }
  static std::vector<int32_t> some_ids(size_t count, int32_t first = 3) {
    std::vector<int32_t> ids(count);
    for (size_t i = 0; i < count; ++i) ids[i] = (first + static_cast<int32_t>(i * i % 97) * 7) % 250;
    return ids;
  }
};

TEST_F(KvOptions, PagesTakeWhatTheirTypeNeeds) {
  for (const KvType type : kTypes)
    for (const int32_t page : {0, 8, 64}) {
      const MemoryPlan planned = plan(path(), {.context_tokens = 100, .kv = type, .page_tokens = page});
      EXPECT_EQ(planned.kv, kv_bytes(config(), type, round_up(100, page == 0 ? 16 : page))) << static_cast<int>(type) << " in pages of " << page;
    }
  const LoadOptions options{.context_tokens = 100, .kv = KvType::kInt8, .page_tokens = 8};
  auto device = Device::open("auto");
  const auto model = Model::load(path(), *device, options);
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_EQ(model->runtime()->counters().device_bytes, model->memory().total());
  EXPECT_EQ(model->runtime()->cache().page_size().tokens(), 8);
  EXPECT_EQ(model->runtime()->cache().pool().total_pages(), 13);
}

TEST_F(KvOptions, DefaultIsWhatThePrecisionSays) {
  EXPECT_EQ(plan(path(), {.context_tokens = 64}).kv, kv_bytes(config(), KvType::kHalf, 64));
  EXPECT_EQ(plan(path(), {.context_tokens = 64, .precision = Precision::kFloat}).kv, kv_bytes(config(), KvType::kFloat, 64));
  EXPECT_EQ(plan(path(), {.context_tokens = 64, .precision = Precision::kFloat, .kv = KvType::kHalf}).kv, kv_bytes(config(), KvType::kHalf, 64));
  for (const auto& [name, type] : kKvTypes) EXPECT_EQ(kv_type_from_name(name), type);
  EXPECT_EQ(kv_type_from_name("int4"), std::nullopt);
}

// Heads of 64 channels, as most models have at least: 68 bytes for 128.
TEST_F(KvOptions, BytesTakeAboutHalfOfHalves) {
  const TemporaryFolder folder;
  const std::string file = folder.file("model.gguf", tiny_llama({.shape = {.dim = 256, .head_dim = 64}, .tokenizer = false}).bytes());
  const LoadOptions half{.context_tokens = 64, .kv = KvType::kHalf}, bytes{.context_tokens = 64, .kv = KvType::kInt8};
  EXPECT_LE(static_cast<double>(plan(file, bytes).kv), 0.55 * static_cast<double>(plan(file, half).kv));
  EXPECT_EQ(plan(file, bytes).total() - plan(file, bytes).kv, plan(file, half).total() - plan(file, half).kv);
}

// What bytes cost against what halves cost, which golden values bound (conform_test, golden_test). A half is off by 2⁻¹⁰ / √12 of its power of two on average, of
// numbers of all sizes 1.9e-4 of their own; a byte by max / 127 / √12, and the greatest of 16 to 64 channels is some 2 to 2.5 standard deviations: 4.6e-3 to 5.7e-3.
// That is 24 to 30 times as much; the errors are small and independent, so the logits' are as much greater too: by half as much, or twice, where heads are not even.
TEST_F(KvOptions, BytesMoveTheLogitsAsMuchMoreThanHalvesAsTheyAreCoarser) {
  const std::vector<int32_t> ids = some_ids(100);
  std::vector<std::vector<float>> rows;
  for (const KvType type : kTypes) {
    const auto model = load({.context_tokens = 128, .precision = Precision::kFloat, .kv = type, .all_logits = true});
    ASSERT_TRUE(model) << model.error().message();
    rows.push_back(all_logits(*model, ids));
  }
  const auto error = [&](const std::vector<float>& found) {   // root of the mean square, in standard deviations of the logits
    double squares = 0.0;
    for (size_t i = 0; i < found.size(); ++i) squares += std::pow(static_cast<double>(found[i]) - static_cast<double>(rows[0][i]), 2.0);
    return std::sqrt(squares / static_cast<double>(found.size())) / standard_deviation(rows[0]);
  };
  const auto nll = [&](const std::vector<float>& found) {
    const size_t vocab = found.size() / ids.size();
    double sum = 0.0;
    for (size_t t = 0; t + 1 < ids.size(); ++t) sum += negative_log_likelihood(std::span(found).subspan(t * vocab, vocab), ids[t + 1]);
    return sum / static_cast<double>(ids.size() - 1);
  };
  const double halves = error(rows[1]), bytes = error(rows[2]);
  EXPECT_GE(bytes / halves, 13.0) << bytes << " against " << halves;
  EXPECT_LE(bytes / halves, 52.0) << bytes << " against " << halves;
  // To first order a likelihood moves by the difference of two of a row's logits' errors, √2 of one, and the mean of 99 by a tenth of that; three times it at most.
  EXPECT_NEAR(nll(rows[2]), nll(rows[0]), 3.0 * 0.1 * std::sqrt(2.0) * bytes * standard_deviation(rows[0]));
}

// 70 tokens end inside a page, which the first to write copies: its scales as well, or the copy's tokens would be read with those of another text.
TEST_F(KvOptions, ACopiedPageKeepsItsScales) {
  const auto model = load({.context_tokens = 256, .kv = KvType::kInt8, .prefix_cache = false});
  ASSERT_TRUE(model) << model.error().message();
  const auto after = [&](Sequence& sequence, const std::vector<int32_t>& ids) {
    std::vector<float> row;
    EXPECT_TRUE(sequence.append(ids, nullptr, [&](std::span<const float> rows) -> Status {
      row.assign(rows.begin(), rows.end());
      return {};
    }));
    return row;
  };
  const std::vector<int32_t> shared = some_ids(70), first{9, 8, 7}, second{100, 90, 80, 70};
  Sequence parent(model->runtime());
  ASSERT_TRUE(parent.append(shared));
  auto child = parent.fork();
  ASSERT_TRUE(child);
  const std::vector<float> a = after(parent, first), b = after(*child, second);
  Sequence alone_a(model->runtime()), alone_b(model->runtime());
  ASSERT_TRUE(alone_a.append(shared));
  ASSERT_TRUE(alone_b.append(shared));
  EXPECT_EQ(a, after(alone_a, first));
  EXPECT_EQ(b, after(alone_b, second));
}

// Pages only cut the on-line softmax at other places: the difference is rounding, as between orders of summation in conform_test (2e-4 of the deviation).
TEST_F(KvOptions, AnswersDoNotDependOnThePageSize) {
  const std::vector<int32_t> ids = some_ids(100);
  std::vector<float> expected;
  std::vector<int32_t> answer;
  for (const int32_t page : {16, 8, 32, 1, 256}) {
    SCOPED_TRACE(page);
    const auto model = load({.context_tokens = 256, .precision = Precision::kFloat, .page_tokens = page, .all_logits = true});
    ASSERT_TRUE(model) << model.error().message();
    const std::vector<float> rows = all_logits(*model, ids);
    const std::vector<int32_t> made = greedy(*model, ids, 24);
    if (page == 16) expected = rows;
    if (page == 16) answer = made;
    EXPECT_LE(max_difference(rows, expected), 2e-4 * standard_deviation(expected));
    EXPECT_EQ(made, answer);
  }
}

TEST_F(KvOptions, ABudgetIsFilledWithWholePages) {
  const uint64_t page = kv_bytes(config(), KvType::kHalf, 16);
  const auto pages_of = [&](const Model& model) { return model.runtime()->cache().statistics().free_pages; };
  // Of many contexts; what does not make a page is left.
  const auto many = load({.context_tokens = 64, .kv_bytes = 11 * page - 1});
  ASSERT_TRUE(many) << many.error().message();
  EXPECT_EQ(many->memory().kv, 10 * page);
  EXPECT_EQ(pages_of(*many), 10);
  EXPECT_EQ(many->context_tokens(), 64);
  std::vector<Sequence> two;   // of a whole context each, and half of one is left
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(two.emplace_back(many->runtime()).append(some_ids(64)));
  EXPECT_EQ(pages_of(*many), 2);
  const auto too_long = two[0].append(some_ids(1));
  ASSERT_FALSE(too_long);
  EXPECT_EQ(too_long.error().code(), ErrorCode::kContextFull);
  // Of a part of one: the context is what there is room for.
  const auto few = load({.context_tokens = 64, .kv_bytes = 2 * page, .page_tokens = 16});
  ASSERT_TRUE(few) << few.error().message();
  EXPECT_EQ(few->memory().kv, 2 * page);
  EXPECT_EQ(few->context_tokens(), 32);
  EXPECT_EQ(greedy(*few, some_ids(20), 8), greedy(*many, some_ids(20), 8));
  const auto full = Sequence(few->runtime()).append(some_ids(33));
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code(), ErrorCode::kContextFull);
  // The same budget holds more tokens in bytes.
  EXPECT_GT(plan(path(), {.context_tokens = 64, .kv = KvType::kInt8, .kv_bytes = 100 * page}).kv, 99 * page);
  EXPECT_LE(plan(path(), {.context_tokens = 64, .kv = KvType::kInt8, .kv_bytes = 100 * page}).kv, 100 * page);
}

// Fewer pages than a window goes on in: the context ends where they do, with the answer so far, not with the failure of the whole.
TEST_F(KvOptions, ABudgetBelowTheWindowsPagesEndsTheContext) {
  const std::string path = data_path("conform/models/llama-window.Q8_0.gguf");
  const uint64_t page = kv_bytes(ModelFile::open(path)->config(), KvType::kHalf, 16);
  for (const int32_t pages : {1, 4, 10, 11, 12}) {   // 11: a window of 24 and a chunk of 128, and one more
    const auto model = Model::load(path, *shared_device(), {.context_tokens = 256, .kv_bytes = pages * page});
    ASSERT_TRUE(model) << model.error().message();
    EXPECT_EQ(model->context_tokens(), pages < 11 ? pages * 16 : 256);
    EXPECT_EQ(greedy(*model, some_ids(9), 7).size(), 7u);
    const auto all = static_cast<size_t>(model->context_tokens());
    EXPECT_TRUE(Sequence(model->runtime()).append(some_ids(all)));
    const auto too_long = Sequence(model->runtime()).append(some_ids(all + 1));
    ASSERT_FALSE(too_long);
    EXPECT_EQ(too_long.error().code(), ErrorCode::kContextFull);
  }
}

TEST_F(KvOptions, WhatCannotBeIsAClearError) {
  const auto refused = [&](const LoadOptions& options, ErrorCode code, const std::string& said) {
    const auto model = load(options);
    ASSERT_FALSE(model) << said;
    EXPECT_EQ(model.error().code(), code) << model.error().message();
    EXPECT_NE(model.error().message().find(said), std::string::npos) << model.error().message();
  };
  for (const int32_t page : {-16, 3, 24, 512, INT32_MIN}) refused({.page_tokens = page}, ErrorCode::kInvalidArgument, cat("KV pages of ", page, " tokens: there are powers of two up to 256"));
  refused({.kv_bytes = 1000}, ErrorCode::kLimit, "a KV cache of 1000 B: one page of 16 tokens takes");
  refused({.kv_bytes = uint64_t{1} << 50}, ErrorCode::kLimit, "k.0: ");
}

// A model whose tokens see 24: pages of 8 tokens before those go back to the pool, and a place that needs them again is run again from the beginning.
TEST_F(KvOptions, PagesBehindAWindowAreLetGo) {
  const auto model = Model::load(data_path("conform/models/llama-window.Q8_0.gguf"), *shared_device(), {.context_tokens = 256, .precision = Precision::kFloat, .page_tokens = 8});
  ASSERT_TRUE(model) << model.error().message();
  PagedCache& cache = model->runtime()->cache();
  EXPECT_EQ(cache.pool().total_pages(), (24 + 128) / 8 + 1) << "a window, a chunk, and the page that the window begins within; the context has 32 pages";
  const std::vector<int32_t> ids = some_ids(220), beginning(ids.begin(), ids.begin() + 60), token(1, 5);
  Sequence sequence(model->runtime());
  const auto after_all = sequence.append(ids);
  ASSERT_TRUE(after_all) << after_all.error().message();
  ASSERT_TRUE(sequence.append(token));
  EXPECT_EQ(cache.statistics().live_pages, 4) << "tokens 197 to 220 lie in pages 24 to 27";
  // 220 tokens are there still: the newest one is taken back, and its place is run again. Of 60 nothing is.
  ASSERT_TRUE(sequence.truncate(220));
  EXPECT_EQ(sequence.length(), 220);
  EXPECT_EQ(sequence.keep(beginning).value_or(-1), 0);
  EXPECT_EQ(cache.statistics().live_pages, 0);
  const auto again = sequence.append(beginning);
  ASSERT_TRUE(again) << again.error().message();
  Sequence fresh(model->runtime());
  EXPECT_EQ(fresh.append(beginning).value_or(-1), *again);
  ASSERT_TRUE(sequence.truncate(0));
  EXPECT_EQ(fresh.append(std::span(ids).subspan(60)).value_or(-1), *after_all) << "in other chunks, through pages that others had";
}

}  // namespace
}  // namespace tessera::test
