// The plans of a model on a device: one a step shape, and the memory they take together.
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tessera/engine/options.hpp"
#include "tessera/exec/executor.hpp"
#include "tessera/exec/resources.hpp"
#include "tessera/model/arch_table.hpp"
#include "tessera/plan/planner.hpp"

namespace tessera {

inline constexpr int64_t kPageTokens = 16;
// Chunks of a prompt, ascending; 1 is the decode step. All but the last chunk of a prompt are of the greatest size.
inline constexpr int64_t kChunkTokens[] = {1, 8, 32, 128};
inline constexpr int64_t kLargestChunk = 128;
inline constexpr int64_t kAllLogitsChunk = 32;   // evaluation: bounds the logits buffer to 32 rows

inline std::vector<StepShape> step_shapes(bool all_logits) {
  std::vector<StepShape> shapes;
  for (int64_t tokens : kChunkTokens) shapes.push_back({tokens, LogitRows::kLast});
  shapes.push_back({kLargestChunk, LogitRows::kNone});
  if (all_logits) shapes.push_back({kAllLogitsChunk, LogitRows::kAll});
  return shapes;
}

inline int32_t context_tokens(const ModelConfig& config, const LoadOptions& options) {
  return options.context_tokens != 0 ? options.context_tokens : std::min(config.context_length, 4096);
}

inline Tuning tuning_for(const DeviceInfo& device, const LoadOptions& options) {
  Tuning tuning = tuning_for(device);
  if (options.weight_storage) tuning.weight_storage = *options.weight_storage;
  if (options.activation_storage) tuning.activation_storage = *options.activation_storage;
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
  std::map<std::string, Layout> shared;   // every object that is not of the arena, by resource key
};

// Errors: kInvalidArgument (options), kLimit (the device cannot hold a tensor, or max_device_bytes is too low).
inline Result<StepPlans> make_step_plans(const ModelConfig& config, const std::vector<WeightRef>& weights, const DeviceInfo& device, const LoadOptions& options) {
  const int32_t context = context_tokens(config, options);
  if (context < 1 || context > config.context_length)
    return fail(ErrorCode::kInvalidArgument, cat("context of ", context, " tokens: the model was trained for 1 to ", config.context_length));
  const Tuning tuning = tuning_for(device, options);
  StepPlans out;
  StepRequest request{.config = &config, .weights = &weights, .shape = {}, .pages = ceil_div(context, kPageTokens), .page_tokens = kPageTokens,
                      .kv_type = options.precision == Precision::kFloat ? DType::kF32 : DType::kF16, .context_pages = ceil_div(context, kPageTokens)};
  Planner planner(device, tuning);
  for (const StepShape& shape : step_shapes(options.all_logits)) {
    request.shape = shape;
    TESSERA_ASSIGN(Graph graph, build_step(request));
    TESSERA_ASSIGN(Plan plan, planner.plan(std::move(graph), shape));
    out.arena.merge(plan);
    int64_t image_bytes = 0;
    for (const Layout& image : plan.image_slots) image_bytes += image.object_bytes();
    out.memory.arena_lower_bound = std::max(out.memory.arena_lower_bound, static_cast<uint64_t>(plan.arena_lower_bound + image_bytes));
    for (const PlanObject& object : plan.objects) {
      if (object.home == Home::kArenaBuffer || object.home == Home::kArenaImage) continue;
      const auto [it, is_new] = out.shared.try_emplace(resource_key(object), object.layout);
      const int64_t before = is_new ? 0 : it->second.object_bytes();
      const int64_t now = std::max(before, object.layout.object_bytes());
      if (now > before) it->second = object.layout;   // logits of all rows need more room than those of one
      (object.home == Home::kWeight ? out.memory.weights : object.home == Home::kState ? out.memory.kv : out.memory.inputs) += static_cast<uint64_t>(now - before);
    }
    out.plans.push_back(std::move(plan));
  }
  out.memory.arena = static_cast<uint64_t>(out.arena.bytes());
  out.memory.inputs += sizeof(StepParams);
  if (options.max_device_bytes != 0 && out.memory.total() > options.max_device_bytes)
    return fail(ErrorCode::kLimit, cat("the model needs ", bytes_text(out.memory.total()), " of device memory (weights ", bytes_text(out.memory.weights), ", KV ", bytes_text(out.memory.kv), " for ", context,
                                       " tokens, intermediates ", bytes_text(out.memory.arena), "); allowed are ", bytes_text(options.max_device_bytes), ". A smaller context needs less."));
  return out;
}

inline Result<MemoryPlan> memory_plan(const ModelFile& file, const DeviceInfo& device, const LoadOptions& options = {}) {
  TESSERA_ASSIGN(const StepPlans plans, make_step_plans(file.config(), file.weights(), device, options));
  return plans.memory;
}

}  // namespace tessera
