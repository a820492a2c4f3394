// `tessera-eval plan` and `tessera-eval device`: plans for devices that are not here, from their reports.
#include <algorithm>

#include "../unit/gguf_builder.hpp"
#include "../unit/offline_compile.hpp"
#include "model_fixture.hpp"
#include "tessera/plan/dump.hpp"

namespace tessera::test {
namespace {

const std::string kEval = std::string(TESSERA_BIN_DIR) + "/tessera-eval";

std::string tiny() { return data_path("conform/models/llama-tied-gqa3.Q4_1.gguf"); }
std::string profile(const std::string& name) { return std::string(TESSERA_TEST_DATA) + "/devices/" + name + ".vulkan.json"; }

ToolRun plan(const std::string& profile_path, const std::string& model, const std::string& options = "") {
  return run_tool(kEval + " plan --profile " + profile_path + " --model " + model + " " + options + " </dev/null");
}

bool says(const ToolRun& run, const std::string& text) { return run.output.find(text) != std::string::npos; }

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

// A report of an Adreno 740 with one thing changed; gone with the object.
class ChangedProfile {
 public:
  ChangedProfile(const std::string& from, const std::string& to) {
    std::string text = read_bytes(profile("adreno-740"));
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    if (at != std::string::npos) text.replace(at, from.size(), to);
    path_ = folder_.file("profile.json", text);
  }
  const std::string& path() const { return path_; }

 private:
  TemporaryFolder folder_;
  std::string path_;
};

TEST(CliPlan, SaysDeviceRowsMemoryStepsAndPlan) {
  const ToolRun run = plan(profile("adreno-740"), tiny(), "--context 64");
  ASSERT_EQ(run.exit_code, 0) << run.output;
  for (const char* text : {"Turnip Adreno (TM) 740", "family adreno-7xx, through vulkan", "one binding 128.0 MiB", "tuning   adreno-7xx: ", "tuning   adreno-7xx 740: weights in buffer, weight_interleave 16\n", "why: ",
                           "memory for a context of 64 tokens", "weights", "KV cache", "no less than", "of 4.0 GiB: fits", "  1 token, logits of the last: ", "  128 tokens, no logits: "})
    EXPECT_TRUE(says(run, text)) << text << "\n" << run.output.substr(0, 2000);
  EXPECT_TRUE(says(run, "4 pages of 16 tokens, f16")) << run.output.substr(0, 2000);
  EXPECT_TRUE(says(plan(profile("adreno-740"), tiny(), "--context 64 --kv int8"), "4 pages of 16 tokens, i8"));
  // A context of 64 tokens is never long.
  const std::vector<StepShape> shapes = step_shapes(false);
  const auto steps = static_cast<size_t>(std::ranges::count(shapes, false, &StepShape::long_context));
  EXPECT_EQ(count(run.output, "\nstep of "), steps);
  EXPECT_EQ(count(run.output, "\n#0 embed "), steps);
}

// The figures are those that loading would allocate, and the dispatches those of the plans.
TEST(CliPlan, FiguresAreThoseOfThePlans) {
  const auto file = ModelFile::open(tiny());
  ASSERT_TRUE(file);
  const auto info = device_info_from_vulkan_report(read_bytes(profile("mali-g610")));
  ASSERT_TRUE(info);
  for (const bool opencl : {false, true}) {
    const auto plans = make_step_plans(file->config(), file->weights(), opencl ? assumed_opencl(*info) : *info, {.context_tokens = 64, .activation_storage = Storage::kImage2D});
    ASSERT_TRUE(plans) << plans.error().message();
    const ToolRun run = plan(profile("mali-g610"), tiny(), cat("--context 64 --activations-in image2d --target ", opencl ? "opencl" : "vulkan"));
    EXPECT_EQ(run.exit_code, 0) << run.output;
    const MemoryPlan& memory = plans->memory;
    for (const uint64_t bytes : {memory.weights, memory.kv, memory.arena, memory.inputs, memory.total()}) EXPECT_TRUE(says(run, bytes_text(bytes))) << bytes << "\n" << run.output.substr(0, 1500);
    for (const Plan& p : plans->plans) EXPECT_TRUE(says(run, dump(p))) << p.shape.tokens;
  }
}

TEST(CliPlan, OneChunkAlone) {
  const ToolRun run = plan(profile("mali-g52"), tiny(), "--chunk 1 --context 64"), behind = plan(profile("mali-g52"), tiny(), "--chunk 1");
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_EQ(count(run.output, "\nstep of "), 1u);
  EXPECT_EQ(count(behind.output, "\nstep of 1 token(s)"), 2u) << "one for long contexts";
  EXPECT_TRUE(says(behind, "step of 1 token(s), long context: "));
  EXPECT_TRUE(says(run, "step of 1 token(s)"));
  const ToolRun unknown = plan(profile("mali-g52"), tiny(), "--chunk 7");
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_TRUE(says(unknown, "--chunk 7: there are steps of 1, 8, 32, 128 tokens")) << unknown.output;
}

// A file of an 8B model that is nearly all holes: no weight is read.
TEST(CliPlan, ReadsNoWeights) {
  const TemporaryFolder folder;
  const std::string path = folder.file("sparse.gguf");
  sparse_llama(path, kLlama31_8B, WeightType::kQ8_0);
  const ToolRun run = plan(profile("mali-g720"), path, "--chunk 1");
  EXPECT_EQ(run.exit_code, 0) << run.output.substr(0, 2000);
  EXPECT_TRUE(says(run, "of 17.7 GiB: fits")) << run.output.substr(0, 2000);
  const ToolRun small = plan(profile("adreno-830"), path, "--chunk 1");
  EXPECT_EQ(small.exit_code, 1);
  EXPECT_TRUE(says(small, "of 4.0 GiB: DOES NOT FIT")) << small.output.substr(0, 2000);
  EXPECT_TRUE(says(small, "error: the model does not fit: it needs ")) << small.output.substr(small.output.size() - 300);
}

TEST(CliPlan, SaysWhatIsWrongWithAProfile) {
  struct Case {
    std::string from, to, said;
  };
  for (const Case& c : {Case{"maxStorageBufferRange", "maxStorageBufferRang", "'maxStorageBufferRange' is missing"}, Case{"\"deviceName\": \"Turnip", "\"deviceName\": 7, \"x\": \"Turnip", "'deviceName' must be a string"},
                        Case{"\"maxStorageBufferRange\": 134217728", "\"maxStorageBufferRange\": 16", "token_embd.weight"}, Case{"\"maxComputeWorkGroupInvocations\": 2048", "\"maxComputeWorkGroupInvocations\": 16", "16 items"},
                        Case{"\"memoryHeaps\": [\n  4294967296", "\"memoryHeaps\": [\n  100000", "does not fit"}, Case{"{", "[", "does not parse"}, Case{"\"deviceName\"", "\"someName\"", "'api' is missing"}}) {
    const ChangedProfile changed(c.from, c.to);
    const ToolRun run = plan(changed.path(), tiny());
    EXPECT_EQ(run.exit_code, 1) << c.to;
    EXPECT_TRUE(says(run, c.said)) << c.to << "\n" << run.output.substr(0, 500);
  }
  const ToolRun missing = plan("/nonexistent/p.json", tiny());
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_TRUE(says(missing, "/nonexistent/p.json")) << missing.output;
  EXPECT_TRUE(says(plan(profile("mali-g52"), "/nonexistent/m.gguf"), "/nonexistent/m.gguf"));
  EXPECT_EQ(plan(profile("mali-g52"), tiny(), "--context 99999999").exit_code, 2);
  EXPECT_EQ(plan(profile("mali-g52"), tiny(), "--weights-in drawer").exit_code, 2);
  EXPECT_EQ(plan(profile("mali-g52"), tiny(), "--target metal").exit_code, 2);
}

// What `device` prints is a profile: the plan made from it is the device's own.
TEST(CliPlan, ADevicesOwnFactsAreAProfile) {
  const auto& device = shared_device();
  TESSERA_NEEDS_DEVICE(device);
  const TemporaryFolder folder;
  const std::string path = folder.file("device.json");
  ASSERT_EQ(run_tool(kEval + " device --out " + path).exit_code, 0);
  auto info = device_info_from_json(read_bytes(path));
  ASSERT_TRUE(info) << info.error().message();
  // Virtual machines may gain memory while they run, and drivers of CPUs tell of all there is.
  DeviceInfo own = device->info();
  for (const auto bytes : {&DeviceInfo::global_memory_bytes, &DeviceInfo::max_allocation_bytes, &DeviceInfo::max_binding_bytes}) {
    EXPECT_GT((*info).*bytes, 0);
    (*info).*bytes = own.*bytes;
  }
  EXPECT_EQ(*info, own);
  const ToolRun run = plan(path, tiny(), "--chunk 1");
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_TRUE(says(run, cat("family cpu, through ", name_of(device->info().api))) || !device->info().is_cpu) << run.output.substr(0, 1000);
  if (device->info().api != Api::kOpenCL) return;
  const ToolRun vulkan = plan(path, tiny(), "--target vulkan");
  EXPECT_EQ(vulkan.exit_code, 2);
  EXPECT_TRUE(says(vulkan, "--target vulkan needs a report of Vulkan limits")) << vulkan.output;
}

}  // namespace
}  // namespace tessera::test
