// Recorded work of the Vulkan backend: one command buffer, recorded when the list is finished and submitted as it is from then on.
#pragma once
#include <memory>
#include <string>

#include "vulkan_kernel.hpp"

namespace tessera::vulkan {

class VulkanFence final : public gpu::Fence {
 public:
  explicit VulkanFence(Driver& driver) : driver_(driver) {}

  Status wait() override { return driver_.wait(fence_.get(), stamp_); }
  std::vector<double> dispatch_microseconds() const override { return microseconds_; }

 private:
  friend class VulkanCommandList;
  Driver& driver_;
  Handle<VkFence> fence_;
  uint64_t stamp_ = 0;
  std::vector<double> microseconds_;
};

class VulkanCommandList final : public gpu::CommandList {
 public:
  explicit VulkanCommandList(Driver& driver) : driver_(driver), fence_(driver) {}
  ~VulkanCommandList() override;

  Status dispatch(const gpu::DispatchInfo& info) override;
  Status finish() override;
  size_t size() const override { return dispatches_.size(); }

  const Driver& driver() const { return driver_; }
  // Returns once the work is handed over.
  Result<gpu::Fence*> submit(int32_t times);
  // The same work with a timestamp and a full barrier after every dispatch, recorded when it is first asked for. Waits.
  Result<gpu::Fence*> submit_profiled();

 private:
  struct Recorded {
    const VulkanKernel* kernel;
    std::vector<gpu::Binding> bindings;
    std::vector<uint32_t> args;
    std::array<uint32_t, 3> workgroups;
    bool barrier;
    VkDescriptorSet set = VK_NULL_HANDLE;
  };

  Status check_bindings(const LoweredKernel& lowered, const std::vector<gpu::Binding>& bindings) const;
  Status make_sets();
  void write_set(const Recorded& dispatch) const;
  // `timestamps`: null, or where each dispatch's end is written, after the start of all.
  Result<VkCommandBuffer> record(VkQueryPool timestamps);
  Status make_timestamps();
  Status read_timestamps();
  Status submittable();

  Driver& driver_;
  VulkanFence fence_;
  std::vector<Recorded> dispatches_;
  Handle<VkDescriptorPool> pool_;
  Handle<VkQueryPool> timestamps_;
  std::vector<VkCommandBuffer> commands_;   // as often as the list ran in one submission; all alike
  VkCommandBuffer profiled_ = VK_NULL_HANDLE;
  bool finished_ = false;
};

}  // namespace tessera::vulkan
