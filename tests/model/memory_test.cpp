// Memory and per-token costs of a loaded model, by counters: what was planned is what is allocated, the host holds one chunk of weights at a
// time, a decoded token allocates, compiles, creates and records nothing, a prompt of a new length neither, and a second start compiles nothing.
#include "../unit/allocation_count.hpp"
#include "../unit/gguf_builder.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

std::string tiny_model_path() { return data_path("conform/models/llama-tied-gqa3.Q4_1.gguf"); }

class MemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    auto device = Device::open("auto");
    TESSERA_NEEDS_DEVICE(device);
    device_ = std::move(*device);
  }
  std::optional<Device> device_;
};

// In every storage; on the device itself in one, for compiling takes it long, else on one that only counts.
TEST_F(MemoryTest, PlanEqualsAllocation) {
  for (const Storages& storages : kStorages) {
    LoadOptions options{.context_tokens = 128, .weight_storage = storages.weights, .activation_storage = storages.activations, .all_logits = true};
    const auto file = ModelFile::open(tiny_model_path());
    ASSERT_TRUE(file) << file.error().message();
    const auto planned = memory_plan(*file, device_->info(), options);
    ASSERT_TRUE(planned) << planned.error().message();
    const bool counts_alone = storages.name != "weights_image2d";
    if (counts_alone) options.cache_folder = "off";
    const auto model = Model::load(tiny_model_path(), counts_alone ? Device::wrap(gpu::make_null_device(device_->info(), device_->backend().target())) : *device_, options);
    ASSERT_TRUE(model) << model.error().message();
    EXPECT_EQ(model->runtime()->counters().device_bytes, planned->total()) << storages.name;
    EXPECT_LE(planned->arena_lower_bound, planned->arena);
  }
}

// Four layers, two by two the same: the weights of two layers, the KV pages of four.
TEST_F(MemoryTest, RepeatedLayersAreStoredOnce) {
  const TemporaryFolder folder;
  const std::string path = folder.file("repeated.gguf");
  const LoadOptions options{.context_tokens = 64, .all_logits = true};
  const auto plan_of = [&](int layers, int times) {
    GgufBuilder builder = tiny_llama({.shape = {.layers = layers}, .type = WeightType::kQ4_0, .tokenizer = false});
    repeat_layers(builder, times);
    const auto file = ModelFile::open(folder.file("repeated.gguf", builder.bytes()));
    EXPECT_TRUE(file) << file.error().message();
    return *memory_plan(*file, device_->info(), options);
  };
  const MemoryPlan two = plan_of(2, 1), four = plan_of(4, 1), shared = plan_of(4, 2);
  EXPECT_EQ(shared.weights, two.weights);
  EXPECT_EQ(shared.kv, four.kv);
  EXPECT_EQ(shared.total() - shared.weights, four.total() - four.weights);
  const auto model = Model::load(path, *device_, options);
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_EQ(model->runtime()->counters().device_bytes, shared.total());
}

TEST_F(MemoryTest, ACapIsAClearErrorBeforeAnythingIsAllocated) {
  const auto model = Model::load(tiny_model_path(), *device_, {.max_device_bytes = 100000});
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code(), ErrorCode::kLimit);
  EXPECT_NE(model.error().message().find("allowed are 97.7 KiB"), std::string::npos) << model.error().message();
  EXPECT_EQ(device_->backend().counters().buffers_created, 0u);
}

// Neither the tokens of an answer nor prompts of lengths never seen make anything new.
TEST_F(MemoryTest, SteadyStateMakesNothingNew) {
  const auto model = Model::load(tiny_model_path(), *device_, {.context_tokens = 256});
  ASSERT_TRUE(model) << model.error().message();
  Sequence sequence(model->runtime());
  const std::vector<int32_t> prompt{5, 6, 7};
  std::vector<int32_t> next{*sequence.append(prompt)};
  for (int i = 0; i < 2; ++i) next[0] = *sequence.append(next);
  const gpu::Counters before = model->runtime()->counters();
  const int64_t allocations = allocation_count;
  constexpr uint64_t kTokens = 40;   // crosses pages
  for (uint64_t i = 0; i < kTokens; ++i) next[0] = *sequence.append(next);
  EXPECT_EQ(allocation_count - allocations, 0);
  for (const size_t length : {2u, 9u, 31u, 33u, 128u}) {
    Sequence other(model->runtime());
    ASSERT_TRUE(other.append(std::vector<int32_t>(length, 9)));
  }
  const gpu::Counters& after = model->runtime()->counters();
  EXPECT_EQ(after.programs_compiled + after.programs_loaded, before.programs_compiled + before.programs_loaded);
  EXPECT_EQ(after.kernels_created, before.kernels_created);
  EXPECT_EQ(after.buffers_created + after.images_created, before.buffers_created + before.images_created);
  EXPECT_EQ(after.lists_recorded, before.lists_recorded);
  EXPECT_EQ(after.descriptor_updates, before.descriptor_updates);
  EXPECT_EQ(after.submissions - before.submissions, kTokens + 5);   // one a token, one a chunk
  // Each of them one call of the driver; on OpenCL, where its command buffers are not used, one a dispatch.
  const uint64_t enqueues = after.enqueues - before.enqueues;
  EXPECT_EQ(enqueues, after.enqueues > after.submissions ? after.dispatches - before.dispatches : kTokens + 5);
  EXPECT_EQ(after.bytes_read - before.bytes_read, sizeof(SampledToken) * kStepsAtOnce * (kTokens + 5));   // ids only: activations never visit the host
}

// An answer of `tokens`, and what happened between its 9th and the 8th before its last.
struct Steady {
  int64_t allocations = 0;
  gpu::Counters before, after;
};
Steady steady_answer(const Model& model, const SamplerOptions& options, int32_t tokens) {
  Sequence sequence(model.runtime());
  Steady steady;
  int32_t made = 0;
  Request request;
  request.sequence = sequence.id();
  request.tokens = {5, 6, 7};
  request.steps_at_once = kStepsAtOnce;
  request.remaining = tokens + 1;   // one of them by the prompt's own step
  request.sampler = options;
  request.on_token = [&](const SampledToken&) -> std::optional<StopReason> {
    ++made;
    if (made == 1 + kStepsAtOnce) steady = {allocation_count, model.runtime()->counters(), {}};
    if (made == 1 + tokens - kStepsAtOnce) steady = {allocation_count - steady.allocations, steady.before, model.runtime()->counters()};
    return std::nullopt;
  };
  Request* const requests[] = {&request};
  model.engine().run(requests, [] {}, [] {});
  EXPECT_TRUE(request.outcome->has_value());
  EXPECT_EQ(made, tokens + 1);
  return steady;
}

// The whole chain on the host: the logits come back, and that is all that is new.
TEST_F(MemoryTest, SampledTokensAllocateNothing) {
  const auto model = Model::load(tiny_model_path(), *device_, {.context_tokens = 256});
  ASSERT_TRUE(model) << model.error().message();
  const SamplerOptions options{.temperature = 0.9f, .top_k = 200, .top_p = 0.95f, .min_p = 0.01f, .typical_p = 0.98f, .repetition_penalty = 1.1f, .presence_penalty = 0.1f,
                               .frequency_penalty = 0.1f, .repeat_last_n = -1, .logit_bias = {{5, -1.0f}}, .seed = 3};
  ASSERT_FALSE(device_can_sample(options));
  const Steady made = steady_answer(*model, options, 48);
  EXPECT_EQ(made.allocations, 0);
  EXPECT_EQ(made.after.buffers_created, made.before.buffers_created);
}

// Several steps in one submission, whose tokens feed each other on the device: all that comes back are ids.
TEST_F(MemoryTest, TokensChosenOnTheDeviceComeBackByTheHandful) {
  const auto model = Model::load(tiny_model_path(), *device_, {.context_tokens = 256});
  ASSERT_TRUE(model) << model.error().message();
  for (const SamplerOptions& options : {SamplerOptions{}, SamplerOptions{.temperature = 0.9f, .top_k = 20, .top_p = 0.9f, .min_p = 0.01f, .repetition_penalty = 1.2f, .logit_bias = {{7, 1.0f}}, .seed = 3}}) {
    ASSERT_TRUE(device_can_sample(options));
    const Steady made = steady_answer(*model, options, 8 * kStepsAtOnce);
    const uint64_t tokens = 6 * kStepsAtOnce;
    EXPECT_EQ(made.allocations, 0);
    EXPECT_EQ(made.after.submissions - made.before.submissions, tokens / kStepsAtOnce);
    EXPECT_EQ(made.after.synchronizations - made.before.synchronizations, tokens / kStepsAtOnce);
    EXPECT_LE(made.after.bytes_read - made.before.bytes_read, 16 * tokens);
    EXPECT_EQ(made.after.lists_recorded, made.before.lists_recorded);
    EXPECT_EQ(made.after.descriptor_updates, made.before.descriptor_updates);
    EXPECT_EQ(made.after.programs_compiled + made.after.programs_loaded, made.before.programs_compiled + made.before.programs_loaded);
  }
}

TEST_F(MemoryTest, SecondStartCompilesNothing) {
  const TemporaryFolder folder;
  const auto start = [&]() -> gpu::Counters {
    auto device = Device::open("auto");
    const auto model = Model::load(tiny_model_path(), *device, {.context_tokens = 64, .cache_folder = folder.path()});
    EXPECT_TRUE(model) << model.error().message();
    Sequence sequence(model->runtime());
    EXPECT_TRUE(sequence.append(std::vector<int32_t>{1, 2, 3}));
    return model->runtime()->counters();
  };
  const gpu::Counters first = start(), second = start();
  EXPECT_GT(first.programs_compiled, 0u);
  EXPECT_EQ(second.programs_compiled, 0u);
  EXPECT_EQ(second.programs_loaded, first.programs_compiled);
}

// With 280,000 merges and a vocabulary of 128,256 tokens, weights streamed to a device that keeps nothing.
TEST(HostMemory, LoadingAModelOfAnySizeTakesAtMost64MiB) {
  const TemporaryFolder folder;
  const std::string path = folder.file("model.gguf");
  sparse_llama(path, kLlama32_1B, WeightType::kQ4_0, true);
  const int64_t before = allocated_bytes;
  peak_allocated_bytes = before;
  const auto model = Model::load(path, null_device(), {.context_tokens = 256, .cache_folder = "off"});
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_LE(peak_allocated_bytes - before, int64_t{64} << 20);
}

}  // namespace
}  // namespace tessera::test
