// The Vulkan loader and driver as a table of functions, found at run time: nothing links against libvulkan, so one binary starts with or without a
// driver. The table is an object, not a set of globals: it cannot collide with an app's own Vulkan, and tests replace single functions of a copy.
// Only src/vulkan sees this header.
#pragma once
#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"

namespace tessera::vulkan {

// Every function that is called, all of Vulkan 1.1, by what it is looked up with: nothing, the instance, the device.
// clang-format off
#define TESSERA_VULKAN_GLOBAL_CALLS(CALL) CALL(EnumerateInstanceVersion) CALL(CreateInstance)
#define TESSERA_VULKAN_INSTANCE_CALLS(CALL)                                                                                            \
  CALL(DestroyInstance) CALL(EnumeratePhysicalDevices) CALL(GetPhysicalDeviceProperties) CALL(GetPhysicalDeviceProperties2)            \
  CALL(GetPhysicalDeviceFeatures2) CALL(GetPhysicalDeviceMemoryProperties) CALL(GetPhysicalDeviceQueueFamilyProperties)                \
  CALL(GetPhysicalDeviceFormatProperties) CALL(EnumerateDeviceExtensionProperties) CALL(CreateDevice) CALL(GetDeviceProcAddr)
#define TESSERA_VULKAN_DEVICE_CALLS(CALL)                                                                                              \
  CALL(DestroyDevice) CALL(GetDeviceQueue) CALL(DeviceWaitIdle) CALL(QueueSubmit) CALL(AllocateMemory) CALL(FreeMemory) CALL(MapMemory) \
  CALL(CreateBuffer) CALL(DestroyBuffer) CALL(GetBufferMemoryRequirements) CALL(BindBufferMemory) CALL(CreateBufferView)               \
  CALL(DestroyBufferView) CALL(CreateImage) CALL(DestroyImage) CALL(GetImageMemoryRequirements) CALL(BindImageMemory)                  \
  CALL(CreateImageView) CALL(DestroyImageView) CALL(CreateShaderModule) CALL(DestroyShaderModule) CALL(CreatePipelineCache)            \
  CALL(DestroyPipelineCache) CALL(GetPipelineCacheData) CALL(CreateComputePipelines) CALL(DestroyPipeline) CALL(CreatePipelineLayout)  \
  CALL(DestroyPipelineLayout) CALL(CreateDescriptorSetLayout) CALL(DestroyDescriptorSetLayout) CALL(CreateDescriptorPool)              \
  CALL(DestroyDescriptorPool) CALL(AllocateDescriptorSets) CALL(UpdateDescriptorSets) CALL(CreateCommandPool) CALL(DestroyCommandPool) \
  CALL(AllocateCommandBuffers) CALL(FreeCommandBuffers) CALL(BeginCommandBuffer) CALL(EndCommandBuffer) CALL(CmdPipelineBarrier)       \
  CALL(CmdBindPipeline) CALL(CmdBindDescriptorSets) CALL(CmdPushConstants) CALL(CmdDispatch) CALL(CmdCopyBuffer) CALL(CmdFillBuffer)   \
  CALL(CmdCopyBufferToImage) CALL(CmdCopyImageToBuffer) CALL(CmdResetQueryPool) CALL(CmdWriteTimestamp) CALL(CreateQueryPool)          \
  CALL(DestroyQueryPool) CALL(GetQueryPoolResults) CALL(CreateFence) CALL(DestroyFence) CALL(ResetFences) CALL(WaitForFences)
// clang-format on

struct VulkanApi {
  PFN_vkGetInstanceProcAddr GetInstanceProcAddr = nullptr;
#define TESSERA_DECLARE_CALL(name) PFN_vk##name name = nullptr;
  TESSERA_VULKAN_GLOBAL_CALLS(TESSERA_DECLARE_CALL)
  TESSERA_VULKAN_INSTANCE_CALLS(TESSERA_DECLARE_CALL)
  TESSERA_VULKAN_DEVICE_CALLS(TESSERA_DECLARE_CALL)
#undef TESSERA_DECLARE_CALL
};

// Where the loader may be, in the order to try. $TESSERA_VULKAN_LIBRARY, when set, is the only candidate: a wrong path must not be papered over.
std::vector<std::string> library_candidates();

// The functions that need no instance. kNotFound (naming what was tried and what to install) when no candidate opens; kUnsupported when one is no
// Vulkan 1.1 loader. The library stays open for the life of the process: several drivers crash when they are unloaded.
Result<VulkanApi> load_api(std::span<const std::string> candidates);

// Fill the functions of `instance`, then of `device`; what is there already stays, so that a test's own functions do. kUnsupported names a missing one.
Status load_instance_calls(VulkanApi& api, VkInstance instance);
Status load_device_calls(VulkanApi& api, VkDevice device);

// What a user does about a missing driver.
std::string_view install_advice();

// "VK_ERROR_DEVICE_LOST (-4)"
std::string result_text(VkResult code);
ErrorCode error_code(VkResult code);

}  // namespace tessera::vulkan
