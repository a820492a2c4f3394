// The real Vulkan driver with single functions replaced: that is how tests make it fail.
#pragma once
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "../../src/vulkan/vulkan_device.hpp"
#include "tessera/base/text.hpp"

namespace tessera::gpu {

using vulkan::VulkanApi;

inline VulkanApi real;   // for functions of the tests that do what the driver does, and something besides

// Device function `Member`, counted, which fails when its turn has come.
struct Calls {
  int count = 0;
  int made = 0;
  int failing = 0;   // the call of this number fails: 1, 2, 3…; 0: none
  VkResult code = VK_ERROR_OUT_OF_DEVICE_MEMORY;
};
template <auto Member>
struct Watched;
template <class... Args, VkResult(VKAPI_PTR* VulkanApi::*Member)(Args...)>
struct Watched<Member> {
  static inline Calls calls;
  static VKAPI_ATTR VkResult VKAPI_CALL call(Args... args) {
    if (++calls.count == calls.failing) return calls.code;
    const VkResult code = (real.*Member)(args...);
    if (code == VK_SUCCESS) ++calls.made;
    return code;
  }
};
template <class... Args, void(VKAPI_PTR* VulkanApi::*Member)(Args...)>
struct Watched<Member> {
  static inline Calls calls;
  static VKAPI_ATTR void VKAPI_CALL call(Args... args) {
    ++calls.made;
    (real.*Member)(args...);
  }
};

// clang-format off
#define TESSERA_TEST_PAIRS(PAIR)                                                                                                                 \
  PAIR(CreateDevice, DestroyDevice) PAIR(CreateCommandPool, DestroyCommandPool) PAIR(AllocateMemory, FreeMemory) PAIR(CreateBuffer, DestroyBuffer) \
  PAIR(CreateBufferView, DestroyBufferView) PAIR(CreateImage, DestroyImage) PAIR(CreateImageView, DestroyImageView)                                \
  PAIR(CreateShaderModule, DestroyShaderModule) PAIR(CreatePipelineCache, DestroyPipelineCache) PAIR(CreateComputePipelines, DestroyPipeline)      \
  PAIR(CreatePipelineLayout, DestroyPipelineLayout) PAIR(CreateDescriptorSetLayout, DestroyDescriptorSetLayout)                                   \
  PAIR(CreateDescriptorPool, DestroyDescriptorPool) PAIR(CreateQueryPool, DestroyQueryPool) PAIR(CreateFence, DestroyFence)
#define TESSERA_TEST_OTHERS(CALL)                                                                                                       \
  CALL(MapMemory) CALL(BindBufferMemory) CALL(BindImageMemory) CALL(AllocateDescriptorSets) CALL(AllocateCommandBuffers) CALL(BeginCommandBuffer) \
  CALL(EndCommandBuffer) CALL(QueueSubmit) CALL(ResetFences) CALL(WaitForFences) CALL(GetQueryPoolResults) CALL(GetPipelineCacheData)
// clang-format on

struct Pair {
  const char* created;
  Calls* create;
  Calls* destroy;
};
#define TESSERA_TEST_ROW(create, destroy) Pair{"vk" #create, &Watched<&VulkanApi::create>::calls, &Watched<&VulkanApi::destroy>::calls},
inline const Pair kPairs[] = {TESSERA_TEST_PAIRS(TESSERA_TEST_ROW)};
#undef TESSERA_TEST_ROW

struct Fault {
  const char* name;
  Calls* calls;
};
#define TESSERA_TEST_PAIR(create, destroy) Fault{"vk" #create, &Watched<&VulkanApi::create>::calls},
#define TESSERA_TEST_CALL(name) Fault{"vk" #name, &Watched<&VulkanApi::name>::calls},
inline const Fault kFaults[] = {TESSERA_TEST_PAIRS(TESSERA_TEST_PAIR) TESSERA_TEST_OTHERS(TESSERA_TEST_CALL)};
#undef TESSERA_TEST_PAIR
#undef TESSERA_TEST_CALL

class VulkanFaultTest : public testing::Test {
 protected:
  void SetUp() override {
    auto loaded = vulkan::load_api(vulkan::library_candidates());
    if (!loaded) GTEST_SKIP() << "no Vulkan loader: " << loaded.error().message();
    loader = *loaded;
    auto made = vulkan::Instance::create(loader);
    if (!made) GTEST_SKIP() << "no Vulkan driver: " << made.error().message();
    instance = *made;
    auto devices = vulkan::find_devices(*instance);
    if (!devices) GTEST_SKIP() << "no Vulkan device: " << devices.error().message();
    found = devices->front();
    real = api = instance->api();
#define TESSERA_TEST_FIND(name) real.name = reinterpret_cast<PFN_vk##name>(loader.GetInstanceProcAddr(instance->get(), "vk" #name));
    TESSERA_VULKAN_DEVICE_CALLS(TESSERA_TEST_FIND)
#undef TESSERA_TEST_FIND
  }

  // Every function whose failures or calls are looked at.
  void watch() {
#define TESSERA_TEST_CALL(name) api.name = Watched<&VulkanApi::name>::call, Watched<&VulkanApi::name>::calls = {};
#define TESSERA_TEST_PAIR(create, destroy) TESSERA_TEST_CALL(create) TESSERA_TEST_CALL(destroy)
    TESSERA_TEST_PAIRS(TESSERA_TEST_PAIR) TESSERA_TEST_OTHERS(TESSERA_TEST_CALL)
#undef TESSERA_TEST_PAIR
#undef TESSERA_TEST_CALL
  }
  static void expect_nothing_left(const std::string& after) {
    for (const Pair& pair : kPairs) EXPECT_EQ(pair.create->made, pair.destroy->made) << pair.created << " after " << after;
  }

  Result<std::unique_ptr<vulkan::VulkanDevice>> try_open() { return vulkan::VulkanDevice::open(instance, api, found); }
  std::unique_ptr<Device> open() {
    auto opened = try_open();
    EXPECT_TRUE(opened) << opened.error().message();
    return std::move(*opened);
  }
  // The devices that an instance with these functions shows.
  Result<std::vector<vulkan::FoundDevice>> find(const VulkanApi& with) {
    auto made = vulkan::Instance::create(with);
    if (!made) return fail(made.error());
    return vulkan::find_devices(**made);
  }

  VulkanApi loader;   // as loaded: an instance fills in the rest
  VulkanApi api;      // as the instance's: a device fills in the rest
  std::shared_ptr<vulkan::Instance> instance;
  vulkan::FoundDevice found;
};

}  // namespace tessera::gpu
