// Plan → programs → a recorded command list. After prepare(), a step is one submission: nothing is compiled, created or recorded.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tessera/codegen/lower.hpp"
#include "tessera/exec/profile.hpp"
#include "tessera/exec/program_cache.hpp"
#include "tessera/exec/resources.hpp"
#include "tessera/gpu/gpu.hpp"
#include "tessera/plan/plan.hpp"

namespace tessera {

// The run-time parameter buffer, as resource and as values (plan/plan.hpp: step_params()).
inline constexpr const char* kParamsResource = "params";
struct StepParams {
  int32_t position = 0;   // of the first token of the step in its sequence
  int32_t tokens = 1;     // active, at most the shape's
  int32_t last_row = 0;   // the row whose logits are asked for: tokens − 1
};

// A plan ready to run.
struct Step {
  Plan plan;
  std::unique_ptr<gpu::CommandList> list;
};

class Executor {
 public:
  // Told how many of the programs at hand are done.
  using Progress = std::function<void(size_t done, size_t total)>;

  Executor(gpu::Device& device, ProgramCache& cache, Resources& resources) : device_(device), cache_(cache), resources_(resources) {}

  // Lowers every variant of `plan` and compiles (or loads from the cache) the programs that no earlier plan had.
  Status compile(const std::vector<const Plan*>& plans, const Progress& progress) {
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

  // Records `plan`; its programs were compiled before.
  Result<Step> prepare(Plan plan) {
    Step step{std::move(plan), nullptr};
    TESSERA_ASSIGN(step.list, device_.create_list());
    const Resources::Object* params = resources_.find(kParamsResource);
    for (const Dispatch& dispatch : step.plan.dispatches) {
      TESSERA_ASSIGN(const LoweredKernel lowered, lower(embedded_kernels(), dispatch.variant, device_.target(), step_params()));
      gpu::DispatchInfo info;
      info.kernel = programs_.at(lowered.text).get();
      info.workgroups = dispatch.workgroups;
      info.label = dispatch.label;
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
      if (Status status = step.list->dispatch(info); !status) return fail(std::move(status).error().within(dispatch.label));
    }
    TESSERA_TRY(step.list->finish());
    return step;
  }

  // Writes the parameters and submits. The caller reads results with device().read(), which waits.
  Status run(Step& step, const StepParams& params) {
    Resources::Object* buffer = resources_.find(kParamsResource);
    TESSERA_TRY(device_.write(*buffer->buffer, 0, std::as_bytes(std::span(&params, 1))));
    auto fence = device_.submit(*step.list, profile_ != nullptr);
    if (!fence) return fail(std::move(fence).error());
    if (profile_ == nullptr) return {};
    TESSERA_TRY((*fence)->wait());
    profile_->add(step.plan, (*fence)->dispatch_microseconds());
    return {};
  }

  // Keeps on disk the programs that were compiled, not loaded. Some drivers make machine code at the first dispatch, so the time to call it is after
  // every step ran once; it costs file writes and compile time.
  void store_new_programs(const Progress& progress) {
    for (size_t i = 0; i < new_programs_.size(); ++i) {
      if (progress) progress(i, new_programs_.size());
      cache_.store(device_, *new_programs_[i]);
    }
    new_programs_.clear();
  }
  size_t new_programs() const { return new_programs_.size(); }

  // While set, every step is timed dispatch by dispatch (and waited for). Not owned.
  void set_profile(Profile* profile) { profile_ = profile; }

 private:
  gpu::Device& device_;
  ProgramCache& cache_;
  Resources& resources_;
  std::map<std::string, std::unique_ptr<gpu::Kernel>> programs_;   // by lowered text
  std::vector<gpu::Kernel*> new_programs_;   // compiled since the last store_new_programs()
  Profile* profile_ = nullptr;
};

}  // namespace tessera
