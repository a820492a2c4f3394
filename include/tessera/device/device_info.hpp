// What a device is and can do, as plain data: filled by a backend or read from JSON, so that plans for a phone can be made on any host.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "tessera/base/status.hpp"
#include "tessera/tensor/storage.hpp"

namespace tessera {

enum class Api { kNull, kOpenCL, kVulkan };

constexpr std::string_view name_of(Api api) {
  constexpr std::string_view kNames[] = {"null", "opencl", "vulkan"};
  return kNames[static_cast<int>(api)];
}

struct DeviceInfo {
  Api api = Api::kNull;
  std::string name;            // as the driver says it: "pthread-haswell-AMD EPYC", "Turnip Adreno (TM) 740"
  std::string vendor;
  std::string platform;        // OpenCL: platform name; Vulkan: driver name
  std::string api_version;
  std::string driver_version;  // part of every cache key
  bool is_cpu = false;

  int compute_units = 1;
  int native_vector_width = 0;       // floats of a vector register, of OpenCL's drivers of CPUs; 0: not said
  int64_t global_memory_bytes = 0;
  int64_t max_allocation_bytes = 0;  // one object
  int64_t max_binding_bytes = 0;     // what one kernel can see of it (Vulkan: maxStorageBufferRange)
  int64_t buffer_offset_alignment = 1;  // bytes, for a tensor inside a larger buffer
  int64_t max_image_width = 0;       // 2D; 0 = no images
  int64_t max_image_height = 0;
  int64_t max_image_buffer_texels = 0;
  int64_t max_image_layers = 0;      // of a 2D array
  int64_t max_image3d_width = 0;     // 0 = no 3D images
  int64_t max_image3d_height = 0;
  int64_t max_image3d_depth = 0;
  bool image3d_writes = false;       // kernels write 3D images
  int max_workgroup_size = 1;
  std::array<int, 3> max_workgroup_extent{1, 1, 1};
  std::array<int64_t, 3> max_grid{65535, 65535, 65535};  // workgroups per dimension
  int64_t shared_memory_bytes = 0;
  int max_argument_bytes = 128;      // Vulkan: push constants; OpenCL: kernel arguments
  int subgroup_min = 0;              // 0 = no subgroup operations
  int subgroup_max = 0;
  bool fp16_arithmetic = false;
  bool storage_16bit = false;        // 16-bit elements in buffers (OpenCL: vload_half, always)
  bool storage_8bit = false;
  bool packed_dots = false;          // kernels may use packed 4×8-bit dots; how fast they are, the rows know
  bool dot_signed = false;           // packed 4×8-bit dots reported as accelerated: a hint, rows decide
  bool dot_unsigned = false;
  bool dot_mixed = false;

  bool operator==(const DeviceInfo&) const = default;

  StorageLimits storage_limits() const {
    return {max_binding_bytes < max_allocation_bytes ? max_binding_bytes : max_allocation_bytes, max_allocation_bytes, max_image_width, max_image_height, max_image_buffer_texels,
            max_image_layers, max_image3d_width, max_image3d_height, max_image3d_depth, image3d_writes};
  }
};

// JSON with the member names above. Reading: unknown keys are ignored, a wrong type or a missing limit is kMalformed naming the key.
std::string to_json(const DeviceInfo& info);
Result<DeviceInfo> device_info_from_json(std::string_view json);

// A report of Vulkan limits and features (VkPhysicalDeviceLimits names, flat JSON, as in tests/data/devices): what a phone's driver says.
Result<DeviceInfo> device_info_from_vulkan_report(std::string_view json);

// Either of the two: a report says "deviceName".
Result<DeviceInfo> device_info_from_any_json(std::string_view json);

// The same GPU as its OpenCL driver may show it, for planning where only its Vulkan limits are known. Features and images are kept, but for writing
// 3D images, which OpenCL has as an extension. Assumed:
// one object is a quarter of the memory, at least 128 MiB, and a kernel sees all of it (what OpenCL 1.2, table 4.3, guarantees); buffers are
// cut at 128 bytes (the greatest alignment of that table); any number of workgroups; 1024 bytes of arguments.
DeviceInfo assumed_opencl(DeviceInfo vulkan);

}  // namespace tessera
