// From one row of logits to the next token, on the host. The chain, in this order, each step left out at its option's default:
//
//   1 logit bias    logit += bias
//   2 repetition    of recent tokens: logit > 0 ? logit / penalty : logit · penalty    (CTRL: Keskar et al. 2019, arXiv 1909.05858)
//   3 presence, frequency    of recent tokens: logit −= presence + count · frequency   (as OpenAI's API defines them)
//     temperature 0 ends here: the greatest logit
//   4 top-k         the k greatest
//   5 typical       those nearest to the expected surprise: Meister et al. 2022, arXiv 2202.00666
//   6 top-p         the likeliest with together this probability: Holtzman et al. 2019, arXiv 1904.09751
//   7 min-p         those at least this probable, relative to the likeliest: Nguyen et al. 2024, arXiv 2407.01082
//   8 temperature   logit /= temperature
//   9 draw          softmax in double, inverse CDF in ascending order of id at philox_uniform(seed, position, attempt)
//
// Steps 5 to 7 see the probabilities among what the steps before them left. The temperature comes after them: it says how the tokens that
// the model itself holds likely are weighed, not which these are. The chain is a table below: sample() runs it, chain_text() prints it.
// Between steps the candidates are in ascending order of id, so equal logits and equal draws always give the same token.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "tessera/engine/philox.hpp"
#include "tessera/engine/sampler_options.hpp"

namespace tessera {

struct Candidate {
  int32_t id;
  double score;  // a logit; after softmax() a probability
};

// Memory that sample() works in; the first call sizes it for the vocabulary, later ones allocate nothing. One thread at a time.
struct SamplerScratch {
  std::vector<Candidate> candidates;
  std::vector<Candidate> order;  // of the same candidates, partly sorted to find where a step cuts
  std::vector<int32_t> counts;   // of recent tokens by id; all 0 between calls
};

namespace sampling {

constexpr double kNever = -std::numeric_limits<double>::infinity();

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

// --- steps on all tokens: candidates[id].id == id ------------------------------------------------------------------------------------

inline void collect(std::span<const float> logits, std::vector<Candidate>& candidates) {
  candidates.resize(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) candidates[id] = {static_cast<int32_t>(id), logits[id]};
}

struct Recent {
  std::span<const int32_t> ids;
  std::vector<int32_t>& counts;
};

// Calls apply(score, count) once for each distinct recent token. O(recent tokens).
template <class Apply>
void for_each_recent(std::vector<Candidate>& candidates, const Recent& recent, Apply apply) {
  if (recent.counts.size() < candidates.size()) recent.counts.resize(candidates.size());
  for (const int32_t id : recent.ids) ++recent.counts[static_cast<size_t>(id)];
  for (const int32_t id : recent.ids) {
    int32_t& count = recent.counts[static_cast<size_t>(id)];
    if (count != 0) apply(candidates[static_cast<size_t>(id)].score, count);
    count = 0;
  }
}

inline void add_bias(std::vector<Candidate>& candidates, const SamplerOptions& options, const Recent&) {
  for (const LogitBias& entry : options.logit_bias) candidates[static_cast<size_t>(entry.id)].score += double{entry.bias};
}

inline void penalize_repetition(std::vector<Candidate>& candidates, const SamplerOptions& options, const Recent& recent) {
  const double penalty = options.repetition_penalty;
  for_each_recent(candidates, recent, [penalty](double& score, int32_t) { score = score > 0 ? score / penalty : score * penalty; });
}

inline void penalize_presence(std::vector<Candidate>& candidates, const SamplerOptions& options, const Recent& recent) {
  const double presence = options.presence_penalty, frequency = options.frequency_penalty;
  for_each_recent(candidates, recent, [=](double& score, int32_t count) { score -= presence + count * frequency; });
}

// --- steps on the tokens that are left: ascending ids, finite scores -----------------------------------------------------------------

inline bool greater(const Candidate& a, const Candidate& b) { return a.score != b.score ? a.score > b.score : a.id < b.id; }

inline double greatest_score(const std::vector<Candidate>& candidates) {
  return std::max_element(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) { return a.score < b.score; })->score;
}

// Σ exp(score − greatest): at least 1, for the greatest term is exp(0).
inline double total_weight(const std::vector<Candidate>& candidates, double greatest) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += std::exp(candidate.score - greatest);
  return total;
}

// Drops what comes after `last` in the order of `before`.
template <class Before>
void cut_after(std::vector<Candidate>& candidates, const Candidate& last, Before before) {
  std::erase_if(candidates, [&](const Candidate& candidate) { return before(last, candidate); });
}

// Keeps the shortest run of candidates, in the order of `before`, whose weights exp(score − greatest) together reach `mass`. Halves the part
// of the order that holds the end of that run, by partial selection: O(candidates) on average.
template <class Before>
void keep_mass(SamplerScratch& scratch, Before before, double greatest, double mass) {
  std::vector<Candidate>& order = scratch.order;
  order.assign(scratch.candidates.begin(), scratch.candidates.end());
  const auto weight = [greatest](const Candidate& candidate) { return std::exp(candidate.score - greatest); };
  auto first = order.begin(), last = order.end();
  double reached = 0;   // by what comes before `first`
  while (last - first > 1) {
    const auto middle = first + (last - first) / 2;
    std::nth_element(first, middle, last, before);
    double more = 0;
    for (auto candidate = first; candidate != middle; ++candidate) more += weight(*candidate);
    if (reached + more >= mass) {
      last = middle;
    } else {
      reached += more;
      first = middle;
    }
  }
  cut_after(scratch.candidates, *first, before);
}

// Partial selection: O(candidates) on average.
inline void keep_top_k(SamplerScratch& scratch, int32_t k) {
  if (static_cast<size_t>(k) >= scratch.candidates.size()) return;
  std::vector<Candidate>& order = scratch.order;
  order.assign(scratch.candidates.begin(), scratch.candidates.end());
  const auto last = order.begin() + k - 1;
  std::nth_element(order.begin(), last, order.end(), greater);
  cut_after(scratch.candidates, *last, greater);
}

// With H = −Σ p · ln p, the surprise −ln p of a token is nearest to H where its score is nearest to greatest + ln total − H.
inline void keep_typical(SamplerScratch& scratch, float mass) {
  const std::vector<Candidate>& candidates = scratch.candidates;
  const double greatest = greatest_score(candidates), total = total_weight(candidates, greatest), log_total = std::log(total);
  double entropy = 0;
  for (const Candidate& candidate : candidates) {
    const double log_weight = candidate.score - greatest;
    entropy += std::exp(log_weight) / total * (log_total - log_weight);
  }
  const double typical = greatest + log_total - entropy;
  const auto nearer = [typical](const Candidate& a, const Candidate& b) {
    const double from_a = std::abs(a.score - typical), from_b = std::abs(b.score - typical);
    return from_a != from_b ? from_a < from_b : a.id < b.id;
  };
  keep_mass(scratch, nearer, greatest, double{mass} * total);
}

// Tokens below a share of (1 − mass) / candidates hold less than 1 − mass together: the others reach the mass without them. Of a model's
// logits that leaves few to select from.
inline void keep_top_p(SamplerScratch& scratch, float mass) {
  std::vector<Candidate>& candidates = scratch.candidates;
  const double greatest = greatest_score(candidates), total = total_weight(candidates, greatest);
  const double least = greatest + std::log((1 - double{mass}) * total / static_cast<double>(candidates.size()));
  std::erase_if(candidates, [least](const Candidate& candidate) { return candidate.score < least; });
  keep_mass(scratch, greater, greatest, double{mass} * total);
}

inline void keep_min_p(std::vector<Candidate>& candidates, float least) {
  const double threshold = greatest_score(candidates) + std::log(double{least});
  std::erase_if(candidates, [threshold](const Candidate& candidate) { return candidate.score < threshold; });
}

// A float logit, biased and penalized, over the smallest positive float is below 10¹²⁶: no temperature overflows a double.
inline void apply_temperature(std::vector<Candidate>& candidates, float temperature) {
  for (Candidate& candidate : candidates) candidate.score /= double{temperature};
}

inline void softmax(std::vector<Candidate>& candidates) {
  const double greatest = greatest_score(candidates);
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

// --- the chain -----------------------------------------------------------------------------------------------------------------------

struct AdjustStep {  // on all tokens
  bool (*active)(const SamplerOptions&);
  void (*apply)(std::vector<Candidate>&, const SamplerOptions&, const Recent&);
  std::string (*text)(const SamplerOptions&);
};

struct SelectStep {  // on the tokens that are left
  bool (*active)(const SamplerOptions&);
  void (*apply)(SamplerScratch&, const SamplerOptions&);
  std::string (*text)(const SamplerOptions&);
};

inline std::string window_text(const SamplerOptions& o) {
  return o.repeat_last_n < 0 ? std::string(" over the whole conversation") : cat(" over the last ", o.repeat_last_n);
}

inline constexpr AdjustStep kAdjust[] = {
    {[](const SamplerOptions& o) { return !o.logit_bias.empty(); }, add_bias, [](const SamplerOptions& o) { return cat("logit bias of ", o.logit_bias.size()); }},
    {[](const SamplerOptions& o) { return o.penalizes() && o.repetition_penalty != 1; }, penalize_repetition,
     [](const SamplerOptions& o) { return cat("repetition ", o.repetition_penalty, window_text(o)); }},
    {[](const SamplerOptions& o) { return o.penalizes() && (o.presence_penalty != 0 || o.frequency_penalty != 0); }, penalize_presence,
     [](const SamplerOptions& o) { return cat("presence ", o.presence_penalty, " frequency ", o.frequency_penalty, window_text(o)); }},
};

inline constexpr SelectStep kSelect[] = {
    {[](const SamplerOptions& o) { return o.temperature == 0; }, [](SamplerScratch& s, const SamplerOptions&) { keep_top_k(s, 1); },
     [](const SamplerOptions&) { return std::string("greatest"); }},
    {[](const SamplerOptions& o) { return o.temperature != 0 && o.top_k != 0; }, [](SamplerScratch& s, const SamplerOptions& o) { keep_top_k(s, o.top_k); },
     [](const SamplerOptions& o) { return cat("top-k ", o.top_k); }},
    {[](const SamplerOptions& o) { return o.temperature != 0 && o.typical_p != 1; }, [](SamplerScratch& s, const SamplerOptions& o) { keep_typical(s, o.typical_p); },
     [](const SamplerOptions& o) { return cat("typical ", o.typical_p); }},
    {[](const SamplerOptions& o) { return o.temperature != 0 && o.top_p != 1; }, [](SamplerScratch& s, const SamplerOptions& o) { keep_top_p(s, o.top_p); },
     [](const SamplerOptions& o) { return cat("top-p ", o.top_p); }},
    {[](const SamplerOptions& o) { return o.temperature != 0 && o.min_p != 0; }, [](SamplerScratch& s, const SamplerOptions& o) { keep_min_p(s.candidates, o.min_p); },
     [](const SamplerOptions& o) { return cat("min-p ", o.min_p); }},
    {[](const SamplerOptions& o) { return o.temperature != 0; }, [](SamplerScratch& s, const SamplerOptions& o) { apply_temperature(s.candidates, o.temperature); },
     [](const SamplerOptions& o) { return cat("temperature ", o.temperature, " → draw, seed ", o.seed); }},
};

inline Result<std::span<const int32_t>> recent_of(std::span<const int32_t> history, const SamplerOptions& options, size_t vocab_size) {
  if (!options.penalizes()) return std::span<const int32_t>();
  const size_t count = options.repeat_last_n < 0 ? history.size() : std::min(history.size(), static_cast<size_t>(options.repeat_last_n));
  const std::span<const int32_t> recent = history.last(count);
  for (const int32_t id : recent)
    if (id < 0 || static_cast<size_t>(id) >= vocab_size)
      return fail(ErrorCode::kInvalidArgument, cat("the history holds token ", id, "; there are logits for 0 to ", vocab_size - 1));
  return recent;
}

}  // namespace sampling

// The steps that `options` make active, in order: "top-k 40 → top-p 0.95 → temperature 0.8 → draw, seed 7".
inline std::string chain_text(const SamplerOptions& options) {
  std::string text;
  const auto add = [&](const auto& step) {
    if (step.active(options)) text += (text.empty() ? "" : " → ") + step.text(options);
  };
  for (const auto& step : sampling::kAdjust) add(step);
  for (const auto& step : sampling::kSelect) add(step);
  return text;
}

// What sample() draws from: scratch.candidates become the tokens that can be drawn, ascending, with their probabilities. Arguments, errors
// and cost as sample().
inline Status distribute(std::span<const float> logits, const SamplerOptions& options, std::span<const int32_t> history, SamplerScratch& scratch) {
  TESSERA_TRY(options.validate(static_cast<int64_t>(logits.size())));
  if (logits.empty()) return fail(ErrorCode::kInvalidArgument, "sample() was given no logits");
  TESSERA_TRY(sampling::greatest(logits));
  TESSERA_ASSIGN(const std::span<const int32_t> recent, sampling::recent_of(history, options, logits.size()));
  std::vector<Candidate>& candidates = scratch.candidates;
  scratch.order.reserve(logits.size());
  sampling::collect(logits, candidates);
  for (const auto& step : sampling::kAdjust)
    if (step.active(options)) step.apply(candidates, options, {recent, scratch.counts});
  std::erase_if(candidates, [](const Candidate& candidate) { return candidate.score == sampling::kNever; });
  if (candidates.empty()) return fail(ErrorCode::kNumericFault, "logit_bias forbids every token whose logit is not -inf; there is none to draw");
  for (const auto& step : sampling::kSelect)
    if (step.active(options)) step.apply(scratch, options);
  sampling::softmax(candidates);
  return {};
}

// ln of the share of `id` among all tokens, behind steps 1 to 3 of the chain: at temperature 1, before any cut. Arguments, errors and cost as sample().
inline Result<float> log_probability(std::span<const float> logits, const SamplerOptions& options, int32_t id, SamplerScratch& scratch, std::span<const int32_t> history = {}) {
  TESSERA_ASSIGN(const std::span<const int32_t> recent, sampling::recent_of(history, options, logits.size()));
  std::vector<Candidate>& candidates = scratch.candidates;
  sampling::collect(logits, candidates);
  for (const auto& step : sampling::kAdjust)
    if (step.active(options)) step.apply(candidates, options, {recent, scratch.counts});
  const double greatest = sampling::greatest_score(candidates), own = candidates[static_cast<size_t>(id)].score;
  return static_cast<float>(own - greatest - std::log(sampling::total_weight(candidates, greatest)));
}

// The token at `position` of the conversation whose tokens so far are `history` (needed by the penalties only). The same arguments give the
// same token, whatever was sampled before. logits [vocab].
// Errors: kInvalidArgument (options out of range, no logits, an id that has no logit); kNumericFault: NaN, +Inf, nothing but −Inf.
// Cost: O(vocab + recent tokens) on average, no full sort; 36 bytes of scratch a token of the vocabulary. CPU time of one token of 128,256,
// a server core at -O2: temperature alone, top-k or min-p 2 to 3 ms, top-p 4 to 7 ms, typical 8 to 10 ms; behind a top-k they cost no more
// than it. Nothing at all when plain_greedy(): a session leaves that to the device.
inline Result<int32_t> sample(std::span<const float> logits, const SamplerOptions& options, uint64_t position, SamplerScratch& scratch,
                              std::span<const int32_t> history = {}) {
  if (options.plain_greedy() && !logits.empty()) {
    TESSERA_TRY(options.validate());
    return sampling::greatest(logits);
  }
  TESSERA_TRY(distribute(logits, options, history, scratch));
  return sampling::draw(scratch.candidates, philox_uniform(options.seed, position, options.attempt));
}

}  // namespace tessera
