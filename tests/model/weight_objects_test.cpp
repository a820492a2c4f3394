// Weights in several device objects: because a device's bindings and images are small, and because the tuning (or the option) says so. On the null
// device, which refuses whatever is over its limits, and on a real one that is told of smaller limits than it has.
#include "forwarding_device.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

// Another device, with limits of its own making. Images above them are refused, as a device of these limits would.
class LimitedDevice final : public ForwardingDevice {
 public:
  LimitedDevice(const tessera::Device& device, void (*limit)(DeviceInfo&)) : ForwardingDevice(device), info_(inner().info()) { limit(info_); }

  const DeviceInfo& info() const override { return info_; }
  Result<std::unique_ptr<gpu::Image>> create_image(const Layout& layout) override {
    TESSERA_TRY(check_limits(layout, info_.storage_limits()));
    return inner().create_image(layout);
  }

 private:
  DeviceInfo info_;
};

struct Case {
  const char* name;
  Storage storage;
  int32_t parts;                    // LoadOptions::weight_parts
  void (*limit)(DeviceInfo&);
  Storage activations = Storage::kBuffer;
};

// The largest matrix of the tiny model is 216 KiB, 13,824 pixels, 72 or 144 blocks. Small bindings hold the logits of 32 tokens; the largest
// activation is of 160 KiB and lies in an image then.
constexpr Case kCases[] = {
    {"buffers_in_4_parts", Storage::kBuffer, 4, [](DeviceInfo&) {}},
    {"image2d_in_4_textures", Storage::kImage2D, 4, [](DeviceInfo&) {}},
    {"small_bindings", Storage::kBuffer, 0, [](DeviceInfo& d) { d.max_binding_bytes = 76 << 10; }, Storage::kImage2D},
    {"short_image_buffers", Storage::kImageBuffer, 0, [](DeviceInfo& d) { d.max_image_buffer_texels = 3500; }},
    {"low_image2d", Storage::kImage2D, 0, [](DeviceInfo& d) { d.max_image_height = 4, d.max_image_width = 400; }},
    {"few_layers", Storage::kImage2DArray, 0, [](DeviceInfo& d) { d.max_image_height = 4, d.max_image_layers = 2; }},
    {"shallow_image3d", Storage::kImage3D, 0, [](DeviceInfo& d) { d.max_image3d_height = 4, d.max_image3d_depth = 2; }},
};

std::string tiny_model_path() { return data_path("conform/models/llama-tied-gqa3.F32.gguf"); }

LoadOptions options_of(const Case& c) {
  return {.context_tokens = 64, .precision = Precision::kFloat, .weight_storage = c.storage, .activation_storage = c.activations, .weight_parts = c.parts, .cache_folder = "off", .all_logits = true};
}

// The most parts that a weight is cut into.
int most_parts(const DeviceInfo& info, const LoadOptions& options) {
  const auto file = ModelFile::open(tiny_model_path());
  const auto plans = make_step_plans(file->config(), file->weights(), info, options);
  EXPECT_TRUE(plans) << plans.error().message();
  if (!plans) return 0;
  size_t most = 0;
  for (const Plan& plan : plans->plans)
    for (const auto& [key, weight] : plan.weights) most = std::max(most, weight.placement.parts.size());
  return static_cast<int>(most);
}

class WeightObjects : public testing::TestWithParam<Case> {};

TEST_P(WeightObjects, GiveTheSameAnswers) {
  const auto& device = shared_device();
  TESSERA_NEEDS_DEVICE(device);
  const Device limited = Device::wrap(std::make_unique<LimitedDevice>(*device, GetParam().limit));
  ASSERT_GE(most_parts(limited.info(), options_of(GetParam())), 3);
  const auto model = Model::load(tiny_model_path(), limited, options_of(GetParam()));
  ASSERT_TRUE(model) << model.error().message();
  const auto reference = Model::load(tiny_model_path(), *device, options_of({"whole", Storage::kBuffer, 0, nullptr}));
  ASSERT_TRUE(reference) << reference.error().message();
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 41; ++i) ids.push_back(i * 7 % model->config().vocab_size);
  const std::vector<float> found = all_logits(*model, ids), expected = all_logits(*reference, ids);
  // Each row of a weight is summed alone and in one order, whatever object it lies in: 2e-4 of the deviation, as in conform_test, bounds what a
  // compiler may round otherwise.
  EXPECT_LE(max_difference(found, expected), 2e-4 * standard_deviation(expected));
  EXPECT_EQ(greedy(*model, {5, 6, 7}, 12), greedy(*reference, {5, 6, 7}, 12));
}

// The null device refuses every object, binding and dispatch that its limits do not allow.
TEST_P(WeightObjects, StayWithinTheDevicesLimits) {
  DeviceInfo info;
  info.name = "null";
  info.global_memory_bytes = int64_t{1} << 30;
  info.max_allocation_bytes = info.max_binding_bytes = int64_t{1} << 28;
  info.max_image_width = info.max_image_height = 4096;
  info.max_image_layers = info.max_image3d_width = info.max_image3d_height = info.max_image3d_depth = 256;
  info.max_image_buffer_texels = 65536;
  info.shared_memory_bytes = 32768;
  info.max_workgroup_size = 256;
  info.max_workgroup_extent = {256, 256, 64};
  GetParam().limit(info);
  EXPECT_GE(most_parts(info, options_of(GetParam())), 3);
  const auto model = Model::load(tiny_model_path(), Device::wrap(gpu::make_null_device(info, Target::kOpenCL)), options_of(GetParam()));
  // Everything is made, recorded and run; only then the null device's answer, zero, is read.
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_GT(model->runtime()->counters().dispatches, 0u);
}

INSTANTIATE_TEST_SUITE_P(Limits, WeightObjects, testing::ValuesIn(kCases), [](const auto& test) { return std::string(test.param.name); });

// What a user asks for and the device cannot do is said before anything is made.
TEST(ForcedStorage, ThatCannotBeIsAClearError) {
  const auto device = Device::open("auto");   // of its own: what it makes is counted
  TESSERA_NEEDS_DEVICE(device);
  const Device limited = Device::wrap(std::make_unique<LimitedDevice>(*device, [](DeviceInfo& d) { d.max_image3d_depth = 0, d.max_image_width = 20; }));
  const auto error = [&](const LoadOptions& options) {
    const auto model = Model::load(tiny_model_path(), limited, options);
    EXPECT_FALSE(model);
    return model ? Error(ErrorCode::kBusy, "") : model.error();
  };
  const Error absent = error({.weight_storage = Storage::kImage3D});
  EXPECT_EQ(absent.code(), ErrorCode::kUnsupported);
  EXPECT_NE(absent.message().find("storage image3d, which was asked for: the device has no image3d"), std::string::npos) << absent.message();
  const Error narrow = error({.activation_storage = Storage::kImage2D});
  EXPECT_EQ(narrow.code(), ErrorCode::kLimit);
  EXPECT_NE(narrow.message().find("storage image2d, which was asked for"), std::string::npos) << narrow.message();
  EXPECT_EQ(error({.weight_parts = -1}).code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(limited.backend().counters().buffers_created, 0u);
}

}  // namespace
}  // namespace tessera::test
