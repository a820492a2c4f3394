// Plans for models of real size on devices nobody here has: nothing a plan binds is over a limit, for PoCL's limits and for every profile
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

namespace tessera::test {
namespace {

constexpr LlamaShape kSmolLm2{576, 30, 1536, 9, 3, 64, 49152, 8192, true, false, 100000.0f, 1e-5f};

// What PoCL 3.1 reports on a machine with 24 GiB.
DeviceInfo pocl() {
  DeviceInfo info;
  info.api = Api::kOpenCL;
  info.name = "pthread-haswell";
  info.is_cpu = true;
  info.max_allocation_bytes = info.max_binding_bytes = int64_t{1} << 30;
  info.buffer_offset_alignment = 128;
  info.max_image_width = info.max_image_height = 8192;
  info.max_image_buffer_texels = 67108864;
  info.max_workgroup_size = 4096;
  info.max_workgroup_extent = {4096, 4096, 4096};
  info.max_grid = {INT32_MAX, INT32_MAX, INT32_MAX};
  info.shared_memory_bytes = 524288;
  return info;
}

// "pocl", "adreno-740 vulkan", "adreno-740 opencl" …
std::map<std::string, DeviceInfo> devices() {
  std::map<std::string, DeviceInfo> out{{"pocl", pocl()}};
  for (const auto& entry : std::filesystem::directory_iterator(std::string(TESSERA_TEST_DATA) + "/devices")) {
    auto info = device_info_from_vulkan_report(read_bytes(entry.path().string()));
    EXPECT_TRUE(info) << entry.path() << ": " << info.error().message();
    if (!info) continue;
    const std::string name = entry.path().stem().stem().string();
    out.emplace(name + " vulkan", *info);
    out.emplace(name + " opencl", assumed_opencl(*info));
  }
  EXPECT_EQ(out.size(), 63u);
  return out;
}

// What the device's rows say, and each storage for everything.
std::vector<LoadOptions> storage_options() {
  std::vector<LoadOptions> options{{.all_logits = true}};
  for (const Storage storage : {Storage::kBuffer, Storage::kImage2D}) options.push_back({.weight_storage = storage, .activation_storage = storage, .all_logits = true});
  return options;
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
      } else if (layout.storage == Storage::kImageBuffer) {
        EXPECT_LE(layout.texels() * (layout.lanes > 4 ? layout.lanes / 4 : 1), info.max_image_buffer_texels) << where << ": " << object.name;
      } else {
        EXPECT_LE(layout.extent().width, info.max_image_width) << where << ": " << object.name;
        EXPECT_LE(layout.extent().height, info.max_image_height) << where << ": " << object.name;
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

struct LargeCase {
  const char* name;
  LlamaShape shape;
  WeightType type;
};

class LargePlans : public testing::TestWithParam<LargeCase> {};

TEST_P(LargePlans, StayWithinEveryDevicesLimits) {
  const std::string path = testing::TempDir() + "tessera_" + GetParam().name + ".gguf";
  sparse_llama(path, GetParam().shape, GetParam().type);
  const auto file = ModelFile::open(path);
  ASSERT_TRUE(file) << file.error().message();
  for (const auto& [name, info] : devices())
    for (const LoadOptions& options : storage_options()) {
      const auto plans = make_step_plans(file->config(), file->weights(), info, options);
      if (!plans && options.weight_storage) {  // asked for and impossible
        EXPECT_NE(plans.error().message().find("which was asked for"), std::string::npos) << name << ": " << plans.error().message();
        continue;
      }
      ASSERT_TRUE(plans) << name << ": " << plans.error().message();
      check_limits(name, *plans, info);
      // The weights of the plan are the file's: no matrix is missing and none is stored twice (padding and f16 scales aside).
      const double file_bytes = static_cast<double>(file->file_bytes());
      EXPECT_NEAR(static_cast<double>(plans->memory.weights) / file_bytes, 1.0, 0.05) << name;
    }
  std::filesystem::remove(path);
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
  const std::string path = *folder.write("sparse.gguf", "");
  OfflineCompiler compiler;
  for (const WeightType type : types) {
    sparse_llama(path, shape, type);
    const auto file = ModelFile::open(path);
    ASSERT_TRUE(file) << file.error().message();
    for (const auto& [name, info] : devices)
      for (const LoadOptions& option : options) {
        const auto plans = make_step_plans(file->config(), file->weights(), info, option);
        ASSERT_TRUE(plans) << name << ": " << plans.error().message();
        const Status status = compiler.compile(*plans, info.api == Api::kVulkan ? Target::kGlsl : Target::kOpenCL);
        if (!status && status.error().code() == ErrorCode::kNotFound) GTEST_SKIP() << status.error().message();
        ASSERT_TRUE(status) << name << ": " << status.error().message();
      }
  }
  EXPECT_GT(compiler.compiled(), at_least);
}

// As one device of each row plans them; in the full tier all devices, and storages that no row asks for.
TEST(KernelTexts, CompileForEveryRowAndBothTargets) {
  if (full_tier()) compile_plans(kLlama32_1B, all_weight_types(), devices(), storage_options(), 600);
  else compile_plans(kLlama32_1B, {WeightType::kQ4_1, WeightType::kQ4_0, WeightType::kQ8_0, WeightType::kF16, WeightType::kF32}, one_device_a_row(), {{.all_logits = true}}, 400);
}

// Every weight type on one GPU through both APIs.
TEST(KernelTexts, CompileForEveryWeightType) {
  const auto all = devices();
  compile_plans(kLlama32_1B, all_weight_types(), {{"vulkan", all.at("mali-g610 vulkan")}, {"opencl", all.at("mali-g610 opencl")}}, {{.all_logits = true}}, 100);
}

// The same epilogues for every way to unpack a weight, so one type of each kind.
TEST(KernelTexts, CompileWithBiases) {
  const auto all = devices();
  LlamaShape shape = kLlama32_1B;
  shape.biases = true;
  compile_plans(shape, {WeightType::kQ4_0, WeightType::kF32}, {{"vulkan", all.at("mali-g610 vulkan")}, {"opencl", all.at("mali-g610 opencl")}}, {{.all_logits = true}}, 20);
}

// Buffers and images for everything, on one GPU through both APIs.
TEST(KernelTexts, CompileWhereStoragesAreForced) {
  const auto all = devices();
  compile_plans(kLlama32_1B, {WeightType::kQ4_1, WeightType::kF16}, {{"vulkan", all.at("mali-g610 vulkan")}, {"opencl", all.at("mali-g610 opencl")}}, storage_options(), 50);
}

}  // namespace
}  // namespace tessera::test
