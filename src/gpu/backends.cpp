#include <array>

#include "tessera/gpu/gpu.hpp"

namespace tessera::gpu {

std::span<const Backend> backends() {
  static constexpr std::array kBackends{
      Backend{Api::kOpenCL, list_opencl_devices, open_opencl_device},
#ifdef TESSERA_VULKAN
      Backend{Api::kVulkan, list_vulkan_devices, open_vulkan_device},
#endif
  };
  return kBackends;
}

std::span<const LeftOut> left_out() {
#ifdef TESSERA_VULKAN
  return {};
#else
  static constexpr std::array kLeftOut{LeftOut{Api::kVulkan, "configure it with -D TESSERA_VULKAN=ON, which needs shaderc"}};
  return kLeftOut;
#endif
}

}  // namespace tessera::gpu
