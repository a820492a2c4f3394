#include "vulkan_api.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "tessera/base/text.hpp"

namespace tessera::vulkan {
namespace {

struct ErrorRow {
  VkResult code;
  std::string_view name;
  ErrorCode kind = ErrorCode::kDriver;
};

#define TESSERA_ERROR_ROW(code, ...) \
  ErrorRow { code, #code __VA_OPT__(, ErrorCode::) __VA_ARGS__ }
constexpr ErrorRow kErrors[] = {
    TESSERA_ERROR_ROW(VK_NOT_READY),
    TESSERA_ERROR_ROW(VK_TIMEOUT),
    TESSERA_ERROR_ROW(VK_INCOMPLETE),
    TESSERA_ERROR_ROW(VK_ERROR_OUT_OF_HOST_MEMORY, kOutOfMemory),
    TESSERA_ERROR_ROW(VK_ERROR_OUT_OF_DEVICE_MEMORY, kOutOfMemory),
    TESSERA_ERROR_ROW(VK_ERROR_TOO_MANY_OBJECTS, kOutOfMemory),
    TESSERA_ERROR_ROW(VK_ERROR_OUT_OF_POOL_MEMORY, kOutOfMemory),
    TESSERA_ERROR_ROW(VK_ERROR_FRAGMENTED_POOL, kOutOfMemory),
    TESSERA_ERROR_ROW(VK_ERROR_FRAGMENTATION, kOutOfMemory),
    TESSERA_ERROR_ROW(VK_ERROR_MEMORY_MAP_FAILED, kOutOfMemory),
    TESSERA_ERROR_ROW(VK_ERROR_INITIALIZATION_FAILED),
    TESSERA_ERROR_ROW(VK_ERROR_DEVICE_LOST, kDeviceLost),
    TESSERA_ERROR_ROW(VK_ERROR_LAYER_NOT_PRESENT, kNotFound),
    TESSERA_ERROR_ROW(VK_ERROR_EXTENSION_NOT_PRESENT, kUnsupported),
    TESSERA_ERROR_ROW(VK_ERROR_FEATURE_NOT_PRESENT, kUnsupported),
    TESSERA_ERROR_ROW(VK_ERROR_INCOMPATIBLE_DRIVER, kNotFound),
    TESSERA_ERROR_ROW(VK_ERROR_FORMAT_NOT_SUPPORTED, kUnsupported),
    TESSERA_ERROR_ROW(VK_ERROR_INVALID_SHADER_NV, kCompile),
    TESSERA_ERROR_ROW(VK_ERROR_UNKNOWN),
};
#undef TESSERA_ERROR_ROW

const ErrorRow* find_error(VkResult code) {
  const auto row = std::find_if(std::begin(kErrors), std::end(kErrors), [code](const ErrorRow& r) { return r.code == code; });
  return row == std::end(kErrors) ? nullptr : row;
}

Status missing(const char* name) { return fail(ErrorCode::kUnsupported, cat("the Vulkan driver has no ", name, ": Vulkan 1.1 is needed")); }

}  // namespace

std::string result_text(VkResult code) {
  const ErrorRow* row = find_error(code);
  return cat(row != nullptr ? row->name : "unknown Vulkan error", " (", static_cast<int>(code), ")");
}

ErrorCode error_code(VkResult code) {
  const ErrorRow* row = find_error(code);
  return row != nullptr ? row->kind : ErrorCode::kDriver;
}

std::vector<std::string> library_candidates() {
  if (const char* chosen = std::getenv("TESSERA_VULKAN_LIBRARY"); chosen != nullptr && *chosen != '\0') return {chosen};
#ifdef __ANDROID__
  return {"libvulkan.so"};
#else
  return {"libvulkan.so.1", "libvulkan.so"};
#endif
}

std::string_view install_advice() { return "install a driver, e.g. on Debian: apt-get install libvulkan1 mesa-vulkan-drivers"; }

Result<VulkanApi> load_api(std::span<const std::string> candidates) {
  std::string tried;
  for (const std::string& path : candidates) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      const char* reason = dlerror();
      tried += cat(tried.empty() ? "" : "; ", reason != nullptr ? reason : path);
      continue;
    }
    VulkanApi api;
    api.GetInstanceProcAddr = reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library, "vkGetInstanceProcAddr"));
    if (api.GetInstanceProcAddr == nullptr) return fail(ErrorCode::kUnsupported, cat(path, " has no vkGetInstanceProcAddr: it is no Vulkan loader"));
#define TESSERA_FIND_CALL(name)                                                                       \
  api.name = reinterpret_cast<PFN_vk##name>(api.GetInstanceProcAddr(VK_NULL_HANDLE, "vk" #name));     \
  if (api.name == nullptr) return fail(ErrorCode::kUnsupported, cat(path, " has no vk" #name ": a Vulkan 1.1 loader is needed"));
    TESSERA_VULKAN_GLOBAL_CALLS(TESSERA_FIND_CALL)
#undef TESSERA_FIND_CALL
    return api;
  }
  return fail(ErrorCode::kNotFound, cat("no Vulkan loader: ", install_advice(), ". Tried: ", tried));
}

#define TESSERA_FIND_CALL(name)                                                                                 \
  if (api.name == nullptr) api.name = reinterpret_cast<PFN_vk##name>(look_up("vk" #name));                      \
  if (api.name == nullptr) return missing("vk" #name);

Status load_instance_calls(VulkanApi& api, VkInstance instance) {
  const auto look_up = [&](const char* name) { return api.GetInstanceProcAddr(instance, name); };
  TESSERA_VULKAN_INSTANCE_CALLS(TESSERA_FIND_CALL)
  return {};
}

Status load_device_calls(VulkanApi& api, VkDevice device) {
  const auto look_up = [&](const char* name) { return api.GetDeviceProcAddr(device, name); };
  TESSERA_VULKAN_DEVICE_CALLS(TESSERA_FIND_CALL)
  return {};
}
#undef TESSERA_FIND_CALL

}  // namespace tessera::vulkan
