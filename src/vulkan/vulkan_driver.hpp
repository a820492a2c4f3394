// What everything made by one Vulkan device shares: functions, handles, counters, error mapping, and how far the queue has got.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "tessera/gpu/gpu.hpp"
#include "vulkan_info.hpp"

namespace tessera::vulkan {

// Owns a driver object of a device, which must outlive it.
template <class Raw>
class Handle {
 public:
  using Destroy = void(VKAPI_PTR*)(VkDevice, Raw, const VkAllocationCallbacks*);
  Handle() = default;
  Handle(VkDevice device, Raw raw, Destroy destroy) : device_(device), raw_(raw), destroy_(destroy) {}
  Handle(Handle&& other) noexcept : device_(other.device_), raw_(std::exchange(other.raw_, Raw{})), destroy_(other.destroy_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(raw_, other.raw_);
    std::swap(destroy_, other.destroy_);
    return *this;
  }
  ~Handle() {
    if (raw_ != Raw{}) destroy_(device_, raw_, nullptr);
  }
  Raw get() const { return raw_; }
  explicit operator bool() const { return raw_ != Raw{}; }

 private:
  VkDevice device_ = VK_NULL_HANDLE;
  Raw raw_{};
  Destroy destroy_ = nullptr;
};

class Driver {
 public:
  // `api` as the instance's, or with functions replaced: that is how tests make a driver fail.
  static Result<std::unique_ptr<Driver>> open(std::shared_ptr<Instance> instance, const VulkanApi& api, const FoundDevice& found);
  Driver(const Driver&) = delete;
  ~Driver();

  VulkanApi vk;
  FoundDevice found;
  VkPhysicalDeviceLimits limits{};
  std::string compile_options;
  gpu::Counters counters;
  VkDevice device = VK_NULL_HANDLE;
  VkQueue queue = VK_NULL_HANDLE;

  const DeviceInfo& info() const { return found.info; }

  // kDeviceLost once the device has been lost.
  Status alive() const;
  // The error of a driver call. VK_ERROR_DEVICE_LOST marks the device lost.
  Status check(VkResult code, std::string_view call);

  // `create(device, &info, nullptr, &made)` as an owner of what it made.
  template <class Raw, class Info>
  Result<Handle<Raw>> make(VkResult(VKAPI_PTR* create)(VkDevice, const Info*, const VkAllocationCallbacks*, Raw*), const Info& info, typename Handle<Raw>::Destroy destroy,
                           std::string_view call) {
    Raw raw{};
    TESSERA_TRY(check(create(device, &info, nullptr, &raw), call));
    return Handle<Raw>(device, raw, destroy);
  }
  Result<Handle<VkFence>> make_fence();
  Result<VkCommandBuffer> make_commands();   // freed with the driver, or by free_commands()
  void free_commands(VkCommandBuffer commands);

  // Hands `commands` to the queue; `fence` (not pending) tells when they are done. The stamp counts submissions: 1, 2, 3…
  Result<uint64_t> submit(std::span<const VkCommandBuffer> commands, VkFence fence);
  // A fence covers every submission before its own, so that waiting for one completes all of them.
  Status wait(VkFence fence, uint64_t stamp);
  // Waits for everything submitted; free when nothing is in flight.
  Status drain();
  // For what is destroyed after a wait that failed: until the queue uses nothing. Ends in finite time on a lost device too.
  void wait_idle();
  bool in_flight(uint64_t stamp) const { return stamp > completed_; }

  void note_memory(int64_t bytes);   // positive: created; negative: released

 private:
  Driver() = default;
  Status create_device();

  std::shared_ptr<Instance> instance_;
  Handle<VkCommandPool> pool_;
  bool lost_ = false;   // sticky
  uint64_t issued_ = 0;
  uint64_t completed_ = 0;
  VkFence last_fence_ = VK_NULL_HANDLE;   // of submission `issued_`; it is waited for before its owner destroys it
};

}  // namespace tessera::vulkan
