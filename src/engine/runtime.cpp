#include "tessera/engine/runtime.hpp"

#include <algorithm>
#include <utility>

#include "tessera/engine/upload.hpp"
#include "tessera/model/rope_scaling.hpp"
#include "tessera/model/step_graph.hpp"
#include "tessera/ops/rope_kv.hpp"
#include "tessera/plan/dump.hpp"

namespace tessera {

Result<std::unique_ptr<Runtime>> Runtime::load(const std::string& path, Device device, const LoadOptions& options) {
  TESSERA_ASSIGN(ModelFile file, ModelFile::open(path));
  TESSERA_ASSIGN(StepPlans plans, make_step_plans(file.config(), file.weights(), device.info(), options));
  TESSERA_ASSIGN(PagedCache cache, PagedCache::make({.pages = static_cast<int32_t>(ceil_div(tessera::context_tokens(file.config(), options), kPageTokens)),
                                                     .page_size = static_cast<int32_t>(kPageTokens),
                                                     .max_context_tokens = tessera::context_tokens(file.config(), options),
                                                     .prefix_cache = options.prefix_cache}));
  std::unique_ptr<Runtime> runtime(new Runtime(std::move(file), std::move(device), std::move(cache), options));
  TESSERA_TRY(runtime->set_up(std::move(plans), options));
  return runtime;
}

std::string Runtime::dump_plans() const {
  std::string text;
  for (const auto& [shape, step] : steps_) text += dump(step.plan) + "\n";
  return text;
}

Status Runtime::forward(SequenceId sequence, std::span<const int32_t> ids, const StepShape& shape) {
  const auto step = steps_.find(shape);
  if (step == steps_.end()) return fail(ErrorCode::kInvalidArgument, cat("no step of ", shape.tokens, " tokens with these logits was planned (LoadOptions::all_logits?)"));
  TESSERA_ASSIGN(const int32_t before, cache_.length(sequence));
  const int32_t count = static_cast<int32_t>(ids.size());
  TESSERA_ASSIGN(const std::optional<PageCopy> unshared, cache_.append(sequence, count));
  Status status = unshared ? copy_page(*unshared) : Status();
  const int32_t kept = status ? before : before - unshared->tokens;   // nothing is in the page that was to be copied into
  if (status) status = run(sequence, ids, step->second, before);
  if (!status) (void)cache_.truncate(sequence, kept);
  return status;
}

Result<int32_t> Runtime::read_sampled() {
  int32_t id = -1;
  TESSERA_TRY(device_.backend().read(*resources_.find(kSampledInput)->buffer, 0, std::as_writable_bytes(std::span(&id, 1))));
  if (id < 0) return fail(ErrorCode::kNumericFault, cat("the logits are not finite numbers: the model file is damaged, or this device computes wrongly",
                                               activation_type_ == DType::kF16 ? ", or an intermediate left the range of f16: then float precision (--precision float) helps" : ""));
  return id;
}

Status Runtime::read_logits(int64_t rows, std::vector<float>& out) {
  const Resources::Object& object = *resources_.find(kLogitsOutput);
  const int64_t stride = object.layout.grid.back() * 4, vocab = config().vocab_size;
  out.resize(static_cast<size_t>(rows * stride));
  TESSERA_TRY(device_.backend().read(*object.buffer, 0, std::as_writable_bytes(std::span(out))));
  for (int64_t r = 1; r < rows && stride != vocab; ++r) std::copy_n(out.begin() + r * stride, vocab, out.begin() + r * vocab);
  out.resize(static_cast<size_t>(rows * vocab));
  return {};
}

Status Runtime::set_up(StepPlans plans, const LoadOptions& options) {
  memory_ = plans.memory;
  activation_type_ = plans.activation_type;
  TESSERA_TRY(allocate(plans));
  table_on_device_.reserve(static_cast<size_t>(cache_.pool().total_pages()));   // a token that takes a page allocates nothing
  TESSERA_TRY(fill_angles());
  TESSERA_TRY(upload(plans, options));
  TESSERA_TRY(file_.unchanged());
  std::vector<const Plan*> all;
  for (const Plan& plan : plans.plans) all.push_back(&plan);
  // Compiling is the first half of the stage, making and keeping machine code the second; programs from the cache have no second half.
  TESSERA_TRY(executor_.compile(all, [&](size_t done, size_t total) { report_kernels(options, done, 2 * total); }));
  for (Plan& plan : plans.plans) {
    const StepShape shape = plan.shape;
    TESSERA_ASSIGN(Step step, executor_.prepare(std::move(plan)));
    steps_.emplace(shape, std::move(step));
  }
  if (const size_t compiled = executor_.new_programs(); compiled != 0) {
    TESSERA_TRY(warm_up());
    executor_.store_new_programs([&](size_t done, size_t total) { report_kernels(options, total + done, 2 * total); });
    report_kernels(options, compiled, compiled);
  } else {
    report_kernels(options, 1, 1);
  }
  return {};
}

void Runtime::report_kernels(const LoadOptions& options, size_t done, size_t total) {
  if (options.on_progress) options.on_progress({"kernels", done, total});
}

Status Runtime::warm_up() {
  const SequenceId scratch = cache_.create();
  const int32_t token = 0;
  Status status;
  for (const auto& [shape, step] : steps_) {
    if (status) status = forward(scratch, std::span(&token, 1), shape);
    if (status) status = cache_.truncate(scratch, 0);
  }
  (void)cache_.free(scratch);
  TESSERA_TRY(status);
  int32_t ignored = 0;   // a read waits for all of it
  return device_.backend().read(*resources_.find(kSampledInput)->buffer, 0, std::as_writable_bytes(std::span(&ignored, 1)));
}

Status Runtime::allocate(const StepPlans& plans) {
  for (const auto& [key, layout] : plans.shared) TESSERA_TRY(resources_.create(key, layout));
  TESSERA_TRY(resources_.create(kParamsResource, Layout{Storage::kBuffer, DType::kI32, 1, {static_cast<int64_t>(sizeof(StepParams) / 4)}}));
  for (const std::string& key : plans.states) {
    const Resources::Object& pages = *resources_.find(key);
    page_copy_.push_back({pages.buffer.get(), 0, 0, pages.layout.object_bytes() / pages.layout.grid[0]});
  }
  return resources_.create_arena(plans.arena);
}

// Whole pages: what lies behind the tokens that they hold is written before it is read.
Status Runtime::copy_page(const PageCopy& copy) {
  std::vector<gpu::BufferCopy> copies = page_copy_;
  for (gpu::BufferCopy& each : copies) {
    each.from = copy.from * each.bytes;
    each.to = copy.to * each.bytes;
  }
  return device_.backend().copy(copies);
}

Status Runtime::fill_angles() {
  Resources::Object* table = resources_.find(kAnglesInput);
  const ops::Rotation rotation = rotation_of(config());
  const int64_t padded = round_up(config().head_dim, 4);
  constexpr int64_t kAtOnce = 1024;
  for (int64_t first = 0; first < table->layout.grid[0]; first += kAtOnce) {
    const int64_t count = std::min(kAtOnce, table->layout.grid[0] - first);
    const std::vector<float> rows = ops::rope_angles(count, padded, rotation, first);
    TESSERA_TRY(device_.backend().write(*table->buffer, first * padded * 4, std::as_bytes(std::span(rows))));
  }
  return {};
}

Status Runtime::upload(const StepPlans& plans, const LoadOptions& options) {
  uint64_t done = 0;
  WeightUploader uploader(device_.backend(), resources_, [&](std::string_view name) { return file_.weight(name); }, [&](int64_t bytes) {
    done += static_cast<uint64_t>(bytes);
    if (options.on_progress) options.on_progress({"weights", done, memory_.weights});
  });
  std::map<std::string, const PlanWeight*> wanted;
  for (const Plan& plan : plans.plans)
    for (const auto& [key, weight] : plan.weights) wanted.emplace(key, &weight);
  for (const auto& [key, weight] : wanted) TESSERA_TRY(uploader.upload(*weight));
  return {};
}

Status Runtime::run(SequenceId sequence, std::span<const int32_t> ids, Step& step, int32_t position) {
  gpu::Device& device = device_.backend();
  TESSERA_TRY(write_block_table(sequence));
  TESSERA_TRY(device.write(*resources_.find(kIdsInput)->buffer, 0, std::as_bytes(ids)));
  const int32_t count = static_cast<int32_t>(ids.size());
  return executor_.run(step, {.position = position, .tokens = count, .last_row = count - 1});
}

Status Runtime::write_block_table(SequenceId sequence) {
  TESSERA_ASSIGN(const BlockTable table, cache_.block_table(sequence));
  const std::span<const PageId> pages = table.pages;
  const size_t known = static_cast<size_t>(std::mismatch(pages.begin(), pages.end(), table_on_device_.begin(), table_on_device_.end()).first - pages.begin());
  if (known == pages.size()) return {};
  table_on_device_.resize(known);
  TESSERA_TRY(device_.backend().write(*resources_.find(kBlockTableInput)->buffer, static_cast<int64_t>(known) * 4, std::as_bytes(pages.subspan(known))));
  table_on_device_.assign(pages.begin(), pages.end());
  return {};
}

}  // namespace tessera
