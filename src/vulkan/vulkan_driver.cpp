#include "vulkan_driver.hpp"

#include <algorithm>

#include "tessera/base/text.hpp"

namespace tessera::vulkan {

Result<std::unique_ptr<Driver>> Driver::open(std::shared_ptr<Instance> instance, const VulkanApi& api, const FoundDevice& found) {
  std::unique_ptr<Driver> driver(new Driver);
  driver->vk = api;
  driver->found = found;
  driver->instance_ = std::move(instance);
  // What shapes a pipeline besides its text: the SPIR-V version, and the driver build that the pipeline cache was made by.
  driver->compile_options = cat("spirv1.3 ", found.pipeline_identity);
  VkPhysicalDeviceProperties properties{};
  api.GetPhysicalDeviceProperties(found.id, &properties);
  driver->limits = properties.limits;
  TESSERA_TRY(driver->create_device());
  VkCommandPoolCreateInfo pool{};
  pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  pool.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
  pool.queueFamilyIndex = found.queue_family;
  TESSERA_ASSIGN(driver->pool_, driver->make<VkCommandPool>(driver->vk.CreateCommandPool, pool, driver->vk.DestroyCommandPool, "vkCreateCommandPool"));
  return driver;
}

Status Driver::create_device() {
  const float priority = 1.0f;
  VkDeviceQueueCreateInfo queues{};
  queues.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
  queues.queueFamilyIndex = found.queue_family;
  queues.queueCount = 1;
  queues.pQueuePriorities = &priority;

  // Only what words of the dialect use, and only where the device has it.
  void* chain = nullptr;
  VkPhysicalDevice16BitStorageFeatures storage16{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES, nullptr, VK_TRUE, VK_FALSE, VK_FALSE, VK_FALSE};
  if (found.info.storage_16bit) chain = &storage16;
  VkPhysicalDevice8BitStorageFeatures storage8{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_8BIT_STORAGE_FEATURES, chain, VK_TRUE, VK_FALSE, VK_FALSE};
  if (found.info.storage_8bit) chain = &storage8;
  VkPhysicalDeviceShaderFloat16Int8Features half{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES, chain, VK_TRUE, VK_FALSE};
  if (found.info.fp16_arithmetic) chain = &half;
  VkPhysicalDeviceShaderIntegerDotProductFeatures dot{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES, chain, VK_TRUE};
  if (found.integer_dot) chain = &dot;

  VkDeviceCreateInfo create{};
  create.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  create.pNext = chain;
  create.queueCreateInfoCount = 1;
  create.pQueueCreateInfos = &queues;
  create.enabledExtensionCount = static_cast<uint32_t>(found.extensions.size());
  create.ppEnabledExtensionNames = found.extensions.data();
  TESSERA_TRY(check(vk.CreateDevice(found.id, &create, nullptr, &device), "vkCreateDevice"));
  TESSERA_TRY(load_device_calls(vk, device));
  vk.GetDeviceQueue(device, found.queue_family, 0, &queue);
  return {};
}

Driver::~Driver() {
  if (device == VK_NULL_HANDLE || vk.DestroyDevice == nullptr) return;
  pool_ = {};
  vk.DestroyDevice(device, nullptr);
}

Status Driver::alive() const {
  if (lost_) return fail(ErrorCode::kDeviceLost, cat(info().name, " was lost earlier; open the device again"));
  return {};
}

Status Driver::check(VkResult code, std::string_view call) {
  if (code == VK_SUCCESS) return {};
  const ErrorCode kind = error_code(code);
  if (kind == ErrorCode::kDeviceLost) lost_ = true;
  return fail(kind, cat(call, " failed on ", info().name, ": ", result_text(code)));
}

Result<Handle<VkFence>> Driver::make_fence() {
  VkFenceCreateInfo create{};
  create.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO;
  return make<VkFence>(vk.CreateFence, create, vk.DestroyFence, "vkCreateFence");
}

Result<VkCommandBuffer> Driver::make_commands() {
  VkCommandBufferAllocateInfo allocate{};
  allocate.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
  allocate.commandPool = pool_.get();
  allocate.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  allocate.commandBufferCount = 1;
  VkCommandBuffer commands = VK_NULL_HANDLE;
  TESSERA_TRY(check(vk.AllocateCommandBuffers(device, &allocate, &commands), "vkAllocateCommandBuffers"));
  return commands;
}

void Driver::free_commands(VkCommandBuffer commands) {
  if (commands != VK_NULL_HANDLE) vk.FreeCommandBuffers(device, pool_.get(), 1, &commands);
}

Result<uint64_t> Driver::submit(std::span<const VkCommandBuffer> commands, VkFence fence) {
  TESSERA_TRY(alive());
  TESSERA_TRY(check(vk.ResetFences(device, 1, &fence), "vkResetFences"));
  VkSubmitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  info.commandBufferCount = static_cast<uint32_t>(commands.size());
  info.pCommandBuffers = commands.data();
  TESSERA_TRY(check(vk.QueueSubmit(queue, 1, &info, fence), "vkQueueSubmit"));
  ++counters.submissions;
  last_fence_ = fence;
  return ++issued_;
}

Status Driver::wait(VkFence fence, uint64_t stamp) {
  TESSERA_TRY(alive());
  if (!in_flight(stamp)) return {};
  ++counters.synchronizations;
  Status status = check(vk.WaitForFences(device, 1, &fence, VK_TRUE, UINT64_MAX), "vkWaitForFences");
  if (!status) wait_idle();   // the caller gives up, and with it goes what may still be running
  if (status) completed_ = std::max(completed_, stamp);
  return status;
}

Status Driver::drain() { return in_flight(issued_) ? wait(last_fence_, issued_) : alive(); }

void Driver::wait_idle() {
  if (vk.DeviceWaitIdle(device) == VK_SUCCESS) completed_ = issued_;
}

void Driver::note_memory(int64_t bytes) {
  counters.device_bytes += static_cast<uint64_t>(bytes);
  counters.peak_device_bytes = std::max(counters.peak_device_bytes, counters.device_bytes);
}

}  // namespace tessera::vulkan
