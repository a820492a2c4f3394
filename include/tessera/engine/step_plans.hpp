// The plans of a model on a device: one a step shape, and the memory they take together (src/engine/step_plans.cpp).
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tessera/device/tuning.hpp"
#include "tessera/engine/options.hpp"
#include "tessera/engine/tuning_file.hpp"
#include "tessera/exec/resources.hpp"
#include "tessera/model/model_file.hpp"
#include "tessera/plan/plan.hpp"

namespace tessera {

inline constexpr int32_t kPageTokens = 16;   // where LoadOptions::page_tokens says nothing else
inline constexpr int32_t kMostPageTokens = 256;   // attention keeps a page's scores in private memory
// Chunks of a prompt, ascending; 1 is the decode step of one answer. All but the last chunk of a prompt are of the greatest size.
inline constexpr int64_t kChunkTokens[] = {1, 8, 32, 128};
inline constexpr int64_t kLargestChunk = 128;
inline constexpr int64_t kSharedChunk = 32;   // of a prompt that answers wait for
inline constexpr size_t kMostRows = 8;        // answers in one decode step
inline constexpr int64_t kAllLogitsChunk = 32;   // evaluation: bounds the logits buffer to 32 rows

inline std::vector<StepShape> step_shapes(bool all_logits) {
  std::vector<StepShape> shapes;
  for (int64_t tokens : kChunkTokens) shapes.push_back({tokens, LogitRows::kLast});
  shapes.push_back({kSharedChunk, LogitRows::kNone});
  shapes.push_back({kLargestChunk, LogitRows::kNone});
  shapes.push_back({static_cast<int64_t>(kMostRows), LogitRows::kAll});
  shapes.push_back({1, LogitRows::kLast, true});
  shapes.push_back({static_cast<int64_t>(kMostRows), LogitRows::kAll, true});
  if (all_logits) shapes.push_back({kAllLogitsChunk, LogitRows::kAll});
  return shapes;
}

// The KV pages of a model.
struct KvPool {
  DType type = DType::kF32;
  int32_t page_tokens = kPageTokens;
  int32_t pages = 0;
  int32_t context_tokens = 0;   // that a sequence may have; without a window never more than all pages hold
  int32_t window = 0;           // tokens that a token sees, where these are fewer; 0: all

  int32_t context_pages() const { return static_cast<int32_t>(ceil_div(context_tokens, page_tokens)); }
};

// kInvalidArgument; kLimit: the budget is too small for one page.
Result<KvPool> kv_pool(const ModelConfig& config, const LoadOptions& options);

// `tuned`: tuning_in_use().
inline Tuning tuning_for(const DeviceInfo& device, const LoadOptions& options, const std::vector<TuningRow>& tuned) {
  Tuning tuning = tuning_for(device, tuned);
  if (options.weight_storage) tuning.weight_storage = {*options.weight_storage, true};
  if (options.activation_storage) tuning.activation_storage = {*options.activation_storage, true};
  if (options.precision != Precision::kDefault) {
    tuning.activation_type = options.precision == Precision::kFloat ? DType::kF32 : DType::kF16;
    tuning.int8_activations = false;
  }
  if (options.weight_parts != 0) tuning.weight_parts = options.weight_parts;
  return tuning;
}

// Device bytes of a loaded model, exactly: what load() allocates, no more and no less.
struct MemoryPlan {
  uint64_t weights = 0;
  uint64_t kv = 0;
  uint64_t arena = 0;              // intermediates of the greatest step
  uint64_t arena_lower_bound = 0;  // the largest live set of any step: no arena can be smaller
  uint64_t inputs = 0;             // ids, block table, angles, parameters, logits
  uint64_t total() const { return weights + kv + arena + inputs; }
};

struct StepPlans {
  std::vector<Plan> plans;
  ArenaNeeds arena;
  MemoryPlan memory;
  KvPool kv;
  DType activation_type = DType::kF32;    // of all but what the layers add to
  int32_t long_context = 0;               // tokens above which a step's plan is that of a long context, where there is one
  std::map<std::string, Layout> shared;   // every object that is not of the arena, by resource key
  std::set<std::string> states;           // those of them that are KV pages
  TuningInUse tuning;
};

// Errors: kInvalidArgument (options), kLimit (the device cannot hold a tensor, or max_device_bytes is too low),
// kUnsupported (the device has no such storage as the options ask for); those of tuning_in_use().
Result<StepPlans> make_step_plans(const ModelConfig& config, const std::vector<WeightRef>& weights, const DeviceInfo& device, const LoadOptions& options);
// The same for `shapes` alone, with a tuning that is at hand.
Result<StepPlans> make_step_plans(const ModelConfig& config, const std::vector<WeightRef>& weights, const DeviceInfo& device, const LoadOptions& options, const Tuning& tuning,
                                  const std::vector<StepShape>& shapes);

Result<MemoryPlan> memory_plan(const ModelFile& file, const DeviceInfo& device, const LoadOptions& options = {});

}  // namespace tessera
