#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "device/parse_json.hpp"
#include "tessera/base/text.hpp"
#include "tessera/device/device_info.hpp"

namespace tessera {
namespace {

using Json = nlohmann::json;

// Reads members of one object and keeps the first error; later reads then do nothing.
class Reader {
 public:
  explicit Reader(const Json& object) : object_(object) {}

  bool has(const char* key) const { return object_.contains(key); }
  Status status() const { return error_ ? Status(fail(*error_)) : Status(); }

  void text(const char* key, std::string& value) {
    if (const Json* found = find(key)) found->is_string() ? void(value = found->get<std::string>()) : wrong(key, "a string");
  }
  void flag(const char* key, bool& value) {
    if (!has(key)) return;  // a feature that is not mentioned is not there
    if (const Json* found = find(key)) found->is_boolean() ? void(value = found->get<bool>()) : wrong(key, "true or false");
  }
  template <class Number>
  void number(const char* key, Number& value, int64_t smallest) {
    if (const Json* found = find(key)) take(*found, key, value, smallest);
  }
  template <class Number>
  void triple(const char* key, std::array<Number, 3>& values) {
    const Json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_array() || found->size() != 3) return wrong(key, "three integers");
    for (size_t axis = 0; axis < 3; ++axis) take((*found)[axis], key, values[axis], 1);
  }
  // The largest of an array of integers.
  void largest(const char* key, int64_t& value) {
    const Json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_array() || found->empty()) return wrong(key, "an array of integers");
    for (const Json& item : *found) {
      int64_t one = 0;
      take(item, key, one, 0);
      value = std::max(value, one);
    }
  }
  // Whether an array of strings has `item`.
  bool lists(const char* key, std::string_view item) {
    const Json* found = find(key);
    if (found == nullptr || !found->is_array()) return false;
    return std::any_of(found->begin(), found->end(),
                       [item](const Json& entry) { return entry.is_string() && entry.get_ref<const std::string&>() == item; });
  }
  void wrong(const char* key, std::string_view expected) {
    if (!error_) error_ = Error(ErrorCode::kMalformed, cat("device JSON: '", key, "' must be ", expected));
  }

 private:
  const Json* find(const char* key) {
    if (error_) return nullptr;
    const auto found = object_.find(key);
    if (found != object_.end()) return &*found;
    error_ = Error(ErrorCode::kMalformed, cat("device JSON: '", key, "' is missing"));
    return nullptr;
  }
  template <class Number>
  void take(const Json& json, const char* key, Number& value, int64_t smallest) {
    constexpr int64_t kLargest = std::numeric_limits<Number>::max();
    const bool fits = json.is_number_unsigned() ? json.get<uint64_t>() <= static_cast<uint64_t>(kLargest) : json.is_number_integer();
    if (!fits || json.get<int64_t>() < smallest) return wrong(key, cat("an integer from ", smallest, " to ", kLargest));
    value = static_cast<Number>(json.get<int64_t>());
  }

  const Json& object_;
  std::optional<Error> error_;
};

// Every member of DeviceInfo but `api`, by its name: one list for writing and reading. Numbers come with their smallest legal value.
template <class Info, class Visitor>
void visit_members(Info& info, Visitor& visit) {
  visit.text("name", info.name);
  visit.text("vendor", info.vendor);
  visit.text("platform", info.platform);
  visit.text("api_version", info.api_version);
  visit.text("driver_version", info.driver_version);
  visit.flag("is_cpu", info.is_cpu);
  visit.number("compute_units", info.compute_units, 1);
  visit.number("native_vector_width", info.native_vector_width, 0);
  visit.number("global_memory_bytes", info.global_memory_bytes, 0);
  visit.number("max_allocation_bytes", info.max_allocation_bytes, 0);
  visit.number("max_binding_bytes", info.max_binding_bytes, 0);
  visit.number("buffer_offset_alignment", info.buffer_offset_alignment, 1);
  visit.number("max_image_width", info.max_image_width, 0);
  visit.number("max_image_height", info.max_image_height, 0);
  visit.number("max_image_buffer_texels", info.max_image_buffer_texels, 0);
  visit.number("max_image_layers", info.max_image_layers, 0);
  visit.number("max_image3d_width", info.max_image3d_width, 0);
  visit.number("max_image3d_height", info.max_image3d_height, 0);
  visit.number("max_image3d_depth", info.max_image3d_depth, 0);
  visit.flag("image3d_writes", info.image3d_writes);
  visit.number("max_workgroup_size", info.max_workgroup_size, 1);
  visit.triple("max_workgroup_extent", info.max_workgroup_extent);
  visit.triple("max_grid", info.max_grid);
  visit.number("shared_memory_bytes", info.shared_memory_bytes, 0);
  visit.number("max_argument_bytes", info.max_argument_bytes, 0);
  visit.number("subgroup_min", info.subgroup_min, 0);
  visit.number("subgroup_max", info.subgroup_max, 0);
  visit.flag("fp16_arithmetic", info.fp16_arithmetic);
  visit.flag("storage_16bit", info.storage_16bit);
  visit.flag("storage_8bit", info.storage_8bit);
  visit.flag("packed_dots", info.packed_dots);
  visit.flag("dot_signed", info.dot_signed);
  visit.flag("dot_unsigned", info.dot_unsigned);
  visit.flag("dot_mixed", info.dot_mixed);
}

struct Writer {
  nlohmann::ordered_json object;

  void text(const char* key, const std::string& value) { object[key] = value; }
  void flag(const char* key, bool value) { object[key] = value; }
  template <class Number>
  void number(const char* key, Number value, int64_t) {
    object[key] = value;
  }
  template <class Number>
  void triple(const char* key, const std::array<Number, 3>& values) {
    object[key] = values;
  }
};

void read_api(Reader& reader, Api& api) {
  std::string name;
  reader.text("api", name);
  for (const Api known : {Api::kNull, Api::kOpenCL, Api::kVulkan}) {
    if (name != name_of(known)) continue;
    api = known;
    return;
  }
  reader.wrong("api", "null, opencl or vulkan");
}

// PCI and Khronos vendor ids of the makers of GPUs.
std::string vendor_name(int64_t id) {
  constexpr std::pair<int64_t, std::string_view> kVendors[] = {{0x5143, "Qualcomm"}, {0x13b5, "ARM"}, {0x1010, "Imagination"}, {0x144d, "Samsung"},
                                                               {0x8086, "Intel"},    {0x1002, "AMD"}, {0x10de, "NVIDIA"},      {0x10005, "Mesa"}};
  for (const auto& [known, name] : kVendors)
    if (id == known) return std::string(name);
  return cat("vendor ", id);
}

void read_identity(Reader& reader, DeviceInfo& info) {
  int64_t vendor = 0;
  std::string type;
  reader.text("deviceName", info.name);
  reader.number("vendorID", vendor, 0);
  reader.text("driverName", info.platform);
  reader.text("apiVersion", info.api_version);
  reader.text("driverVersion", info.driver_version);
  reader.text("deviceType", type);
  info.vendor = vendor_name(vendor);
  info.is_cpu = type == "PHYSICAL_DEVICE_TYPE_CPU";
  if (reader.has("computeUnits")) reader.number("computeUnits", info.compute_units, 1);  // no Vulkan limit: some reports add it
}

void read_memory(Reader& reader, DeviceInfo& info) {
  reader.largest("memoryHeaps", info.global_memory_bytes);
  reader.number("maxMemoryAllocationSize", info.max_allocation_bytes, 1);
  if (reader.has("maxBufferSize")) {  // Vulkan 1.3
    int64_t buffer_bytes = 0;
    reader.number("maxBufferSize", buffer_bytes, 1);
    info.max_allocation_bytes = std::min(info.max_allocation_bytes, buffer_bytes);
  }
  reader.number("maxStorageBufferRange", info.max_binding_bytes, 1);
  reader.number("minStorageBufferOffsetAlignment", info.buffer_offset_alignment, 1);
  reader.number("maxImageDimension2D", info.max_image_width, 0);
  info.max_image_height = info.max_image_width;
  reader.number("maxTexelBufferElements", info.max_image_buffer_texels, 0);
  reader.number("maxImageArrayLayers", info.max_image_layers, 0);
  reader.number("maxImageDimension3D", info.max_image3d_width, 0);
  info.max_image3d_height = info.max_image3d_depth = info.max_image3d_width;
  info.image3d_writes = true;  // storage images of every dimension are core
}

void read_execution(Reader& reader, DeviceInfo& info) {
  reader.number("maxComputeWorkGroupInvocations", info.max_workgroup_size, 1);
  reader.triple("maxComputeWorkGroupSize", info.max_workgroup_extent);
  reader.triple("maxComputeWorkGroupCount", info.max_grid);
  reader.number("maxComputeSharedMemorySize", info.shared_memory_bytes, 0);
  reader.number("maxPushConstantsSize", info.max_argument_bytes, 0);
  // Reductions need the arithmetic operations; reports that do not list the operations come from drivers that have them all.
  const bool reductions = !reader.has("subgroupSupportedOperations") || reader.lists("subgroupSupportedOperations", "arithmetic");
  if (!reader.has("subgroupSize") || !reductions) return;
  reader.number("subgroupSize", info.subgroup_max, 1);
  info.subgroup_min = info.subgroup_max;
  if (reader.has("minSubgroupSize")) reader.number("minSubgroupSize", info.subgroup_min, 1);
  if (reader.has("maxSubgroupSize")) reader.number("maxSubgroupSize", info.subgroup_max, 1);
}

void read_features(Reader& reader, DeviceInfo& info) {
  reader.flag("shaderFloat16", info.fp16_arithmetic);
  reader.flag("storageBuffer16BitAccess", info.storage_16bit);
  reader.flag("storageBuffer8BitAccess", info.storage_8bit);
  reader.flag("shaderIntegerDotProduct", info.packed_dots);
  reader.flag("integerDotProduct4x8BitPackedSignedAccelerated", info.dot_signed);
  reader.flag("integerDotProduct4x8BitPackedUnsignedAccelerated", info.dot_unsigned);
  reader.flag("integerDotProduct4x8BitPackedMixedSignednessAccelerated", info.dot_mixed);
}

}  // namespace

std::string to_json(const DeviceInfo& info) {
  Writer writer;
  writer.text("api", std::string(name_of(info.api)));
  visit_members(info, writer);
  return writer.object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);  // drivers' names need not be UTF-8
}

Result<DeviceInfo> device_info_from_json(std::string_view json) {
  TESSERA_ASSIGN(const Json object, parse_json_object(json, "device JSON"));
  Reader reader(object);
  DeviceInfo info;
  read_api(reader, info.api);
  visit_members(info, reader);
  TESSERA_TRY(reader.status());
  return info;
}

Result<DeviceInfo> device_info_from_vulkan_report(std::string_view json) {
  TESSERA_ASSIGN(const Json object, parse_json_object(json, "device JSON"));
  Reader reader(object);
  DeviceInfo info;
  info.api = Api::kVulkan;
  read_identity(reader, info);
  read_memory(reader, info);
  read_execution(reader, info);
  read_features(reader, info);
  TESSERA_TRY(reader.status());
  return info;
}

Result<DeviceInfo> device_info_from_any_json(std::string_view json) {
  TESSERA_ASSIGN(const Json object, parse_json_object(json, "device JSON"));
  return object.contains("deviceName") ? device_info_from_vulkan_report(json) : device_info_from_json(json);
}

DeviceInfo assumed_opencl(DeviceInfo vulkan) {
  DeviceInfo info = std::move(vulkan);
  info.api = Api::kOpenCL;
  info.max_allocation_bytes = std::min(info.max_allocation_bytes, std::max(info.global_memory_bytes / 4, int64_t{128} << 20));
  info.max_binding_bytes = info.max_allocation_bytes;
  info.buffer_offset_alignment = 128;
  info.max_grid = {INT32_MAX, INT32_MAX, INT32_MAX};
  info.max_argument_bytes = 1024;
  info.image3d_writes = false;  // an extension
  info.packed_dots = info.dot_signed = info.dot_unsigned = info.dot_mixed = false;  // another
  info.storage_16bit = true;
  info.storage_8bit = true;
  return info;
}

}  // namespace tessera
