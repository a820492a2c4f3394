// From one row of logits to the next token, on the host. Each step of the chain is one small function on the list of candidates;
// between steps the list is in ascending order of id, so equal logits and equal draws always give the same token.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"
#include "tessera/engine/philox.hpp"

namespace tessera {

struct SamplerOptions {
  float temperature = 0;  // finite, >= 0; 0 = greedy: the greatest logit, the lowest id among equals
  int32_t top_k = 0;      // >= 0; only the k greatest logits (the lowest ids among equals) can be drawn; 0, or more than there are: all
  uint64_t seed = 0;

  Status validate() const;  // kInvalidArgument names the option, its value and its range
};

struct Candidate {
  int32_t id;
  double score;  // a logit; after softmax() a probability
};

// Memory that sample() works in; the first call sizes it for the vocabulary, later ones allocate nothing. One thread at a time.
struct SamplerScratch {
  std::vector<Candidate> candidates;
};

inline Status SamplerOptions::validate() const {
  if (!(temperature >= 0) || std::isinf(temperature))  // written so that NaN fails
    return fail(ErrorCode::kInvalidArgument, cat("temperature is ", temperature, "; it must be a finite number, 0 (greedy) or more"));
  if (top_k < 0) return fail(ErrorCode::kInvalidArgument, cat("top_k is ", top_k, "; it must be 0 (off) or more"));
  return {};
}

namespace sampling {

// The id of the greatest logit, the lowest among equals. −Inf means "never". kNumericFault on NaN or +Inf, and when every logit is −Inf.
inline Result<int32_t> greatest(std::span<const float> logits) {
  float best = -std::numeric_limits<float>::infinity();
  size_t best_id = 0;
  for (size_t id = 0; id < logits.size(); ++id) {
    const float logit = logits[id];
    if (!(logit < std::numeric_limits<float>::infinity()))
      return fail(ErrorCode::kNumericFault,
                  cat("the logit of token ", id, " is ", logit, "; logits must be finite, or -inf for a token never to be drawn"));
    if (logit > best) {
      best = logit;
      best_id = id;
    }
  }
  if (std::isinf(best)) return fail(ErrorCode::kNumericFault, cat("all ", logits.size(), " logits are -inf; there is no token to draw"));
  return static_cast<int32_t>(best_id);
}

// Every token that can be drawn at all.
inline void collect(std::span<const float> logits, std::vector<Candidate>& candidates) {
  candidates.clear();
  candidates.reserve(logits.size());
  for (size_t id = 0; id < logits.size(); ++id)
    if (!std::isinf(logits[id])) candidates.push_back({static_cast<int32_t>(id), logits[id]});
}

// Partial selection: O(candidates) on average, then a sort of the k that stay.
inline void keep_top_k(std::vector<Candidate>& candidates, int32_t k) {
  const size_t kept = static_cast<size_t>(k);
  if (kept == 0 || kept >= candidates.size()) return;
  const auto greater = [](const Candidate& a, const Candidate& b) { return a.score != b.score ? a.score > b.score : a.id < b.id; };
  std::nth_element(candidates.begin(), candidates.begin() + k - 1, candidates.end(), greater);
  candidates.erase(candidates.begin() + k, candidates.end());
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

// A float logit over the smallest positive float is below 10⁸⁴: no temperature overflows a double.
inline void apply_temperature(std::vector<Candidate>& candidates, float temperature) {
  for (Candidate& candidate : candidates) candidate.score /= double{temperature};
}

// score = exp(score − greatest) / Σ. The greatest term is exp(0), so the sum is at least 1.
inline void softmax(std::vector<Candidate>& candidates) {
  double greatest = candidates.front().score;
  for (const Candidate& candidate : candidates) greatest = std::max(greatest, candidate.score);
  double sum = 0;
  for (Candidate& candidate : candidates) sum += candidate.score = std::exp(candidate.score - greatest);
  for (Candidate& candidate : candidates) candidate.score /= sum;
}

// Inverse CDF: the first id whose running total exceeds uniform · total, uniform in [0, 1). A candidate of probability 0 adds nothing to
// the running total and is never the first.
inline int32_t draw(const std::vector<Candidate>& candidates, double uniform) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.score;
  const double target = uniform * total;  // < total: (1 − 2⁻⁵³) · total rounds down
  double running = 0;
  for (const Candidate& candidate : candidates) {
    running += candidate.score;
    if (running > target) return candidate.id;
  }
  return candidates.back().id;  // not reached: running ends at total
}

}  // namespace sampling

// The token at `position` of the conversation: temperature, top-k, softmax in double, inverse CDF in ascending order of id with the draw
// philox_uniform(seed, position). The same arguments give the same token, whatever was sampled before. logits [vocab].
// Errors: kInvalidArgument (options out of range, no logits); kNumericFault as greatest() says. Cost: O(vocab), vocab · 16 bytes of scratch.
inline Result<int32_t> sample(std::span<const float> logits, const SamplerOptions& options, uint64_t position, SamplerScratch& scratch) {
  TESSERA_TRY(options.validate());
  if (logits.empty()) return fail(ErrorCode::kInvalidArgument, "sample() was given no logits");
  TESSERA_ASSIGN(const int32_t greatest, sampling::greatest(logits));
  if (options.temperature == 0) return greatest;
  std::vector<Candidate>& candidates = scratch.candidates;
  sampling::collect(logits, candidates);
  sampling::keep_top_k(candidates, options.top_k);
  sampling::apply_temperature(candidates, options.temperature);
  sampling::softmax(candidates);
  return sampling::draw(candidates, philox_uniform(options.seed, position));
}

}  // namespace tessera
