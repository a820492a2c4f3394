// What the tests of the ops share: a small graph planned, compiled and run on the device under test, its tensors written and read
// where the plan put them. Everything that is not input starts as kUntouched (a NaN): reading what nobody wrote shows in the results,
// and what a kernel must leave alone can be checked.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "op_numbers.hpp"
#include "tessera/engine/upload.hpp"
#include "tessera/exec/executor.hpp"
#include "tessera/ops/op_table.hpp"
#include "tessera/plan/dump.hpp"
#include "tessera/plan/planner.hpp"

namespace tessera::ops_test {

// The quick tier runs a slice of every cross product; TESSERA_FULL=1 runs all of it.
inline bool full_tier() {
  const char* value = std::getenv("TESSERA_FULL");
  return value != nullptr && std::string_view(value) == "1";
}

// ---- running -----------------------------------------------------------------------------------------------------------------------

inline constexpr uint32_t kUntouchedBits = 0x7fc0a5a5u;  // a NaN that no arithmetic makes
inline const float kUntouched = std::bit_cast<float>(kUntouchedBits);
inline bool is_untouched(float value) { return std::bit_cast<uint32_t>(value) == kUntouchedBits; }
inline constexpr uint16_t kUntouchedHalf = 0x7ea5u;  // a NaN too

// Memory that nobody has written yet.
inline std::vector<std::byte> untouched(int64_t bytes, DType type) {
  const std::vector<uint32_t> words(static_cast<size_t>(ceil_div(bytes, 4)), type == DType::kF16 ? kUntouchedHalf * 0x10001u : kUntouchedBits);
  const auto raw = std::as_bytes(std::span(words));
  return {raw.begin(), raw.begin() + bytes};
}

struct TestTuning {
  int width = 4;
  Storage weights = Storage::kBuffer;
  Storage activations = Storage::kBuffer;
  DType activation_type = DType::kF32;
  int workgroup = 4;     // small, so that small shapes have several workgroups; a power of two
  int gemv_lanes = 0;    // above a matrix's blocks: lanes of a workgroup of 8 and more share them
  int blocks_a_lane = 1;
  int tokens_a_lane = 4;
  int parts = 1;         // objects of a weight, at least
  int interleave = 1;    // blocks of a weight that take turns in buffers
  int attention_width = 0;    // of attention of one row; 0: width
  int attention_groups = 0;   // above the kv heads: workgroups share a long context
  bool subgroups = false;
  bool int8 = false;     // products of quantized weights; dots in pairs where the width has them
  std::optional<DotForm> dot{};

  Tuning tuning() const {
    Tuning t;
    t.vector_width = t.words.vector_width = width;
    t.gemv_workgroup = t.gemm_workgroup = t.row_workgroup = t.item_workgroup = t.attention_workgroup = workgroup;
    t.attention_row_keys = 32;   // several tiles in contexts of tests
    t.attention_width = attention_width;
    t.attention_groups = attention_groups;
    t.gemv_lanes = gemv_lanes;
    t.gemv_blocks = blocks_a_lane;
    t.gemm_tokens = tokens_a_lane;
    t.weight_storage = {weights, true};
    t.activation_storage = {activations, true};
    t.activation_type = activation_type;
    t.weight_parts = parts;
    t.weight_interleave = interleave;
    t.words.subgroups = subgroups;
    t.int8_activations = int8;
    t.words.dot = dot_form();
    return t;
  }
  DotForm dot_form() const { return dot.value_or(int8 && width == 8 ? DotForm::kPairs : DotForm::kPlain); }
  std::string name() const { return cat("w", width, "_weights_", name_of(weights), "_activations_", name_of_activations(), interleave > 1 ? cat("_by", interleave) : "", gemv_lanes > 0 ? cat("_shared", workgroup / 4) : "", int8 ? cat("_int8_", tessera::name_of(dot_form())) : ""); }
  std::string name_of_activations() const { return cat(name_of(activations), activation_type == DType::kF16 ? "_f16" : ""); }
  // The nearest numbers that activations can hold.
  Matrix stored(Matrix m) const {
    for (float& v : m.values)
      if (activation_type == DType::kF16) v = half_to_float(float_to_half(v));
    return m;
  }
};

// `cases`, every fourth (in full, of many more, every ninth) once more with f16 activations: so all of the five storages have their turn.
template <class Case>
std::vector<Case> with_halves(std::vector<Case> cases) {
  const size_t count = cases.size();
  for (size_t i = 0; i < count; i += full_tier() ? 9 : 4) {
    cases.push_back(cases[i]);
    cases.back().tuning.activation_type = DType::kF16;
  }
  return cases;
}

class OpRunner {
 public:
  OpRunner(gpu::Device& device, const TestTuning& tuning) : device_(device), info_(device.info()), tuning_(tuning.tuning()), resources_(device), cache_(ProgramCache::open("off", {})), executor_(device, cache_, resources_) {}

  GraphBuilder g;
  DeviceInfo& limits() { return info_; }   // what the planner believes; smaller than the device's, to force parts and folds
  const Plan& plan() const { return step_.plan; }

  ValueId weight(const TestWeight& w) {
    weights_.emplace(w.ref.name, &w);
    return g.weight({w.ref.name, w.ref.type, w.ref.rows, w.ref.columns});
  }
  // One value a row of what it is added to; `w` is a row, as in files.
  ValueId bias(const TestWeight& w) {
    weights_.emplace(w.ref.name, &w);
    return g.weight({.name = w.ref.name, .type = w.ref.type, .rows = w.ref.columns, .columns = 1, .bias = true});
  }
  // The rows of a step, one input whoever asks for it; run() writes them.
  static constexpr int64_t kRows = 64;
  ValueId rows() { return rows_ != kNoValue ? rows_ : rows_ = g.input("rows", DType::kI32, 4, {kRows}); }
  // One layer's KV pages of `type`, and the block table of slot 0.
  ops::KvPages kv_pages(const ops::AttentionShape& shape, DType type, int64_t pages, int64_t table_pages) {
    const std::vector<int64_t> grid{pages, shape.kv_heads, shape.page, shape.slices()}, heads{pages, shape.kv_heads, shape.page};
    ops::KvPages kv{g.state("k", type, 4, grid), g.state("v", type, 4, grid), rows(), g.input("block_tables", DType::kI32, 1, {table_pages}), table_pages};
    if (type != DType::kI8) return kv;
    kv.k_scales = g.state("k_scales", DType::kF32, 1, heads);
    kv.v_scales = g.state("v_scales", DType::kF32, 1, heads);
    return kv;
  }
  // Asks for `y` as a result of the graph, in a buffer that the host reads.
  void output(ValueId y) { g.graph()[y].role = ValueRole::kOutput; }
  // Asks for `y` as an intermediate, in the storage and type that the tuning gives those: a last node reads it where that is no buffer of floats.
  void intermediate(ValueId y) { tuning_.activation_storage.storage == Storage::kBuffer && tuning_.activation_type == DType::kF32 ? output(y) : output(ops::take_row(g, y, rows())); }

  // Plans, makes every object, uploads weights, compiles, records. Everything else is untouched.
  Status prepare(const StepShape& shape) {
    Planner planner(info_, tuning_);
    TESSERA_ASSIGN(Graph graph, std::move(g).build());
    TESSERA_ASSIGN(Plan plan, planner.plan(std::move(graph), shape));
    TESSERA_TRY(make_objects(plan));
    WeightUploader uploader(device_, resources_, [this](std::string_view name) -> Result<WeightRef> {
      const TestWeight& w = *weights_.at(std::string(name));
      WeightRef ref = w.ref;
      ref.bytes = w.bytes;
      return ref;
    }, [](int64_t) {});
    for (const auto& [key, weight] : plan.weights) TESSERA_TRY(uploader.upload(weight));
    TESSERA_TRY(executor_.compile({&plan}, {}));
    TESSERA_ASSIGN(step_, executor_.prepare(std::move(plan)));
    return clear();
  }

  // Everything but weights becomes untouched again.
  Status clear() {
    for (const PlanObject& object : step_.plan.objects)
      if (object.home != Home::kWeight) TESSERA_TRY(write_bytes(object, std::vector<std::byte>(), true));
    arena_before_.clear();
    return {};
  }

  // Writes the rows of `m`, which the tensor's type can hold, into the tensor of a kernel's slot; channels up to the slice's end become zero, all else stays
  // untouched.
  Status write(std::string_view kernel, std::string_view slot, const Matrix& m) {
    const PlanObject& object = object_of(kernel, slot);
    std::vector<std::byte> bytes = untouched(object.layout.object_bytes(), object.layout.element);
    for (int64_t r = 0; r < m.rows; ++r)
      for (int64_t c = 0; c < round_up(m.channels, 4); ++c) {
        const float value = c < m.channels ? m.at(r, c) : 0.0f;
        const uint16_t half = float_to_half(value);
        std::byte* place = bytes.data() + byte_of(object.layout, r, c);
        object.layout.element == DType::kF16 ? std::memcpy(place, &half, 2) : std::memcpy(place, &value, 4);
      }
    return write_bytes(object, bytes, false);
  }
  // Texels as they lie: block tables, ids, angles, pages.
  template <class T>
  Status write_raw(std::string_view kernel, std::string_view slot, const std::vector<T>& values) {
    const auto raw = std::as_bytes(std::span(values));
    return write_bytes(object_of(kernel, slot), {raw.begin(), raw.end()}, false);
  }

  // A chunk of one sequence, in slot 0: `tokens` of it from `position` on, and the row whose logits are asked for.
  struct Chunk {
    int32_t position = 0;
    int32_t tokens = 1;
    int32_t last_row = 0;
  };
  Status run(const Chunk& chunk) {
    std::vector<StepRow> rows(kRows);
    for (int32_t t = 0; t < chunk.tokens; ++t) rows[static_cast<size_t>(t)].position = chunk.position + t;
    rows[0].logits_of = chunk.last_row;
    return run(rows, chunk.tokens);
  }
  // The first `active` of `rows`.
  Status run(const std::vector<StepRow>& rows, int32_t active) {
    if (Resources::Object* input = resources_.find("rows")) TESSERA_TRY(device_.write(*input->buffer, 0, std::as_bytes(std::span(rows))));
    TESSERA_ASSIGN(arena_before_, arena_bytes());
    return executor_.run(step_, {.tokens = active});
  }

  // All of the tensor of a slot, padding included: [rows of the object, channels padded to what the layout holds].
  Result<Matrix> read(std::string_view kernel, std::string_view slot) {
    const PlanObject& object = object_of(kernel, slot);
    TESSERA_ASSIGN(const std::vector<std::byte> bytes, read_bytes(object));
    Matrix m(object.layout.grid[0], object.layout.grid[1] * 4);
    m.stored_as = object.layout.element;
    for (int64_t r = 0; r < m.rows; ++r)
      for (int64_t c = 0; c < m.channels; ++c) {
        const std::byte* place = bytes.data() + byte_of(object.layout, r, c);
        uint16_t half = 0;
        m.stored_as == DType::kF16 ? std::memcpy(&half, place, 2) : std::memcpy(&m.at(r, c), place, 4);
        if (m.stored_as == DType::kF16) m.at(r, c) = half == kUntouchedHalf ? kUntouched : half_to_float(half);
      }
    return m;
  }
  template <class T>
  Result<std::vector<T>> read_raw(std::string_view kernel, std::string_view slot) {
    TESSERA_ASSIGN(const std::vector<std::byte> bytes, read_bytes(object_of(kernel, slot)));
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
  }

  // The first byte of the arena's buffer that changed in the last run outside the tensors that the plan writes; −1: none.
  Result<int64_t> stray_write() {
    TESSERA_ASSIGN(const std::vector<std::byte> now, arena_bytes());
    std::vector<bool> allowed(now.size(), false);
    for (const Dispatch& dispatch : step_.plan.dispatches) {
      TESSERA_ASSIGN(const std::set<std::string> written, written_tensors(embedded_kernels(), dispatch.variant.kernel));
      for (const PlanBinding& binding : dispatch.bindings) {
        const PlanObject& object = step_.plan.objects[static_cast<size_t>(binding.object)];
        if (object.home == Home::kArenaBuffer && written.contains(binding.slot)) std::fill_n(allowed.begin() + object.offset, object.layout.object_bytes(), true);
      }
    }
    for (size_t i = 0; i < now.size(); ++i)
      if (!allowed[i] && now[i] != arena_before_[i]) return static_cast<int64_t>(i);
    return int64_t{-1};
  }

  // The object bound to a slot of the first dispatch of `kernel`.
  const PlanObject& object_of(std::string_view kernel, std::string_view slot) const {
    for (const Dispatch& dispatch : step_.plan.dispatches)
      if (dispatch.variant.kernel == kernel)
        for (const PlanBinding& binding : dispatch.bindings)
          if (binding.slot == slot) return step_.plan.objects[static_cast<size_t>(binding.object)];
    ADD_FAILURE() << "no slot " << kernel << "." << slot << " in\n" << dump(step_.plan);
    static const PlanObject none{.name = "none", .home = Home::kInput, .layout = {.grid = {0, 0}}, .weight_key = {}};
    return none;
  }

 private:
  static constexpr int64_t kGuardBytes = 4096;

  static int64_t byte_of(const Layout& layout, int64_t row, int64_t channel) {
    const std::array<int64_t, 2> texel{row, channel / 4};
    return host_byte_offset(layout, texel) + channel % 4 * byte_size(layout.element);
  }

  Status make_objects(const Plan& plan) {
    TESSERA_TRY(resources_.create_objects(plan));
    TESSERA_TRY(resources_.create(kParamsResource, Layout{Storage::kBuffer, DType::kI32, 1, {static_cast<int64_t>(sizeof(StepParams) / 4)}}));
    ArenaNeeds needs;
    needs.merge(plan);
    if (needs.buffer_bytes > 0) needs.buffer_bytes += kGuardBytes;
    return resources_.create_arena(needs);
  }

  Status write_bytes(const PlanObject& object, std::vector<std::byte> bytes, bool all_untouched) {
    TESSERA_ASSIGN(const gpu::Binding place, resources_.binding(step_.plan, object));
    if (all_untouched) bytes = untouched(object.layout.object_bytes(), object.layout.element);
    return place.image != nullptr ? device_.write_rows(*place.image, 0, object.layout.lines(), bytes) : device_.write(*place.buffer, place.offset, bytes);
  }
  Result<std::vector<std::byte>> read_bytes(const PlanObject& object) {
    TESSERA_ASSIGN(const gpu::Binding place, resources_.binding(step_.plan, object));
    std::vector<std::byte> bytes(static_cast<size_t>(object.layout.object_bytes()));
    TESSERA_TRY(place.image != nullptr ? device_.read_rows(*place.image, 0, object.layout.lines(), bytes) : device_.read(*place.buffer, place.offset, bytes));
    return bytes;
  }
  Result<std::vector<std::byte>> arena_bytes() {
    for (const PlanObject& object : step_.plan.objects)
      if (object.home == Home::kArenaBuffer) {
        TESSERA_ASSIGN(const gpu::Binding place, resources_.binding(step_.plan, object));
        std::vector<std::byte> bytes(static_cast<size_t>(place.buffer->bytes()));
        TESSERA_TRY(device_.read(*place.buffer, 0, bytes));
        return bytes;
      }
    return std::vector<std::byte>();
  }

  gpu::Device& device_;
  DeviceInfo info_;
  Tuning tuning_;
  Resources resources_;
  ProgramCache cache_;
  Executor executor_;
  Step step_;
  ValueId rows_ = kNoValue;
  std::map<std::string, const TestWeight*> weights_;
  std::vector<std::byte> arena_before_;
};

// ---- cases -------------------------------------------------------------------------------------------------------------------------

template <class T>
std::string message_of(const Result<T>& result) { return result ? std::string() : result.error().message(); }

#define TESSERA_ASSERT_OK(expression) \
  do {                                \
    const auto checked = (expression); \
    ASSERT_TRUE(checked) << checked.error().message(); \
  } while (false)

// One device a process: opening it costs more than a case.
class OpTest : public testing::Test {
 protected:
  void SetUp() override {
    TESSERA_NEEDS_DEVICE(test::shared_device());
    device_ = &test::shared_device()->backend();
  }
  gpu::Device& device() { return *device_; }

  // Rows [0, expected.rows) within `tolerance(row, channel)` and what storing them is off by, channels past the last up to the slice's end zero, rows from
  // `untouched_from` on as they were.
  template <class Tolerance>
  static void expect_close(const Matrix& found, const Matrix& expected, Tolerance&& tolerance, int64_t untouched_from) {
    int failures = 0;
    for (int64_t r = 0; r < expected.rows && failures < 5; ++r)
      for (int64_t c = 0; c < round_up(expected.channels, 4) && failures < 5; ++c) {
        if (c >= expected.channels) {
          if (found.at(r, c) == 0.0f) continue;
          ADD_FAILURE() << "padding [" << r << ", " << c << "] is " << found.at(r, c);
          ++failures;
          continue;
        }
        const double error = std::abs(static_cast<double>(found.at(r, c)) - static_cast<double>(expected.at(r, c)));
        const double computed = tolerance(r, c), allowed = computed + stored_error(found.stored_as, std::abs(static_cast<double>(expected.at(r, c))) + computed);
        if (error <= allowed) continue;  // false for NaN
        ADD_FAILURE() << "[" << r << ", " << c << "] is " << found.at(r, c) << ", expected " << expected.at(r, c) << " ± " << allowed;
        ++failures;
      }
    for (int64_t r = untouched_from; r < found.rows && failures < 5; ++r)
      for (int64_t c = 0; c < found.channels; ++c)
        if (!is_untouched(found.at(r, c))) {
          ADD_FAILURE() << "row " << r << " of a token that is not active was written";
          ++failures;
          break;
        }
  }

 private:
  gpu::Device* device_ = nullptr;
};

inline const std::vector<Storage> kStorages = [] {
  std::vector<Storage> all;
  for (size_t s = 0; s < kStorageRows.size(); ++s) all.push_back(static_cast<Storage>(s));
  return all;
}();
// The n-th storage, around and around.
inline Storage storage_in_turn(int n) { return kStorages[static_cast<size_t>(n) % kStorages.size()]; }
// Lanes that floatw may have: GLSL's vectors end at four. Lists of cases are made when the program starts, for the device that it runs on.
inline const std::vector<int>& widths() {
  static const auto all = on_vulkan() ? std::vector<int>{4} : std::vector<int>{4, 8, 16};
  return all;
}
// Whether the n-th of a cross product runs: in the quick tier every `quick`-th; in full every `full`-th, on Vulkan every seventh: its
// CPU driver compiles slowest. Seven has no factor in common with the length of any axis, so any two axes still meet in all their values.
inline bool in_tier(int n, int quick, int full = 1) { return n % (!full_tier() ? quick : on_vulkan() ? 7 : full) == 0; }
inline int width_in_turn(int n) { return widths()[static_cast<size_t>(n) % widths().size()]; }
inline int at_most_wide(int width) { return std::min(width, widths().back()); }

}  // namespace tessera::ops_test
