// What the host's sampler says of a request, and whether what the device drew is right by it.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "op_harness.hpp"
#include "tessera/engine/device_sampler.hpp"
#include "tessera/engine/sampler.hpp"

namespace tessera::ops_test {

inline constexpr float kInf = std::numeric_limits<float>::infinity();

// A conversation about to be sampled: its tokens so far, its options, the logits of its last token.
struct Request {
  SamplerOptions options;
  std::vector<int32_t> history;
  std::vector<float> logits;
  bool wants_log = false;
  bool active = true;
};

struct Outcome {
  SampledToken token;
  std::vector<float> adjusted;   // the logits that it was drawn from
};

// Logits after steps 1 to 3 of the host's chain.
inline std::vector<double> adjusted_by_host(const Request& request) {
  std::vector<Candidate> candidates;
  std::vector<int32_t> counts;
  sampling::collect(request.logits, candidates);
  const auto recent = sampling::recent_of(request.history, request.options, request.logits.size());
  for (const auto& step : sampling::kAdjust)
    if (step.active(request.options)) step.apply(candidates, request.options, {*recent, counts});
  std::vector<double> scores;
  for (const Candidate& candidate : candidates) scores.push_back(candidate.score);
  return scores;
}

// Each bias and each of the five operations of the penalties rounds once, a division by 2.5 ulp, numbers that are at most the sum of all magnitudes, times the
// penalty where it is a factor. A logit that nothing names keeps its bits.
inline void expect_adjusted(const Request& request, const std::vector<float>& found) {
  const std::vector<double> expected = adjusted_by_host(request);
  const SamplerOptions& options = request.options;
  const auto recent = sampling::recent_of(request.history, options, request.logits.size());
  std::vector<double> magnitude(found.size(), 0.0), steps(found.size(), 0.0);
  for (const LogitBias& bias : options.logit_bias) {
    magnitude[static_cast<size_t>(bias.id)] += std::isinf(bias.bias) ? 0.0 : std::abs(static_cast<double>(bias.bias));
    steps[static_cast<size_t>(bias.id)] += 1;
  }
  const double factor = std::max(static_cast<double>(options.repetition_penalty), 1.0 / static_cast<double>(options.repetition_penalty));
  for (const int32_t id : *recent) steps[static_cast<size_t>(id)] += 5.0 + division_roundings();
  for (size_t id = 0; id < found.size(); ++id) {
    if (steps[id] == 0) {
      EXPECT_EQ(std::bit_cast<uint32_t>(found[id]), std::bit_cast<uint32_t>(request.logits[id])) << "token " << id << " is changed by nothing";
      continue;
    }
    if (std::isinf(expected[id])) {
      EXPECT_EQ(found[id], -kInf);
      continue;
    }
    const double most = (std::abs(static_cast<double>(request.logits[id])) + magnitude[id]) * factor + std::abs(static_cast<double>(options.presence_penalty)) +
                        static_cast<double>(recent->size()) * std::abs(static_cast<double>(options.frequency_penalty));
    EXPECT_NEAR(found[id], expected[id], gamma_of(steps[id]) * most) << "token " << id;
  }
}

// How far off the device's sums of weights, its thresholds, and its 24 bits of the draw may be.
inline constexpr double kClose = 1e-5;

// Whether the device may draw an id from these scores. What is kept are the greatest `count` scores,
// and from the host's rules follows which counts are right within kClose; of each it is asked whether u lies in id's part of the distribution.
class Judge {
 public:
  Judge(const std::vector<float>& scores, const SamplerOptions& options, double u) : scores_(scores), options_(options), u_(u) {
    for (size_t id = 0; id < scores.size(); ++id)
      if (scores[id] != -kInf) order_.push_back(static_cast<int32_t>(id));
    std::sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) { return score(a) != score(b) ? score(a) > score(b) : a < b; });
    if (options.temperature == 0) least_ = most_ = 1;
    else cut();
  }
  bool cuts_are_clear() const { return least_ == most_; }
  bool may_be(int32_t id) const {
    for (size_t count = least_; count <= most_; count += most_ - least_ > 64 && count == least_ ? most_ - least_ : 1)   // many where many are equal: all or none of these
      if (drawn(id, count)) return true;
    return false;
  }

 private:
  double score(int32_t id) const { return static_cast<double>(scores_[static_cast<size_t>(id)]); }
  double score_at(size_t n) const { return score(order_[n]); }
  double weight_at(size_t n) const { return std::exp(score_at(n) - score_at(0)); }
  // The counts that keep all from `threshold` on, with and without those around it.
  void keep_from(double threshold) {
    const auto at_least = [&](double value) { return static_cast<size_t>(std::count_if(order_.begin(), order_.end(), [&](int32_t id) { return score(id) >= value; })); };
    least_ = std::min(least_, std::max(size_t{1}, at_least(threshold + kClose)));
    most_ = std::min(most_, at_least(threshold - kClose));
  }
  void cut() {
    least_ = most_ = order_.size();
    if (options_.top_k != 0 && static_cast<size_t>(options_.top_k) < order_.size()) {
      const double last = score_at(static_cast<size_t>(options_.top_k) - 1);
      while (most_ > static_cast<size_t>(options_.top_k) && score_at(most_ - 1) < last) --most_;   // equal ones may stay; bisection ends between floats, so no other
      least_ = static_cast<size_t>(options_.top_k);
    }
    if (options_.top_p < 1) {
      const auto [fewest, ignored] = holding(least_);
      const auto [unused, highest] = holding(most_);
      least_ = std::min(least_, fewest);
      most_ = std::min(most_, highest);
    }
    if (options_.min_p > 0) keep_from(score_at(0) + std::log(static_cast<double>(options_.min_p)));
    least_ = std::min(least_, most_);
  }
  // The fewest and the most of the first `count` that hold top_p of their weight, ± kClose; among equal scores, all.
  std::pair<size_t, size_t> holding(size_t count) const {
    double total = 0, reached = 0;
    for (size_t n = 0; n < count; ++n) total += weight_at(n);
    size_t fewest = 0, most = count;
    for (size_t n = 0; n < count; ++n) {
      reached += weight_at(n);
      if (fewest == 0 && reached >= (static_cast<double>(options_.top_p) - kClose) * total) fewest = n + 1;
      if (reached < (static_cast<double>(options_.top_p) + kClose) * total) continue;
      most = n + 1;
      while (most < count && score_at(most) == score_at(n)) ++most;
      break;
    }
    return {std::max(fewest, size_t{1}), most};
  }
  bool drawn(int32_t id, size_t count) const {
    if (options_.temperature == 0) return order_.front() == id;
    std::vector<int32_t> kept(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(count));
    std::sort(kept.begin(), kept.end());
    double total = 0, before = 0;
    const auto weight = [&](int32_t token) { return std::exp((score(token) - score_at(0)) / static_cast<double>(options_.temperature)); };
    for (const int32_t token : kept) total += weight(token);
    for (const int32_t token : kept) {
      if (token == id) return u_ * total >= before - kClose * total && u_ * total <= before + weight(token) + kClose * total;
      before += weight(token);
    }
    return false;
  }

  const std::vector<float>& scores_;
  const SamplerOptions& options_;
  double u_;
  std::vector<int32_t> order_;   // greatest first
  size_t least_ = 1, most_ = 1;
};

// The score of the token over the logarithm of all, as promised; sums of weights and logarithms are within kClose, differences of scores round.
inline double log_probability(const std::vector<float>& scores, int32_t id) {
  const double best = static_cast<double>(*std::max_element(scores.begin(), scores.end()));
  double all = 0;
  for (const float score : scores) all += std::exp(static_cast<double>(score) - best);
  return static_cast<double>(scores[static_cast<size_t>(id)]) - best - std::log(all);
}

// Fails the test where the device drew what it must not. 1: a token that is not the host's, of cuts that leave no doubt: only rounding of the draw excuses it.
inline int judge(const Request& request, const Outcome& outcome) {
  expect_adjusted(request, outcome.adjusted);
  SamplerScratch scratch;
  const uint64_t position = request.history.size();
  const Result<int32_t> host = sample(request.logits, request.options, position, scratch, request.history);
  const std::string chain = cat(chain_text(request.options), " of ", request.logits.size());
  if (!host) {
    EXPECT_EQ(outcome.token.id, -1) << chain << ": " << host.error().message();
    EXPECT_EQ(outcome.token.log_probability, 0.0f);
    return 0;
  }
  const double u = philox_uniform(request.options.seed, position, request.options.attempt);
  const int32_t id = outcome.token.id;
  if (id < 0 || id >= static_cast<int32_t>(request.logits.size())) {
    ADD_FAILURE() << "token " << id << " of " << chain;
    return 1;
  }
  const Judge judge(outcome.adjusted, request.options, u);
  EXPECT_TRUE(judge.may_be(id)) << "token " << id << " where the host draws " << *host << ": " << chain;
  const double expected = request.wants_log ? log_probability(outcome.adjusted, id) : 0.0;
  EXPECT_NEAR(outcome.token.log_probability, expected, 8 * kUnit * std::abs(expected) + (request.wants_log ? kClose : 0.0)) << chain;
  return id != *host && judge.cuts_are_clear() ? 1 : 0;
}

}  // namespace tessera::ops_test
