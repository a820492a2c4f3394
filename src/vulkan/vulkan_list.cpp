#include "vulkan_list.hpp"

#include <algorithm>
#include <map>

#include "gpu/checks.hpp"
#include "tessera/base/text.hpp"
#include "vulkan_memory.hpp"

namespace tessera::vulkan {
namespace {

Status check_buffer(const Driver& driver, const gpu::Binding& binding) {
  const auto* buffer = dynamic_cast<const VulkanBuffer*>(binding.buffer);
  if (binding.image != nullptr || buffer == nullptr || &buffer->driver() != &driver)
    return fail(ErrorCode::kInvalidArgument, "needs a buffer of this device");
  TESSERA_TRY(gpu::check_binding(binding.offset, binding.bytes, buffer->bytes(), driver.info()));
  if (binding.bytes <= driver.info().max_binding_bytes) return {};
  return fail(ErrorCode::kLimit, cat("a binding of ", binding.bytes, " bytes; ", driver.info().name, " allows ", driver.info().max_binding_bytes));
}

Status check_image(const Driver& driver, const gpu::Binding& binding, const KernelSlot& slot) {
  const auto* image = dynamic_cast<const VulkanImage*>(binding.image);
  if (binding.buffer != nullptr || image == nullptr || &image->driver() != &driver)
    return fail(ErrorCode::kInvalidArgument, "needs an image of this device");
  return gpu::check_bound_image(slot, image->layout(), image->writable(), driver.info());
}

void barrier(const VulkanApi& vk, VkCommandBuffer commands, VkPipelineStageFlags from, VkAccessFlags written, VkPipelineStageFlags to, VkAccessFlags used) {
  const VkMemoryBarrier memory{VK_STRUCTURE_TYPE_MEMORY_BARRIER, nullptr, written, used};
  vk.CmdPipelineBarrier(commands, from, to, 0, 1, &memory, 0, nullptr, 0, nullptr);
}

}  // namespace

VulkanCommandList::~VulkanCommandList() {
  if (!fence_.wait()) driver_.wait_idle();   // the queue may still run it
  for (const VkCommandBuffer commands : commands_) driver_.free_commands(commands);
  driver_.free_commands(profiled_);
}

Status VulkanCommandList::check_bindings(const LoweredKernel& lowered, const std::vector<gpu::Binding>& bindings) const {
  for (size_t i = 0; i < bindings.size(); ++i) {
    const KernelSlot& slot = lowered.slots[i];
    Status status = is_image(slot.storage) ? check_image(driver_, bindings[i], slot) : check_buffer(driver_, bindings[i]);
    if (!status) return fail(std::move(status).error().within(cat("slot ", i, " '", slot.tensor, "'")));
  }
  return {};
}

Status VulkanCommandList::dispatch(const gpu::DispatchInfo& info) {
  TESSERA_TRY(driver_.alive());
  if (finished_) return fail(ErrorCode::kInvalidArgument, "dispatch after the list was finished");
  const auto* kernel = dynamic_cast<const VulkanKernel*>(info.kernel);
  if (kernel == nullptr || &kernel->driver() != &driver_) return fail(ErrorCode::kInvalidArgument, "dispatch without a kernel of this device");
  const LoweredKernel& lowered = kernel->lowered();
  Status status = gpu::check_dispatch(lowered, info, driver_.info());
  if (status) status = check_bindings(lowered, info.bindings);
  if (!status) return fail(std::move(status).error().within(cat("kernel '", lowered.entry, "'", info.label.empty() ? "" : " for ", info.label)));
  dispatches_.push_back({kernel, info.bindings, info.args,
                         {static_cast<uint32_t>(info.workgroups[0]), static_cast<uint32_t>(info.workgroups[1]), static_cast<uint32_t>(info.workgroups[2])},
                         info.barrier});
  return {};
}

Status VulkanCommandList::finish() {
  TESSERA_TRY(driver_.alive());
  if (finished_) return fail(ErrorCode::kInvalidArgument, "the list is finished already");
  TESSERA_ASSIGN(fence_.fence_, driver_.make_fence());
  if (!dispatches_.empty()) TESSERA_TRY(make_sets());
  TESSERA_ASSIGN(const VkCommandBuffer commands, record(VK_NULL_HANDLE));
  commands_.push_back(commands);
  finished_ = true;
  ++driver_.counters.lists_recorded;
  return {};
}

Status VulkanCommandList::make_sets() {
  std::map<VkDescriptorType, uint32_t> counts;
  std::vector<VkDescriptorSetLayout> layouts;
  for (const Recorded& dispatch : dispatches_) {
    layouts.push_back(dispatch.kernel->set_layout());
    for (const KernelSlot& slot : dispatch.kernel->lowered().slots) ++counts[descriptor_type(slot)];
  }
  std::vector<VkDescriptorPoolSize> sizes;
  for (const auto& [type, count] : counts) sizes.push_back({type, count});
  VkDescriptorPoolCreateInfo create{};
  create.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO;
  create.maxSets = static_cast<uint32_t>(layouts.size());
  create.poolSizeCount = static_cast<uint32_t>(sizes.size());
  create.pPoolSizes = sizes.data();
  TESSERA_ASSIGN(pool_, driver_.make<VkDescriptorPool>(driver_.vk.CreateDescriptorPool, create, driver_.vk.DestroyDescriptorPool, "vkCreateDescriptorPool"));
  VkDescriptorSetAllocateInfo allocate{};
  allocate.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO;
  allocate.descriptorPool = pool_.get();
  allocate.descriptorSetCount = static_cast<uint32_t>(layouts.size());
  allocate.pSetLayouts = layouts.data();
  std::vector<VkDescriptorSet> sets(layouts.size());
  TESSERA_TRY(driver_.check(driver_.vk.AllocateDescriptorSets(driver_.device, &allocate, sets.data()), "vkAllocateDescriptorSets"));
  for (size_t i = 0; i < sets.size(); ++i) {
    dispatches_[i].set = sets[i];
    write_set(dispatches_[i]);
  }
  driver_.counters.descriptor_updates += sets.size();
  return {};
}

void VulkanCommandList::write_set(const Recorded& dispatch) const {
  const size_t count = dispatch.bindings.size();
  std::vector<VkDescriptorBufferInfo> buffers(count);
  std::vector<VkDescriptorImageInfo> images(count);
  std::vector<VkBufferView> texels(count);
  std::vector<VkWriteDescriptorSet> writes(count);
  for (size_t i = 0; i < count; ++i) {
    const gpu::Binding& binding = dispatch.bindings[i];
    VkWriteDescriptorSet& write = writes[i];
    write.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET;
    write.dstSet = dispatch.set;
    write.dstBinding = static_cast<uint32_t>(i);
    write.descriptorCount = 1;
    write.descriptorType = descriptor_type(dispatch.kernel->lowered().slots[i]);
    if (binding.image == nullptr) {
      buffers[i] = {static_cast<VulkanBuffer*>(binding.buffer)->get(), static_cast<VkDeviceSize>(binding.offset), static_cast<VkDeviceSize>(binding.bytes)};
      write.pBufferInfo = &buffers[i];
      continue;
    }
    const auto* image = static_cast<VulkanImage*>(binding.image);
    texels[i] = image->texels();
    images[i] = {VK_NULL_HANDLE, image->view(), VK_IMAGE_LAYOUT_GENERAL};
    write.pTexelBufferView = &texels[i];   // the type of the descriptor says which of the two is looked at
    write.pImageInfo = &images[i];
  }
  driver_.vk.UpdateDescriptorSets(driver_.device, static_cast<uint32_t>(count), writes.data(), 0, nullptr);
}

Result<VkCommandBuffer> VulkanCommandList::record(VkQueryPool timestamps) {
  const VulkanApi& vk = driver_.vk;
  constexpr VkAccessFlags kShader = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT;
  constexpr auto kCompute = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT;
  TESSERA_ASSIGN(const VkCommandBuffer commands, driver_.make_commands());
  VkCommandBufferBeginInfo begin{};
  begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  TESSERA_TRY(driver_.check(vk.BeginCommandBuffer(commands, &begin), "vkBeginCommandBuffer"));
  // What was submitted before: another step, an upload. (What the host wrote is visible by submitting.)
  barrier(vk, commands, kCompute | VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT, kCompute, kShader);
  if (timestamps != VK_NULL_HANDLE) {
    vk.CmdResetQueryPool(commands, timestamps, 0, static_cast<uint32_t>(dispatches_.size()) + 1);
    vk.CmdWriteTimestamp(commands, kCompute, timestamps, 0);
  }
  for (size_t i = 0; i < dispatches_.size(); ++i) {
    const Recorded& dispatch = dispatches_[i];
    if (i > 0 && (dispatch.barrier || timestamps != VK_NULL_HANDLE)) barrier(vk, commands, kCompute, VK_ACCESS_SHADER_WRITE_BIT, kCompute, kShader);
    vk.CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, dispatch.kernel->pipeline());
    vk.CmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, dispatch.kernel->layout(), 0, 1, &dispatch.set, 0, nullptr);
    if (!dispatch.args.empty())
      vk.CmdPushConstants(commands, dispatch.kernel->layout(), VK_SHADER_STAGE_COMPUTE_BIT, 0, static_cast<uint32_t>(dispatch.args.size() * 4), dispatch.args.data());
    vk.CmdDispatch(commands, dispatch.workgroups[0], dispatch.workgroups[1], dispatch.workgroups[2]);
    if (timestamps != VK_NULL_HANDLE) vk.CmdWriteTimestamp(commands, kCompute, timestamps, static_cast<uint32_t>(i) + 1);
  }
  barrier(vk, commands, kCompute, VK_ACCESS_SHADER_WRITE_BIT, VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
  TESSERA_TRY(driver_.check(vk.EndCommandBuffer(commands), "vkEndCommandBuffer"));
  return commands;
}

Status VulkanCommandList::submittable() {
  TESSERA_TRY(driver_.alive());
  if (!finished_) return fail(ErrorCode::kInvalidArgument, "submit of a list that is not finished");
  return fence_.wait();   // a command buffer is submitted again only when it is done
}

// A command buffer that is submitted twice at once would have to be recorded for that (SIMULTANEOUS_USE), which phones' drivers pay for whenever it runs:
// runs beyond the first are of copies, recorded when they are first asked for.
Result<gpu::Fence*> VulkanCommandList::submit(int32_t times) {
  TESSERA_TRY(submittable());
  while (commands_.size() < static_cast<size_t>(times)) {
    TESSERA_ASSIGN(const VkCommandBuffer copy, record(VK_NULL_HANDLE));
    commands_.push_back(copy);
    ++driver_.counters.lists_recorded;
  }
  TESSERA_ASSIGN(fence_.stamp_, driver_.submit(std::span(commands_).first(static_cast<size_t>(times)), fence_.fence_.get()));
  fence_.microseconds_.clear();
  ++driver_.counters.enqueues;
  driver_.counters.dispatches += dispatches_.size() * static_cast<size_t>(times);
  return &fence_;
}

Result<gpu::Fence*> VulkanCommandList::submit_profiled() {
  TESSERA_TRY(submittable());
  if (driver_.found.timestamp_bits == 0) {   // nothing to measure with: an empty profile, the same work
    TESSERA_TRY(submit(1));
    TESSERA_TRY(fence_.wait());
    return &fence_;
  }
  if (profiled_ == VK_NULL_HANDLE) TESSERA_TRY(make_timestamps());
  TESSERA_TRY(driver_.drain());
  TESSERA_ASSIGN(fence_.stamp_, driver_.submit(std::span(&profiled_, 1), fence_.fence_.get()));
  ++driver_.counters.enqueues;
  driver_.counters.dispatches += dispatches_.size();
  TESSERA_TRY(fence_.wait());
  TESSERA_TRY(read_timestamps());
  return &fence_;
}

Status VulkanCommandList::make_timestamps() {
  VkQueryPoolCreateInfo create{};
  create.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO;
  create.queryType = VK_QUERY_TYPE_TIMESTAMP;
  create.queryCount = static_cast<uint32_t>(dispatches_.size()) + 1;
  TESSERA_ASSIGN(timestamps_, driver_.make<VkQueryPool>(driver_.vk.CreateQueryPool, create, driver_.vk.DestroyQueryPool, "vkCreateQueryPool"));
  TESSERA_ASSIGN(profiled_, record(timestamps_.get()));
  return {};
}

Status VulkanCommandList::read_timestamps() {
  std::vector<uint64_t> ticks(dispatches_.size() + 1);
  TESSERA_TRY(driver_.check(driver_.vk.GetQueryPoolResults(driver_.device, timestamps_.get(), 0, static_cast<uint32_t>(ticks.size()), ticks.size() * 8, ticks.data(), 8,
                                                           VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT),
                            "vkGetQueryPoolResults"));
  const uint64_t mask = driver_.found.timestamp_bits >= 64 ? ~uint64_t{0} : (uint64_t{1} << driver_.found.timestamp_bits) - 1;
  fence_.microseconds_.clear();
  for (size_t i = 1; i < ticks.size(); ++i)
    fence_.microseconds_.push_back(static_cast<double>((ticks[i] - ticks[i - 1]) & mask) * driver_.found.nanoseconds_per_tick * 1e-3);
  return {};
}

}  // namespace tessera::vulkan
