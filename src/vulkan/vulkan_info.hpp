// The Vulkan devices of this machine, their facts, and which of their features are switched on.
#pragma once
#include <memory>
#include <vector>

#include "tessera/device/device_info.hpp"
#include "vulkan_api.hpp"

namespace tessera::vulkan {

// Owns the instance; its table has the instance's functions.
class Instance {
 public:
  // `api`: as load_api() gives it. kNotFound: the loader finds no driver; kUnsupported: it is older than Vulkan 1.1.
  static Result<std::shared_ptr<Instance>> create(VulkanApi api);
  Instance(const Instance&) = delete;
  ~Instance();

  const VulkanApi& api() const { return api_; }
  VkInstance get() const { return instance_; }

 private:
  Instance(const VulkanApi& api, VkInstance instance) : api_(api), instance_(instance) {}
  VulkanApi api_;
  VkInstance instance_;
};

struct FoundDevice {
  VkPhysicalDevice id = VK_NULL_HANDLE;
  DeviceInfo info;
  uint32_t queue_family = 0;
  uint32_t timestamp_bits = 0;              // of that queue's timestamps; 0: none
  double nanoseconds_per_tick = 0.0;
  bool integer_dot = false;                 // packed dots can be switched on (VK_KHR_shader_integer_dot_product or Vulkan 1.3)
  std::vector<const char*> extensions;      // to be switched on, because a feature below needs them
  std::string pipeline_identity;            // pipelineCacheUUID as hex: part of every cache key
};

// Usable devices (Vulkan 1.1 or newer, with a queue that computes), GPUs before CPUs, else in the loader's order. kNotFound when there is none, saying
// which were passed over and why.
Result<std::vector<FoundDevice>> find_devices(const Instance& instance);

}  // namespace tessera::vulkan
