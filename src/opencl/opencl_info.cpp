#include "opencl_info.hpp"

#include <algorithm>
#include <cstdio>
#include <string>

#include "tessera/base/text.hpp"

namespace tessera::opencl {
namespace {

// Answers about one device. A driver that does not know a question leaves the fallback standing.
class Questions {
 public:
  Questions(const OpenClApi& api, cl_device_id device) : api_(api), device_(device) {}

  template <class T>
  T value(cl_device_info what, T fallback) const {
    T answer{};
    return api_.GetDeviceInfo(device_, what, sizeof(T), &answer, nullptr) == CL_SUCCESS ? answer : fallback;
  }
  int64_t size(cl_device_info what) const { return clamp_size(value<size_t>(what, 0)); }
  int64_t bytes(cl_device_info what) const { return clamp_size(value<cl_ulong>(what, 0)); }
  bool flag(cl_device_info what) const { return value<cl_bool>(what, CL_FALSE) == CL_TRUE; }

  std::vector<size_t> sizes(cl_device_info what) const {
    size_t length = 0;
    if (api_.GetDeviceInfo(device_, what, 0, nullptr, &length) != CL_SUCCESS) return {};
    std::vector<size_t> answer(length / sizeof(size_t));
    if (api_.GetDeviceInfo(device_, what, answer.size() * sizeof(size_t), answer.data(), nullptr) != CL_SUCCESS) return {};
    return answer;
  }
  std::string text(cl_device_info what) const {
    size_t length = 0;
    if (api_.GetDeviceInfo(device_, what, 0, nullptr, &length) != CL_SUCCESS) return {};
    std::string answer(length, '\0');
    if (api_.GetDeviceInfo(device_, what, length, answer.data(), nullptr) != CL_SUCCESS) return {};
    return trimmed(std::move(answer));
  }
  static std::string trimmed(std::string text) {
    const auto blank = [](char c) { return c == '\0' || c == ' ' || c == '\n'; };
    while (!text.empty() && blank(text.back())) text.pop_back();
    return text;
  }

 private:
  template <class T>
  static int64_t clamp_size(T answer) {
    return static_cast<int64_t>(std::min<uint64_t>(answer, INT64_MAX));
  }

  const OpenClApi& api_;
  cl_device_id device_;
};

// "OpenCL 3.0 …" or "OpenCL C 1.2 …" → 300, 120; 0 when it is neither.
int version_number(const std::string& text) {
  int major = 0, minor = 0;
  if (std::sscanf(text.c_str(), "OpenCL %d.%d", &major, &minor) != 2 && std::sscanf(text.c_str(), "OpenCL C %d.%d", &major, &minor) != 2) return 0;
  return major * 100 + minor * 10;
}

std::string platform_name(const OpenClApi& api, cl_platform_id platform) {
  size_t length = 0;
  if (api.GetPlatformInfo(platform, CL_PLATFORM_NAME, 0, nullptr, &length) != CL_SUCCESS) return {};
  std::string name(length, '\0');
  if (api.GetPlatformInfo(platform, CL_PLATFORM_NAME, length, name.data(), nullptr) != CL_SUCCESS) return {};
  return Questions::trimmed(std::move(name));
}

bool has_extension(const std::string& extensions, std::string_view name) {
  return (" " + extensions + " ").find(cat(" ", name, " ")) != std::string::npos;
}

// OpenCL tells a subgroup's size only kernel by kernel. Two device-wide answers exist: Intel's list of sizes, and since 3.0 the preferred
// workgroup multiple, which is the subgroup's size on the GPUs we know. With neither, subgroups stay unused rather than guessed at.
void ask_subgroups(const Questions& ask, const std::string& extensions, int version, DeviceInfo& info) {
  if (!has_extension(extensions, "cl_khr_subgroups") && !(version >= 210 && ask.value<cl_uint>(CL_DEVICE_MAX_NUM_SUB_GROUPS, 0) > 0)) return;
  std::vector<size_t> sizes;
  if (has_extension(extensions, "cl_intel_required_subgroup_size")) sizes = ask.sizes(CL_DEVICE_SUB_GROUP_SIZES_INTEL);
  if (sizes.empty() && version >= 300) sizes = {ask.value<size_t>(CL_DEVICE_PREFERRED_WORK_GROUP_SIZE_MULTIPLE, 0)};
  if (sizes.empty()) return;
  const auto [smallest, largest] = std::minmax_element(sizes.begin(), sizes.end());
  info.subgroup_min = static_cast<int>(*smallest);
  info.subgroup_max = static_cast<int>(*largest);
}

void ask_dots(const Questions& ask, const std::string& extensions, DeviceInfo& info) {
  if (!has_extension(extensions, "cl_khr_integer_dot_product")) return;
  info.packed_dots = true;
  const auto dots = ask.value<cl_device_integer_dot_product_acceleration_properties_khr>(
      CL_DEVICE_INTEGER_DOT_PRODUCT_ACCELERATION_PROPERTIES_4x8BIT_PACKED_KHR, {});
  info.dot_signed = dots.signed_accelerated == CL_TRUE;
  info.dot_unsigned = dots.unsigned_accelerated == CL_TRUE;
  info.dot_mixed = dots.mixed_signedness_accelerated == CL_TRUE;
}

void ask_images(const Questions& ask, const std::string& extensions, DeviceInfo& info) {
  if (!ask.flag(CL_DEVICE_IMAGE_SUPPORT)) return;
  info.max_image_width = ask.size(CL_DEVICE_IMAGE2D_MAX_WIDTH);
  info.max_image_height = ask.size(CL_DEVICE_IMAGE2D_MAX_HEIGHT);
  info.max_image_buffer_texels = ask.size(CL_DEVICE_IMAGE_MAX_BUFFER_SIZE);
  info.max_image_layers = ask.size(CL_DEVICE_IMAGE_MAX_ARRAY_SIZE);
  info.max_image3d_width = ask.size(CL_DEVICE_IMAGE3D_MAX_WIDTH);
  info.max_image3d_height = ask.size(CL_DEVICE_IMAGE3D_MAX_HEIGHT);
  info.max_image3d_depth = ask.size(CL_DEVICE_IMAGE3D_MAX_DEPTH);
  info.image3d_writes = has_extension(extensions, "cl_khr_3d_image_writes");
}

void ask_execution(const Questions& ask, DeviceInfo& info) {
  info.compute_units = static_cast<int>(std::max<cl_uint>(1, ask.value<cl_uint>(CL_DEVICE_MAX_COMPUTE_UNITS, 1)));
  if (info.is_cpu) info.native_vector_width = static_cast<int>(std::min<cl_uint>(INT32_MAX, ask.value<cl_uint>(CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, 0)));
  info.max_workgroup_size = static_cast<int>(std::min<int64_t>(INT32_MAX, ask.size(CL_DEVICE_MAX_WORK_GROUP_SIZE)));
  const std::vector<size_t> extent = ask.sizes(CL_DEVICE_MAX_WORK_ITEM_SIZES);
  for (size_t axis = 0; axis < 3 && axis < extent.size(); ++axis)
    info.max_workgroup_extent[axis] = static_cast<int>(std::min<size_t>(INT32_MAX, extent[axis]));
  info.max_grid = {INT32_MAX, INT32_MAX, INT32_MAX};  // OpenCL has no limit of its own; kernels index with 32-bit int
  info.shared_memory_bytes = ask.bytes(CL_DEVICE_LOCAL_MEM_SIZE);
  info.max_argument_bytes = static_cast<int>(std::min<int64_t>(INT32_MAX, ask.size(CL_DEVICE_MAX_PARAMETER_SIZE)));
}

DeviceInfo ask_info(const OpenClApi& api, cl_platform_id platform, cl_device_id device, int version) {
  const Questions ask(api, device);
  const std::string extensions = ask.text(CL_DEVICE_EXTENSIONS);
  DeviceInfo info;
  info.api = Api::kOpenCL;
  info.name = ask.text(CL_DEVICE_NAME);
  info.vendor = ask.text(CL_DEVICE_VENDOR);
  info.platform = platform_name(api, platform);
  info.api_version = ask.text(CL_DEVICE_VERSION);
  info.driver_version = ask.text(CL_DRIVER_VERSION);
  info.is_cpu = (ask.value<cl_device_type>(CL_DEVICE_TYPE, 0) & CL_DEVICE_TYPE_CPU) != 0;
  info.global_memory_bytes = ask.bytes(CL_DEVICE_GLOBAL_MEM_SIZE);
  info.max_allocation_bytes = ask.bytes(CL_DEVICE_MAX_MEM_ALLOC_SIZE);
  info.max_binding_bytes = info.max_allocation_bytes;  // a kernel argument sees the whole object
  info.buffer_offset_alignment = std::max<int64_t>(1, ask.value<cl_uint>(CL_DEVICE_MEM_BASE_ADDR_ALIGN, 8) / 8);  // the answer is in bits
  ask_execution(ask, info);
  ask_images(ask, extensions, info);
  ask_subgroups(ask, extensions, version, info);
  ask_dots(ask, extensions, info);
  info.fp16_arithmetic = has_extension(extensions, "cl_khr_fp16");
  info.storage_16bit = true;  // vload_half and vstore_half are core since 1.0, char access to memory since 1.1
  info.storage_8bit = true;
  return info;
}

// Kernels are OpenCL C 1.2; subgroup and packed-dot functions exist in newer versions only. From 2.0 on, uniform workgroups must be
// promised, or each kernel carries code for ragged ones. mad-enable lets a * b + c become one instruction, whose answer is at least as
// exact; fast-relaxed-math and its parts are refused: they make NaN checks and reference answers meaningless.
std::string choose_compile_options(const Questions& ask, const DeviceInfo& info) {
  const bool newer_words = info.subgroup_max > 0 || info.packed_dots;
  if (newer_words && version_number(ask.text(CL_DEVICE_VERSION)) >= 300) return "-cl-std=CL3.0 -cl-uniform-work-group-size -cl-mad-enable";
  if (newer_words && version_number(ask.text(CL_DEVICE_OPENCL_C_VERSION)) >= 200) return "-cl-std=CL2.0 -cl-uniform-work-group-size -cl-mad-enable";
  return "-cl-std=CL1.2 -cl-mad-enable";
}

// Empty when the device can be used.
std::string why_unusable(const Questions& ask, int version) {
  if (!ask.flag(CL_DEVICE_AVAILABLE)) return "is not available";
  if (!ask.flag(CL_DEVICE_COMPILER_AVAILABLE)) return "has no compiler";
  if (!ask.flag(CL_DEVICE_ENDIAN_LITTLE)) return "is big endian";
  if (version < 120) return "is older than OpenCL 1.2";
  return {};
}

std::vector<cl_device_id> devices_of(const OpenClApi& api, cl_platform_id platform) {
  cl_uint count = 0;
  if (api.GetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, nullptr, &count) != CL_SUCCESS) return {};
  std::vector<cl_device_id> devices(count);
  if (api.GetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, count, devices.data(), nullptr) != CL_SUCCESS) return {};
  return devices;
}

}  // namespace

Result<std::vector<FoundDevice>> find_devices(const OpenClApi& api) {
  cl_uint count = 0;
  const cl_int code = api.GetPlatformIDs(0, nullptr, &count);  // the loader's "no driver" is an error code, not a count of 0
  std::vector<cl_platform_id> platforms(code == CL_SUCCESS ? count : 0);
  if (!platforms.empty() && api.GetPlatformIDs(count, platforms.data(), nullptr) != CL_SUCCESS) platforms.clear();

  std::vector<FoundDevice> found;
  std::string passed_over;
  for (cl_platform_id platform : platforms) {
    for (cl_device_id device : devices_of(api, platform)) {
      const Questions ask(api, device);
      const int version = version_number(ask.text(CL_DEVICE_VERSION));
      if (const std::string why = why_unusable(ask, version); !why.empty()) {
        passed_over += cat("; '", ask.text(CL_DEVICE_NAME), "' ", why);
        continue;
      }
      DeviceInfo info = ask_info(api, platform, device, version);
      std::string options = choose_compile_options(ask, info);
      const bool reported = has_extension(ask.text(CL_DEVICE_EXTENSIONS), "cl_khr_command_buffer");
      TESSERA_ASSIGN(const CommandBuffers command_buffers, find_command_buffers(api, platform, info.platform, device, reported));
      found.push_back({device, std::move(info), std::move(options), command_buffers});
    }
  }
  if (found.empty())
    return fail(ErrorCode::kNotFound, cat("no usable OpenCL device in ", platforms.size(), " platforms", passed_over, ": ", install_advice()));
  std::stable_sort(found.begin(), found.end(), [](const FoundDevice& a, const FoundDevice& b) { return !a.info.is_cpu && b.info.is_cpu; });
  return found;
}

}  // namespace tessera::opencl
