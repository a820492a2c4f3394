// Compiled programs of the Vulkan backend.
#pragma once
#include <memory>

#include "vulkan_driver.hpp"

namespace tessera::vulkan {

class VulkanKernel final : public gpu::Kernel {
 public:
  // GLSL → SPIR-V → pipeline.
  static Result<std::unique_ptr<VulkanKernel>> compile(Driver& driver, const LoweredKernel& lowered);
  // From what binary() gave: the SPIR-V and the driver's own pipeline cache, which spares it the compilation.
  static Result<std::unique_ptr<VulkanKernel>> load(Driver& driver, const LoweredKernel& lowered, std::span<const std::byte> binary);

  const LoweredKernel& lowered() const override { return lowered_; }
  Result<std::vector<std::byte>> binary() const override;

  const Driver& driver() const { return driver_; }
  VkPipeline pipeline() const { return pipeline_.get(); }
  VkPipelineLayout layout() const { return layout_.get(); }
  VkDescriptorSetLayout set_layout() const { return set_layout_.get(); }

 private:
  VulkanKernel(Driver& driver, const LoweredKernel& lowered, std::vector<uint32_t> spirv) : driver_(driver), lowered_(lowered), spirv_(std::move(spirv)) {}
  static Result<std::unique_ptr<VulkanKernel>> build(Driver& driver, const LoweredKernel& lowered, std::vector<uint32_t> spirv, std::span<const std::byte> cache);
  Status check() const;
  Status make_layouts();
  Status make_pipeline(std::span<const std::byte> cache);

  Driver& driver_;
  LoweredKernel lowered_;
  std::vector<uint32_t> spirv_;
  Handle<VkDescriptorSetLayout> set_layout_;
  Handle<VkPipelineLayout> layout_;
  Handle<VkPipelineCache> cache_;   // of this pipeline alone, so that the program cache can keep it beside the SPIR-V
  Handle<VkPipeline> pipeline_;
};

// How a slot is bound.
VkDescriptorType descriptor_type(const KernelSlot& slot);

}  // namespace tessera::vulkan
