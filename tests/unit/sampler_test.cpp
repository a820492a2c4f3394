#include "tessera/engine/sampler.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <iostream>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "allocation_count.hpp"

namespace tessera {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t token(const std::vector<float>& logits, const SamplerOptions& options, uint64_t position = 0) {
  SamplerScratch scratch;
  const Result<int32_t> id = sample(logits, options, position, scratch);
  EXPECT_TRUE(id) << id.error().message();
  return id ? *id : -1;
}

ErrorCode error_of(const std::vector<float>& logits, const SamplerOptions& options) {
  SamplerScratch scratch;
  const Result<int32_t> id = sample(logits, options, 0, scratch);
  EXPECT_FALSE(id) << "token " << *id;
  return id ? ErrorCode::kBusy : id.error().code();
}

TEST(SamplerOptions, OutOfRangeIsRefusedByName) {
  for (const float temperature : {-1.0f, -1e-30f, kNan, kInf, -kInf}) {
    const SamplerOptions options{.temperature = temperature};
    ASSERT_FALSE(options.validate()) << temperature;
    EXPECT_EQ(options.validate().error().code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(options.validate().error().message().find("temperature"), std::string::npos);
    EXPECT_EQ(error_of({1, 2}, options), ErrorCode::kInvalidArgument);
  }
  const SamplerOptions negative{.temperature = 1, .top_k = -1};
  ASSERT_FALSE(negative.validate());
  EXPECT_NE(negative.validate().error().message().find("top_k is -1"), std::string::npos);
  EXPECT_EQ(error_of({1, 2}, negative), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(SamplerOptions{}.validate());
  EXPECT_TRUE((SamplerOptions{.temperature = 1e-45f, .top_k = INT32_MAX, .seed = UINT64_MAX}.validate()));
}

TEST(Sampler, BrokenLogitsAreAnErrorNeverAToken) {
  for (const SamplerOptions& options : {SamplerOptions{}, SamplerOptions{.temperature = 1}, SamplerOptions{.temperature = 1, .top_k = 2}}) {
    for (size_t place = 0; place < 4; ++place) {
      for (const float bad : {kNan, -kNan, kInf}) {
        std::vector<float> logits = {1, 3, 2, 0};
        logits[place] = bad;
        EXPECT_EQ(error_of(logits, options), ErrorCode::kNumericFault) << bad << " at " << place;
      }
    }
    EXPECT_EQ(error_of({-kInf, -kInf, -kInf}, options), ErrorCode::kNumericFault);
    EXPECT_EQ(error_of({}, options), ErrorCode::kInvalidArgument);
  }
}

TEST(Sampler, GreedyTakesTheGreatestAndTheLowestIdOfEquals) {
  EXPECT_EQ(token({1, 5, 3}, {}), 1);
  EXPECT_EQ(token({2, 7, 7, 7}, {}), 1);
  EXPECT_EQ(token({-3, -2, -kInf}, {}), 1);
  EXPECT_EQ(token({-kInf, -3.4028235e38f}, {}), 1) << "the most negative float is still a token";
  EXPECT_EQ(token({0.0f, -0.0f}, {}), 0);
  EXPECT_EQ(token({-0.0f, 0.0f}, {}), 0) << "negative zero equals zero";
  EXPECT_EQ(token({4}, {}), 0);
}

TEST(Sampler, TopOneIsGreedyAtAnyTemperature) {
  for (uint64_t position = 0; position < 200; ++position) {
    EXPECT_EQ(token({2, 7, 7, 7}, {.temperature = 100, .top_k = 1, .seed = 3}, position), 1);
    EXPECT_EQ(token({2, 7, 7, 8}, {.temperature = 100, .top_k = 1, .seed = 3}, position), 3);
  }
}

TEST(Sampler, TopKDropsTheHighestIdsOfEquals) {
  std::set<int32_t> seen;
  for (uint64_t position = 0; position < 400; ++position) seen.insert(token({5, 1, 5, 9, 5, 5}, {.temperature = 50, .top_k = 3}, position));
  EXPECT_EQ(seen, (std::set<int32_t>{0, 2, 3}));
}

TEST(Sampler, TopKBeyondTheVocabularyIsTheWholeVocabulary) {
  const std::vector<float> logits = {0, 1, 2, -kInf, 0.5f};
  for (uint64_t position = 0; position < 500; ++position)
    for (const int32_t k : {4, 5, 6, INT32_MAX})
      EXPECT_EQ(token(logits, {.temperature = 1, .top_k = k}, position), token(logits, {.temperature = 1}, position));
}

TEST(Sampler, TinyTemperatureIsGreedyAndDoesNotOverflow) {
  for (const float temperature : {1e-30f, 1e-38f, 1e-45f})
    for (uint64_t position = 0; position < 100; ++position) {
      EXPECT_EQ(token({1, 5, 3}, {.temperature = temperature}, position), 1);
      EXPECT_EQ(token({-3.4e38f, 3.4e38f, 0}, {.temperature = temperature, .top_k = 2}, position), 1);
    }
}

TEST(Sampler, HugeTemperatureIsUniformOverTheTokensThatMayBeDrawn) {
  std::set<int32_t> seen;
  for (uint64_t position = 0; position < 200; ++position) seen.insert(token({-3.4e38f, 3.4e38f, -kInf, 0}, {.temperature = 3.4e38f}, position));
  EXPECT_EQ(seen, (std::set<int32_t>{0, 1, 3}));
}

// Inverse CDF in ascending order of id: where the draw falls in [0, 1) says which token it is. Probabilities 1/8, 1/2, 0, 1/4, 1/8.
TEST(Sampler, DrawWalksTheIdsInAscendingOrder) {
  const float ln2 = std::log(2.0f);
  const std::vector<float> logits = {0, 2 * ln2, -kInf, ln2, 0};
  for (uint64_t position = 0; position < 2000; ++position) {
    const double u = philox_uniform(42, position);
    if (std::abs(u - 0.125) < 1e-6 || std::abs(u - 0.625) < 1e-6 || std::abs(u - 0.875) < 1e-6) continue;  // within rounding of ln2
    const int32_t expected = u < 0.125 ? 0 : u < 0.625 ? 1 : u < 0.875 ? 3 : 4;
    EXPECT_EQ(token(logits, {.temperature = 1, .seed = 42}, position), expected) << "u = " << u;
  }
}

// The same after top-k: ids 1, 3, 4 stay, with probabilities 2/7, 1/7, 4/7. By descending logit the walk would go 4, 1, 3.
TEST(Sampler, DrawWalksTheIdsInAscendingOrderAfterTopKToo) {
  const float ln2 = std::log(2.0f);
  const std::vector<float> logits = {0, 2 * ln2, -ln2, ln2, 3 * ln2};
  for (uint64_t position = 0; position < 2000; ++position) {
    const double u = philox_uniform(43, position);
    if (std::abs(u - 2 / 7.0) < 1e-6 || std::abs(u - 3 / 7.0) < 1e-6) continue;  // within rounding of ln2
    const int32_t expected = u < 2 / 7.0 ? 1 : u < 3 / 7.0 ? 3 : 4;
    EXPECT_EQ(token(logits, {.temperature = 1, .top_k = 3, .seed = 43}, position), expected) << "u = " << u;
  }
}

// At the ends of [0, 1) the draw stays on tokens of positive probability.
TEST(Sampler, DrawAtTheEndsOfTheUnitInterval) {
  const std::vector<Candidate> candidates = {{3, 0.0}, {5, 0.1}, {6, 0.2}, {9, 0.0}};
  EXPECT_EQ(sampling::draw(candidates, 0.0), 5);
  EXPECT_EQ(sampling::draw(candidates, 1 - 0x1p-53), 6);
}

TEST(Sampler, SameSeedAndPositionGiveTheSameTokenWhateverCameBefore) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(1000);
  for (float& logit : logits) logit = normal(random);
  const SamplerOptions options{.temperature = 0.9f, .top_k = 40, .seed = 77};
  SamplerScratch scratch;
  std::vector<int32_t> forwards, backwards;
  for (uint64_t position = 0; position < 100; ++position) forwards.push_back(*sample(logits, options, position, scratch));
  for (uint64_t position = 100; position-- > 0;) backwards.insert(backwards.begin(), *sample(logits, options, position, scratch));
  EXPECT_EQ(forwards, backwards);
  SamplerOptions other = options;
  other.seed = 78;
  std::vector<int32_t> different;
  for (uint64_t position = 0; position < 100; ++position) different.push_back(*sample(logits, other, position, scratch));
  EXPECT_NE(forwards, different);
}

TEST(Sampler, OnlyTheFirstCallAllocates) {
  std::vector<float> logits(5000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i * 7919 % 5000) * 0.001f;
  SamplerScratch scratch;
  bool good = sample(logits, {.temperature = 1}, 0, scratch).has_value();
  const int64_t before = allocation_count;
  for (uint64_t position = 1; position < 20; ++position)
    good = good && sample(logits, {.temperature = 1}, position, scratch) && sample(logits, {.temperature = 1, .top_k = 50}, position, scratch) &&
           sample(logits, {}, position, scratch);
  EXPECT_EQ(allocation_count - before, 0);
  EXPECT_TRUE(good);
}

// Pearson's statistic over kDraws against probabilities computed here, in long double, from the definition. The threshold is the quantile
// of the chi-square distribution that a right sampler exceeds for one seed in 10⁶; a bias of 1 % of a 25 % token already adds about 8 per
// 10⁵ draws. The seeds are fixed, so the outcome never changes.
struct Distribution {
  const char* name;
  std::vector<float> logits;
  SamplerOptions options;
  std::vector<int32_t> support;  // the ids that may be drawn
  double threshold;              // chi-square quantile 1 − 10⁻⁶ at support − 1 degrees of freedom
};

class SamplerChiSquare : public testing::TestWithParam<Distribution> {};

TEST_P(SamplerChiSquare, FrequenciesMatchTheExactProbabilities) {
  const Distribution& d = GetParam();
  constexpr int kDraws = 100000;
  std::cout << "seed " << d.options.seed << '\n';
  std::vector<long double> expected(d.logits.size(), 0);
  long double sum = 0;
  for (const int32_t id : d.support) {
    const size_t i = static_cast<size_t>(id);
    sum += expected[i] = std::exp(static_cast<long double>(d.logits[i]) / d.options.temperature);
  }
  std::vector<int> counts(d.logits.size(), 0);
  SamplerScratch scratch;
  for (uint64_t position = 0; position < kDraws; ++position) ++counts[static_cast<size_t>(*sample(d.logits, d.options, position, scratch))];
  double statistic = 0;
  for (size_t id = 0; id < expected.size(); ++id) {
    const double mean = static_cast<double>(expected[id] / sum) * kDraws;
    if (mean == 0) {
      EXPECT_EQ(counts[id], 0) << "token " << id << " cannot be drawn";
    } else {
      ASSERT_GE(mean, 5) << "too rare for the chi-square approximation: choose other logits";
      statistic += (counts[id] - mean) * (counts[id] - mean) / mean;
    }
  }
  EXPECT_LT(statistic, d.threshold);
}

INSTANTIATE_TEST_SUITE_P(
    Distributions, SamplerChiSquare,
    testing::Values(Distribution{"coin", {0, 0}, {.temperature = 1, .seed = 1}, {0, 1}, 23.93},
                    Distribution{"plain", {0, 1, 2, -1, 3, 0.5f, 1.5f, -2}, {.temperature = 1, .seed = 2}, {0, 1, 2, 3, 4, 5, 6, 7}, 40.52},
                    Distribution{"cold", {0, 1, 2, -1, 3, 0.5f, 1.5f, -2}, {.temperature = 0.7f, .seed = 3}, {0, 1, 2, 3, 4, 5, 6, 7}, 40.52},
                    Distribution{"hot", {0, 1, 2, -1, 3, 0.5f, 1.5f, -2}, {.temperature = 5, .seed = 4}, {0, 1, 2, 3, 4, 5, 6, 7}, 40.52},
                    Distribution{"top_k", {0, 1, 2, -1, 3, 0.5f, 1.5f, -2}, {.temperature = 1.3f, .top_k = 4, .seed = 5}, {1, 2, 4, 6}, 30.66},
                    Distribution{"never", {0, -kInf, 2, -kInf, 1}, {.temperature = 1, .seed = 6}, {0, 2, 4}, 27.63},
                    Distribution{"large", {1000, 1001, 1002, 999}, {.temperature = 1, .seed = uint64_t{7} << 40}, {0, 1, 2, 3}, 30.66}),
    [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace tessera
