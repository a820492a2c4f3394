#include "tessera/exec/executor.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

#include "tessera/codegen/lower.hpp"
#include "tessera/plan/hazards.hpp"

namespace tessera {
namespace {

// A missing barrier computes wrongly on some devices and on some days: it is found here, on every device, before anything runs.
Status check_hazards(HazardTracker<const void*>& tracker, const LoweredKernel& lowered, const gpu::DispatchInfo& info) {
  std::vector<Access<const void*>> accesses;
  for (size_t i = 0; i < info.bindings.size(); ++i) {
    const gpu::Binding& binding = info.bindings[i];
    if (binding.image != nullptr) accesses.push_back({binding.image, 0, 1, lowered.slots[i].written});
    if (binding.buffer != nullptr) accesses.push_back({binding.buffer, binding.offset, binding.offset + binding.bytes, lowered.slots[i].written});
  }
  if (info.barrier) tracker.barrier();
  if (const auto hazard = tracker.conflict(accesses)) return fail(ErrorCode::kInvalidArgument, cat("without a barrier it ", name_of(*hazard), " by a dispatch before it"));
  tracker.add(accesses);
  return {};
}

}  // namespace

Status Executor::compile(const std::vector<const Plan*>& plans, const Progress& progress) {
  std::vector<LoweredKernel> missing;
  for (const Plan* plan : plans)
    for (const Dispatch& dispatch : plan->dispatches) {
      TESSERA_ASSIGN(LoweredKernel lowered, lower(embedded_kernels(), dispatch.variant, device_.target(), step_params()));
      const auto [it, is_new] = programs_.try_emplace(lowered.text, nullptr);
      if (is_new) missing.push_back(std::move(lowered));
    }
  for (size_t i = 0; i < missing.size(); ++i) {
    if (progress) progress(i, missing.size());
    const uint64_t misses = cache_.counters().misses;
    auto kernel = cache_.get(device_, missing[i]);
    if (!kernel) return fail(std::move(kernel).error().within("kernel " + missing[i].entry));
    if (cache_.counters().misses != misses) new_programs_.push_back(kernel->get());
    programs_[missing[i].text] = std::move(*kernel);
  }
  return {};
}

Result<Step> Executor::prepare(Plan plan) {
  Step step{std::move(plan), nullptr};
  HazardTracker<const void*> tracker;
  TESSERA_ASSIGN(step.list, device_.create_list());
  const Resources::Object* params = resources_.find(kParamsResource);
  for (const Dispatch& dispatch : step.plan.dispatches) {
    TESSERA_ASSIGN(const LoweredKernel lowered, lower(embedded_kernels(), dispatch.variant, device_.target(), step_params()));
    gpu::DispatchInfo info;
    info.kernel = programs_.at(lowered.text).get();
    info.workgroups = dispatch.workgroups;
    info.label = dispatch.label;
    info.barrier = dispatch.barrier;
    for (const KernelSlot& slot : lowered.slots) {
      if (slot.tensor == kParamsResource) {
        info.bindings.push_back({params->buffer.get(), 0, params->buffer->bytes(), nullptr});
        continue;
      }
      for (const PlanBinding& binding : dispatch.bindings)
        if (binding.slot == slot.tensor) {
          TESSERA_ASSIGN(gpu::Binding place, resources_.binding(step.plan, step.plan.objects[static_cast<size_t>(binding.object)]));
          info.bindings.push_back(place);
        }
    }
    for (const KernelArg& arg : lowered.args) info.args.push_back(dispatch.args.at(arg.name));
    if (Status status = check_hazards(tracker, lowered, info); !status) return fail(std::move(status).error().within(dispatch.label));
    if (Status status = step.list->dispatch(info); !status) return fail(std::move(status).error().within(dispatch.label));
  }
  TESSERA_TRY(step.list->finish());
  return step;
}

Status Executor::run(Step& step, const StepParams& params, int32_t times) {
  Resources::Object* buffer = resources_.find(kParamsResource);
  TESSERA_TRY(device_.write(*buffer->buffer, 0, std::as_bytes(std::span(&params, 1))));
  if (profile_ == nullptr) {
    const auto fence = device_.submit(*step.list, {.times = times});
    return fence ? Status() : fail(fence.error());
  }
  for (int32_t run = 0; run < times; ++run) {
    TESSERA_ASSIGN(gpu::Fence* const fence, device_.submit(*step.list, {.profiled = true}));
    TESSERA_TRY(fence->wait());
    profile_->add(step.plan, fence->dispatch_microseconds());
  }
  return {};
}

void Executor::store_new_programs(const Progress& progress) {
  for (size_t i = 0; i < new_programs_.size(); ++i) {
    if (progress) progress(i, new_programs_.size());
    cache_.store(device_, *new_programs_[i]);
  }
  new_programs_.clear();
}

}  // namespace tessera
