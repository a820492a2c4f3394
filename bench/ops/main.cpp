// op_bench: every op on the device of $TESSERA_DEVICE (default: auto), by storage and weight type, in the shapes of SmolLM2-135M. Rates are shares of what the device
// reads and computes at best in f32 (products of bytes can pass that), which is measured first. `op_bench --benchmark_filter=matmul/960x576/Q4_1`; all of it takes long.
#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <numeric>
#include <string>

#include "device_speed.hpp"
#include "op_cases.hpp"
#include "tessera/engine/device.hpp"
#include "tessera/engine/device_sampler.hpp"
#include "tessera/exec/executor.hpp"
#include "tessera/plan/planner.hpp"

namespace tessera::bench {
namespace {

struct Yardstick {
  double read = 0.0, peak = 0.0;   // bytes and operations a second
};

// Every byte 0x3c: a small number that is normal in every float type, and a byte like any other in quants.
constexpr std::byte kFill{0x3c};

// The op planned for the device, its objects made and filled, recorded.
class PreparedOp {
 public:
  PreparedOp(gpu::Device& device) : device_(device), resources_(device), cache_(ProgramCache::open("", {})), executor_(device, cache_, resources_) {}

  Status prepare(const OpRow& row, const OpCase& of, Storage storage) {
    Tuning tuning = tuning_for(device_.info());
    (row.weights ? tuning.weight_storage : tuning.activation_storage) = {storage, true};
    if (row.op == "quantize") tuning.int8_activations = true;
    OpGraph graph{{}, of};
    row.build(graph);
    TESSERA_ASSIGN(Graph built, std::move(graph.g).build());
    Planner planner(device_.info(), tuning);
    TESSERA_ASSIGN(Plan plan, planner.plan(std::move(built), {of.tokens, LogitRows::kLast, of.long_context}));
    if (!row.kernel.empty()) std::erase_if(plan.dispatches, [&](const Dispatch& dispatch) { return dispatch.variant.kernel != row.kernel; });
    if (plan.dispatches.empty()) return fail(ErrorCode::kUnsupported, "the plan for this device has no such kernel");
    for (const Dispatch& dispatch : plan.dispatches) bytes_ += dispatch.bytes;
    TESSERA_TRY(make_objects(plan));
    TESSERA_TRY(executor_.compile({&plan}, {}));
    TESSERA_ASSIGN(step_, executor_.prepare(std::move(plan)));
    for (const PlanObject& object : step_.plan.objects) TESSERA_TRY(fill(object));
    TESSERA_TRY(write_inputs(of));
    TESSERA_TRY(executor_.run(step_, {.tokens = static_cast<int32_t>(of.tokens)}));
    TESSERA_TRY(run(1));
    executor_.store_new_programs({});
    return {};
  }

  // Seconds of `times` runs in one submission.
  Result<double> run(int32_t times) {
    const auto start = std::chrono::steady_clock::now();
    TESSERA_ASSIGN(gpu::Fence* const fence, device_.submit(*step_.list, {.times = times}));
    TESSERA_TRY(fence->wait());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  int64_t bytes() const { return bytes_; }   // 0: depends on the context

 private:
  Status make_objects(const Plan& plan) {
    TESSERA_TRY(resources_.create_objects(plan));
    TESSERA_TRY(resources_.create(kParamsResource, Layout{Storage::kBuffer, DType::kI32, 1, {static_cast<int64_t>(sizeof(StepParams) / 4)}}));
    ArenaNeeds needs;
    needs.merge(plan);
    return resources_.create_arena(needs);
  }

  Status fill(const PlanObject& object) {
    TESSERA_ASSIGN(const gpu::Binding place, resources_.binding(step_.plan, object));
    const std::vector<std::byte> bytes(static_cast<size_t>(object.layout.object_bytes()), object.home == Home::kInput ? std::byte{0} : kFill);
    return place.image != nullptr ? device_.write_rows(*place.image, 0, object.layout.lines(), bytes) : device_.write(*place.buffer, place.offset, bytes);
  }

  Status write_inputs(const OpCase& of) {
    std::vector<StepRow> rows(static_cast<size_t>(kMaxRows));
    for (int64_t t = 0; t < of.tokens; ++t) rows[static_cast<size_t>(t)] = {static_cast<int32_t>(t * 7919 % kVocab), static_cast<int32_t>(of.position + t), 0, -1};
    rows[0].logits_of = static_cast<int32_t>(of.tokens) - 1;
    std::vector<int32_t> pages(static_cast<size_t>(kPages));
    std::iota(pages.begin(), pages.end(), 0);
    const std::vector<SamplerWords> samplers(static_cast<size_t>(kSlots), sampler_words({}));
    TESSERA_TRY(write(kRowsInput, std::as_bytes(std::span(rows))));
    TESSERA_TRY(write(kBlockTablesInput, std::as_bytes(std::span(pages))));
    return write(kSamplersInput, std::as_bytes(std::span(samplers)));
  }
  Status write(const char* name, std::span<const std::byte> bytes) {
    Resources::Object* const object = resources_.find(name);
    return object == nullptr ? Status() : device_.write(*object->buffer, 0, bytes);
  }

  gpu::Device& device_;
  Resources resources_;
  ProgramCache cache_;
  Executor executor_;
  Step step_;
  int64_t bytes_ = 0;
};

// Multiply-adds count as two. Of the other ops reading and writing is all there is.
double operations_of(const OpRow& row, const OpCase& of) {
  const auto tokens = static_cast<double>(of.tokens);
  if (row.op == "matmul") return 2.0 * static_cast<double>(of.rows * of.columns) * tokens;
  if (row.op == "attention") return 4.0 * static_cast<double>(kDim) * tokens * (static_cast<double>(of.position) + (tokens + 1.0) / 2.0);
  return 0.0;
}

// What the plan says, or what it cannot know: keys and values of the context once, for all the tokens of a step.
double bytes_of(const OpRow& row, const OpCase& of, const PreparedOp& prepared) {
  if (row.op == "attention") return 2.0 * 2.0 * static_cast<double>(kHeads.kv_heads * 64 * (of.position + of.tokens)) + 8.0 * static_cast<double>(of.tokens * kDim);
  if (row.op == "take_row") return 2.0 * 4.0 * static_cast<double>(kDim);   // one row of all that is bound
  return static_cast<double>(prepared.bytes());
}

void run_case(benchmark::State& state, gpu::Device& device, const Yardstick& best, const OpRow& row, const OpCase& of, Storage storage) {
  PreparedOp prepared(device);
  if (const Status status = prepared.prepare(row, of, storage); !status) return state.SkipWithError(status.error().message().c_str());
  constexpr int32_t kTimes = 8;   // in a submission, as when tokens are decoded
  for ([[maybe_unused]] auto _ : state) {
    const auto seconds = prepared.run(kTimes);
    if (!seconds) return state.SkipWithError(seconds.error().message().c_str());
    state.SetIterationTime(*seconds / kTimes);
  }
  const auto rate = [&](double amount, double unit) { return benchmark::Counter(amount / unit * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate); };
  if (const double bytes = bytes_of(row, of, prepared); bytes > 0) {
    state.counters["GB/s"] = rate(bytes, 1e9);
    state.counters["%read"] = rate(bytes, best.read / 100.0);
  }
  if (const double operations = operations_of(row, of); operations > 0) {
    state.counters["GFLOP/s"] = rate(operations, 1e9);
    state.counters["%peak"] = rate(operations, best.peak / 100.0);
  }
}

// The shapes in which an op is run: of a decode step, and of a chunk of a prompt.
struct Shape {
  std::string name;
  OpCase of;
};
std::vector<Shape> shapes_of(const OpRow& row) {
  std::vector<Shape> shapes;
  if (row.op == "quantize") return {{"128x576", {960, kDim, WeightType::kQ4_0, false, 128, 0}}};
  if (row.op == "attention_combine") return {{"decode", {0, 0, WeightType::kF32, false, 1, 4095, true}}};
  if (row.op == "attention") {
    for (const int64_t position : {127, 2047, 4095}) shapes.push_back({cat("decode/context:", position + 1), {0, 0, WeightType::kF32, false, 1, position, position > 512}});
    for (const int64_t position : {0, 1920}) shapes.push_back({cat("prefill:128/context:", position + 128), {0, 0, WeightType::kF32, false, 128, position}});
    return shapes;
  }
  const std::vector<OpCase> of = row.op == "matmul" ? std::vector<OpCase>{{960, kDim}, {kDim, kDim}, {2 * kHidden, kDim, WeightType::kF32, true}, {kDim, kHidden}, {kVocab, kDim}}
                                 : row.op == "embed" ? std::vector<OpCase>{{kVocab, kDim}} : std::vector<OpCase>{{}};
  for (const OpCase& each : of)
    for (const WeightFormat& format : kWeightFormats) {
      if (!row.weights && format.type != WeightType::kF32) continue;
      if (row.weights && each.columns % format.block != 0) continue;   // blocks of 256
      for (const int64_t tokens : {1, 128}) {
        if (tokens > 1 && (row.op == "adjust_logits" || row.op == "sample" || each.rows == kVocab)) continue;
        if (tokens == 1 && row.op == "take_row") continue;
        OpCase one = each;
        one.type = format.type;
        one.tokens = tokens;
        shapes.push_back({cat(row.weights ? cat(each.rows, "x", each.columns, each.gated ? "gated/" : "/", format.name, "/") : "", tokens == 1 ? "decode" : "prefill:128"), one});
      }
    }
  return shapes;
}

}  // namespace

int run_all(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const auto device = Device::open("auto");
  if (!device) {
    std::fprintf(stderr, "error: %s\n", device.error().message().c_str());
    return 1;
  }
  gpu::Device& backend = device->backend();
  const auto read = measure_read(backend, int64_t{64} << 20), peak = measure_peak(backend);
  if (!read || !peak) {
    std::fprintf(stderr, "error: %s\n", (read ? peak : read).error().message().c_str());
    return 1;
  }
  const Yardstick best{read->rate.median(), peak->rate.median()};
  const auto context = [](const char* name, const Speed& speed, const char* unit) {
    char text[160];
    std::snprintf(text, sizeof text, "%.2f G%s/s (%.2f to %.2f; %s)", speed.rate.median() / 1e9, unit, speed.rate.least() / 1e9, speed.rate.greatest() / 1e9, speed.form.c_str());
    benchmark::AddCustomContext(name, text);
  };
  benchmark::AddCustomContext("device", device->info().name);
  context("reads at best", *read, "B");
  context("computes at best (f32)", *peak, "FLOP");
  for (const OpRow& row : kOpRows)
    for (const Shape& shape : shapes_of(row))
      for (size_t s = 0; s < kStorageRows.size(); ++s) {
        const auto storage = static_cast<Storage>(s);
        benchmark::RegisterBenchmark(cat(row.op, "/", shape.name, "/", name_of(storage)).c_str(), [&backend, best, &row, of = shape.of, storage](benchmark::State& state) { run_case(state, backend, best, row, of, storage); })
            ->UseManualTime()
            ->Unit(benchmark::kMicrosecond)
            ->MinTime(0.05);
      }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace tessera::bench

int main(int argc, char** argv) { return tessera::bench::run_all(argc, argv); }
