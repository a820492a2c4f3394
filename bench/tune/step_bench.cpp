#include "step_bench.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <set>

#include "tessera/base/half.hpp"
#include "tessera/codegen/lower.hpp"
#include "tessera/device/op_settings.hpp"
#include "tessera/engine/device_sampler.hpp"
#include "tessera/engine/upload.hpp"
#include "tessera/model/rope_scaling.hpp"
#include "tessera/model/step_graph.hpp"
#include "tessera/ops/rope_kv.hpp"
#include "tessera/plan/dump.hpp"

namespace tessera::bench {
namespace {

// What a trial has of its own, and how their names begin.
constexpr std::string_view kAlone = "alone ";
bool is_alone(const PlanObject& object) { return object.home == Home::kArenaBuffer || object.home == Home::kArenaImage || object.home == Home::kOutput; }

// Small numbers that are the same for the same seed: xorshift (Marsaglia, 2003).
class Random {
 public:
  explicit Random(std::string_view seed) {
    for (const char c : seed) state_ = (state_ ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  uint32_t word() {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 32);
  }
  float number() { return static_cast<float>(word()) * 0x1p-31f - 1.0f; }   // −1 … 1

 private:
  uint64_t state_ = 0xcbf29ce484222325u;
};

std::vector<std::byte> random_bytes(const Layout& layout, std::string_view seed) {
  std::vector<std::byte> bytes(static_cast<size_t>(layout.object_bytes()));
  Random random(seed);
  const size_t unit = static_cast<size_t>(byte_size(layout.element));
  for (size_t at = 0; at + unit <= bytes.size(); at += unit) {
    if (layout.element == DType::kF32) {
      const float value = random.number();
      std::memcpy(&bytes[at], &value, unit);
    } else if (layout.element == DType::kF16) {
      const uint16_t value = float_to_half(random.number());
      std::memcpy(&bytes[at], &value, unit);
    } else {
      for (size_t i = at; i < at + unit; ++i) bytes[i] = static_cast<std::byte>(static_cast<int>(random.word() % 255) - 127);   // what quantized activations have, −128 is none
    }
  }
  return bytes;
}

// Of one dispatch: all that makes it compute, or be launched, otherwise.
std::string identity_of(const Plan& plan, const Dispatch& dispatch) {
  std::string text = cat(dispatch.variant.kernel, " ", dispatch.variant.words.vector_width, dispatch.variant.words.half_calc, dispatch.variant.words.subgroups, name_of(dispatch.variant.words.dot));
  for (const auto& [name, value] : dispatch.variant.consts) text += cat(" ", name, "=", value);
  for (const auto& [name, value] : dispatch.args) text += cat(" ", name, "=", value);
  for (const int64_t groups : dispatch.workgroups) text += cat(" ", groups);
  for (const PlanBinding& binding : dispatch.bindings) text += cat(" ", binding.slot, ":", plan.objects[static_cast<size_t>(binding.object)].name, " ", dump(binding.view));
  return text + "\n";
}

// Sums in another order differ by about √n · 2⁻²⁴ of the root of their mean square, n ≤ 10⁴. What is rounded to f16 differs by 2⁻¹¹ of each number, a few times
// that root; a byte that falls to the other side moves a product of n = 576 by 6e-4 of it, and one that is itself a result by 1 in 127. A kernel that computes wrongly is off by about 1. In a whole
// step a byte that falls to the other side moves what all later layers round: where only the order of sums differed, the greatest of 400,000 logits was off by 0.8,
// and by 2.4 to 6 where something was wrong.
constexpr double kRounded = 2e-2, kWholeStep = 1.0;

bool is_rounded(const Layout& layout) { return layout.element != DType::kF32; }

}  // namespace

Result<std::unique_ptr<StepBench>> StepBench::open(const ModelFile& file, gpu::Device& device, const LoadOptions& options, const Tuning& tuning) {
  std::unique_ptr<StepBench> bench(new StepBench(file, device, options, tuning));
  TESSERA_TRY(bench->set_up());
  return bench;
}

Status StepBench::set_up() {
  // With room for every tile that a candidate may have, and for long contexts however they are shared.
  Tuning roomy = tuning_;
  roomy.attention_groups = INT32_MAX;
  roomy.attention_long = 1;
  for (const OpSetting& setting : op_settings())
    for (const int value : setting.values) {
      TuningRow of_none;
      of_none.shape = OpShape{.op = "none"};
      of_none.*setting.row = value;
      roomy.shape_rows.push_back(std::move(of_none));
    }
  TESSERA_ASSIGN(const StepPlans plans, make_step_plans(file_.config(), file_.weights(), device_.info(), options_, roomy, step_shapes(false)));
  for (const auto& [key, layout] : plans.shared) TESSERA_TRY(resources_.create(key, layout));
  TESSERA_TRY(resources_.create(kParamsResource, Layout{Storage::kBuffer, DType::kI32, 1, {static_cast<int64_t>(sizeof(StepParams) / 4)}}));
  TESSERA_TRY(resources_.create_arena(plans.arena));
  table_pages_ = plans.kv.context_pages(), page_tokens_ = plans.kv.page_tokens, pages_ = plans.kv.pages;
  WeightUploader uploader(device_, resources_, [&](std::string_view name) { return file_.weight(name); }, [](int64_t) {});
  std::map<std::string, const PlanWeight*> weights;
  for (const Plan& plan : plans.plans)
    for (const auto& [key, weight] : plan.weights) weights.emplace(key, &weight);
  for (const auto& [key, weight] : weights) TESSERA_TRY(uploader.upload(*weight));
  for (const std::string& key : plans.states) {
    const Resources::Object& pages = *resources_.find(key);
    TESSERA_TRY(device_.write(*pages.buffer, 0, random_bytes(pages.layout, key)));
  }
  const std::vector<float> angles = ops::rope_angles(resources_.find(kAnglesInput)->layout.grid[0], round_up(file_.config().head_dim, 4), rotation_of(file_.config()));
  TESSERA_TRY(write(kAnglesInput, std::as_bytes(std::span(angles))));
  const std::vector<SamplerWords> samplers(static_cast<size_t>(kSlots), sampler_words({}));
  TESSERA_TRY(write(kSamplersInput, std::as_bytes(std::span(samplers))));
  return write(kLogitsOutput, random_bytes(resources_.find(kLogitsOutput)->layout, kLogitsOutput));
}

Status StepBench::write(const char* name, std::span<const std::byte> bytes) { return device_.write(*resources_.find(name)->buffer, 0, bytes); }

int32_t StepBench::context_behind(const StepShape& step) const {
  return std::min(step.long_context ? kFar : kNear, table_pages_ * page_tokens_ / 2);
}

// Sessions share the pages of what is there. What a step writes goes to pages that no other row reads, whichever step runs before or beside it.
Status StepBench::write_inputs(const Trial& trial) {
  const StepShape& step = trial.step.plan.shape;
  std::vector<StepRow> rows(static_cast<size_t>(kMaxRows));
  std::vector<int32_t> tables(static_cast<size_t>(kSlots) * static_cast<size_t>(table_pages_));
  for (size_t i = 0; i < tables.size(); ++i) tables[i] = static_cast<int32_t>(i) % table_pages_ % pages_;
  const bool sessions = step.logits == LogitRows::kAll;
  const auto tokens = static_cast<int32_t>(step.tokens);
  const int32_t first = sessions || tokens == 1 ? trial.behind : std::max(0, trial.behind - tokens);
  int32_t last_pages = 0;   // written ones, from the end of the pool
  for (int32_t t = 0; t < tokens; ++t) {
    const int32_t position = sessions ? first : first + t, slot = sessions ? t % kSlots : 0, page = position / page_tokens_;
    rows[static_cast<size_t>(t)] = {t * 7919 % file_.config().vocab_size, position, slot, sessions ? t : -1};
    if (page >= table_pages_) continue;   // a chunk in a context that is shorter
    int32_t& place = tables[static_cast<size_t>(slot * table_pages_ + page)];
    if (place == page % pages_) place = std::max(place, pages_ - ++last_pages);
  }
  TESSERA_TRY(write(kBlockTablesInput, std::as_bytes(std::span(tables))));
  if (step.logits == LogitRows::kLast) rows[0].logits_of = static_cast<int32_t>(step.tokens) - 1;
  return write(kRowsInput, std::as_bytes(std::span(rows)));
}

Result<Plan> StepBench::step_plan(const StepShape& step, const Tuning& tuning) const {
  TESSERA_ASSIGN(StepPlans plans, make_step_plans(file_.config(), file_.weights(), device_.info(), options_, tuning, {step}));
  if (plans.plans.empty()) return fail(ErrorCode::kUnsupported, "no workgroups share a long context here");
  return std::move(plans.plans.front());
}

Result<std::vector<TuningCase>> StepBench::cases(const StepShape& step) const {
  std::vector<TuningCase> all;
  const auto plan = step_plan(step, tuning_);
  if (!plan && step.long_context && plan.error().code() == ErrorCode::kUnsupported) return all;
  if (!plan) return fail(plan.error());
  for (const Dispatch& dispatch : plan->dispatches)
    if (std::ranges::find(all, dispatch.shape, &TuningCase::shape) == all.end()) all.push_back({step, dispatch.shape});
  return all;
}

// The nodes of the case, and with `between` those beside them.
std::set<int> StepBench::nodes_of(const TuningCase& of, const Plan& whole) {
  std::vector<int> all, wanted;
  for (const Dispatch& each : whole.dispatches) {
    if (all.empty() || all.back() != each.node) all.push_back(each.node);
    if (each.shape == of.shape && (wanted.empty() || wanted.back() != each.node)) wanted.push_back(each.node);
  }
  if (of.most_ops != 0 && wanted.size() > static_cast<size_t>(of.most_ops)) wanted.resize(static_cast<size_t>(of.most_ops));
  std::set<int> nodes(wanted.begin(), wanted.end());
  for (size_t i = 0; of.between && i < all.size(); ++i) {
    if (!std::ranges::binary_search(wanted, all[i])) continue;
    if (i > 0) nodes.insert(all[i - 1]);
    if (i + 1 < all.size()) nodes.insert(all[i + 1]);
  }
  return nodes;
}

Result<Trial> StepBench::plan(const TuningCase& of, const Tuning& tuning) const {
  TESSERA_ASSIGN(const Plan whole, step_plan(of.step, tuning));
  const std::set<int> nodes = nodes_of(of, whole);
  Trial trial;
  trial.behind = context_behind(of.step);
  Plan& plan = trial.step.plan;
  plan.shape = whole.shape;
  std::map<std::string, int> objects;   // by resource key: of the new plan
  std::map<int, int> of_node;           // object of the whole plan → of the new one
  int node = -1, dispatch_of_node = 0;
  for (const Dispatch& each : whole.dispatches) {
    if (!nodes.contains(each.node)) continue;
    const bool of_case = each.shape == of.shape;
    if (each.node != node) of_node.clear(), dispatch_of_node = 0, trial.ops += of_case;
    node = each.node;
    TESSERA_ASSIGN(const std::set<std::string> written, written_tensors(embedded_kernels(), each.variant.kernel));
    Dispatch dispatch = each;
    dispatch.barrier = true;   // what it waited for in the step may be left out here
    for (PlanBinding& binding : dispatch.bindings) {
      const auto [known, is_new] = of_node.try_emplace(binding.object, 0);
      if (is_new) {
        PlanObject object = whole.objects[static_cast<size_t>(binding.object)];
        if (is_alone(object)) object.name = cat(kAlone, each.shape.label(), " ", dispatch_of_node, " ", binding.slot, " ", dump(object.layout)), object.home = Home::kInput;
        const auto [there, first] = objects.try_emplace(resource_key(object), static_cast<int>(plan.objects.size()));
        if (first && object.name.starts_with(kAlone)) trial.filled.push_back(there->second);
        if (first) plan.objects.push_back(std::move(object));
        known->second = there->second;
      }
      binding.object = known->second;
      const PlanObject& object = plan.objects[static_cast<size_t>(binding.object)];
      const auto add = [&](std::vector<int>& list) {
        if (std::ranges::find(list, binding.object) == list.end()) list.push_back(binding.object);
      };
      if (!of_case || object.home == Home::kWeight) continue;
      if (is_rounded(object.layout) || dispatch.variant.consts.contains("PAIRS")) trial.tolerance = kRounded;
      if (trial.ops == 1 && written.contains(binding.slot)) add(trial.written), add(trial.filled);
    }
    trial.identity += identity_of(plan, dispatch);
    plan.dispatches.push_back(std::move(dispatch));
    ++dispatch_of_node;
  }
  if (trial.ops == 0) return fail(ErrorCode::kUnsupported, cat(of.shape.label(), ": this tuning plans no such op"));
  return trial;
}

Result<Trial> StepBench::plan_step(const StepShape& step, const Tuning& tuning) const {
  Trial trial;
  TESSERA_ASSIGN(trial.step.plan, step_plan(step, tuning));
  for (const Dispatch& dispatch : trial.step.plan.dispatches) trial.identity += identity_of(trial.step.plan, dispatch);
  trial.behind = context_behind(step);
  trial.tolerance = kWholeStep;
  for (size_t i = 0; i < trial.step.plan.objects.size(); ++i)
    if (trial.step.plan.objects[i].home == Home::kOutput) trial.written.push_back(static_cast<int>(i));
  return trial;
}

Result<Trial> StepBench::plan_step_behind(StepShape step, int32_t tokens, const Tuning& tuning) const {
  step.long_context = tokens + 1 > tuning.attention_long;
  auto trial = plan_step(step, tuning);
  if (!trial && step.long_context && trial.error().code() == ErrorCode::kUnsupported) {
    step.long_context = false;
    trial = plan_step(step, tuning);
  }
  if (trial) trial->behind = tokens;
  return trial;
}

Status StepBench::prepare(Trial& trial) {
  TESSERA_TRY(resources_.create_objects(trial.step.plan));
  TESSERA_TRY(executor_.compile({&trial.step.plan}, {}));
  TESSERA_ASSIGN(Step step, executor_.prepare(std::move(trial.step.plan)));
  trial.step = std::move(step);
  return {};
}

Status StepBench::fill(const Trial& trial, int at) {
  const PlanObject& object = trial.step.plan.objects[static_cast<size_t>(at)];
  TESSERA_ASSIGN(const gpu::Binding place, resources_.binding(trial.step.plan, object));
  const bool random = object.home != Home::kInput || object.name.starts_with(kAlone);
  // By the slot alone: an object of more rows begins with the same numbers.
  const std::vector<std::byte> bytes = random ? random_bytes(object.layout, object.name.substr(0, object.name.find('['))) : std::vector<std::byte>(static_cast<size_t>(object.layout.object_bytes()));
  return place.image != nullptr ? device_.write_rows(*place.image, 0, object.layout.lines(), bytes) : device_.write(*place.buffer, place.offset, bytes);
}

// Floats as they are; words of inputs as they are; words of activations as the bytes in them.
Result<std::vector<float>> StepBench::read(const Trial& trial, int at) {
  const PlanObject& object = trial.step.plan.objects[static_cast<size_t>(at)];
  TESSERA_ASSIGN(const gpu::Binding place, resources_.binding(trial.step.plan, object));
  std::vector<std::byte> bytes(static_cast<size_t>(object.layout.object_bytes()));
  TESSERA_TRY(place.image != nullptr ? device_.read_rows(*place.image, 0, object.layout.lines(), bytes) : device_.read(*place.buffer, place.offset, bytes));
  // Rows behind the active ones belong to nobody.
  const bool activation = object.name.starts_with(kAlone);
  if (const int64_t rows = object.layout.grid[0], active = trial.step.plan.shape.tokens; activation && rows > active) bytes.resize(bytes.size() / static_cast<size_t>(rows) * static_cast<size_t>(active));
  std::vector<float> values;
  const size_t unit = object.layout.element == DType::kU32 && activation ? 1 : static_cast<size_t>(byte_size(object.layout.element));
  for (size_t i = 0; i + unit <= bytes.size(); i += unit) {
    uint16_t half = 0;
    uint32_t word = 0;
    float value = 0.0f;
    if (unit == 1) value = static_cast<float>(static_cast<int8_t>(bytes[i]));
    else if (unit == 2) std::memcpy(&half, &bytes[i], 2), value = half_to_float(half);
    else if (object.layout.element == DType::kF32) std::memcpy(&value, &bytes[i], 4);
    else std::memcpy(&word, &bytes[i], 4), value = static_cast<float>(word);
    values.push_back(value);
  }
  return values;
}

Result<Results> StepBench::results(Trial& trial) {
  TESSERA_TRY(write_inputs(trial));
  for (const int object : trial.filled) TESSERA_TRY(fill(trial, object));
  TESSERA_TRY(executor_.run(trial.step, {.tokens = static_cast<int32_t>(trial.step.plan.shape.tokens)}));
  Results all;
  for (const int object : trial.written) {
    TESSERA_ASSIGN(std::vector<float> values, read(trial, object));
    all.push_back(std::move(values));
  }
  return all;
}

Result<double> StepBench::seconds(Trial& trial, int32_t times) {
  TESSERA_TRY(write_inputs(trial));
  const auto start = std::chrono::steady_clock::now();
  TESSERA_ASSIGN(gpu::Fence* const fence, device_.submit(*trial.step.list, {.times = times}));
  TESSERA_TRY(fence->wait());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / times;
}

Status same_results(const Results& found, const Results& expected, double tolerance) {
  if (found.size() != expected.size()) return fail(ErrorCode::kNumericFault, cat(found.size(), " results, ", expected.size(), " expected"));
  for (size_t t = 0; t < found.size(); ++t) {
    if (found[t].size() != expected[t].size()) return fail(ErrorCode::kNumericFault, cat(found[t].size(), " numbers, ", expected[t].size(), " expected"));
    double squares = 0.0, most = 0.0, off = 0.0;
    for (size_t i = 0; i < found[t].size(); ++i) {
      const double a = static_cast<double>(found[t][i]), b = static_cast<double>(expected[t][i]);
      if (a == b || (std::isnan(a) && std::isnan(b))) {
        squares += std::isfinite(b) ? b * b : 0.0;
        continue;
      }
      if (!std::isfinite(a - b)) return fail(ErrorCode::kNumericFault, cat("number ", i, " is ", a, ", ", b, " expected"));
      squares += b * b;
      most = std::max(most, std::abs(a - b));
      off += (a - b) * (a - b);
    }
    const double count = static_cast<double>(std::max<size_t>(1, found[t].size())), scale = std::sqrt(squares / count);
    if (most > tolerance * scale) return fail(ErrorCode::kNumericFault, cat("a number is off by ", most / scale, " of the results' size; rounding explains ", tolerance));
    // The greatest of a thousand roundings is above three times their root mean square.
    if (count >= 1000.0 && std::sqrt(off / count) > tolerance / 3.0 * scale)
      return fail(ErrorCode::kNumericFault, cat("numbers are off by ", std::sqrt(off / count) / scale, " of the results' size in the mean; rounding explains ", tolerance / 3.0));
  }
  return {};
}

}  // namespace tessera::bench
