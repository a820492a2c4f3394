// Plans for models of real size on devices nobody here has: nothing a plan binds is over a limit, for PoCL's and lavapipe's limits and for every profile
// in tests/data/devices, once through Vulkan and once through OpenCL as assumed from it, with the shapes of SmolLM2-135M, Llama-3.2-1B and
// Llama-3.1-8B in generated sparse files. And every kernel of those plans compiles for its API.
#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "../unit/gguf_builder.hpp"
#include "../unit/offline_compile.hpp"
#include "model_fixture.hpp"
#include "tessera/codegen/lower.hpp"
#include "tessera/plan/dump.hpp"

namespace tessera::test {
namespace {

constexpr LlamaShape kSmolLm2{576, 30, 1536, 9, 3, 64, 49152, 8192, true, false, 100000.0f, 1e-5f};

// What PoCL 3.1 reports on a machine with 24 GiB, whose vectors hold 8 floats (AVX2) or 16 (AVX-512).
DeviceInfo pocl(int native_vector_width) {
  DeviceInfo info;
  info.api = Api::kOpenCL;
  info.name = native_vector_width == 16 ? "pthread-skylake-avx512" : "pthread-haswell";
  info.is_cpu = true;
  info.native_vector_width = native_vector_width;
  info.max_allocation_bytes = info.max_binding_bytes = int64_t{1} << 30;
  info.buffer_offset_alignment = 128;
  info.max_image_width = info.max_image_height = 8192;
  info.max_image_buffer_texels = 67108864;
  info.max_image_layers = info.max_image3d_width = info.max_image3d_height = info.max_image3d_depth = 2048;
  info.image3d_writes = true;
  info.max_workgroup_size = 4096;
  info.max_workgroup_extent = {4096, 4096, 4096};
  info.max_grid = {INT32_MAX, INT32_MAX, INT32_MAX};
  info.shared_memory_bytes = 524288;
  return info;
}

// What lavapipe of Mesa 22.3 reports.
DeviceInfo lavapipe() {
  DeviceInfo info;
  info.api = Api::kVulkan;
  info.name = "llvmpipe (LLVM 15.0.6, 256 bits)";
  info.is_cpu = true;
  info.max_allocation_bytes = int64_t{2} << 30;
  info.max_binding_bytes = int64_t{128} << 20;
  info.buffer_offset_alignment = 16;
  info.max_image_width = info.max_image_height = 16384;
  info.max_image_buffer_texels = 134217728;
  info.max_image_layers = 2048;
  info.max_image3d_width = info.max_image3d_height = info.max_image3d_depth = 4096;
  info.image3d_writes = true;
  info.max_workgroup_size = 1024;
  info.max_workgroup_extent = {1024, 1024, 1024};
  info.shared_memory_bytes = 32768;
  info.subgroup_min = info.subgroup_max = 8;
  return info;
}

// "pocl", "pocl avx512", "lavapipe", "adreno-740 vulkan", "adreno-740 opencl" …
std::map<std::string, DeviceInfo> devices() {
  std::map<std::string, DeviceInfo> out{{"pocl", pocl(8)}, {"pocl avx512", pocl(16)}, {"lavapipe", lavapipe()}};
  for (const auto& entry : std::filesystem::directory_iterator(std::string(TESSERA_TEST_DATA) + "/devices")) {
    auto info = device_info_from_vulkan_report(read_bytes(entry.path().string()));
    EXPECT_TRUE(info) << entry.path() << ": " << info.error().message();
    if (!info) continue;
    const std::string name = entry.path().stem().stem().string();
    out.emplace(name + " vulkan", *info);
    out.emplace(name + " opencl", assumed_opencl(*info));
  }
  EXPECT_EQ(out.size(), 65u);
  return out;
}

// What the device's rows say, and each storage for everything.
std::vector<LoadOptions> storage_options() {
  std::vector<LoadOptions> options{{.all_logits = true}};
  for (size_t s = 0; s < kStorageRows.size(); ++s) options.push_back({.weight_storage = static_cast<Storage>(s), .activation_storage = static_cast<Storage>(s), .all_logits = true});
  return options;
}

// The extents of an image, counted here once more: rows of pixels, one below the other, in panels or layers of `fold` rows.
bool image_fits(const Layout& layout, const DeviceInfo& info) {
  const int64_t width = layout.grid.back() * std::max(1, layout.lanes / 4), rows = layout.texels() / layout.grid.back();
  const int64_t fold = layout.fold == 0 ? rows : layout.fold, folds = (rows + fold - 1) / fold, height = std::min(rows, fold);
  switch (layout.storage) {
    case Storage::kBuffer: return false;
    case Storage::kImageBuffer: return width * rows <= info.max_image_buffer_texels;
    case Storage::kImage2D: return width * folds <= info.max_image_width && fold <= info.max_image_height;
    case Storage::kImage2DArray: return width <= info.max_image_width && height <= info.max_image_height && folds <= info.max_image_layers;
    case Storage::kImage3D: return width <= info.max_image3d_width && height <= info.max_image3d_height && folds <= info.max_image3d_depth;
  }
  return false;
}

// Every object and view of every plan against the device's limits, computed here from the layouts, not by fit().
void check_limits(const std::string& where, const StepPlans& plans, const DeviceInfo& info) {
  for (const Plan& plan : plans.plans) {
    EXPECT_LE(plan.arena_bytes, info.max_allocation_bytes) << where;
    for (const PlanObject& object : plan.objects) {
      const Layout& layout = object.layout;
      EXPECT_LE(layout.object_bytes(), info.max_allocation_bytes) << where << ": " << object.name;
      if (layout.storage == Storage::kBuffer) {
        EXPECT_LE(layout.object_bytes(), info.max_binding_bytes) << where << ": " << object.name;
      } else {
        EXPECT_TRUE(image_fits(layout, info)) << where << ": " << object.name << " as " << dump(layout);
      }
      EXPECT_EQ(object.offset % info.buffer_offset_alignment, 0) << where << ": " << object.name;
    }
    for (const Dispatch& dispatch : plan.dispatches) {
      for (const PlanBinding& binding : dispatch.bindings) {
        // The greatest index a kernel computes: elements of the widest view, times 4 for byte and component arithmetic inside a texel.
        EXPECT_LE(binding.view.texels(), INT32_MAX) << where << ": " << dispatch.label;
      }
      for (size_t axis = 0; axis < 3; ++axis) EXPECT_LE(dispatch.workgroups[axis], info.max_grid[axis]) << where << ": " << dispatch.label;
      EXPECT_LE(dispatch.variant.consts.at("WG"), info.max_workgroup_size) << where << ": " << dispatch.label;
    }
  }
}

// Bytes of the texels of all weights, and what their folds may leave empty.
std::pair<uint64_t, uint64_t> weight_bytes(const StepPlans& plans) {
  int64_t texels = 0, slack = 0;
  for (const auto& [key, layout] : plans.shared) {
    if (key.find('#') == std::string::npos) continue;  // of weights alone: name#part#plane
    texels += layout.texels() * layout.texel_bytes();
    slack += std::max<int64_t>(0, layout.fold - 1) * layout.grid.back() * layout.texel_bytes();
  }
  return {static_cast<uint64_t>(texels), static_cast<uint64_t>(slack)};
}

struct LargeCase {
  const char* name;
  LlamaShape shape;
  WeightType type;
};

// Every matrix and intermediate lies where it was asked for.
void check_storage(const StepPlans& plans, Storage storage) {
  for (const Plan& plan : plans.plans)
    for (const PlanObject& object : plan.objects) {
      const bool chosen = object.home == Home::kArenaBuffer || object.home == Home::kArenaImage || object.plane != Plane::kWhole;
      EXPECT_TRUE(object.layout.storage == storage || !chosen) << object.name;
    }
}

class LargePlans : public testing::TestWithParam<LargeCase> {
 protected:
  // Quick: what the rows say and one storage, in turn. Full: all.
  static std::vector<LoadOptions> some_options(size_t turn) {
    std::vector<LoadOptions> all = storage_options();
    return full_tier() ? all : std::vector<LoadOptions>{all[0], all[1 + turn % kStorageRows.size()]};
  }
  // What was asked for and cannot be: a row wider than an image, more parts than are made, images that kernels do not write. Nothing of the
  // small model is too large.
  static void check_refusal(const Error& error, Storage storage, const DeviceInfo& info) {
    const bool unwritable = storage == Storage::kImage3D && !info.image3d_writes;
    EXPECT_TRUE(is_image(storage) && (unwritable || GetParam().shape.dim != kSmolLm2.dim)) << error.message();
    EXPECT_TRUE(error.code() == ErrorCode::kLimit || (unwritable && error.code() == ErrorCode::kUnsupported)) << error.message();
    EXPECT_NE(error.message().find(cat("storage ", name_of(storage), ", which was asked for")), std::string::npos) << error.message();
  }
};

TEST_P(LargePlans, StayWithinEveryDevicesLimits) {
  const TemporaryFolder folder;
  const std::string path = folder.file("sparse.gguf");
  sparse_llama(path, GetParam().shape, GetParam().type);
  const auto file = ModelFile::open(path);
  ASSERT_TRUE(file) << file.error().message();
  size_t turn = 0;
  for (const auto& [name, info] : devices())
    for (const LoadOptions& options : some_options(turn++)) {
      SCOPED_TRACE(cat(name, " ", options.weight_storage ? name_of(*options.weight_storage) : "as its rows say"));
      const auto plans = make_step_plans(file->config(), file->weights(), info, options);
      if (!plans && options.weight_storage) {
        check_refusal(plans.error(), *options.weight_storage, info);
        continue;
      }
      ASSERT_TRUE(plans) << plans.error().message();
      check_limits(name, *plans, info);
      if (options.weight_storage) check_storage(*plans, *options.weight_storage);
      // The weights of the plan are the file's: no matrix is missing and none is stored twice (padding to blocks and f16 scales aside). What an
      // image holds beyond them is less than its last panel or layer.
      const auto [texels, slack] = weight_bytes(*plans);
      EXPECT_NEAR(static_cast<double>(texels) / static_cast<double>(file->file_bytes()), 1.0, 0.05);
      EXPECT_GE(plans->memory.weights, texels);
      EXPECT_LE(plans->memory.weights, texels + slack);
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, LargePlans,
                         testing::Values(LargeCase{"SmolLM2_135M_Q4_1", kSmolLm2, WeightType::kQ4_1}, LargeCase{"Llama32_1B_Q4_0", kLlama32_1B, WeightType::kQ4_0},
                                         LargeCase{"Llama31_8B_Q4_K", kLlama31_8B, WeightType::kQ4_K}, LargeCase{"Llama31_8B_Q6_K", kLlama31_8B, WeightType::kQ6_K},
                                         LargeCase{"Llama31_8B_Q8_0", kLlama31_8B, WeightType::kQ8_0}, LargeCase{"Llama31_8B_F16", kLlama31_8B, WeightType::kF16}),
                         [](const auto& test) { return std::string(test.param.name); });

// The distinct programs of plans, each lowered and compiled once, by compilers that need no device.
class OfflineCompiler {
 public:
  Status compile(const StepPlans& plans, Target target) {
    for (const Plan& plan : plans.plans)
      for (const Dispatch& dispatch : plan.dispatches) {
        std::vector<KernelVariant>& known = known_[{target, dispatch.variant.kernel}];
        if (std::ranges::find(known, dispatch.variant) != known.end()) continue;
        known.push_back(dispatch.variant);
        const auto lowered = lower(embedded_kernels(), dispatch.variant, target, step_params());
        if (!lowered) return fail(Error(lowered.error()).within(dispatch.label));
        if (!texts_.insert(lowered->text).second) continue;
        const Status status = target == Target::kOpenCL ? compile_opencl(*lowered) : compile_glsl(*lowered);
        if (!status) return fail(Error(status.error()).within(dispatch.label));
      }
    return {};
  }
  size_t compiled() const { return texts_.size(); }

 private:
  std::map<std::pair<Target, std::string>, std::vector<KernelVariant>> known_;
  std::set<std::string> texts_;
};

// Devices whose plans can differ in their programs: each combination of tuning rows, with and without subgroups, through each API.
std::map<std::string, DeviceInfo> one_device_a_row() {
  std::map<std::string, DeviceInfo> out;
  std::set<std::string> seen;
  std::set<const TuningRow*> reached;
  for (const auto& [name, info] : devices()) {
    std::string rows = cat(name_of(info.api), info.subgroup_max > 0);
    for (const TuningRow* row : rows_for(info)) {
      rows += " " + row->label();
      reached.insert(row);
    }
    if (seen.insert(rows).second) out.emplace(name, info);
  }
  EXPECT_EQ(reached.size(), tuning_rows().size());
  return out;
}

std::vector<WeightType> all_weight_types() {
  std::vector<WeightType> types;
  for (const WeightFormat& format : kWeightFormats) types.push_back(format.type);
  return types;
}

// Every program of the plans of this model with matrices of these types, on these devices.
void compile_plans(const LlamaShape& shape, const std::vector<WeightType>& types, const std::map<std::string, DeviceInfo>& devices, const std::vector<LoadOptions>& options,
                   size_t at_least) {
  const TemporaryFolder folder;
  const std::string path = folder.file("sparse.gguf");
  OfflineCompiler compiler;
  for (const WeightType type : types) {
    sparse_llama(path, shape, type);
    const auto file = ModelFile::open(path);
    ASSERT_TRUE(file) << file.error().message();
    for (const auto& [name, info] : devices)
      for (const LoadOptions& option : options) {
        const auto plans = make_step_plans(file->config(), file->weights(), info, option);
        if (!plans && option.weight_storage) continue;   // LargePlans knows when
        ASSERT_TRUE(plans) << name << ": " << plans.error().message();
        const Status status = compiler.compile(*plans, info.api == Api::kVulkan ? Target::kGlsl : Target::kOpenCL);
        if (!status && status.error().code() == ErrorCode::kNotFound) GTEST_SKIP() << status.error().message();
        ASSERT_TRUE(status) << name << ": " << status.error().message();
      }
  }
  EXPECT_GT(compiler.compiled(), at_least);
}

// As one device of each row plans them; in the full tier all devices, and more weight types.
TEST(KernelTexts, CompileForEveryRowAndBothTargets) {
  const LoadOptions options{.all_logits = true};
  if (!full_tier()) return compile_plans(kLlama32_1B, {WeightType::kQ4_1}, one_device_a_row(), {options}, 80);
  compile_plans(kLlama32_1B, {WeightType::kQ4_1, WeightType::kQ8_0}, devices(), {options}, 150);
  compile_plans(kLlama32_1B, {WeightType::kQ4_1, WeightType::kQ4_0, WeightType::kQ8_0, WeightType::kF16, WeightType::kF32}, one_device_a_row(), {options}, 400);
}

// Every weight type on one GPU through both APIs; quick: one of each way to unpack.
TEST(KernelTexts, CompileForEveryWeightType) {
  const auto all = devices();
  const std::vector<WeightType> types = full_tier() ? all_weight_types() : std::vector<WeightType>{WeightType::kQ5_1, WeightType::kQ6_K, WeightType::kIQ4_NL, WeightType::kBF16};
  compile_plans(kLlama32_1B, types, {{"vulkan", all.at("mali-g610 vulkan")}, {"opencl", all.at("mali-g610 opencl")}}, {{.all_logits = true}}, full_tier() ? 100 : 30);
}

// The same epilogues for every way to unpack a weight, so one type of each kind.
TEST(KernelTexts, CompileWithBiases) {
  const auto all = devices();
  LlamaShape shape = kLlama32_1B;
  shape.biases = true;
  compile_plans(shape, {WeightType::kQ4_0, WeightType::kF32}, {{"vulkan", all.at("mali-g610 vulkan")}, {"opencl", all.at("mali-g610 opencl")}}, {{.all_logits = true}}, 20);
}

// Keys and values in bytes, and pages of other sizes: no device refuses them.
TEST(KernelTexts, CompileForEveryKvType) {
  std::vector<LoadOptions> options;
  for (const auto& [name, type] : kKvTypes) options.push_back({.kv = type, .page_tokens = type == KvType::kInt8 ? 32 : 0});
  compile_plans(kLlama32_1B, {WeightType::kQ4_0}, one_device_a_row(), options, 40);
}

// Buffers and images for everything, on one GPU through both APIs.
TEST(KernelTexts, CompileWhereStoragesAreForced) {
  const auto all = devices();
  compile_plans(kLlama32_1B, {WeightType::kQ4_1, WeightType::kF16}, {{"vulkan", all.at("mali-g610 vulkan")}, {"opencl", all.at("mali-g610 opencl")}}, storage_options(), 50);
}

}  // namespace
}  // namespace tessera::test
