#include "vulkan_kernel.hpp"

#include <algorithm>
#include <cstring>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "glsl_compiler.hpp"
#include "tessera/base/text.hpp"

namespace tessera::vulkan {
namespace {

// What SPIR-V may declare, by what has to be switched on for it. Some drivers compile what they do not have without a word.
struct CapabilityRow {
  uint32_t capability;   // SPIR-V specification, section 3.31
  std::string_view name;
  bool (*there)(const FoundDevice& found);
};

constexpr CapabilityRow kCapabilities[] = {
    {1, "Shader", [](const FoundDevice&) { return true; }},
    {9, "Float16", [](const FoundDevice& f) { return f.info.fp16_arithmetic; }},
    {46, "SampledBuffer", [](const FoundDevice&) { return true; }},
    {47, "ImageBuffer", [](const FoundDevice&) { return true; }},
    {50, "ImageQuery", [](const FoundDevice&) { return true; }},
    {61, "GroupNonUniform", [](const FoundDevice& f) { return f.info.subgroup_max > 0; }},
    {63, "GroupNonUniformArithmetic", [](const FoundDevice& f) { return f.info.subgroup_max > 0; }},
    {4433, "StorageBuffer16BitAccess", [](const FoundDevice& f) { return f.info.storage_16bit; }},
    {4448, "StorageBuffer8BitAccess", [](const FoundDevice& f) { return f.info.storage_8bit; }},
    {6018, "DotProductInput4x8BitPacked", [](const FoundDevice& f) { return f.integer_dot; }},
    {6019, "DotProduct", [](const FoundDevice& f) { return f.integer_dot; }},
};

// The numbers of the OpCapability instructions, which stand first in a module (SPIR-V specification, section 2.4). Empty for what is no module.
std::vector<uint32_t> capabilities_of(std::span<const uint32_t> spirv) {
  constexpr uint32_t kMagic = 0x07230203, kOpCapability = 17;
  constexpr size_t kHeaderWords = 5;
  std::vector<uint32_t> found;
  if (spirv.size() < kHeaderWords || spirv[0] != kMagic) return found;
  for (size_t at = kHeaderWords; at + 1 < spirv.size() && (spirv[at] & 0xffff) == kOpCapability; at += 2) found.push_back(spirv[at + 1]);
  return found;
}

// A binary: this, the SPIR-V, and for the rest the pipeline cache. The checksum is of all that follows: drivers crash on damaged SPIR-V.
struct BinaryPrefix {
  uint64_t checksum = 0;
  uint64_t words = 0;   // of SPIR-V
};

uint64_t checksum_of(std::span<const std::byte> binary) { return XXH3_64bits(binary.data() + sizeof(uint64_t), binary.size() - sizeof(uint64_t)); }

}  // namespace

VkDescriptorType descriptor_type(const KernelSlot& slot) {
  if (!is_image(slot.storage)) return VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
  if (slot.storage == Storage::kImageBuffer) return slot.written ? VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER : VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER;
  return slot.written ? VK_DESCRIPTOR_TYPE_STORAGE_IMAGE : VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE;
}

Result<std::unique_ptr<VulkanKernel>> VulkanKernel::compile(Driver& driver, const LoweredKernel& lowered) {
  TESSERA_ASSIGN(std::vector<uint32_t> spirv, compile_glsl(lowered.text, lowered.entry));
  TESSERA_ASSIGN(std::unique_ptr<VulkanKernel> kernel, build(driver, lowered, std::move(spirv), {}));
  ++driver.counters.programs_compiled;
  return kernel;
}

Result<std::unique_ptr<VulkanKernel>> VulkanKernel::load(Driver& driver, const LoweredKernel& lowered, std::span<const std::byte> binary) {
  BinaryPrefix prefix;
  if (binary.size() < sizeof prefix) return fail(ErrorCode::kMalformed, "a program binary that is cut short");
  std::memcpy(&prefix, binary.data(), sizeof prefix);
  const std::span<const std::byte> content = binary.subspan(sizeof prefix);
  if (prefix.checksum != checksum_of(binary) || prefix.words > content.size() / 4) return fail(ErrorCode::kMalformed, "a program binary that is damaged");
  std::vector<uint32_t> spirv(prefix.words);
  std::memcpy(spirv.data(), content.data(), prefix.words * 4);
  TESSERA_ASSIGN(std::unique_ptr<VulkanKernel> kernel, build(driver, lowered, std::move(spirv), content.subspan(prefix.words * 4)));
  ++driver.counters.programs_loaded;
  return kernel;
}

Result<std::unique_ptr<VulkanKernel>> VulkanKernel::build(Driver& driver, const LoweredKernel& lowered, std::vector<uint32_t> spirv, std::span<const std::byte> cache) {
  std::unique_ptr<VulkanKernel> kernel(new VulkanKernel(driver, lowered, std::move(spirv)));
  const auto named = [&](Status status) -> Status { return status ? status : fail(std::move(status).error().within(cat("kernel '", lowered.entry, "'"))); };
  TESSERA_TRY(named(kernel->check()));
  TESSERA_TRY(named(kernel->make_layouts()));
  TESSERA_TRY(named(kernel->make_pipeline(cache)));
  ++driver.counters.kernels_created;
  return kernel;
}

Status VulkanKernel::check() const {
  const std::vector<uint32_t> capabilities = capabilities_of(spirv_);
  if (capabilities.empty()) return fail(ErrorCode::kMalformed, "its binary is no SPIR-V module");
  for (const uint32_t capability : capabilities) {
    const auto row = std::find_if(std::begin(kCapabilities), std::end(kCapabilities), [&](const CapabilityRow& r) { return r.capability == capability; });
    if (row == std::end(kCapabilities)) return fail(ErrorCode::kUnsupported, cat("it needs the SPIR-V capability ", capability, ", which no word of the dialect should"));
    if (!row->there(driver_.found)) return fail(ErrorCode::kUnsupported, cat("it needs ", row->name, ", which ", driver_.info().name, " does not have"));
  }
  const DeviceInfo& info = driver_.info();
  const auto [x, y, z] = lowered_.workgroup;
  const auto& most = info.max_workgroup_extent;
  if (int64_t{x} * y * z > info.max_workgroup_size || x > most[0] || y > most[1] || z > most[2])
    return fail(ErrorCode::kLimit, cat("a workgroup of ", x, " x ", y, " x ", z, "; ", info.name, " allows ", info.max_workgroup_size, " lanes, ", most[0], " x ", most[1], " x ", most[2]));
  const auto bytes = static_cast<int64_t>(lowered_.args.size() * 4);
  if (bytes > info.max_argument_bytes) return fail(ErrorCode::kLimit, cat(bytes, " bytes of args; ", info.name, " allows ", info.max_argument_bytes));
  // Every kind of binding has a limit of its own; each is at least 4.
  const VkPhysicalDeviceLimits& limits = driver_.limits;
  const auto count = [&](auto... types) {
    return static_cast<uint32_t>(std::count_if(lowered_.slots.begin(), lowered_.slots.end(), [&](const KernelSlot& slot) { return ((descriptor_type(slot) == types) || ...); }));
  };
  const std::pair<uint32_t, uint32_t> counts[] = {
      {count(VK_DESCRIPTOR_TYPE_STORAGE_BUFFER), limits.maxPerStageDescriptorStorageBuffers},
      {count(VK_DESCRIPTOR_TYPE_SAMPLED_IMAGE, VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER), limits.maxPerStageDescriptorSampledImages},
      {count(VK_DESCRIPTOR_TYPE_STORAGE_IMAGE, VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER), limits.maxPerStageDescriptorStorageImages},
      {static_cast<uint32_t>(lowered_.slots.size()), limits.maxPerStageResources}};
  for (const auto& [used, allowed] : counts)
    if (used > allowed) return fail(ErrorCode::kLimit, cat(used, " bindings of a kind; ", info.name, " allows ", allowed));
  return {};
}

Status VulkanKernel::make_layouts() {
  std::vector<VkDescriptorSetLayoutBinding> bindings;
  for (const KernelSlot& slot : lowered_.slots)
    bindings.push_back({static_cast<uint32_t>(bindings.size()), descriptor_type(slot), 1, VK_SHADER_STAGE_COMPUTE_BIT, nullptr});
  VkDescriptorSetLayoutCreateInfo set{};
  set.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO;
  set.bindingCount = static_cast<uint32_t>(bindings.size());
  set.pBindings = bindings.data();
  TESSERA_ASSIGN(set_layout_, driver_.make<VkDescriptorSetLayout>(driver_.vk.CreateDescriptorSetLayout, set, driver_.vk.DestroyDescriptorSetLayout, "vkCreateDescriptorSetLayout"));
  const VkPushConstantRange args{VK_SHADER_STAGE_COMPUTE_BIT, 0, static_cast<uint32_t>(lowered_.args.size() * 4)};
  const VkDescriptorSetLayout sets[] = {set_layout_.get()};
  VkPipelineLayoutCreateInfo layout{};
  layout.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
  layout.setLayoutCount = 1;
  layout.pSetLayouts = sets;
  layout.pushConstantRangeCount = args.size > 0 ? 1 : 0;
  layout.pPushConstantRanges = &args;
  TESSERA_ASSIGN(layout_, driver_.make<VkPipelineLayout>(driver_.vk.CreatePipelineLayout, layout, driver_.vk.DestroyPipelineLayout, "vkCreatePipelineLayout"));
  return {};
}

Status VulkanKernel::make_pipeline(std::span<const std::byte> cache) {
  VkPipelineCacheCreateInfo kept{};
  kept.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO;
  kept.initialDataSize = cache.size();
  kept.pInitialData = cache.data();
  TESSERA_ASSIGN(cache_, driver_.make<VkPipelineCache>(driver_.vk.CreatePipelineCache, kept, driver_.vk.DestroyPipelineCache, "vkCreatePipelineCache"));
  VkShaderModuleCreateInfo code{};
  code.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
  code.codeSize = spirv_.size() * 4;
  code.pCode = spirv_.data();
  TESSERA_ASSIGN(const Handle<VkShaderModule> module, driver_.make<VkShaderModule>(driver_.vk.CreateShaderModule, code, driver_.vk.DestroyShaderModule, "vkCreateShaderModule"));
  VkComputePipelineCreateInfo create{};
  create.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
  create.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  create.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  create.stage.module = module.get();
  create.stage.pName = "main";
  create.layout = layout_.get();
  VkPipeline made = VK_NULL_HANDLE;
  TESSERA_TRY(driver_.check(driver_.vk.CreateComputePipelines(driver_.device, cache_.get(), 1, &create, nullptr, &made), "vkCreateComputePipelines"));
  pipeline_ = Handle<VkPipeline>(driver_.device, made, driver_.vk.DestroyPipeline);
  return {};
}

Result<std::vector<std::byte>> VulkanKernel::binary() const {
  size_t cache_bytes = 0;
  TESSERA_TRY(driver_.check(driver_.vk.GetPipelineCacheData(driver_.device, cache_.get(), &cache_bytes, nullptr), "vkGetPipelineCacheData"));
  const size_t spirv_bytes = spirv_.size() * 4, cache_at = sizeof(BinaryPrefix) + spirv_bytes;
  std::vector<std::byte> bytes(cache_at + cache_bytes);
  std::memcpy(bytes.data() + sizeof(BinaryPrefix), spirv_.data(), spirv_bytes);
  TESSERA_TRY(driver_.check(driver_.vk.GetPipelineCacheData(driver_.device, cache_.get(), &cache_bytes, bytes.data() + cache_at), "vkGetPipelineCacheData"));
  bytes.resize(cache_at + cache_bytes);
  BinaryPrefix prefix{0, spirv_.size()};
  std::memcpy(bytes.data(), &prefix, sizeof prefix);
  prefix.checksum = checksum_of(bytes);
  std::memcpy(bytes.data(), &prefix, sizeof prefix);
  return bytes;
}

}  // namespace tessera::vulkan
