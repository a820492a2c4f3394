// Sampling on the device. adjust_logits: biases and penalties.   sample: the next token of every row of logits, and the step's rows moved on by it.
//
// What both read, kept by whoever runs the steps:
//   rows      int4 [row]: of the step's row r its token, its position and the slot of its sequence; w has to do with row r of the logits: the step's row that
//             these are the logits of, −1 where row r of the logits is not active: nothing is done for it
//   samplers  uint4 [slot, 4]: SamplerWords
//   biases    uint2 [slot, kMaxDeviceBiases]: id, bits of the float to add; entries of one id add up
//   recent    int [slot, kRecentTokens]: the token at position p at place p % kRecentTokens
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "tessera/ops/op.hpp"

namespace tessera {

inline constexpr int64_t kStepsAtOnce = 8;         // steps whose results lie side by side before the host reads them
inline constexpr int64_t kRecentTokens = 256;      // the widest window of the penalties
inline constexpr int64_t kMaxDeviceBiases = 256;

// How one sequence is sampled, as kernels read it. engine/device_sampler.hpp makes it from SamplerOptions, where the ranges are.
struct SamplerWords {
  float temperature = 0;            // 0: the greatest
  uint32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint32_t window = 0;              // tokens that the penalties look back, at most kRecentTokens; 0: no penalties
  uint32_t seed_low = 0;
  uint32_t seed_high = 0;
  uint32_t attempt = 0;
  uint32_t bias_count = 0;
  uint32_t flags = 0;               // kWantsLogProbability
  uint32_t unused[3] = {};
  bool operator==(const SamplerWords&) const = default;
};
static_assert(sizeof(SamplerWords) == 64);
inline constexpr uint32_t kWantsLogProbability = 1;

// What `sample` writes for a row and a step.
struct SampledToken {
  int32_t id = -1;                  // −1: a numeric fault (NaN, +Inf, nothing but −Inf)
  float log_probability = 0;        // ln of the token's share of all, of the adjusted logits, at temperature 1 and before any cut; 0 unless asked for
};
static_assert(sizeof(SampledToken) == 8);

namespace ops {

// Steps 1 to 3 of engine/sampler.hpp on logits [rows, vocab], in place; a graph output, which is f32 in a buffer. Nothing to do costs a launch.
inline void adjust_logits(GraphBuilder& g, ValueId logits, ValueId rows, ValueId samplers, ValueId biases, ValueId recent) {
  g.require(g[logits].role == ValueRole::kOutput, cat("adjust_logits: ", g[logits].name, " is changed in place, which only a graph's output can be"));
  g.node({"adjust_logits", {{"logits", logits}, {"rows", rows}, {"samplers", samplers}, {"biases", biases}, {"recent", recent}}, {{"logits", logits}}, {}});
}

inline Result<std::vector<KernelCall>> plan_adjust_logits(const PlanContext& context, const Node& node) {
  const ValueId logits = node.output("logits");
  KernelCall call{.kernel = "adjust_logits",
                  .consts = {{"CHANNELS", context[logits].channels}, {"RECENT", kRecentTokens}, {"WG", context.tuning.row_workgroup}},
                  .slots = {{"logits", logits, 1}, {"rows", node.input("rows"), 4}, {"samplers", node.input("samplers"), 4}, {"biases", node.input("biases"), 2},
                            {"recent", node.input("recent"), 1}},
                  .args = {},
                  .workgroups = {context[logits].rows, 1, 1},
                  .bytes = 0};
  return std::vector{std::move(call)};
}

// Steps 4 to 9 of engine/sampler.hpp without the typical one. For every active row i of logits [rows, vocab], with source = rows[i].w and position
// p = rows[source].y:
//   sampled[i, (p + 1) % kStepsAtOnce] = SampledToken;   rows[source].x = recent[slot, (p + 1) % kRecentTokens] = max(id, 0);   rows[source].y = p + 1
// The draw is the host's, of philox_uniform(seed, p + 1, attempt) cut to 24 bits: the same token, but where that number is within rounding of the border
// between two tokens, or a score within rounding of a cut. Scores equal to the one that top-k or top-p ends with all stay; the host keeps the lowest ids.
// sampled: uint2 [row, kStepsAtOnce]. At most 2²⁴ tokens.
inline void sample(GraphBuilder& g, ValueId logits, ValueId samplers, ValueId rows, ValueId recent, ValueId sampled) {
  g.node({"sample", {{"logits", logits}, {"samplers", samplers}, {"rows", rows}}, {{"sampled", sampled}, {"rows", rows}, {"recent", recent}}, {}});
}

inline Result<std::vector<KernelCall>> plan_sample(const PlanContext& context, const Node& node) {
  constexpr int64_t kTiles = 1024;   // of all lanes together: 4 KiB of shared memory
  constexpr int64_t kSlices = 1024;  // of a lane
  const Value& logits = context[node.input("logits")];
  if (logits.channels > int64_t{1} << 24) return fail(ErrorCode::kLimit, cat("sampling on the device from ", logits.channels, " tokens; at most 2^24"));
  // A lane walks its slices some twenty times where scores are flat: more lanes than a row usually gets, where it has many. lavapipe ends all loops of a
  // shader after 65,535 turns together. One lane is left alone: that is a driver's whole vector.
  int64_t workgroup = context.tuning.row_workgroup;
  while (workgroup > 1 && workgroup < 128 && slices_of(logits) > kSlices * workgroup) workgroup *= 2;
  const int64_t of_lane = ceil_div(slices_of(logits), workgroup);
  const int64_t tile = ceil_div(of_lane, std::max(int64_t{1}, kTiles / workgroup));
  KernelCall call{.kernel = "sample",
                  .consts = {{"CHANNELS", logits.channels}, {"TILE", tile}, {"TILES", ceil_div(of_lane, tile)}, {"RECENT", kRecentTokens}, {"STEPS", kStepsAtOnce}, {"WG", workgroup}},
                  .slots = {{"logits", node.input("logits"), 4}, {"samplers", node.input("samplers"), 4}, {"rows", node.output("rows"), 1}, {"recent", node.output("recent"), 1},
                            {"sampled", node.output("sampled"), 2}},
                  .args = {},
                  .workgroups = {logits.rows, 1, 1},
                  .bytes = logits.rows * logits.channels * byte_size(DType::kF32)};   // once; what a draw needs lies in a few tiles mostly
  return std::vector{std::move(call)};
}

// One row. biases: (id, value); recent: what the window holds, oldest first.
inline void adjust_logits_reference(float* logits, const SamplerWords& words, const std::vector<std::pair<int32_t, float>>& biases, const std::vector<int32_t>& recent) {
  for (const auto& [id, value] : biases) logits[id] += value;
  for (size_t i = 0; i < recent.size(); ++i) {
    if (std::find(recent.begin(), recent.begin() + static_cast<std::ptrdiff_t>(i), recent[i]) != recent.begin() + static_cast<std::ptrdiff_t>(i)) continue;
    double score = logits[recent[i]];
    score = score > 0 ? score / double{words.repetition_penalty} : score * double{words.repetition_penalty};
    score -= double{words.presence_penalty} + static_cast<double>(std::count(recent.begin(), recent.end(), recent[i])) * double{words.frequency_penalty};
    logits[recent[i]] = static_cast<float>(score);
  }
}

// One row; u in [0, 1) is the draw.
inline SampledToken sample_reference(const float* logits, int64_t channels, const SamplerWords& words, double u) {
  std::vector<std::pair<double, int32_t>> order;   // greatest first, the lowest id of equals
  for (int64_t id = 0; id < channels; ++id) {
    if (!(logits[id] < std::numeric_limits<float>::infinity())) return {};
    if (logits[id] != -std::numeric_limits<float>::infinity()) order.emplace_back(-double{logits[id]}, static_cast<int32_t>(id));
  }
  if (order.empty()) return {};
  std::sort(order.begin(), order.end());
  const double best = order.front().first;
  const auto weight_of = [&](size_t n, double temperature) { return std::exp((best - order[n].first) / temperature); };
  double all = 0, reached = 0, mass = 0;
  for (size_t n = 0; n < order.size(); ++n) all += weight_of(n, 1);
  size_t count = words.temperature == 0 ? 1 : words.top_k != 0 ? std::min(order.size(), size_t{words.top_k}) : order.size();
  for (size_t n = 0; n < count; ++n) mass += weight_of(n, 1);
  for (size_t n = 0; n < count && words.top_p < 1; ++n)
    if ((reached += weight_of(n, 1)) >= double{words.top_p} * mass) count = n + 1;
  while (count > 1 && weight_of(count - 1, 1) < double{words.min_p}) --count;
  order.resize(count);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const double temperature = words.temperature == 0 ? 1.0 : double{words.temperature};
  double total = 0, running = 0;
  for (size_t n = 0; n < count; ++n) total += weight_of(n, temperature);
  size_t chosen = 0;
  while (chosen + 1 < count && (running += weight_of(chosen, temperature)) <= u * total) ++chosen;
  const bool wanted = (words.flags & kWantsLogProbability) != 0;
  return {order[chosen].second, wanted ? static_cast<float>(best - order[chosen].first - std::log(all)) : 0.0f};
}

}  // namespace ops
}  // namespace tessera
