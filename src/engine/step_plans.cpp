#include "tessera/engine/step_plans.hpp"

#include <bit>

#include "tessera/exec/executor.hpp"
#include "tessera/kv/block_table.hpp"
#include "tessera/model/arch_table.hpp"
#include "tessera/plan/planner.hpp"

namespace tessera {

namespace {
DType element_of(const LoadOptions& options) {
  switch (options.kv) {
    case KvType::kDefault: break;
    case KvType::kFloat: return DType::kF32;
    case KvType::kHalf: return DType::kF16;
    case KvType::kInt8: return DType::kI8;
  }
  return options.precision == Precision::kFloat ? DType::kF32 : DType::kF16;
}
}  // namespace

Result<KvPool> kv_pool(const ModelConfig& config, const LoadOptions& options) {
  KvPool pool{.type = element_of(options),
              .page_tokens = options.page_tokens != 0 ? options.page_tokens : kPageTokens,
              .context_tokens = options.context_tokens != 0 ? options.context_tokens : std::min(config.context_length, 4096)};
  if (pool.context_tokens < 1 || pool.context_tokens > config.context_length)
    return fail(ErrorCode::kInvalidArgument, cat("context of ", pool.context_tokens, " tokens: the model was trained for 1 to ", config.context_length));
  if (pool.page_tokens < 1 || pool.page_tokens > kMostPageTokens || !std::has_single_bit(static_cast<uint32_t>(pool.page_tokens)))
    return fail(ErrorCode::kInvalidArgument, cat("KV pages of ", pool.page_tokens, " tokens: there are powers of two up to ", kMostPageTokens));
  pool.window = config.window < pool.context_tokens ? config.window : 0;
  // Of one conversation; behind a window, what it holds at most while it is run in chunks.
  TESSERA_ASSIGN(const PageSize page_size, PageSize::of(pool.page_tokens));
  const int32_t rolling = page_size.pages_for_window(pool.window, static_cast<int32_t>(kLargestChunk));
  pool.pages = pool.window == 0 ? pool.context_pages() : std::min(pool.context_pages(), rolling);
  if (options.kv_bytes == 0) return pool;
  const int64_t head_bytes = round_up(config.head_dim, 4) * byte_size(pool.type) + (pool.type == DType::kI8 ? byte_size(DType::kF32) : 0);
  const auto page_bytes = static_cast<uint64_t>(2 * int64_t{config.n_layers} * config.n_kv_heads * pool.page_tokens * head_bytes);
  if (options.kv_bytes < page_bytes)
    return fail(ErrorCode::kLimit, cat("a KV cache of ", bytes_text(options.kv_bytes), ": one page of ", pool.page_tokens, " tokens takes ", bytes_text(page_bytes)));
  pool.pages = static_cast<int32_t>(std::min<uint64_t>(options.kv_bytes / page_bytes, static_cast<uint64_t>(INT32_MAX / pool.page_tokens)));   // positions are int32
  // With fewer pages than a window goes on in, the context ends where they do.
  if (pool.window == 0 || pool.pages < rolling) pool.context_tokens = std::min(pool.context_tokens, pool.pages * pool.page_tokens);
  if (pool.window >= pool.context_tokens) pool.window = 0;
  return pool;
}

Result<StepPlans> make_step_plans(const ModelConfig& config, const std::vector<WeightRef>& weights, const DeviceInfo& device, const LoadOptions& options) {
  TESSERA_ASSIGN(TuningInUse tuning, tuning_in_use(device, options));
  const std::vector<StepShape> shapes = step_shapes(options.all_logits);
  auto plans = make_step_plans(config, weights, device, options, tuning_for(device, options, tuning.rows), shapes);
  if (plans) plans->tuning = std::move(tuning);
  if (plans || tuning.path.empty()) return plans;
  auto shipped = make_step_plans(config, weights, device, options, tuning_for(device, options, {}), shapes);
  if (shipped && options.on_log) options.on_log(LogLevel::kWarning, cat("tuned rows of ", tuning.path, " are not used, they cannot be planned with: ", plans.error().message()));
  return shipped;
}

Result<StepPlans> make_step_plans(const ModelConfig& config, const std::vector<WeightRef>& weights, const DeviceInfo& device, const LoadOptions& options, const Tuning& tuning,
                                  const std::vector<StepShape>& shapes) {
  TESSERA_ASSIGN(const KvPool kv, kv_pool(config, options));
  if (options.weight_parts < 0) return fail(ErrorCode::kInvalidArgument, cat("weights in ", options.weight_parts, " parts"));
  StepPlans out;
  out.kv = kv;
  out.activation_type = tuning.activation_type;
  StepRequest request{.config = &config, .weights = &weights, .shape = {}, .pages = kv.pages, .page_tokens = kv.page_tokens, .kv_type = kv.type, .context_pages = kv.context_pages()};
  Planner planner(device, tuning);
  out.long_context = tuning.attention_long;
  const int32_t seen = kv.window != 0 ? kv.window : kv.context_tokens;
  for (const StepShape& shape : shapes) {
    if (shape.long_context && (seen <= out.long_context || tuning.attention_splits_of(shape.tokens * config.n_kv_heads) == 1)) continue;
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
    return fail(ErrorCode::kLimit, cat("the model needs ", bytes_text(out.memory.total()), " of device memory (weights ", bytes_text(out.memory.weights), ", KV ", bytes_text(out.memory.kv), " for ", kv.pages * kv.page_tokens,
                                       " tokens, intermediates ", bytes_text(out.memory.arena), "); allowed are ", bytes_text(options.max_device_bytes), ". A smaller context needs less."));
  return out;
}

Result<MemoryPlan> memory_plan(const ModelFile& file, const DeviceInfo& device, const LoadOptions& options) {
  TESSERA_ASSIGN(const StepPlans plans, make_step_plans(file.config(), file.weights(), device, options));
  return plans.memory;
}

}  // namespace tessera
