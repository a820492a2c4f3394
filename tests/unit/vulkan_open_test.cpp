// Finding and opening Vulkan devices: without a loader, without a driver, and with ones that are not what they should be.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "vulkan_fault_fixture.hpp"

namespace tessera::gpu {
namespace {

TEST(VulkanLibrary, MissingLibrarySaysWhatToInstall) {
  const std::vector<std::string> nowhere{"/nonexistent/libvulkan.so.9", "libtessera-no-such-loader.so"};
  const auto api = vulkan::load_api(nowhere);
  ASSERT_FALSE(api);
  EXPECT_EQ(api.error().code(), ErrorCode::kNotFound);
  for (const char* part : {"libvulkan1", "mesa-vulkan-drivers", "libvulkan.so.9", "libtessera-no-such-loader.so"})
    EXPECT_NE(api.error().message().find(part), std::string::npos) << api.error().message();
}

TEST(VulkanLibrary, EnvironmentNamesTheOnlyCandidate) {
  const char* before = std::getenv("TESSERA_VULKAN_LIBRARY");
  const std::string restored = before != nullptr ? before : "";
  ASSERT_EQ(setenv("TESSERA_VULKAN_LIBRARY", "/nonexistent/loader.so", 1), 0);
  const auto listed = list_vulkan_devices();
  const auto opened = open_vulkan_device(0);
  ASSERT_EQ(setenv("TESSERA_VULKAN_LIBRARY", restored.c_str(), 1), 0);
  ASSERT_FALSE(listed);
  ASSERT_FALSE(opened);
  EXPECT_EQ(listed.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(opened.error().message().find("/nonexistent/loader.so"), std::string::npos);
}

TEST(VulkanLibrary, LibraryThatIsNoLoaderIsUnsupported) {
  const auto api = vulkan::load_api(std::vector<std::string>{"libm.so.6"});
  ASSERT_FALSE(api);
  EXPECT_EQ(api.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(api.error().message().find("vkGetInstanceProcAddr"), std::string::npos);
}

TEST(VulkanLibrary, FunctionsThatAreThereStayAndAMissingOneIsNamed) {
  VulkanApi api;
  api.GetInstanceProcAddr = [](VkInstance, const char* name) -> PFN_vkVoidFunction {
    return std::strcmp(name, "vkCreateDevice") == 0 ? nullptr : +[] {};
  };
  api.DestroyInstance = [](VkInstance, const VkAllocationCallbacks*) {};
  const auto mine = api.DestroyInstance;
  const Status status = vulkan::load_instance_calls(api, VK_NULL_HANDLE);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(status.error().message().find("vkCreateDevice"), std::string::npos) << status.error().message();
  EXPECT_EQ(api.DestroyInstance, mine);
}

using VulkanOpenTest = VulkanFaultTest;

TEST_F(VulkanOpenTest, LoaderOfVulkan10IsUnsupported) {
  loader.EnumerateInstanceVersion = [](uint32_t* version) -> VkResult {
    *version = VK_API_VERSION_1_0;
    return VK_SUCCESS;
  };
  const auto devices = find(loader);
  ASSERT_FALSE(devices);
  EXPECT_EQ(devices.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(devices.error().message().find("1.0.0: Vulkan 1.1 is needed"), std::string::npos) << devices.error().message();
}

TEST_F(VulkanOpenTest, NoDriverIsNotFoundWithAdvice) {
  loader.CreateInstance = [](const VkInstanceCreateInfo*, const VkAllocationCallbacks*, VkInstance*) -> VkResult { return VK_ERROR_INCOMPATIBLE_DRIVER; };
  const auto devices = find(loader);
  ASSERT_FALSE(devices);
  EXPECT_EQ(devices.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(devices.error().message().find("mesa-vulkan-drivers"), std::string::npos) << devices.error().message();
}

TEST_F(VulkanOpenTest, NoDeviceIsNotFoundWithAdvice) {
  loader.EnumeratePhysicalDevices = [](VkInstance, uint32_t* count, VkPhysicalDevice*) -> VkResult {
    *count = 0;
    return VK_SUCCESS;
  };
  const auto none = find(loader);
  loader.EnumeratePhysicalDevices = [](VkInstance, uint32_t*, VkPhysicalDevice*) -> VkResult { return VK_ERROR_INITIALIZATION_FAILED; };
  const auto failed = find(loader);   // what loaders say where no driver works
  for (const auto& devices : {none, failed}) {
    ASSERT_FALSE(devices);
    EXPECT_EQ(devices.error().code(), ErrorCode::kNotFound);
    EXPECT_NE(devices.error().message().find("mesa-vulkan-drivers"), std::string::npos) << devices.error().message();
  }
  loader.EnumeratePhysicalDevices = [](VkInstance, uint32_t*, VkPhysicalDevice*) -> VkResult { return VK_ERROR_OUT_OF_HOST_MEMORY; };
  EXPECT_EQ(find(loader).error().code(), ErrorCode::kOutOfMemory);
}

TEST_F(VulkanOpenTest, DeviceWithoutAComputeQueueIsPassedOver) {
  loader.GetPhysicalDeviceQueueFamilyProperties = [](VkPhysicalDevice, uint32_t* count, VkQueueFamilyProperties* families) {
    *count = 1;
    if (families != nullptr) families[0] = {VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_TRANSFER_BIT, 1, 64, {1, 1, 1}};
  };
  const auto devices = find(loader);
  ASSERT_FALSE(devices);
  EXPECT_EQ(devices.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(devices.error().message().find(cat("'", found.info.name, "' has no queue that computes")), std::string::npos) << devices.error().message();
}

// It is asked nothing that came with 1.1, though it has extensions that such a question is about (Mesa's driver for Adreno 610 is such a one).
TEST_F(VulkanOpenTest, DeviceOfVulkan10IsPassedOver) {
  static int asked;
  asked = 0;
  loader.GetPhysicalDeviceProperties2 = [](VkPhysicalDevice, VkPhysicalDeviceProperties2*) { ++asked; };
  loader.GetPhysicalDeviceFeatures2 = [](VkPhysicalDevice, VkPhysicalDeviceFeatures2*) { ++asked; };
  loader.GetPhysicalDeviceProperties = [](VkPhysicalDevice device, VkPhysicalDeviceProperties* properties) {
    real.GetPhysicalDeviceProperties(device, properties);
    properties->apiVersion = VK_MAKE_API_VERSION(0, 1, 0, 99);
  };
  const auto devices = find(loader);
  ASSERT_FALSE(devices);
  EXPECT_EQ(devices.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(devices.error().message().find("is Vulkan 1.0.99, 1.1 is needed"), std::string::npos) << devices.error().message();
  EXPECT_EQ(asked, 0);
}

// One device three times: too old, a CPU, a GPU.
TEST_F(VulkanOpenTest, UsableDevicesAreTakenGpusFirst) {
  static int asked;
  asked = 0;
  loader.EnumeratePhysicalDevices = [](VkInstance of, uint32_t* count, VkPhysicalDevice* devices) -> VkResult {
    uint32_t one = 1;
    VkPhysicalDevice first = VK_NULL_HANDLE;
    (void)real.EnumeratePhysicalDevices(of, &one, &first);
    *count = 3;
    if (devices != nullptr) devices[0] = devices[1] = devices[2] = first;
    return VK_SUCCESS;
  };
  loader.GetPhysicalDeviceProperties = [](VkPhysicalDevice device, VkPhysicalDeviceProperties* properties) {
    real.GetPhysicalDeviceProperties(device, properties);
    if (asked == 0) properties->apiVersion = VK_API_VERSION_1_0;
    properties->deviceType = asked == 1 ? VK_PHYSICAL_DEVICE_TYPE_CPU : VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
    ++asked;
  };
  const auto devices = find(loader);
  ASSERT_TRUE(devices) << devices.error().message();
  ASSERT_EQ(devices->size(), 2u);
  EXPECT_FALSE(devices->at(0).info.is_cpu);
  EXPECT_TRUE(devices->at(1).info.is_cpu);
}

TEST_F(VulkanOpenTest, DeviceThatCannotBeCreatedNamesCallAndCode) {
  api.CreateDevice = [](VkPhysicalDevice, const VkDeviceCreateInfo*, const VkAllocationCallbacks*, VkDevice*) -> VkResult { return VK_ERROR_EXTENSION_NOT_PRESENT; };
  const auto opened = try_open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(opened.error().message().find("vkCreateDevice"), std::string::npos);
  EXPECT_NE(opened.error().message().find("VK_ERROR_EXTENSION_NOT_PRESENT (-7)"), std::string::npos) << opened.error().message();
}

TEST_F(VulkanOpenTest, DriverWithoutAFunctionNamesItAndIsClosed) {
  watch();
  api.GetDeviceProcAddr = [](VkDevice of, const char* name) -> PFN_vkVoidFunction {
    return std::strcmp(name, "vkCmdDispatch") == 0 ? nullptr : real.GetDeviceProcAddr(of, name);
  };
  const auto opened = try_open();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(opened.error().message().find("vkCmdDispatch"), std::string::npos);
  expect_nothing_left("a missing function");
}

}  // namespace
}  // namespace tessera::gpu
