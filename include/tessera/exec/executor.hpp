// Plan → programs → a recorded command list (src/exec/executor.cpp). After prepare(), a step is one submission: nothing is compiled, created or recorded.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tessera/exec/profile.hpp"
#include "tessera/exec/program_cache.hpp"
#include "tessera/exec/resources.hpp"
#include "tessera/gpu/gpu.hpp"
#include "tessera/plan/plan.hpp"

namespace tessera {

// The run-time parameter buffer, as resource and as values (plan/plan.hpp: step_params()).
inline constexpr const char* kParamsResource = "params";
struct StepParams {
  int32_t tokens = 1;     // active rows, at most the shape's
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
  Status compile(const std::vector<const Plan*>& plans, const Progress& progress);

  // Records `plan`; its programs were compiled before.
  Result<Step> prepare(Plan plan);

  // Writes the parameters and submits, `times` runs one after the other. The caller reads results with device().read(), which waits.
  Status run(Step& step, const StepParams& params, int32_t times = 1);

  // Keeps on disk the programs that were compiled, not loaded. Some drivers make machine code at the first dispatch, so the time to call it is after
  // every step ran once; it costs file writes and compile time.
  void store_new_programs(const Progress& progress);
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
