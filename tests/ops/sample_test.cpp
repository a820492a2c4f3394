// adjust_logits and sample against the host's sampler: logits as adjusted, tokens as drawn, and what the step's rows, the recent tokens and the results are then.
#include "tessera/ops/sample.hpp"

#include <array>
#include <limits>
#include <numeric>

#include "sample_judge.hpp"

namespace tessera::ops_test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using RowWords = std::array<int32_t, 4>;   // a row of the step, as StepRow has it

// Both ops on some rows of logits; the input is not called "rows", which the harness would write. The step has more rows than that, and more slots than sequences: those must stay as they are.
class Sampling {
 public:
  static constexpr int64_t kSpare = 3;

  Sampling(gpu::Device& device, int64_t channels, int64_t rows, const TestTuning& tuning) : channels_(channels), rows_(rows), runner_(device, tuning) {
    GraphBuilder& g = runner_.g;
    const int64_t all = rows + kSpare;
    const ValueId logits = g.output("logits", rows, channels), step_rows = g.input("step_rows", DType::kI32, 4, {all}), samplers = g.input("samplers", DType::kU32, 4, {all, 4}),
                  biases = g.input("biases", DType::kU32, 2, {all, kMaxDeviceBiases}), recent = g.input("recent", DType::kI32, 1, {all, kRecentTokens}),
                  sampled = g.input("sampled", DType::kU32, 2, {rows, kStepsAtOnce});
    ops::adjust_logits(g, logits, step_rows, samplers, biases, recent);
    ops::sample(g, logits, samplers, step_rows, recent, sampled);
    words_.resize(static_cast<size_t>(all));
    biases_.resize(static_cast<size_t>(all * kMaxDeviceBiases));
    recent_.resize(static_cast<size_t>(all * kRecentTokens));
    sampled_.resize(static_cast<size_t>(rows * kStepsAtOnce), {-7, 7.0f});
    step_rows_.resize(static_cast<size_t>(all), {-5, -5, -5, -1});
  }
  Status prepare() { return runner_.prepare({1, LogitRows::kNone}); }
  const std::vector<RowWords>& step_rows() const { return step_rows_; }

  // Writes the requests: request i is row i of the logits, a row of the step and a slot that `random` chooses.
  Status set(const std::vector<Request>& requests, Random& random) {
    std::vector<int32_t> sources(step_rows_.size()), slots(step_rows_.size());
    std::iota(sources.begin(), sources.end(), 0);
    std::iota(slots.begin(), slots.end(), 0);
    for (size_t i = sources.size(); i-- > 1;) {
      std::swap(sources[i], sources[static_cast<size_t>(random.below(static_cast<int64_t>(i) + 1))]);
      std::swap(slots[i], slots[static_cast<size_t>(random.below(static_cast<int64_t>(i) + 1))]);
    }
    for (int32_t& token : recent_) token = static_cast<int32_t>(random.below(channels_));   // tokens of nobody, which no window may reach
    for (RowWords& row : step_rows_) row = {-5, -5, -5, -1};
    for (size_t i = 0; i < requests.size(); ++i) {
      const Request& request = requests[i];
      const auto slot = static_cast<size_t>(slots[i]);
      const auto position = static_cast<int64_t>(request.history.size()) - 1;
      RowWords& row = step_rows_[static_cast<size_t>(sources[i])];
      row = {request.history.back(), static_cast<int32_t>(position), slots[i], row[3]};
      step_rows_[i][3] = request.active ? sources[i] : -1;
      words_[slot] = sampler_words(request.options, request.wants_log);
      for (size_t b = 0; b < request.options.logit_bias.size(); ++b)
        biases_[slot * kMaxDeviceBiases + b] = {static_cast<uint32_t>(request.options.logit_bias[b].id), std::bit_cast<uint32_t>(request.options.logit_bias[b].bias)};
      for (int64_t p = std::max(int64_t{0}, position + 1 - kRecentTokens); p <= position; ++p)
        recent_[slot * kRecentTokens + static_cast<size_t>(p % kRecentTokens)] = request.history[static_cast<size_t>(p)];
    }
    TESSERA_TRY(runner_.write_raw("sample", "samplers", words_));
    TESSERA_TRY(runner_.write_raw("adjust_logits", "biases", biases_));
    TESSERA_TRY(runner_.write_raw("sample", "recent", recent_));
    TESSERA_TRY(runner_.write_raw("sample", "sampled", sampled_));
    return runner_.write_raw("sample", "rows", step_rows_);
  }

  // One step with these logits, one row a request; fails the test where anything but what the ops promise to write has changed.
  Result<std::vector<Outcome>> step(const std::vector<Request>& requests) {
    Matrix logits(rows_, channels_);
    for (size_t i = 0; i < requests.size(); ++i) std::copy(requests[i].logits.begin(), requests[i].logits.end(), &logits.at(static_cast<int64_t>(i), 0));
    TESSERA_TRY(runner_.write("sample", "logits", logits));
    TESSERA_TRY(runner_.run({}));
    TESSERA_ASSIGN(const Matrix adjusted, runner_.read("sample", "logits"));
    TESSERA_ASSIGN(const std::vector<SampledToken> sampled, runner_.read_raw<SampledToken>("sample", "sampled"));
    TESSERA_ASSIGN(const std::vector<RowWords> rows, runner_.read_raw<RowWords>("sample", "rows"));
    TESSERA_ASSIGN(const std::vector<int32_t> recent, runner_.read_raw<int32_t>("sample", "recent"));
    std::vector<Outcome> outcomes;
    const std::vector<RowWords> before = step_rows_;
    for (size_t i = 0; i < requests.size(); ++i) {
      outcomes.push_back({{}, {adjusted.row(static_cast<int64_t>(i)), adjusted.row(static_cast<int64_t>(i)) + channels_}});
      if (!requests[i].active) continue;
      const auto source = static_cast<size_t>(before[i][3]), next = static_cast<size_t>(before[source][1]) + 1, slot = static_cast<size_t>(before[source][2]);
      outcomes.back().token = sampled_[i * kStepsAtOnce + next % kStepsAtOnce] = sampled[i * kStepsAtOnce + next % kStepsAtOnce];
      const int32_t token = std::max(outcomes.back().token.id, 0);
      recent_[slot * kRecentTokens + next % kRecentTokens] = token;
      step_rows_[source][0] = token;
      step_rows_[source][1] = static_cast<int32_t>(next);
    }
    EXPECT_EQ(rows, step_rows_);
    EXPECT_EQ(recent, recent_);
    EXPECT_EQ(std::memcmp(sampled.data(), sampled_.data(), sampled.size() * sizeof(SampledToken)), 0);
    return outcomes;
  }

 private:
  int64_t channels_, rows_;
  OpRunner runner_;
  std::vector<SamplerWords> words_;
  std::vector<std::array<uint32_t, 2>> biases_;
  std::vector<int32_t> recent_;
  std::vector<SampledToken> sampled_;
  std::vector<RowWords> step_rows_;
};

// ---- requests ----------------------------------------------------------------------------------------------------------------------

enum class Shape { kPeaked, kFlat, kEqual, kSteps, kMasked };

std::vector<float> logits_of(Shape shape, int64_t channels, Random& random) {
  std::vector<float> logits(static_cast<size_t>(channels));
  for (float& v : logits) {
    const float a = random.uniform(-1, 1), spread = a * a * a;   // most in the middle, as a model's
    v = shape == Shape::kEqual ? -1.5f : shape == Shape::kFlat ? random.uniform(-0.5f, 0.5f) : shape == Shape::kSteps ? std::round(6 * spread) * 0.5f : 12 * spread;
    if (shape == Shape::kMasked && random.below(3) == 0) v = -kInf;
  }
  if (shape == Shape::kMasked) logits[static_cast<size_t>(random.below(channels))] = 1.0f;
  return logits;
}

// Every option is off, alone or among others by the bits of `chosen`.
SamplerOptions options_of(uint32_t chosen, int64_t channels, Random& random) {
  SamplerOptions o{.temperature = random.uniform(0.2f, 2.5f), .seed = (uint64_t{random.bits()} << 32) | random.bits(), .attempt = static_cast<uint32_t>(random.below(3))};
  const float widths[] = {0.1f, 0.5f, 0.9f, 0.99f};
  if ((chosen & 1u) != 0) o.top_k = static_cast<int32_t>(1 + random.below(std::min<int64_t>(channels + 2, 60)));
  if ((chosen & 2u) != 0) o.top_p = widths[random.below(4)];
  if ((chosen & 4u) != 0) o.min_p = random.below(8) == 0 ? 1.0f : random.uniform(0.001f, 0.3f);
  if ((chosen & 8u) != 0) o.repetition_penalty = random.below(2) == 0 ? 1.3f : 0.7f;
  if ((chosen & 16u) != 0) {
    o.presence_penalty = random.uniform(-1, 1);
    o.frequency_penalty = random.uniform(-0.5f, 0.5f);
  }
  if ((chosen & 24u) != 0) o.repeat_last_n = random.below(4) == 0 ? static_cast<int32_t>(kRecentTokens) : static_cast<int32_t>(1 + random.below(70));
  if ((chosen & 32u) != 0)
    for (int64_t n = random.below(5) == 0 ? kMaxDeviceBiases : 1 + random.below(6); n > 0; --n) {
      const bool never = random.below(4) == 0 && channels > 1;
      o.logit_bias.push_back({static_cast<int32_t>(never ? 1 + random.below(channels - 1) : random.below(channels)), never ? -kInf : random.uniform(-2, 2)});
    }
  if ((chosen & 64u) != 0) o.temperature = 0;
  return o;
}

Request request_of(uint32_t chosen, int64_t channels, Random& random) {
  Request request{.options = options_of(chosen, channels, random), .history = {}, .logits = logits_of(static_cast<Shape>(random.below(5)), channels, random)};
  const int64_t lengths[] = {1, 1 + random.below(20), 200 + random.below(200), 1000 + random.below(300)};
  request.history.resize(static_cast<size_t>(lengths[random.below(4)]));
  const int64_t kinds = std::max(int64_t{1}, channels / (1 + random.below(4)));   // the fewer, the more often each
  for (int32_t& token : request.history) token = static_cast<int32_t>(random.below(kinds));
  request.wants_log = random.below(2) == 0;
  return request;
}

// ---- tests -------------------------------------------------------------------------------------------------------------------------

struct SampleCase {
  int64_t channels = 1;
  int workgroup = 1;
  int batches = 8;
  bool subgroups = false;
};
std::string name_of_case(const testing::TestParamInfo<SampleCase>& info) { return cat("vocab", info.param.channels, "_workgroup", info.param.workgroup, info.param.subgroups ? "_subgroups" : ""); }
std::vector<SampleCase> cases() {
  if (full_tier()) {
    std::vector<SampleCase> all;
    for (const int64_t channels : {1, 2, 3, 5, 127, 4098, 49152, 128256})
      for (const int workgroup : {1, 4, 64, 256}) {
        if (workgroup == 1 && channels > 1000 && on_vulkan()) continue;   // no Vulkan driver has one lane do all: lavapipe would end its loops
        for (const bool subgroups : {false, true}) all.push_back({channels, workgroup, channels < 10000 ? 24 : 2, subgroups});
      }
    return all;
  }
  return {{1, 4}, {3, 1}, {5, 64}, {127, 1}, {127, 64}, {127, 64, 4, true}, {4098, 4, 3}, {49152, 64, 1}};
}

class Sample : public OpTest, public testing::WithParamInterface<SampleCase> {
 protected:
  static constexpr int64_t kRows = 16;
  void SetUp() override {
    OpTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (GetParam().subgroups && device().info().subgroup_max == 0) GTEST_SKIP() << device().info().name << " has no subgroups";
    sampling_ = std::make_unique<Sampling>(device(), channels(), kRows, TestTuning{.workgroup = GetParam().workgroup, .subgroups = GetParam().subgroups});
    TESSERA_ASSERT_OK(sampling_->prepare());
  }
  int64_t channels() const { return GetParam().channels; }
  std::vector<Outcome> outcomes(const std::vector<Request>& requests, Random& random) {
    const Status set = sampling_->set(requests, random);
    EXPECT_TRUE(set) << message_of(set);
    auto found = sampling_->step(requests);
    EXPECT_TRUE(found) << message_of(found);
    return found ? *found : std::vector<Outcome>(requests.size());
  }
  void draws_what_the_host_draws();
  void tells_numeric_faults();
  void walks_on_without_the_host();
  std::unique_ptr<Sampling> sampling_;
};

void Sample::draws_what_the_host_draws() {
  Random random(static_cast<uint32_t>(channels()));
  int others = 0, all = 0;
  uint32_t chosen = 0;
  for (int batch = 0; batch < GetParam().batches; ++batch) {
    std::vector<Request> requests;
    for (int64_t i = 0; i < kRows; ++i) {
      requests.push_back(request_of(chosen < 8 ? chosen == 0 ? 0 : 1u << (chosen - 1) : random.bits() & (random.below(4) == 0 ? 127u : 63u), channels(), random));
      ++chosen;
    }
    requests[static_cast<size_t>(random.below(kRows))].active = false;
    const std::vector<Outcome> found = outcomes(requests, random);
    for (size_t i = 0; i < requests.size(); ++i) {
      if (requests[i].active) {
        others += judge(requests[i], found[i]);
        ++all;
      } else {
        EXPECT_EQ(found[i].adjusted, requests[i].logits) << "a row that is not active was touched";
      }
      if (HasFailure()) FAIL() << "batch " << batch << " row " << i;
    }
  }
  EXPECT_LE(others, 1 + all / 50) << "of " << all << ": what only rounding excuses should be rare";
}

void Sample::tells_numeric_faults() {
  Random random(2);
  std::vector<Request> requests;
  for (const float bad : {kNan, -kNan, kInf, -kInf})
    for (const uint32_t chosen : {64u, 0u, 7u, 63u}) {
      requests.push_back(request_of(chosen, channels(), random));
      Request& request = requests.back();
      request.wants_log = true;
      request.options.repetition_penalty = 1.3f;   // of a fault
      if (bad == -kInf) std::fill(request.logits.begin(), request.logits.end(), bad);
      else request.logits[static_cast<size_t>(random.below(channels()))] = bad;
    }
  const std::vector<Outcome> found = outcomes(requests, random);
  for (size_t i = 0; i < found.size(); ++i) {
    SamplerScratch scratch;
    EXPECT_EQ(ops::sample_reference(requests[i].logits.data(), channels(), sampler_words(requests[i].options), 0.5).id, -1);
    EXPECT_FALSE(sample(requests[i].logits, requests[i].options, 0, scratch, requests[i].history));
    EXPECT_EQ(found[i].token.id, -1) << i;
    EXPECT_EQ(found[i].token.log_probability, 0.0f);
  }
}

// The device carries on by itself: each step reads the token, the position and the recent tokens that the step before left.
void Sample::walks_on_without_the_host() {
  Random random(3);
  std::vector<Request> requests;
  for (uint32_t i = 0; i < kRows; ++i) requests.push_back(request_of(i == 0 ? 64u : i * 4u % 64u, channels(), random));
  ASSERT_TRUE(sampling_->set(requests, random));
  const int steps = channels() < 10000 ? 11 : 2;   // past the end of the ring of results
  for (int step = 0; step < steps; ++step) {
    const auto found = sampling_->step(requests);
    ASSERT_TRUE(found) << message_of(found);
    for (size_t i = 0; i < requests.size(); ++i) {
      judge(requests[i], (*found)[i]);
      requests[i].history.push_back(std::max((*found)[i].token.id, 0));   // 0 where all was forbidden
      requests[i].logits = logits_of(static_cast<Shape>(random.below(5)), channels(), random);
    }
    if (HasFailure()) FAIL() << "step " << step;
  }
}

// One test, for compiling costs more than all that is asked.
TEST_P(Sample, DrawsAsTheHostTellsFaultsAndWalksOn) {
  draws_what_the_host_draws();
  tells_numeric_faults();
  walks_on_without_the_host();
}
INSTANTIATE_TEST_SUITE_P(Sample, Sample, testing::ValuesIn(cases()), name_of_case);

// Pearson's chi-square of 20,480 draws. Of k degrees of freedom it is about normal, mean k and variance 2k: beyond four deviations of it once in 30,000 times,
// and the draws are the same every time.
TEST_F(OpTest, DrawsAreDistributedAsTheyShouldBe) {
  constexpr int64_t kVocab = 21, kRows = 512;
  Random random(4);
  Sampling sampling(device(), kVocab, kRows, {.workgroup = 1});
  TESSERA_ASSERT_OK(sampling.prepare());
  const std::vector<float> logits = logits_of(Shape::kPeaked, kVocab, random);
  for (const SamplerOptions& chosen : {SamplerOptions{.temperature = 4}, SamplerOptions{.temperature = 5, .top_k = 12, .top_p = 0.95f, .min_p = 0.01f}}) {
    std::vector<Request> requests(kRows, {.options = chosen, .history = {0}, .logits = logits});
    for (Request& request : requests) request.options.seed = random.bits();
    TESSERA_ASSERT_OK(sampling.set(requests, random));
    std::vector<double> counts(kVocab, 0.0);
    double draws = 0;
    for (int step = 0; step < 40; ++step) {
      const auto found = sampling.step(requests);
      ASSERT_TRUE(found);
      for (const Outcome& outcome : *found) {
        ASSERT_GE(outcome.token.id, 0);
        counts[static_cast<size_t>(outcome.token.id)] += 1;
        draws += 1;
      }
    }
    SamplerScratch scratch;
    ASSERT_TRUE(distribute(logits, chosen, {}, scratch));
    double chi_square = 0, cells = 0;
    for (const Candidate& candidate : scratch.candidates) {
      const double expected = candidate.score * draws;
      double& count = counts[static_cast<size_t>(candidate.id)];
      chi_square += (count - expected) * (count - expected) / expected;
      cells += 1;
      EXPECT_GE(expected, 5.0) << "a cell that chi-square is not made for";
      count = 0;
    }
    EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0.0), 0.0) << "tokens that cannot be drawn";
    EXPECT_LT(chi_square, cells - 1 + 4 * std::sqrt(2 * (cells - 1)));
  }
}

TEST(SampleReference, DrawsWhatTheHostDraws) {
  Random random(5);
  SamplerScratch scratch;
  for (int n = 0; n < 2000; ++n) {
    Request request = request_of(random.bits() & 127u, 1 + random.below(60), random);
    const Result<int32_t> host = sample(request.logits, request.options, request.history.size(), scratch, request.history);
    std::vector<std::pair<int32_t, float>> biases;
    for (const LogitBias& bias : request.options.logit_bias) biases.emplace_back(bias.id, bias.bias);
    const auto recent = sampling::recent_of(request.history, request.options, request.logits.size());
    const SamplerWords words = sampler_words(request.options);
    ops::adjust_logits_reference(request.logits.data(), words, biases, {recent->begin(), recent->end()});
    const double u = philox_uniform(request.options.seed, request.history.size(), request.options.attempt);
    const SampledToken token = ops::sample_reference(request.logits.data(), static_cast<int64_t>(request.logits.size()), words, u);
    if (host && token.id != *host) {   // the reference adjusts in floats
      EXPECT_TRUE(Judge(request.logits, request.options, u).may_be(token.id)) << chain_text(request.options);
    }
    EXPECT_EQ(host.has_value(), token.id >= 0);
  }
}

TEST(DeviceSampler, SaysWhatTheDeviceCannot) {
  EXPECT_TRUE(device_can_sample({}));
  EXPECT_TRUE(device_can_sample({.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repetition_penalty = 1.1f, .repeat_last_n = 256, .logit_bias = {{3, -kInf}}}));
  EXPECT_TRUE(device_can_sample({.temperature = 1, .repeat_last_n = -1})) << "no penalty looks back";
  EXPECT_TRUE(device_can_sample({.temperature = 1, .presence_penalty = 1, .repeat_last_n = 0}));
  EXPECT_FALSE(device_can_sample({.temperature = 1, .presence_penalty = 1, .repeat_last_n = -1}));
  EXPECT_FALSE(device_can_sample({.temperature = 0, .repetition_penalty = 2, .repeat_last_n = 257}));
  EXPECT_FALSE(device_can_sample({.temperature = 1, .typical_p = 0.9f}));
  EXPECT_FALSE(device_can_sample({.temperature = 1e-20f}));
  EXPECT_FALSE(device_can_sample({.temperature = 1e20f}));
  EXPECT_FALSE(device_can_sample({.temperature = 1, .logit_bias = std::vector<LogitBias>(257)}));
  EXPECT_FALSE(device_can_sample({.temperature = 1, .logit_bias = {{0, 3e38f}}}));
}

TEST(DeviceSampler, PutsEveryOptionWhereTheKernelsReadIt) {
  const SamplerOptions options{.temperature = 0.5f, .top_k = 7, .top_p = 0.25f, .min_p = 0.125f, .repetition_penalty = 2, .presence_penalty = 3, .frequency_penalty = 4, .repeat_last_n = 9,
                               .logit_bias = {{1, 1.0f}, {2, 2.0f}}, .seed = 0x123456789abcdef0u, .attempt = 11};
  const auto words = std::bit_cast<std::array<uint32_t, 16>>(sampler_words(options, true));
  const auto f = [](float value) { return std::bit_cast<uint32_t>(value); };
  EXPECT_EQ(words, (std::array<uint32_t, 16>{f(0.5f), 7, f(0.25f), f(0.125f), f(2), f(3), f(4), 9, 0x9abcdef0u, 0x12345678u, 11, 2, 1, 0, 0, 0}));
  EXPECT_EQ(sampler_words({.temperature = 1, .repeat_last_n = -1}).window, 0u);
}

}  // namespace
}  // namespace tessera::ops_test
