// The Vulkan backend's Device.
#pragma once
#include <memory>

#include "vulkan_memory.hpp"

namespace tessera::vulkan {

class VulkanDevice final : public gpu::Device {
 public:
  // `api`: the instance's table, or a copy with functions replaced: that is how tests make a driver fail.
  static Result<std::unique_ptr<VulkanDevice>> open(std::shared_ptr<Instance> instance, const VulkanApi& api, const FoundDevice& found);
  ~VulkanDevice() override;

  const DeviceInfo& info() const override { return driver_->info(); }
  Target target() const override { return Target::kGlsl; }
  std::string_view compile_options() const override { return driver_->compile_options; }
  const gpu::Counters& counters() const override { return driver_->counters; }

  Result<std::unique_ptr<gpu::Buffer>> create_buffer(int64_t bytes) override;
  Result<std::unique_ptr<gpu::Image>> create_image(const Layout& layout) override;
  Result<std::unique_ptr<gpu::Kernel>> compile(const LoweredKernel& lowered) override;
  Result<std::unique_ptr<gpu::Kernel>> load(const LoweredKernel& lowered, std::span<const std::byte> binary) override;
  Result<std::unique_ptr<gpu::CommandList>> create_list() override;

  Status write(gpu::Buffer& buffer, int64_t offset, std::span<const std::byte> bytes) override;
  Status read(const gpu::Buffer& buffer, int64_t offset, std::span<std::byte> bytes) override;
  Status fill_zero(gpu::Buffer& buffer, int64_t offset, int64_t bytes) override;
  Status copy(std::span<const gpu::BufferCopy> copies) override;
  Status write_rows(gpu::Image& image, int64_t row, int64_t rows, std::span<const std::byte> bytes) override;
  Status read_rows(const gpu::Image& image, int64_t row, int64_t rows, std::span<std::byte> bytes) override;

  Result<gpu::Fence*> submit(gpu::CommandList& list, const gpu::SubmitOptions& options) override;

 private:
  explicit VulkanDevice(std::unique_ptr<Driver> driver) : driver_(std::move(driver)), heap_(*driver_), transfers_(*driver_, heap_) {}

  std::unique_ptr<Driver> driver_;  // its address is what objects of this device know it by
  Heap heap_;
  Transfers transfers_;
};

}  // namespace tessera::vulkan
