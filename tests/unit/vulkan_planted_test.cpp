// Mistakes on purpose, one for each way to validate: tests/validate.sh runs this first and trusts a layer's silence only if it names these.
// Without the validation layer they would be undefined behaviour, so that they are skipped.
#include <cstdlib>
#include <string_view>

#include "../../src/vulkan/vulkan_device.hpp"
#include "gpu_fixture.hpp"

namespace tessera::gpu {
namespace {

class VulkanPlanted : public testing::Test {
 protected:
  void SetUp() override {
    const char* layers = std::getenv("VK_INSTANCE_LAYERS");
    if (layers == nullptr || std::string_view(layers).find("validation") == std::string_view::npos) GTEST_SKIP() << "runs under tests/validate.sh alone";
    auto opened = open_vulkan_device(0);
    ASSERT_TRUE(opened) << opened.error().message();
    device = std::move(*opened);
  }

  // y[i + shift] = x[i] + 1, eight lanes.
  std::unique_ptr<Kernel> kernel() {
    const Layout floats = test::buffer_of(DType::kF32, 1, {1});
    auto made = device->compile(dialect_kernel("planted", R"(tensor in  float x [i];
tensor out float y [i];
arg int shift;
kernel planted(8, 1, 1) {
  const int i = global_id(0);
  y.write(x.read(i) + 1.0f, i + shift);
})",
                                               {{"x", floats}, {"y", floats}}, Target::kGlsl));
    EXPECT_TRUE(made) << made.error().message();
    return std::move(*made);
  }
  void run(std::vector<DispatchInfo> dispatches) {
    auto list = std::move(*device->create_list());
    for (const DispatchInfo& dispatch : dispatches) ASSERT_TRUE(list->dispatch(dispatch));
    ASSERT_TRUE(list->finish());
    auto fence = device->submit(*list);
    ASSERT_TRUE(fence) << fence.error().message();
    ASSERT_TRUE((*fence)->wait());
  }

  std::unique_ptr<Device> device;
};

TEST_F(VulkanPlanted, AReadOfWhatIsBeingWritten) {
  const auto program = kernel();
  auto x = std::move(*device->create_buffer(32)), y = std::move(*device->create_buffer(32)), z = std::move(*device->create_buffer(32));
  run({{program.get(), {{x.get(), 0, 32}, {y.get(), 0, 32}}, {0}, {1, 1, 1}, {}, true}, {program.get(), {{y.get(), 0, 32}, {z.get(), 0, 32}}, {0}, {1, 1, 1}, {}, false}});
}

TEST_F(VulkanPlanted, AWritePastTheEnd) {
  const auto program = kernel();
  auto x = std::move(*device->create_buffer(32)), y = std::move(*device->create_buffer(64));
  run({{program.get(), {{x.get(), 0, 32}, {y.get(), 0, 32}}, {4}, {1, 1, 1}, {}, true}});   // inside the object, past the binding
}

// Our own checks would refuse it, so this goes by the driver's function.
TEST_F(VulkanPlanted, ABufferOfNoBytes) {
  auto api = vulkan::load_api(vulkan::library_candidates());
  ASSERT_TRUE(api);
  auto instance = vulkan::Instance::create(*api);
  ASSERT_TRUE(instance);
  auto found = vulkan::find_devices(**instance);
  ASSERT_TRUE(found);
  auto driver = vulkan::Driver::open(*instance, (*instance)->api(), found->front());
  ASSERT_TRUE(driver);
  VkBufferCreateInfo create{};
  create.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  create.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT;
  VkBuffer buffer = VK_NULL_HANDLE;
  if ((*driver)->vk.CreateBuffer((*driver)->device, &create, nullptr, &buffer) == VK_SUCCESS) (*driver)->vk.DestroyBuffer((*driver)->device, buffer, nullptr);
}

}  // namespace
}  // namespace tessera::gpu
