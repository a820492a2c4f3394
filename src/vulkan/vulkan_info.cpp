#include "vulkan_info.hpp"

#include <algorithm>
#include <cstring>

#include "tessera/base/text.hpp"

namespace tessera::vulkan {
namespace {

constexpr uint32_t kNewestVersion = VK_API_VERSION_1_3;  // whose features are asked for by name

std::string version_text(uint32_t version) {
  return cat(VK_API_VERSION_MAJOR(version), ".", VK_API_VERSION_MINOR(version), ".", VK_API_VERSION_PATCH(version));
}

std::string_view vendor_name(uint32_t id) {
  constexpr std::pair<uint32_t, std::string_view> kVendors[] = {{0x5143, "Qualcomm"}, {0x13b5, "ARM"}, {0x1010, "Imagination"}, {0x144d, "Samsung"},
                                                                {0x8086, "Intel"},    {0x1002, "AMD"}, {0x10de, "NVIDIA"},      {0x10005, "Mesa"}};
  for (const auto& [known, name] : kVendors)
    if (id == known) return name;
  return {};
}

// Questions to one device. What it cannot be asked (an older version without the extension) keeps its zeros. The ask_ functions are for devices of
// Vulkan 1.1: drivers of 1.0 need not know the calls, whatever extensions they have.
class Questions {
 public:
  Questions(const VulkanApi& api, VkPhysicalDevice device) : api_(api), device_(device) {
    api_.GetPhysicalDeviceProperties(device_, &properties);
    uint32_t count = 0;
    if (api_.EnumerateDeviceExtensionProperties(device_, nullptr, &count, nullptr) == VK_SUCCESS) extensions_.resize(count);
    if (count > 0 && api_.EnumerateDeviceExtensionProperties(device_, nullptr, &count, extensions_.data()) != VK_SUCCESS) extensions_.clear();
  }

  VkPhysicalDeviceProperties properties{};
  const VkPhysicalDeviceLimits& limits() const { return properties.limits; }
  bool at_least(uint32_t version) const { return properties.apiVersion >= version; }

  bool has(const char* extension) const {
    return std::any_of(extensions_.begin(), extensions_.end(), [&](const auto& e) { return std::strcmp(e.extensionName, extension) == 0; });
  }
  // Whether what became core in `version` may be asked for; an extension that gives it has to be switched on.
  bool available(uint32_t version, const char* extension, std::vector<const char*>& switched_on) const {
    if (at_least(version)) return true;
    if (!has(extension)) return false;
    switched_on.push_back(extension);
    return true;
  }

  template <class Struct>
  Struct ask_properties(VkStructureType type) const {
    Struct answer{};
    answer.sType = type;
    VkPhysicalDeviceProperties2 all{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, &answer, {}};
    api_.GetPhysicalDeviceProperties2(device_, &all);
    return answer;
  }
  template <class Struct>
  Struct ask_features(VkStructureType type) const {
    Struct answer{};
    answer.sType = type;
    VkPhysicalDeviceFeatures2 all{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, &answer, {}};
    api_.GetPhysicalDeviceFeatures2(device_, &all);
    return answer;
  }

 private:
  const VulkanApi& api_;
  VkPhysicalDevice device_;
  std::vector<VkExtensionProperties> extensions_;
};

int64_t clamped(uint64_t value) { return static_cast<int64_t>(std::min<uint64_t>(value, INT64_MAX)); }
int clamped_int(uint32_t value) { return static_cast<int>(std::min<uint32_t>(value, INT32_MAX)); }

void ask_memory(const VulkanApi& api, VkPhysicalDevice device, const Questions& ask, DeviceInfo& info) {
  VkPhysicalDeviceMemoryProperties memory{};
  api.GetPhysicalDeviceMemoryProperties(device, &memory);
  for (uint32_t i = 0; i < memory.memoryHeapCount; ++i)
    if (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
      info.global_memory_bytes = std::max(info.global_memory_bytes, clamped(memory.memoryHeaps[i].size));
  const auto third = ask.ask_properties<VkPhysicalDeviceMaintenance3Properties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES);
  info.max_allocation_bytes = std::min(clamped(third.maxMemoryAllocationSize), info.global_memory_bytes);
  if (ask.at_least(VK_API_VERSION_1_3)) {
    const auto fourth = ask.ask_properties<VkPhysicalDeviceMaintenance4Properties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES);
    if (fourth.maxBufferSize != 0) info.max_allocation_bytes = std::min(info.max_allocation_bytes, clamped(fourth.maxBufferSize));
  }
  info.max_binding_bytes = ask.limits().maxStorageBufferRange;
  info.buffer_offset_alignment = clamped(std::max<VkDeviceSize>(4, ask.limits().minStorageBufferOffsetAlignment));
}

void ask_images(const Questions& ask, DeviceInfo& info) {
  const VkPhysicalDeviceLimits& limits = ask.limits();
  info.max_image_width = info.max_image_height = limits.maxImageDimension2D;
  info.max_image_buffer_texels = limits.maxTexelBufferElements;
  info.max_image_layers = limits.maxImageArrayLayers;
  info.max_image3d_width = info.max_image3d_height = info.max_image3d_depth = limits.maxImageDimension3D;
  info.image3d_writes = true;  // storage images of every dimension are core
}

void ask_execution(const Questions& ask, DeviceInfo& info) {
  const VkPhysicalDeviceLimits& limits = ask.limits();
  info.max_workgroup_size = clamped_int(limits.maxComputeWorkGroupInvocations);
  for (size_t axis = 0; axis < 3; ++axis) {
    info.max_workgroup_extent[axis] = clamped_int(limits.maxComputeWorkGroupSize[axis]);
    info.max_grid[axis] = limits.maxComputeWorkGroupCount[axis];
  }
  info.shared_memory_bytes = limits.maxComputeSharedMemorySize;
  info.max_argument_bytes = clamped_int(limits.maxPushConstantsSize);
  const auto subgroup = ask.ask_properties<VkPhysicalDeviceSubgroupProperties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES);
  const bool reduces = (subgroup.supportedOperations & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT) != 0 && (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0;
  if (!reduces) return;
  info.subgroup_min = info.subgroup_max = clamped_int(subgroup.subgroupSize);
  if (!ask.at_least(VK_API_VERSION_1_3) && !ask.has(VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME)) return;
  const auto sizes = ask.ask_properties<VkPhysicalDeviceSubgroupSizeControlProperties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES);
  if (sizes.minSubgroupSize == 0) return;
  info.subgroup_min = clamped_int(sizes.minSubgroupSize);
  info.subgroup_max = clamped_int(sizes.maxSubgroupSize);
}

void ask_features(const Questions& ask, FoundDevice& found) {
  DeviceInfo& info = found.info;
  info.storage_16bit = ask.ask_features<VkPhysicalDevice16BitStorageFeatures>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES).storageBuffer16BitAccess == VK_TRUE;
  if (ask.available(VK_API_VERSION_1_2, VK_KHR_8BIT_STORAGE_EXTENSION_NAME, found.extensions))
    info.storage_8bit = ask.ask_features<VkPhysicalDevice8BitStorageFeatures>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_8BIT_STORAGE_FEATURES).storageBuffer8BitAccess == VK_TRUE;
  if (ask.available(VK_API_VERSION_1_2, VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME, found.extensions))
    info.fp16_arithmetic =
        ask.ask_features<VkPhysicalDeviceShaderFloat16Int8Features>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES).shaderFloat16 == VK_TRUE;
  if (!ask.available(VK_API_VERSION_1_3, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME, found.extensions)) return;
  found.integer_dot = ask.ask_features<VkPhysicalDeviceShaderIntegerDotProductFeatures>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES)
                          .shaderIntegerDotProduct == VK_TRUE;
  info.packed_dots = found.integer_dot;
  const auto dots = ask.ask_properties<VkPhysicalDeviceShaderIntegerDotProductProperties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES);
  info.dot_signed = dots.integerDotProduct4x8BitPackedSignedAccelerated == VK_TRUE;
  info.dot_unsigned = dots.integerDotProduct4x8BitPackedUnsignedAccelerated == VK_TRUE;
  info.dot_mixed = dots.integerDotProduct4x8BitPackedMixedSignednessAccelerated == VK_TRUE;
}

void ask_identity(const Questions& ask, FoundDevice& found) {
  DeviceInfo& info = found.info;
  const VkPhysicalDeviceProperties& properties = ask.properties;
  info.api = Api::kVulkan;
  info.name = properties.deviceName;
  const std::string_view vendor = vendor_name(properties.vendorID);
  info.vendor = vendor.empty() ? cat("vendor ", properties.vendorID) : std::string(vendor);
  info.api_version = version_text(properties.apiVersion);
  info.driver_version = cat(properties.driverVersion);
  info.is_cpu = properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
  constexpr char kDigits[] = "0123456789abcdef";
  for (const uint8_t byte : properties.pipelineCacheUUID) found.pipeline_identity += {kDigits[byte >> 4], kDigits[byte & 15]};
  found.nanoseconds_per_tick = static_cast<double>(properties.limits.timestampPeriod);
}

void ask_driver(const Questions& ask, DeviceInfo& info) {
  if (!ask.at_least(VK_API_VERSION_1_2) && !ask.has(VK_KHR_DRIVER_PROPERTIES_EXTENSION_NAME)) return;
  const auto driver = ask.ask_properties<VkPhysicalDeviceDriverProperties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES);
  info.platform = driver.driverName;
  info.driver_version += cat(" ", driver.driverInfo);
}

// A queue that computes; one that does nothing else is the GPU's own compute queue, but phones have a single family for all.
bool find_queue(const VulkanApi& api, FoundDevice& found) {
  uint32_t count = 0;
  api.GetPhysicalDeviceQueueFamilyProperties(found.id, &count, nullptr);
  std::vector<VkQueueFamilyProperties> families(count);
  api.GetPhysicalDeviceQueueFamilyProperties(found.id, &count, families.data());
  for (uint32_t i = 0; i < count; ++i) {
    if ((families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) == 0 || families[i].queueCount == 0) continue;
    found.queue_family = i;
    found.timestamp_bits = families[i].timestampValidBits;
    return true;
  }
  return false;
}

}  // namespace

Result<std::shared_ptr<Instance>> Instance::create(VulkanApi api) {
  uint32_t version = VK_API_VERSION_1_0;
  if (api.EnumerateInstanceVersion(&version) != VK_SUCCESS || version < VK_API_VERSION_1_1)
    return fail(ErrorCode::kUnsupported, cat("the Vulkan loader is of version ", version_text(version), ": Vulkan 1.1 is needed"));
  VkApplicationInfo app{};
  app.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
  app.pEngineName = "tessera";
  app.apiVersion = std::min<uint32_t>(version, kNewestVersion);
  VkInstanceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
  info.pApplicationInfo = &app;
  VkInstance instance = VK_NULL_HANDLE;
  if (const VkResult code = api.CreateInstance(&info, nullptr, &instance); code != VK_SUCCESS)
    return fail(error_code(code), cat("vkCreateInstance: ", result_text(code), code == VK_ERROR_INCOMPATIBLE_DRIVER ? cat(": no Vulkan driver; ", install_advice()) : ""));
  std::shared_ptr<Instance> made(new Instance(api, instance));
  TESSERA_TRY(load_instance_calls(made->api_, instance));
  return made;
}

Instance::~Instance() {
  if (api_.DestroyInstance != nullptr) api_.DestroyInstance(instance_, nullptr);
}

Result<std::vector<FoundDevice>> find_devices(const Instance& instance) {
  const VulkanApi& api = instance.api();
  uint32_t count = 0;
  VkResult code = api.EnumeratePhysicalDevices(instance.get(), &count, nullptr);
  std::vector<VkPhysicalDevice> devices(code == VK_SUCCESS ? count : 0);
  if (!devices.empty()) code = api.EnumeratePhysicalDevices(instance.get(), &count, devices.data());
  if (code < 0 && code != VK_ERROR_INITIALIZATION_FAILED)  // that one is the loader's "no driver"
    return fail(error_code(code), cat("vkEnumeratePhysicalDevices: ", result_text(code)));
  devices.resize(code < 0 ? 0 : std::min<size_t>(count, devices.size()));

  std::vector<FoundDevice> found;
  std::string passed_over;
  for (VkPhysicalDevice device : devices) {
    const Questions ask(api, device);
    FoundDevice candidate;
    candidate.id = device;
    ask_identity(ask, candidate);
    const bool computes = find_queue(api, candidate);
    if (!ask.at_least(VK_API_VERSION_1_1) || !computes) {
      passed_over += cat("; '", candidate.info.name, "' ", computes ? cat("is Vulkan ", candidate.info.api_version, ", 1.1 is needed") : "has no queue that computes");
      continue;
    }
    ask_driver(ask, candidate.info);
    ask_memory(api, device, ask, candidate.info);
    ask_images(ask, candidate.info);
    ask_execution(ask, candidate.info);
    ask_features(ask, candidate);
    found.push_back(std::move(candidate));
  }
  if (found.empty()) return fail(ErrorCode::kNotFound, cat("no usable Vulkan device among ", devices.size(), passed_over, ": ", install_advice()));
  std::stable_sort(found.begin(), found.end(), [](const FoundDevice& a, const FoundDevice& b) { return !a.info.is_cpu && b.info.is_cpu; });
  return found;
}

}  // namespace tessera::vulkan
