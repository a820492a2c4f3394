// The engine: answers of many sessions made together, in one thread and in many, on a device and on none; ends, cancellations and failures at every phase.
#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "forwarding_device.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

constexpr const char* kModel = "conform/models/llama-tied-gqa3.Q4_1.gguf";

// A request of its own sequence, whose tokens nothing ends but their number.
struct Asked {
  Asked(const Model& model, std::vector<int32_t> prompt, int32_t tokens, SamplerOptions sampler = {}) : sequence(model.runtime()) {
    request.sequence = sequence.id();
    request.tokens = std::move(prompt);
    request.remaining = tokens;
    request.steps_at_once = kStepsAtOnce;
    request.sampler = std::move(sampler);
    request.on_token = [this](const SampledToken& token) -> std::optional<StopReason> {
      chosen.push_back(token.id);
      return static_cast<int32_t>(chosen.size()) == stop_after ? std::optional(StopReason::kStopString) : std::nullopt;
    };
  }
  Sequence sequence;
  Request request;
  std::vector<int32_t> chosen;
  int32_t stop_after = -1;
};

void run(const Model& model, const std::vector<std::unique_ptr<Asked>>& asked) {
  std::vector<Request*> requests;
  for (const auto& one : asked) requests.push_back(&one->request);
  model.engine().run(requests, [] {}, [] {});
}

std::vector<int32_t> prompt_of(int32_t first, int32_t length) {
  std::vector<int32_t> ids(static_cast<size_t>(length));
  for (int32_t i = 0; i < length; ++i) ids[static_cast<size_t>(i)] = (first * 31 + i * 7) % 200;
  return ids;
}

class EngineTest : public testing::Test {
 protected:
  void SetUp() override { TESSERA_NEEDS_DEVICE(shared_device()); }
};

// Float pages and activations: GEMV and GEMM add in other orders, which here only a tie could show.
const Model& wide_model() {
  static const Model model = *Model::load(data_path(kModel), *shared_device(), {.context_tokens = 256, .precision = Precision::kFloat, .prefix_cache = false});
  return model;
}

TEST_F(EngineTest, TogetherIsAsAlone) {
  std::vector<std::unique_ptr<Asked>> together;
  const auto options = [](int i) { return i % 2 == 0 ? SamplerOptions{} : SamplerOptions{.temperature = 0.7f, .top_k = 30, .repetition_penalty = 1.1f, .seed = static_cast<uint64_t>(i)}; };
  for (int i = 0; i < 8; ++i) together.push_back(std::make_unique<Asked>(wide_model(), prompt_of(i, 1 + i % 3 * 7), 12 + i, options(i)));
  run(wide_model(), together);
  for (int i = 0; i < 8; ++i) {
    SCOPED_TRACE(i);
    std::vector<std::unique_ptr<Asked>> alone;
    alone.push_back(std::make_unique<Asked>(wide_model(), prompt_of(i, 1 + i % 3 * 7), 12 + i, options(i)));
    run(wide_model(), alone);
    const Request& request = together[static_cast<size_t>(i)]->request;
    ASSERT_TRUE(request.outcome && *request.outcome) << request.outcome->error().message();
    EXPECT_EQ(**request.outcome, StopReason::kMaxTokens);
    EXPECT_EQ(together[static_cast<size_t>(i)]->chosen, alone.front()->chosen);
  }
}

TEST_F(EngineTest, AnswersShareTheirSteps) {
  const gpu::Counters before = wide_model().runtime()->counters();
  std::vector<std::unique_ptr<Asked>> asked;
  for (int i = 0; i < 8; ++i) asked.push_back(std::make_unique<Asked>(wide_model(), prompt_of(i, 1), 3 * kStepsAtOnce));
  run(wide_model(), asked);
  const gpu::Counters& after = wide_model().runtime()->counters();
  EXPECT_EQ(after.submissions - before.submissions, 3u) << "8 rows of 8 steps, three times";
  EXPECT_EQ(after.synchronizations - before.synchronizations, 3u);
  EXPECT_LE(after.bytes_read - before.bytes_read, 16u * 8 * 3 * kStepsAtOnce);
}

// What was run past the end of an answer leaves no trace, wherever in a submission the end lies.
TEST_F(EngineTest, AnEndWithinASubmissionKeepsTheTokensBeforeIt) {
  std::vector<std::unique_ptr<Asked>> whole;
  whole.push_back(std::make_unique<Asked>(wide_model(), prompt_of(3, 5), 30));
  run(wide_model(), whole);
  for (int32_t end = 1; end <= 18; ++end) {
    std::vector<std::unique_ptr<Asked>> cut;
    cut.push_back(std::make_unique<Asked>(wide_model(), prompt_of(3, 5), 30));
    Asked& asked = *cut.front();
    asked.stop_after = end;
    run(wide_model(), cut);
    EXPECT_EQ(**asked.request.outcome, StopReason::kStopString);
    EXPECT_EQ(asked.chosen, std::vector<int32_t>(whole.front()->chosen.begin(), whole.front()->chosen.begin() + end));
    ASSERT_TRUE(asked.sequence.settle(asked.request.tokens));
    EXPECT_LE(asked.sequence.length(), 5 + end);
    EXPECT_GE(asked.sequence.length(), 5 + end - 1);
    // It goes on as the whole did.
    const std::vector<int32_t> rest(asked.request.tokens.begin() + asked.sequence.length(), asked.request.tokens.end());
    if (rest.empty()) continue;
    EXPECT_EQ(*asked.sequence.append(rest), whole.front()->chosen[static_cast<size_t>(end)]);
  }
}

// What falls out when the context is full is as if it had never been said: the answer goes on as that of a sequence that begins with what stays.
TEST_F(EngineTest, AFullContextRollsOn) {
  const int32_t context = wide_model().context_tokens(), sinks = 5;
  const SamplerOptions sampler{.temperature = 0.8f, .top_k = 20, .repetition_penalty = 1.2f, .seed = 5};
  std::vector<int32_t> chosen;
  {
    std::vector<std::unique_ptr<Asked>> asked;
    asked.push_back(std::make_unique<Asked>(wide_model(), prompt_of(1, 40), 2 * context, sampler));
    Asked& one = *asked.front();
    one.request.sinks = sinks;
    run(wide_model(), asked);
    ASSERT_TRUE(*one.request.outcome) << one.request.outcome->error().message();
    EXPECT_EQ(**one.request.outcome, StopReason::kMaxTokens);
    EXPECT_EQ(static_cast<int32_t>(one.chosen.size()), 2 * context);
    EXPECT_LE(static_cast<int32_t>(one.request.tokens.size()), context + 1);
    EXPECT_EQ(static_cast<int32_t>(one.request.tokens.size()) + one.request.dropped, 40 + 2 * context);
    chosen = one.chosen;
  }
  std::vector<int32_t> said = prompt_of(1, 40);
  said.insert(said.end(), chosen.begin(), chosen.begin() + context + 1 - 40);
  EXPECT_EQ(roll_context(said, sinks, context), context + 1 - context / 2);
  EXPECT_TRUE(std::ranges::equal(std::span(said).first(sinks), prompt_of(1, sinks)));
  std::vector<std::unique_ptr<Asked>> fresh;
  fresh.push_back(std::make_unique<Asked>(wide_model(), said, 30, sampler));
  run(wide_model(), fresh);
  EXPECT_TRUE(std::ranges::equal(fresh.front()->chosen, std::span(chosen).subspan(static_cast<size_t>(context + 1 - 40), 30)));
}

// A pool that other conversations fill is full, too.
TEST_F(EngineTest, AFullPoolRollsOn) {
  std::vector<std::unique_ptr<Asked>> asked;
  asked.push_back(std::make_unique<Asked>(wide_model(), prompt_of(1, 40), 2 * wide_model().context_tokens()));
  asked.push_back(std::make_unique<Asked>(wide_model(), prompt_of(2, 3), 20));   // its pages stay its own when it is done
  asked.front()->request.sinks = 5;
  run(wide_model(), asked);
  for (const auto& one : asked) EXPECT_TRUE(*one->request.outcome) << one->request.outcome->error().message();
  EXPECT_EQ(static_cast<int32_t>(asked.front()->chosen.size()), 2 * wide_model().context_tokens());
  EXPECT_EQ(asked.back()->chosen.size(), 20u);
}

// From the device and from the host, against the logits themselves. Floats of a few hundred summands: 1e-5 covers their rounding.
TEST_F(EngineTest, LogProbabilitiesAreThoseOfTheLogits) {
  for (const float typical : {1.0f, 0.9f}) {   // on the device, on the host
    std::vector<std::unique_ptr<Asked>> asked;
    asked.push_back(std::make_unique<Asked>(wide_model(), prompt_of(4, 9), 12, SamplerOptions{.temperature = 0.9f, .top_k = 5, .typical_p = typical, .seed = 8}));
    Asked& one = *asked.front();
    std::vector<SampledToken> tokens;
    one.request.log_probabilities = true;
    one.request.on_token = [&](const SampledToken& token) -> std::optional<StopReason> {
      tokens.push_back(token);
      return std::nullopt;
    };
    run(wide_model(), asked);
    ASSERT_EQ(tokens.size(), 12u);
    Sequence sequence(wide_model().runtime());
    std::vector<int32_t> next = prompt_of(4, 9);
    for (const SampledToken& token : tokens) {
      const auto check = [&](std::span<const float> row) -> Status {
        double total = 0, top = *std::ranges::max_element(row);
        for (const float logit : row) total += std::exp(logit - top);
        EXPECT_NEAR(token.log_probability, row[static_cast<size_t>(token.id)] - top - std::log(total), 1e-5);
        return {};
      };
      ASSERT_TRUE(sequence.append(next, nullptr, check));
      next = {token.id};
    }
  }
}

// --- a device that fails -----------------------------------------------------------------------------------------------------------------

class Failing : public ForwardingDevice {
 public:
  explicit Failing(const tessera::Device& device, int& countdown) : ForwardingDevice(device), countdown_(countdown) {}
  Result<gpu::Fence*> submit(gpu::CommandList& list, const gpu::SubmitOptions& options) override {
    if (fails()) return fail(ErrorCode::kDriver, "planted");
    return ForwardingDevice::submit(list, options);
  }
  Status read(const gpu::Buffer& buffer, int64_t offset, std::span<std::byte> bytes) override {
    if (fails()) return fail(ErrorCode::kDriver, "planted");
    return ForwardingDevice::read(buffer, offset, bytes);
  }
  Status write(gpu::Buffer& buffer, int64_t offset, std::span<const std::byte> bytes) override {
    if (fails()) return fail(ErrorCode::kDriver, "planted");
    return ForwardingDevice::write(buffer, offset, bytes);
  }

 private:
  bool fails() { return countdown_ >= 0 && countdown_-- == 0; }
  int& countdown_;
};

TEST_F(EngineTest, AFailureAtAnyCallEndsItsAnswersAndTheNextOnesAreMade) {
  int countdown = -1;
  const auto model = Model::load(data_path(kModel), Device::wrap(std::make_unique<Failing>(*shared_device(), countdown)),
                                 {.context_tokens = 256, .precision = Precision::kFloat, .prefix_cache = false});
  ASSERT_TRUE(model) << model.error().message();
  const auto ask = [&] {
    std::vector<std::unique_ptr<Asked>> asked;
    for (int i = 0; i < 3; ++i) asked.push_back(std::make_unique<Asked>(*model, prompt_of(i, 4), 20, SamplerOptions{.temperature = 0.5f, .repetition_penalty = 1.1f}));
    run(*model, asked);
    return asked;
  };
  std::vector<std::vector<int32_t>> good;
  for (const auto& one : ask()) good.push_back(one->chosen);
  int failures = 0;
  for (int call = 0; call < 40; ++call) {
    countdown = call;
    const auto asked = ask();
    for (const auto& one : asked) {
      ASSERT_TRUE(one->request.outcome);
      if (!*one->request.outcome) {
        ++failures;
        EXPECT_EQ(one->request.outcome->error().code(), ErrorCode::kDriver);
        EXPECT_EQ(*model->runtime()->cache().length(one->sequence.id()), 0) << "as before the call";
      }
    }
    countdown = -1;
    const auto again = ask();
    for (size_t i = 0; i < again.size(); ++i) EXPECT_EQ(again[i]->chosen, good[i]) << "after a failure at call " << call;
  }
  EXPECT_GT(failures, 40);
  EXPECT_EQ(model->runtime()->cache().statistics().live_pages, 0);
}

// One of the tokens that come back is a fault.
class Faulty : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  Status read(const gpu::Buffer& buffer, int64_t offset, std::span<std::byte> bytes) override {
    TESSERA_TRY(ForwardingDevice::read(buffer, offset, bytes));
    if (bytes.size() != kStepsAtOnce * sizeof(SampledToken)) return {};
    const SampledToken fault;
    std::memcpy(bytes.data() + kPlace * sizeof(SampledToken), &fault, sizeof fault);
    return {};
  }
  static constexpr size_t kPlace = 6;   // of the token at position 6 of the conversation
};

TEST_F(EngineTest, AFaultBehindTheEndOfAnAnswerIsNobodys) {
  const auto model = Model::load(data_path(kModel), Device::wrap(std::make_unique<Faulty>(*shared_device())), {.context_tokens = 256, .prefix_cache = false});
  ASSERT_TRUE(model) << model.error().message();
  for (const int32_t end : {2, 5, 6}) {   // behind a prompt of one token: the 6th stands at position 6
    std::vector<std::unique_ptr<Asked>> asked;
    asked.push_back(std::make_unique<Asked>(*model, prompt_of(1, 1), 8));
    asked.front()->stop_after = end;
    run(*model, asked);
    const Result<StopReason>& outcome = *asked.front()->request.outcome;
    if (end < 6) {
      ASSERT_TRUE(outcome) << outcome.error().message();
      EXPECT_EQ(*outcome, StopReason::kStopString);
    } else {
      ASSERT_FALSE(outcome);
      EXPECT_EQ(outcome.error().code(), ErrorCode::kNumericFault);
    }
  }
}

// --- threads, on a device that computes nothing: what is watched is the host (under ThreadSanitizer as well) ---------------------------

Result<Model> null_model(int32_t context) {
  return Model::load(data_path(kModel), null_device(), {.context_tokens = context, .cache_folder = "off"});
}

TEST(EngineThreads, EightClientsAskCancelThrowAndLeave) {
  auto model = null_model(256);
  ASSERT_TRUE(model) << model.error().message();
  model->set_chat_template(*ChatTemplate::named("chatml"));
  std::atomic<int> answered = 0, cancelled = 0, thrown = 0, refused = 0;
  const auto client = [&](uint32_t seed) {
    std::mt19937 random(seed);
    for (int round = 0; round < 25; ++round) {
      Session session(*model);
      GenerateOptions options{.max_tokens = 1 + static_cast<int32_t>(random() % 40), .sampler = {.temperature = random() % 2 == 0 ? 0.0f : 0.8f}};
      if (random() % 4 == 0) options.sampler.typical_p = 0.9f;   // on the host
      options.sampler.logit_bias = never_ending(*model);
      const uint32_t kind = random() % 4;
      std::thread canceller;
      if (kind == 1) canceller = std::thread([&session] { session.cancel(); });
      try {
        const auto reply = session.reply(std::string(1 + random() % 60, 'a'), options, [&](std::string_view) -> bool {
          if (kind == 2) throw std::runtime_error("of the app");
          return kind != 3;
        });
        if (reply) ++(reply->stop_reason == StopReason::kCancelled ? cancelled : answered);
        else ++(reply.error().code() == ErrorCode::kCancelled ? cancelled : refused);
      } catch (const std::runtime_error&) {
        ++thrown;
      }
      if (canceller.joinable()) canceller.join();
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 8; ++i) threads.emplace_back(client, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered + cancelled + thrown + refused, 8 * 25);
  EXPECT_GT(answered, 20);
  EXPECT_EQ(model->runtime()->cache().statistics().live_pages, 0);
}

// Prompts and answers of many, as counts: which steps there were does not depend on who ran them.
TEST(EngineThreads, StepsOfAScriptOnTheNullDevice) {
  const auto model = null_model(256);
  ASSERT_TRUE(model) << model.error().message();
  const gpu::Counters before = model->runtime()->counters();
  std::vector<std::unique_ptr<Asked>> asked;
  for (int i = 0; i < 3; ++i) asked.push_back(std::make_unique<Asked>(*model, prompt_of(i, 40), 1 + 4 * kStepsAtOnce));
  run(*model, asked);
  // The first prompt alone, in one chunk; the others in chunks of 32 and 8, for answers wait. Behind each of these 5 a decode step: of 1, 1, 1 2, 1 2, 2 3;
  // then of 2 3, 3, 3.
  const gpu::Counters& after = model->runtime()->counters();
  EXPECT_EQ(after.submissions - before.submissions, 13u);
  for (const auto& one : asked) EXPECT_EQ(one->chosen, std::vector<int32_t>(1 + 4 * kStepsAtOnce, 0));
}

TEST(EngineThreads, CancelledBeforeItBeginsAndInThePrompt) {
  const auto model = null_model(256);
  ASSERT_TRUE(model) << model.error().message();
  std::atomic<bool> cancelled = true;
  std::vector<std::unique_ptr<Asked>> asked;
  asked.push_back(std::make_unique<Asked>(*model, prompt_of(1, 200), 9));
  asked.push_back(std::make_unique<Asked>(*model, prompt_of(2, 1), 9));
  asked[0]->request.cancelled = &cancelled;
  run(*model, asked);
  ASSERT_FALSE(*asked[0]->request.outcome);
  EXPECT_EQ(asked[0]->request.outcome->error().code(), ErrorCode::kCancelled);
  EXPECT_TRUE(*asked[1]->request.outcome);
  // In the prompt: when the other's first tokens come, one chunk of it was run.
  cancelled = false;
  asked.clear();
  asked.push_back(std::make_unique<Asked>(*model, prompt_of(1, 200), 9));
  asked.push_back(std::make_unique<Asked>(*model, prompt_of(2, 1), 30));
  asked[0]->request.cancelled = &cancelled;
  asked[1]->request.on_token = [&](const SampledToken&) -> std::optional<StopReason> {
    cancelled = true;
    return std::nullopt;
  };
  run(*model, asked);
  EXPECT_EQ(asked[0]->request.outcome->error().code(), ErrorCode::kCancelled);
  EXPECT_TRUE(asked[0]->chosen.empty());
  EXPECT_EQ(*model->runtime()->cache().length(asked[0]->sequence.id()), 0);
}

}  // namespace
}  // namespace tessera::test
