// A model on a device: its file, its device objects, its recorded steps and its KV pages. Shared by all sessions of the model.
//
// The bodies are in src/engine/runtime.cpp.
// Threads: run() and the reads that follow it hold mutex() together; everything else is fixed after load().
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tessera/engine/device.hpp"
#include "tessera/engine/device_sampler.hpp"
#include "tessera/engine/options.hpp"
#include "tessera/engine/step_plans.hpp"
#include "tessera/exec/executor.hpp"
#include "tessera/kv/paged_cache.hpp"
#include "tessera/model/model_file.hpp"

namespace tessera {

// One sequence's part of a step.
struct StepPart {
  SequenceId sequence{};                     // has room for what is run
  int32_t position = 0;                      // of the first of `ids`
  std::span<const int32_t> ids{};            // each in the vocabulary; one where there are several steps
  const SamplerOptions* sampler = nullptr;   // device_can_sample(); null: greedy
  std::span<const int32_t> tokens{};         // of the conversation, `ids` at their end; for a sampler with penalties
  bool log_probabilities = false;            // of the chosen tokens; else 0
  bool goes_on = false;                      // behind the token that the device chose for this sequence last, with the same sampler
};

class Runtime {
 public:
  // Plans, allocates, uploads, compiles, records. On error nothing stays behind.
  static Result<std::unique_ptr<Runtime>> load(const std::string& path, Device device, const LoadOptions& options);

  const ModelFile& file() const { return file_; }
  const ModelConfig& config() const { return file_.config(); }
  const MemoryPlan& memory() const { return memory_; }
  const TuningInUse& tuning() const { return tuning_; }
  const gpu::Counters& counters() const { return device_.backend().counters(); }
  const ProgramCache& programs() const { return programs_; }
  const Device& device() const { return device_; }
  PagedCache& cache() { return cache_; }
  std::mutex& mutex() { return mutex_; }
  void set_profile(Profile* profile) { executor_.set_profile(profile); }
  std::string dump_plans() const;

  // Runs `ids` (each in the vocabulary) as the next tokens of `sequence` through the step of `shape`. On error the sequence is as before, or, where the
  // device failed to copy a shared page, holds the whole pages that it had.
  Status forward(SequenceId sequence, std::span<const int32_t> ids, const StepShape& shape);

  // Submits the step of `shape` for `parts`, the rows of one behind those of the other. With `steps` above 1 each part has one row, and its next rows are of
  // the tokens that the device chooses.
  Status run(std::span<const StepPart> parts, const StepShape& shape, int32_t steps = 1);
  // Pages that were shared, in every layer, to those that take their place. The host sees none of it.
  Status copy_page(const PageCopy& copy);

  // What was chosen in the run before, for rows [0, rows) of its logits; waits for it. sampled() then gives the token at `position` of the conversation.
  Status read_sampled(size_t rows);
  Result<SampledToken> sampled(size_t row, int32_t position) const;   // kNumericFault: a logit was not a number

  // Logits of the run before, its last step: [rows, vocab_size]. Where it sampled with biases or penalties, these are in them.
  Status read_logits(int64_t rows, std::vector<float>& out);

 private:
  Runtime(ModelFile file, Device device, PagedCache cache, const LoadOptions& options)
      : file_(std::move(file)), device_(std::move(device)), cache_(std::move(cache)), programs_(ProgramCache::open(options.cache_folder, options.on_log)),
        resources_(device_.backend()), executor_(device_.backend(), programs_, resources_) {}

  Status set_up(StepPlans plans, const LoadOptions& options);
  static void report_kernels(const LoadOptions& options, size_t done, size_t total);
  // Runs every step once, with one token of nobody's: the first answer then waits for no driver's late compilation.
  Status warm_up();
  Status allocate(const StepPlans& plans);
  // The table of rotations, some positions at a time.
  Status fill_angles();
  Status upload(const StepPlans& plans, const LoadOptions& options);
  // The step of `shape` for contexts as long as these become; the end of steps_ where none was planned.
  std::map<StepShape, Step>::iterator step_for(std::span<const StepPart> parts, StepShape shape, int32_t steps);
  // The slot of a sequence: its own, or that which was used longest ago.
  size_t slot_of(SequenceId sequence);
  // Only what changed since the last step: nothing, the page just taken, or the whole table of another sequence.
  Status write_block_table(SequenceId sequence, size_t slot);
  Status write_sampler(const StepPart& part, size_t slot);
  template <class T>
  Status write_input(const char* name, size_t offset, std::span<const T> values) {
    return device_.backend().write(*resources_.find(name)->buffer, static_cast<int64_t>(offset * sizeof(T)), std::as_bytes(values));
  }

  ModelFile file_;
  Device device_;
  PagedCache cache_;
  ProgramCache programs_;
  Resources resources_;
  Executor executor_;
  MemoryPlan memory_;
  TuningInUse tuning_;
  DType activation_type_ = DType::kF32;
  std::map<StepShape, Step> steps_;
  int32_t long_context_ = 0;   // tokens above which steps of long contexts are run, where there are any
  std::mutex mutex_;
  // What the device knows of the sequence in a slot.
  struct Slot {
    SequenceId sequence{};
    uint64_t used = 0;               // the number of the run that used it last
    std::vector<PageId> pages;
    std::optional<SamplerWords> sampler;   // none: nothing was written yet
    std::vector<LogitBias> biases;
    SequenceId recent_of{};          // whose recent tokens are there
  };
  std::vector<Slot> slots_;
  uint64_t runs_ = 0;
  std::vector<StepRow> rows_;                // scratch
  std::vector<int32_t> recent_;              // scratch
  std::vector<SampledToken> sampled_;          // [rows of logits, kStepsAtOnce], as read last
  std::vector<gpu::BufferCopy> page_copy_;   // of page 0 on itself: one for K and one for V of each layer, and for their scales
};

}  // namespace tessera
