// A model on a device: its file, its device objects, its recorded steps and its KV pages. Shared by all sessions of the model.
//
// The bodies are in src/engine/runtime.cpp.
// Threads: forward() and the reads that follow it hold mutex() together; everything else is fixed after load().
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
#include "tessera/engine/options.hpp"
#include "tessera/engine/step_plans.hpp"
#include "tessera/exec/executor.hpp"
#include "tessera/kv/paged_cache.hpp"
#include "tessera/model/model_file.hpp"

namespace tessera {

class Runtime {
 public:
  // Plans, allocates, uploads, compiles, records. On error nothing stays behind.
  static Result<std::unique_ptr<Runtime>> load(const std::string& path, Device device, const LoadOptions& options);

  const ModelFile& file() const { return file_; }
  const ModelConfig& config() const { return file_.config(); }
  const MemoryPlan& memory() const { return memory_; }
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

  // After a step with LogitRows::kLast: the id of the greatest logit; kNumericFault if a logit is not a number.
  Result<int32_t> read_sampled();

  // Rows of logits of the step that ran last: [rows, vocab_size].
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
  Status run(SequenceId sequence, std::span<const int32_t> ids, Step& step, int32_t position);
  // Only what changed since the last step: nothing, the page just taken, or the whole table of another sequence.
  Status write_block_table(SequenceId sequence);
  // A page that was shared, in every layer, to the one that takes its place. The host sees none of it.
  Status copy_page(const PageCopy& copy);

  ModelFile file_;
  Device device_;
  PagedCache cache_;
  ProgramCache programs_;
  Resources resources_;
  Executor executor_;
  MemoryPlan memory_;
  DType activation_type_ = DType::kF32;
  std::map<StepShape, Step> steps_;
  std::mutex mutex_;
  std::vector<PageId> table_on_device_;
  std::vector<gpu::BufferCopy> page_copy_;   // of page 0 on itself: one for K and one for V of each layer
};

}  // namespace tessera
