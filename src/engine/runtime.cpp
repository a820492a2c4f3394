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
  TESSERA_ASSIGN(PagedCache cache, PagedCache::make({.pages = plans.kv.pages, .page_size = plans.kv.page_tokens, .max_context_tokens = plans.kv.context_tokens, .window = plans.kv.window,
                                                     .prefix_cache = options.prefix_cache}));
  std::unique_ptr<Runtime> runtime(new Runtime(std::move(file), device, std::move(cache), options));
  Status status = runtime->set_up(std::move(plans), options);
  if (status) return runtime;
  const bool by_tuned_rows = !runtime->tuning_.path.empty() && (status.error().code() == ErrorCode::kCompile || status.error().code() == ErrorCode::kDriver || status.error().code() == ErrorCode::kLimit);
  if (!by_tuned_rows) return fail(std::move(status).error());
  if (options.on_log) options.on_log(LogLevel::kWarning, cat("tuned rows of ", runtime->tuning_.path, " are not used, the device refuses their kernels: ", status.error().message()));
  runtime.reset();
  LoadOptions shipped = options;
  shipped.tuning = "off";
  return load(path, std::move(device), shipped);
}

std::string Runtime::dump_plans() const {
  std::string text;
  if (!tuning_.path.empty()) text = cat("tuned rows: ", tuning_.rows.size(), ", from ", tuning_.path, "\n");
  for (const auto& [shape, step] : steps_) text += dump(step.plan) + "\n";
  return text;
}

Status Runtime::forward(SequenceId sequence, std::span<const int32_t> ids, const StepShape& shape) {
  TESSERA_ASSIGN(const int32_t before, cache_.length(sequence));
  TESSERA_ASSIGN(const std::optional<PageCopy> unshared, cache_.append(sequence, static_cast<int32_t>(ids.size())));
  Status status = unshared ? copy_page(*unshared) : Status();
  const int32_t kept = status ? before : before - unshared->tokens;   // nothing is in the page that was to be copied into
  const StepPart part{.sequence = sequence, .position = before, .ids = ids};
  if (status) status = run(std::span(&part, 1), shape);
  if (!status) (void)cache_.truncate(sequence, kept);
  return status;
}

Status Runtime::run(std::span<const StepPart> parts, const StepShape& shape, int32_t steps) {
  const auto step = step_for(parts, shape, steps);
  if (step == steps_.end()) return fail(ErrorCode::kInvalidArgument, cat("no step of ", shape.tokens, " tokens with these logits was planned (LoadOptions::all_logits?)"));
  ++runs_;
  rows_.clear();
  for (const StepPart& part : parts) {
    const size_t slot = slot_of(part.sequence);
    TESSERA_TRY(write_block_table(part.sequence, slot));
    if (shape.logits != LogitRows::kNone) TESSERA_TRY(write_sampler(part, slot));
    for (size_t i = 0; i < part.ids.size(); ++i) rows_.push_back({part.ids[i], part.position + static_cast<int32_t>(i), static_cast<int32_t>(slot), -1});
  }
  const int32_t active = static_cast<int32_t>(rows_.size());
  rows_.resize(static_cast<size_t>(shape.tokens));   // a row of logits for each row of the step: those of rows that are not active are told so
  if (shape.logits == LogitRows::kLast) rows_[0].logits_of = active - 1;
  for (int32_t i = 0; shape.logits == LogitRows::kAll && i < active; ++i) rows_[static_cast<size_t>(i)].logits_of = i;
  TESSERA_TRY(write_input<StepRow>(kRowsInput, 0, rows_));
  return executor_.run(step->second, {.tokens = active}, steps);
}

std::map<StepShape, Step>::iterator Runtime::step_for(std::span<const StepPart> parts, StepShape shape, int32_t steps) {
  const auto is_long = [&](const StepPart& part) { return part.position + static_cast<int32_t>(part.ids.size()) + steps - 1 > long_context_; };
  shape.long_context = std::ranges::any_of(parts, is_long);
  auto step = steps_.find(shape);
  shape.long_context = false;
  return step != steps_.end() ? step : steps_.find(shape);
}

size_t Runtime::slot_of(SequenceId sequence) {
  auto found = std::ranges::find(slots_, sequence, &Slot::sequence);
  if (found == slots_.end()) found = std::ranges::min_element(slots_, {}, &Slot::used);
  found->sequence = sequence;
  found->used = runs_;
  return static_cast<size_t>(found - slots_.begin());
}

Status Runtime::write_block_table(SequenceId sequence, size_t slot) {
  TESSERA_ASSIGN(const BlockTable table, cache_.block_table(sequence));
  const std::span<const PageId> pages = table.pages;
  std::vector<PageId>& there = slots_[slot].pages;
  const size_t known = static_cast<size_t>(std::mismatch(pages.begin(), pages.end(), there.begin(), there.end()).first - pages.begin());
  if (known == pages.size()) return {};
  const size_t table_pages = static_cast<size_t>(cache_.pages_for(cache_.max_context_tokens()));
  there.resize(known);
  TESSERA_TRY(write_input(kBlockTablesInput, slot * table_pages + known, pages.subspan(known)));
  there.assign(pages.begin(), pages.end());
  return {};
}

// What is chosen is added to the recent tokens by the device itself: it has to be told only where an answer begins, and where another sequence had the slot.
Status Runtime::write_sampler(const StepPart& part, size_t slot) {
  static const SamplerOptions kGreedy;
  const SamplerOptions& options = part.sampler != nullptr ? *part.sampler : kGreedy;
  Slot& there = slots_[slot];
  const SamplerWords words = sampler_words(options, part.log_probabilities);
  const bool same_biases = std::ranges::equal(there.biases, options.logit_bias, [](const LogitBias& a, const LogitBias& b) { return a.id == b.id && a.bias == b.bias; });
  if (!same_biases && !options.logit_bias.empty()) {
    TESSERA_TRY(write_input<LogitBias>(kBiasesInput, slot * kMaxDeviceBiases, options.logit_bias));
  }
  if (!same_biases) there.biases = options.logit_bias;
  if (there.sampler != words) TESSERA_TRY(write_input(kSamplersInput, slot, std::span(&words, 1)));
  const bool known = part.goes_on && there.recent_of == part.sequence;
  there.sampler = words;
  there.recent_of = SequenceId{};
  if (!options.penalizes()) return {};
  there.recent_of = part.sequence;
  if (known) return {};
  recent_.assign(kRecentTokens, 0);
  const size_t count = std::min(part.tokens.size(), recent_.size());
  for (size_t at = part.tokens.size() - count; at < part.tokens.size(); ++at) recent_[at % recent_.size()] = part.tokens[at];
  return write_input<int32_t>(kRecentInput, slot * recent_.size(), recent_);
}

Status Runtime::read_sampled(size_t rows) {
  sampled_.resize(rows * kStepsAtOnce);
  return device_.backend().read(*resources_.find(kSampledInput)->buffer, 0, std::as_writable_bytes(std::span(sampled_)));
}

Result<SampledToken> Runtime::sampled(size_t row, int32_t position) const {
  const SampledToken& found = sampled_[row * kStepsAtOnce + static_cast<size_t>(position) % kStepsAtOnce];
  if (found.id < 0) return fail(ErrorCode::kNumericFault, cat("the logits are not finite numbers: the model file is damaged, or this device computes wrongly",
                                               activation_type_ == DType::kF16 ? ", or an intermediate left the range of f16: then float precision (--precision float) helps" : ""));
  return found;
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
  tuning_ = std::move(plans.tuning);
  activation_type_ = plans.activation_type;
  long_context_ = plans.long_context;
  TESSERA_TRY(allocate(plans));
  // So that a step allocates nothing.
  slots_.resize(kSlots);
  for (Slot& slot : slots_) slot.pages.reserve(static_cast<size_t>(cache_.pages_for(cache_.max_context_tokens())));
  rows_.reserve(kMaxRows);
  recent_.reserve(kRecentTokens);
  sampled_.reserve(kMostRows * kStepsAtOnce);
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
    if (status) (void)cache_.truncate(scratch, 0);
  }
  (void)cache_.free(scratch);
  TESSERA_TRY(status);
  return read_sampled(1);   // which waits for all of it
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

}  // namespace tessera
