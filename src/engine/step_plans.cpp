#include "tessera/engine/step_plans.hpp"

#include "tessera/exec/executor.hpp"
#include "tessera/model/arch_table.hpp"
#include "tessera/plan/planner.hpp"

namespace tessera {

Result<StepPlans> make_step_plans(const ModelConfig& config, const std::vector<WeightRef>& weights, const DeviceInfo& device, const LoadOptions& options) {
  const int32_t context = context_tokens(config, options);
  if (context < 1 || context > config.context_length)
    return fail(ErrorCode::kInvalidArgument, cat("context of ", context, " tokens: the model was trained for 1 to ", config.context_length));
  if (options.weight_parts < 0) return fail(ErrorCode::kInvalidArgument, cat("weights in ", options.weight_parts, " parts"));
  const Tuning tuning = tuning_for(device, options);
  StepPlans out;
  out.activation_type = tuning.activation_type;
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
      if (object.home == Home::kState) out.states.insert(it->first);
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

Result<MemoryPlan> memory_plan(const ModelFile& file, const DeviceInfo& device, const LoadOptions& options) {
  TESSERA_ASSIGN(const StepPlans plans, make_step_plans(file.config(), file.weights(), device, options));
  return plans.memory;
}

}  // namespace tessera
