// What is searched for a model on a device, and what is kept of it: tessera-bench tune (tuner.cpp: shapes; device_stage.cpp: whole steps).
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "samples.hpp"
#include "search.hpp"
#include "step_bench.hpp"
#include "tessera/engine/device.hpp"
#include "tessera/engine/tuning_file.hpp"

namespace tessera::bench {

struct TunerOptions {
  std::string path;                      // of the file of rows, which what is decided is written to at once; empty: nowhere
  bool device_stage = true;              // settings that ops share, by whole steps, before each op's own
  std::chrono::duration<double> budget = std::chrono::seconds(300);
  std::function<bool()> interrupted = [] { return false; };
  std::function<void(const std::string&)> say = [](const std::string&) {};
};

// How a case came out.
struct TunedCase {
  TuningCase of;
  double share = 0.0;       // of its step's time, shipped
  TunedRow row;
  int ops = 0;              // in its step
  bool decided = false;     // now or by an earlier run
};

// What is timed end to end, and which rows are of it.
enum class Part { kPrefill, kDecode, kLongContext };
inline Part part_of(const OpShape& shape) { return shape.long_context ? Part::kLongContext : shape.tokens == 1 ? Part::kDecode : Part::kPrefill; }

// Counts of what was tried, for tests and for the last line.
struct TunerCounts {
  int tried = 0, same = 0, rejected = 0, faster = 0, resumed = 0;
};

class Tuner {
 public:
  // `known`: rows of an earlier run. They and `file`, `device` outlive the tuner.
  Tuner(const ModelFile& file, gpu::Device& device, const LoadOptions& load, TunedRows known, TunerOptions options)
      : file_(file), device_(device), load_(load), rows_(std::move(known)), options_(std::move(options)), begin_(std::chrono::steady_clock::now()) {}

  // Until all is decided, the budget is spent or it is interrupted. Errors are those of the shipped rows, not of candidates.
  Status run();
  // Forgets the rows of a part that turned out slower with all of them together; where it has none, the settings that all ops share.
  Status drop(Part part);

  const TunedRows& rows() const { return rows_; }
  const std::vector<TunedCase>& cases() const { return cases_; }
  const TunerCounts& counts() const { return counts_; }

 private:
  double elapsed() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }
  bool over(double share_of_budget = 1.0) const { return options_.interrupted() || elapsed() > options_.budget.count() * share_of_budget; }
  void say(const std::string& what) const;
  Status save() const;

  Status tune_device();
  // attention_groups and attention_long: the layouts stay as they are.
  Result<TuningRow> tune_contexts(StepBench& bench);
  Result<Outcome> try_behind(StepBench& bench, int32_t tokens, const Tuning& best, const Tuning& candidate);
  Result<bool> try_for_device(const TuningRow& candidate, StepBench& best_bench, std::vector<Trial>& best, const std::vector<Results>& expected, std::unique_ptr<StepBench>& bench, std::vector<Trial>& trials);
  Status find_cases(StepBench& bench);
  Status tune_case(StepBench& bench, TunedCase& tuned);
  // Whether a whole step with `row` is no slower than with the rows so far.
  Result<bool> holds_in_step(StepBench& bench, const StepShape& step, const TuningRow& row);

  const ModelFile& file_;
  gpu::Device& device_;
  LoadOptions load_;
  TunedRows rows_;
  TunerOptions options_;
  std::chrono::steady_clock::time_point begin_;
  std::vector<TunedCase> cases_;
  TunerCounts counts_;
};

// Times of two trials by turns, of one run each: their ratios, and both.
struct Comparison {
  Samples best, candidate, ratios;   // candidate ÷ best
};
// `far_slower_ends`: where it is plainly slower, a few turns are enough.
Result<Comparison> compare(StepBench& best_bench, Trial& best, StepBench& candidate_bench, Trial& candidate, bool far_slower_ends);

}  // namespace tessera::bench
