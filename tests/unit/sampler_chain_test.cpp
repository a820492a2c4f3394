// The steps of the sampler's chain: against Hugging Face transformers' processors, against probabilities computed here from the definitions,
// and by many draws.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iostream>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "allocation_count.hpp"
#include "tessera/engine/sampler.hpp"

namespace tessera {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
using Probabilities = std::map<int32_t, double>;   // of the tokens that can be drawn

Probabilities distribution(const std::vector<float>& logits, const SamplerOptions& options, const std::vector<int32_t>& history = {}) {
  SamplerScratch scratch;
  const Status status = distribute(logits, options, history, scratch);
  EXPECT_TRUE(status) << status.error().message();
  Probabilities out;
  for (const Candidate& candidate : scratch.candidates) out[candidate.id] = candidate.score;
  return out;
}

// --- another implementation ------------------------------------------------------------------------------------------------------------

struct Case {
  std::string name;
  SamplerOptions options;
  std::vector<int32_t> history;
  std::vector<float> logits;
  Probabilities left;
};

float read_float(std::istream& in) {  // operator>> does not take "-inf"
  std::string text;
  in >> text;
  return std::strtof(text.c_str(), nullptr);
}

template <class T, class Read>
void read_list(std::vector<T>& out, size_t count, Read read) {
  for (size_t i = 0; i < count; ++i) out.push_back(read());
}

std::vector<Case> cases_of_transformers() {
  std::ifstream in(TESSERA_TEST_DATA "/sampler/transformers.txt");
  std::vector<Case> cases;
  const std::map<std::string, float SamplerOptions::*> floats = {{"temperature", &SamplerOptions::temperature}, {"top_p", &SamplerOptions::top_p}, {"min_p", &SamplerOptions::min_p},
                                                                 {"typical_p", &SamplerOptions::typical_p}, {"repetition_penalty", &SamplerOptions::repetition_penalty},
                                                                 {"presence_penalty", &SamplerOptions::presence_penalty}, {"frequency_penalty", &SamplerOptions::frequency_penalty}};
  const auto integer = [&in] {
    int32_t value = 0;
    in >> value;
    return value;
  };
  for (std::string word; in >> word;) {
    if (word == "case") cases.emplace_back(), in >> cases.back().name;
    Case& c = cases.back();
    if (word == "top_k") c.options.top_k = integer();
    if (word == "repeat_last_n") c.options.repeat_last_n = integer();
    if (word == "history") read_list(c.history, static_cast<size_t>(integer()), integer);
    if (word == "logits") read_list(c.logits, 40, [&] { return read_float(in); });
    if (word == "bias") {
      const int32_t id = integer();
      c.options.logit_bias.push_back({id, read_float(in)});
    }
    if (const auto found = floats.find(word); found != floats.end()) c.options.*found->second = read_float(in);
    if (word != "left") continue;
    for (int32_t i = integer(); i > 0; --i) {
      const int32_t id = integer();
      in >> c.left[id];
    }
  }
  return cases;
}

// Both compute in double from the same float32 numbers, with sums in another order: 40 terms, logits within ±20 over temperatures ≥ 0.3,
// so an exponent below 70 with a relative error of 2⁻⁵³ or so. Probabilities agree to 70 · 40 · 2⁻⁵³ ≈ 3e-13; they are written with 15 digits.
TEST(SamplerChain, GivesTheProbabilitiesThatTransformersGives) {
  const std::vector<Case> cases = cases_of_transformers();
  ASSERT_EQ(cases.size(), 47u);
  for (const Case& c : cases) {
    const Probabilities ours = distribution(c.logits, c.options, c.history);
    const std::string steps = c.name + ": " + chain_text(c.options);
    ASSERT_EQ(ours.size(), c.left.size()) << steps;
    for (const auto& [id, probability] : c.left) {
      ASSERT_TRUE(ours.contains(id)) << steps << " drops token " << id;
      EXPECT_NEAR(ours.at(id), probability, 1e-12 * probability + 1e-300) << steps << ", token " << id;
    }
  }
}

// --- the definitions, one full sort after the other, in long double --------------------------------------------------------------------

using Wide = long double;
using Row = std::vector<std::pair<int32_t, Wide>>;   // id, logit

std::vector<Wide> softmax_of(const Row& row) {
  Wide top = row[0].second, sum = 0;
  for (const auto& [id, logit] : row) top = std::max(top, logit);
  std::vector<Wide> p;
  for (const auto& [id, logit] : row) sum += p.emplace_back(std::exp(logit - top));
  for (Wide& value : p) value /= sum;
  return p;
}

// Keeps the first tokens by `key` whose probabilities reach `mass`.
template <class Key>
Row by_mass(const Row& row, Wide mass, Key key) {
  const std::vector<Wide> p = softmax_of(row);
  std::vector<size_t> order(row.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(p[a]) < key(p[b]); });
  Row kept;
  Wide reached = 0;
  for (const size_t i : order) {
    if (reached >= mass) break;
    kept.push_back(row[i]);
    reached += p[i];
  }
  return kept;
}

Probabilities by_definition(const std::vector<float>& logits, const SamplerOptions& o, const std::vector<int32_t>& history) {
  const size_t window = o.repeat_last_n < 0 ? history.size() : std::min(history.size(), static_cast<size_t>(o.repeat_last_n));
  std::map<int32_t, int> counts;
  for (size_t i = history.size() - window; i < history.size(); ++i) ++counts[history[i]];
  Row row;
  for (size_t i = 0; i < logits.size(); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    Wide logit = logits[i];
    for (const LogitBias& entry : o.logit_bias)
      if (entry.id == id) logit += entry.bias;
    if (counts.contains(id)) {
      logit = logit > 0 ? logit / o.repetition_penalty : logit * o.repetition_penalty;
      logit -= o.presence_penalty + static_cast<Wide>(counts[id]) * o.frequency_penalty;
    }
    if (!std::isinf(logit)) row.emplace_back(id, logit);
  }
  const auto likelier = [](const auto& a, const auto& b) { return a.second > b.second; };
  std::stable_sort(row.begin(), row.end(), likelier);
  if (o.top_k > 0) row.resize(std::min(row.size(), static_cast<size_t>(o.top_k)));
  Wide entropy = 0;
  for (const Wide p : softmax_of(row)) entropy -= p * std::log(p);
  if (o.typical_p != 1) row = by_mass(row, o.typical_p, [&](Wide p) { return std::abs(-std::log(p) - entropy); });
  if (o.top_p != 1) row = by_mass(row, o.top_p, [](Wide p) { return -p; });
  const std::vector<Wide> p = softmax_of(row);
  const Wide most = *std::max_element(p.begin(), p.end());
  Row likely;
  for (size_t i = 0; i < row.size(); ++i)
    if (p[i] >= o.min_p * most) likely.emplace_back(row[i].first, row[i].second / o.temperature);
  const std::vector<Wide> last = softmax_of(likely);
  Probabilities out;
  for (size_t i = 0; i < likely.size(); ++i) out[likely[i].first] = static_cast<double>(last[i]);
  return out;
}

std::vector<float> random_logits(size_t count, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// Vocabularies that take several blocks of the partial sort, flat distributions that keep nearly everything.
TEST(SamplerChain, PartialSortsKeepWhatFullSortsKeep) {
  const std::vector<int32_t> history = {1, 2, 3, 3, 3, 900, 1, 50};
  for (const size_t vocab : {1000u, 5000u})
    for (const float spread : {0.01f, 1.0f, 4.0f})
      for (const SamplerOptions& o : {SamplerOptions{.temperature = 1, .top_p = 0.3f}, SamplerOptions{.temperature = 1, .top_p = 0.97f}, SamplerOptions{.temperature = 0.8f, .typical_p = 0.4f},
                                      SamplerOptions{.temperature = 1.2f, .typical_p = 0.95f}, SamplerOptions{.temperature = 2, .min_p = 0.3f},
                                      SamplerOptions{.temperature = 0.7f, .top_k = 700, .top_p = 0.9f, .min_p = 0.01f, .typical_p = 0.97f, .repetition_penalty = 1.2f, .frequency_penalty = 0.3f}}) {
        const std::vector<float> logits = random_logits(vocab, spread, 5);
        const Probabilities ours = distribution(logits, o, history), exact = by_definition(logits, o, history);
        ASSERT_EQ(ours.size(), exact.size()) << chain_text(o) << " of " << vocab;
        for (const auto& [id, p] : exact) ASSERT_NEAR(ours.at(id), p, 1e-11 * p) << chain_text(o);   // sums of 5000 terms: 5000 · 2⁻⁵³ ≈ 6e-13
      }
}

// Pearson's statistic over 10⁵ draws, as in sampler_test.cpp; the threshold is the quantile that a right sampler exceeds for one seed in 10⁶,
// by Wilson and Hilferty's approximation (PNAS 1931): exact to 1 % from 3 degrees of freedom on.
double chi_square_limit(size_t degrees) {
  const double k = 2.0 / (9.0 * static_cast<double>(degrees)), normal = 4.753424;
  return static_cast<double>(degrees) * std::pow(1 - k + normal * std::sqrt(k), 3);
}

TEST(SamplerChain, DrawsFollowTheDefinitions) {
  const std::vector<float> logits = {0, 1, 2, -1, 3, 0.5f, 1.5f, -2, 2.5f, -kInf, 0.25f, 1.75f};
  const std::vector<int32_t> history = {7, 4, 2, 4, 8, 4};
  const std::vector<SamplerOptions> chains = {{.temperature = 1, .top_p = 0.8f}, {.temperature = 1, .min_p = 0.15f}, {.temperature = 1, .typical_p = 0.6f}, {.temperature = 1, .repetition_penalty = 1.5f},
      {.temperature = 1, .presence_penalty = 1}, {.temperature = 1, .frequency_penalty = 0.4f}, {.temperature = 1, .frequency_penalty = 0.4f, .repeat_last_n = 2}, {.temperature = 1.5f, .logit_bias = {{3, 4.0f}, {4, -kInf}}},
      {.temperature = 0.8f, .top_k = 9, .top_p = 0.95f, .min_p = 0.03f, .typical_p = 0.97f, .repetition_penalty = 1.2f, .presence_penalty = 0.3f, .frequency_penalty = 0.1f, .logit_bias = {{0, 1.5f}}}};
  uint64_t seed = 100;
  for (SamplerOptions options : chains) {
    options.seed = seed++;
    const Probabilities exact = by_definition(logits, options, history);
    ASSERT_GE(exact.size(), 4u) << chain_text(options);
    std::map<int32_t, int> counts;
    SamplerScratch scratch;
    constexpr int kDraws = 100000;
    for (uint64_t position = 0; position < kDraws; ++position) ++counts[*sample(logits, options, position, scratch, history)];
    double statistic = 0;
    for (const auto& [id, p] : exact) {
      const double mean = p * kDraws;
      ASSERT_GE(mean, 5) << "too rare for the chi-square approximation";
      statistic += (counts[id] - mean) * (counts[id] - mean) / mean;
    }
    EXPECT_EQ(counts.size(), exact.size()) << chain_text(options) << ": a token was drawn that cannot be";
    EXPECT_LT(statistic, chi_square_limit(exact.size() - 1)) << chain_text(options);
  }
}

// --- single properties -----------------------------------------------------------------------------------------------------------------

TEST(SamplerChain, TheOrderIsVisible) {
  EXPECT_EQ(chain_text({}), "greatest");
  EXPECT_EQ(chain_text({.top_k = 40, .top_p = 0.9f}), "greatest") << "nothing to draw";
  EXPECT_EQ(chain_text({.temperature = 0.8f, .seed = 7}), "temperature 0.8 → draw, seed 7");
  EXPECT_EQ(chain_text({.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .typical_p = 0.9f, .repetition_penalty = 1.1f, .presence_penalty = 0.5f, .frequency_penalty = 0.25f,
                        .repeat_last_n = -1, .logit_bias = {{5, 1.0f}, {6, 1.0f}}, .seed = 42}),
            "logit bias of 2 → repetition 1.1 over the whole conversation → presence 0.5 frequency 0.25 over the whole conversation → top-k 40 → typical 0.9 → top-p 0.95 → min-p 0.05 → "
            "temperature 0.8 → draw, seed 42");
}

TEST(SamplerChain, PenaltiesAndBiasCountForGreedyToo) {
  SamplerScratch scratch;
  const std::vector<float> logits = {1, 5, 4, 0};
  const std::vector<int32_t> history = {1, 1, 2};
  const auto greedy = [&](const SamplerOptions& options) { return *sample(logits, options, 0, scratch, history); };
  EXPECT_EQ(greedy({}), 1);
  EXPECT_EQ(greedy({.repetition_penalty = 6}), 0);                             // 5/6 and 4/6 against 1
  EXPECT_EQ(greedy({.repetition_penalty = 6, .repeat_last_n = 1}), 1);         // only token 2 is recent
  EXPECT_EQ(greedy({.repetition_penalty = 6, .repeat_last_n = 0}), 1);
  EXPECT_EQ(greedy({.frequency_penalty = 1.5f}), 2);                           // 5 − 3 against 4 − 1.5
  EXPECT_EQ(greedy({.presence_penalty = 1.5f}), 1);
  EXPECT_EQ(greedy({.logit_bias = {{1, -kInf}}}), 2);
  EXPECT_EQ(greedy({.logit_bias = {{3, 5.0f}}}), 1) << "the lowest id of equals";
}

TEST(SamplerChain, EveryStepLeavesAToken) {
  for (const std::vector<float>& logits : {std::vector<float>{0, 0, 0, 0}, std::vector<float>{-kInf, 3, -kInf}, std::vector<float>{3.4e38f, -3.4e38f, 0}, std::vector<float>(3000, 0.1f)})
    for (const SamplerOptions& o : {SamplerOptions{.temperature = 1, .top_p = 1e-45f}, SamplerOptions{.temperature = 1, .min_p = 1}, SamplerOptions{.temperature = 1, .typical_p = 1e-45f},
                                    SamplerOptions{.temperature = 1e-45f, .top_p = 0.9999999f, .typical_p = 0.9999999f, .repetition_penalty = 100, .presence_penalty = -100, .repeat_last_n = -1}}) {
      double sum = 0;
      for (const auto& [id, p] : distribution(logits, o, {1, 1, 2})) sum += p;
      EXPECT_NEAR(sum, 1, 1e-12) << chain_text(o);
    }
}

TEST(SamplerChain, AnotherAttemptIsAnotherDraw) {
  const std::vector<float> logits(100, 0.0f);
  SamplerScratch scratch;
  std::vector<std::vector<int32_t>> drawn(3);
  for (uint32_t attempt = 0; attempt < 3; ++attempt)
    for (uint64_t position = 0; position < 50; ++position) drawn[attempt].push_back(*sample(logits, {.temperature = 1, .seed = 9, .attempt = attempt}, position, scratch));
  EXPECT_NE(drawn[0], drawn[1]);
  EXPECT_NE(drawn[1], drawn[2]);
}

TEST(SamplerChain, OptionsOutOfRangeAreRefusedByName) {
  const std::map<std::string, std::vector<SamplerOptions>> bad = {
      {"top_p", {{.top_p = 0}, {.top_p = 1.0001f}, {.top_p = -1}, {.top_p = kNan}, {.top_p = kInf}}},
      {"min_p", {{.min_p = -0.1f}, {.min_p = 1.1f}, {.min_p = kNan}}},
      {"typical_p", {{.typical_p = 0}, {.typical_p = 2}, {.typical_p = kNan}}},
      {"repetition_penalty", {{.repetition_penalty = 0}, {.repetition_penalty = -1}, {.repetition_penalty = 1e30f}, {.repetition_penalty = kNan}, {.repetition_penalty = kInf}}},
      {"presence_penalty", {{.presence_penalty = kNan}, {.presence_penalty = 1e30f}, {.presence_penalty = -kInf}}},
      {"frequency_penalty", {{.frequency_penalty = kNan}, {.frequency_penalty = 101}}},
      {"repeat_last_n", {{.repeat_last_n = -2}, {.repeat_last_n = INT32_MIN}}},
      {"logit_bias", {{.logit_bias = {{-1, 1.0f}}}, {.logit_bias = {{4, 1.0f}}}, {.logit_bias = {{0, kNan}}}, {.logit_bias = {{0, kInf}}}}}};
  SamplerScratch scratch;
  for (const auto& [name, list] : bad)
    for (const SamplerOptions& options : list) {
      const auto id = sample(std::vector<float>{1, 2, 3, 4}, options, 0, scratch);
      ASSERT_FALSE(id) << name;
      EXPECT_EQ(id.error().code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(id.error().message().find(name), std::string::npos) << id.error().message();
    }
}

TEST(SamplerChain, BrokenLogitsAndHistoriesAreAnErrorNeverAToken) {
  const SamplerOptions whole{.temperature = 1, .top_k = 2, .top_p = 0.9f, .min_p = 0.1f, .typical_p = 0.9f, .repetition_penalty = 1.1f};
  SamplerScratch scratch;
  for (const SamplerOptions& options : {whole, SamplerOptions{.repetition_penalty = 1.1f}, SamplerOptions{.logit_bias = {{0, 1.0f}}}})
    for (const std::vector<float>& logits : {std::vector<float>{1, kNan, 2}, {1, kInf, 2}, {-kInf, -kInf, -kInf}})
      EXPECT_EQ(sample(logits, options, 0, scratch).error().code(), ErrorCode::kNumericFault);
  EXPECT_EQ(sample(std::vector<float>{1, 2}, {.logit_bias = {{0, -kInf}, {1, -kInf}}}, 0, scratch).error().code(), ErrorCode::kNumericFault);
  for (const int32_t id : {-1, 3, INT32_MAX})
    EXPECT_EQ(sample(std::vector<float>{1, 2, 3}, whole, 0, scratch, std::vector<int32_t>{0, id}).error().code(), ErrorCode::kInvalidArgument);
}

TEST(SamplerChain, OnlyTheFirstCallAllocates) {
  const std::vector<float> logits = random_logits(5000, 2, 3);
  const std::vector<int32_t> history(300, 17);
  const SamplerOptions options{.temperature = 0.9f, .top_k = 3000, .top_p = 0.95f, .min_p = 0.001f, .typical_p = 0.97f, .repetition_penalty = 1.1f, .presence_penalty = 0.2f, .repeat_last_n = -1, .logit_bias = {{3, 1.0f}}};
  SamplerScratch scratch;
  bool good = sample(logits, options, 0, scratch, history).has_value();
  const int64_t before = allocation_count;
  for (uint64_t position = 1; position < 20; ++position) good = good && sample(logits, options, position, scratch, history);
  EXPECT_EQ(allocation_count - before, 0);
  EXPECT_TRUE(good);
}

}  // namespace
}  // namespace tessera
