// A model's steps on a device, to be timed: whole, or the ops of one shape alone, as they would be planned with another tuning.
//
// Ops of one shape are timed between the ops beside them: what those leave in caches, and how many threads they leave awake, counts. They read and write objects
// of their own, filled with random numbers, so that none reads what another wrote; weights and pages of keys and values are the model's, each layer's its own.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "tessera/engine/step_plans.hpp"
#include "tessera/exec/executor.hpp"

namespace tessera::bench {

// Tokens that are there when a step is timed, where the context holds twice as many: whole pages.
inline constexpr int32_t kNear = 384, kFar = 2048;

struct TuningCase {
  StepShape step;
  OpShape shape;
  int most_ops = 0;       // of them, the first so many are run; 0: all
  bool between = false;   // each between the op before it and the op behind it
};

// Dispatches of a plan, compiled and recorded.
struct Trial {
  std::string identity;                  // all that makes it another trial: equal for tunings that plan the same
  Step step;
  std::vector<int> written;              // objects of the plan that hold the results: those of the first op
  std::vector<int> filled;               // objects to be filled before it runs for its results
  int ops = 0;                           // of the case
  int32_t behind = 0;                    // tokens that are there; of a prompt's chunk, with it
  double tolerance = 1e-3;               // of its results, as a share of their size (same_results)
};

// What a trial computed, of each written object: numbers, of active rows.
using Results = std::vector<std::vector<float>>;

class StepBench {
 public:
  // Uploads the weights of `file` as `tuning` lays them out. `file` and `device` outlive it. Errors: those of make_step_plans; kOutOfMemory; kDriver.
  static Result<std::unique_ptr<StepBench>> open(const ModelFile& file, gpu::Device& device, const LoadOptions& options, const Tuning& tuning);

  const Tuning& tuning() const { return tuning_; }
  // Tokens that are there when `step` is timed.
  int32_t context_behind(const StepShape& step) const;
  // Every shape of `step`, in the order of its ops; none where nothing makes a long context another step's.
  Result<std::vector<TuningCase>> cases(const StepShape& step) const;

  // The ops of a case as `tuning` plans them, which lays weights out as this bench does. Planned, not compiled.
  Result<Trial> plan(const TuningCase& of, const Tuning& tuning) const;
  // A whole step, likewise.
  Result<Trial> plan_step(const StepShape& step, const Tuning& tuning) const;
  // A whole step behind so many tokens: that of a long context where `tuning` calls it long.
  Result<Trial> plan_step_behind(StepShape step, int32_t tokens, const Tuning& tuning) const;
  // Compiles and records. kCompile, kLimit, kDriver, kOutOfMemory.
  Status prepare(Trial& trial);
  // Runs it once on the same random inputs as any other trial of its case.
  Result<Results> results(Trial& trial);
  // Seconds of one run, of `times` in a submission.
  Result<double> seconds(Trial& trial, int32_t times);

 private:
  StepBench(const ModelFile& file, gpu::Device& device, const LoadOptions& options, const Tuning& tuning)
      : file_(file), device_(device), options_(options), tuning_(tuning), resources_(device), cache_(ProgramCache::open(options.cache_folder, {})), executor_(device, cache_, resources_) {}

  static std::set<int> nodes_of(const TuningCase& of, const Plan& whole);
  Status set_up();
  // kUnsupported where `tuning` has no such step.
  Result<Plan> step_plan(const StepShape& step, const Tuning& tuning) const;
  Status write_inputs(const Trial& trial);
  Status write(const char* name, std::span<const std::byte> bytes);
  Status fill(const Trial& trial, int object);
  Result<std::vector<float>> read(const Trial& trial, int object);

  const ModelFile& file_;
  gpu::Device& device_;
  LoadOptions options_;
  Tuning tuning_;
  Resources resources_;
  ProgramCache cache_;
  Executor executor_;
  int32_t table_pages_ = 0, page_tokens_ = 0, pages_ = 0;
};

// Whether two trials of a case computed the same, up to rounding: each number within `tolerance` of the root of their mean square,
// and many within a third of it in the mean. kNumericFault says how far off.
Status same_results(const Results& found, const Results& expected, double tolerance);

}  // namespace tessera::bench
