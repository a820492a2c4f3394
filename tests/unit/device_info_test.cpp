#include "tessera/device/device_info.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace tessera {
namespace {

std::string file_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

const std::filesystem::path kProfiles = std::filesystem::path(TESSERA_TEST_DATA) / "devices";

DeviceInfo profile(const std::string& name) {
  const auto info = device_info_from_vulkan_report(file_text(kProfiles / (name + ".vulkan.json")));
  EXPECT_TRUE(info) << info.error().message();
  return info ? *info : DeviceInfo{};
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// Every member differs from its default and from the others.
DeviceInfo distinct() {
  DeviceInfo info;
  info.api = Api::kVulkan;
  info.name = "a \"quoted\" name";
  info.vendor = "vendor";
  info.platform = "platform";
  info.api_version = "1.3";
  info.driver_version = "26.2";
  info.is_cpu = true;
  info.compute_units = 2;
  info.native_vector_width = 16;
  info.global_memory_bytes = int64_t{1} << 40;
  info.max_allocation_bytes = int64_t{1} << 33;
  info.max_binding_bytes = int64_t{1} << 32;
  info.buffer_offset_alignment = 64;
  info.max_image_width = 16384;
  info.max_image_height = 8192;
  info.max_image_buffer_texels = 65536;
  info.max_image_layers = 2048;
  info.max_image3d_width = 2047;
  info.max_image3d_height = 2046;
  info.max_image3d_depth = 2045;
  info.image3d_writes = true;
  info.max_workgroup_size = 1024;
  info.max_workgroup_extent = {1023, 512, 64};
  info.max_grid = {65535, 65534, 65533};
  info.shared_memory_bytes = 32768;
  info.max_argument_bytes = 256;
  info.subgroup_min = 8;
  info.subgroup_max = 32;
  info.fp16_arithmetic = info.storage_16bit = info.storage_8bit = info.packed_dots = info.dot_signed = info.dot_unsigned = info.dot_mixed = true;
  return info;
}

TEST(DeviceInfo, JsonRoundTrip) {
  const auto read = device_info_from_json(to_json(distinct()));
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(*read, distinct());
  const auto plain = device_info_from_json(to_json(DeviceInfo{}));
  ASSERT_TRUE(plain) << plain.error().message();
  EXPECT_EQ(*plain, DeviceInfo{});
}

TEST(DeviceInfo, NameThatIsNotUtf8StillPrints) {
  DeviceInfo info = distinct();
  info.name = "bad\xff";
  const auto read = device_info_from_json(to_json(info));
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->name, "bad\xEF\xBF\xBD");  // U+FFFD
}

TEST(DeviceInfo, UnknownKeysAreIgnored) {
  const auto read = device_info_from_json(replaced(to_json(distinct()), "{", "{\"from_the_future\": [1, {\"x\": null}],"));
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(*read, distinct());
}

TEST(DeviceInfo, WrongMembersAreNamed) {
  const std::string good = to_json(distinct());
  struct Case {
    std::string from, to, named;
  };
  const std::vector<Case> cases{
      {"\"vulkan\"", "\"metal\"", "'api'"},
      {"\"vulkan\"", "7", "'api'"},
      {"\"max_image_width\"", "\"max_image_widht\"", "'max_image_width' is missing"},
      {"\"compute_units\": 2", "\"compute_units\": 0", "'compute_units'"},
      {"\"compute_units\": 2", "\"compute_units\": 4294967296", "'compute_units'"},
      {"\"compute_units\": 2", "\"compute_units\": 2.5", "'compute_units'"},
      {"\"compute_units\": 2", "\"compute_units\": \"2\"", "'compute_units'"},
      {"\"shared_memory_bytes\": 32768", "\"shared_memory_bytes\": -1", "'shared_memory_bytes'"},
      {"\"shared_memory_bytes\": 32768", "\"shared_memory_bytes\": 18446744073709551615", "'shared_memory_bytes'"},
      {"\"shared_memory_bytes\": 32768", "\"shared_memory_bytes\": 1e400", "does not parse"},
      {"\"buffer_offset_alignment\": 64", "\"buffer_offset_alignment\": 0", "'buffer_offset_alignment'"},
      {"65534,", "", "'max_grid'"},
      {"65534", "\"x\"", "'max_grid'"},
      {"\"is_cpu\": true", "\"is_cpu\": 1", "'is_cpu'"},
      {"\"vendor\": \"vendor\"", "\"vendor\": null", "'vendor'"},
  };
  for (const Case& c : cases) {
    const auto read = device_info_from_json(replaced(good, c.from, c.to));
    ASSERT_FALSE(read) << c.to;
    EXPECT_EQ(read.error().code(), ErrorCode::kMalformed) << c.to;
    EXPECT_NE(read.error().message().find(c.named), std::string::npos) << c.to << ": " << read.error().message();
  }
}

TEST(DeviceInfo, TextThatIsNoDeviceIsRefused) {
  const std::string deep_arrays = "{\"x\": " + std::string(200000, '[') + std::string(200000, ']') + "}";
  std::string deep_objects = "1";
  for (int i = 0; i < 70; ++i) deep_objects = "{\"a\":" + deep_objects + "}";
  for (const std::string& text : {std::string(), std::string("null"), std::string("[]"), std::string("{"), std::string("{}"), std::string("{} x"),
                                  std::string("\xff\xfe"), std::string(300000, '['), deep_arrays, deep_objects, to_json(distinct()).substr(0, 100)}) {
    for (const auto& read : {device_info_from_json(text), device_info_from_vulkan_report(text)}) {
      ASSERT_FALSE(read) << text.substr(0, 40);
      EXPECT_EQ(read.error().code(), ErrorCode::kMalformed);
    }
  }
  EXPECT_NE(device_info_from_json(deep_objects).error().message().find("nested"), std::string::npos);
}

TEST(DeviceInfo, EveryProfileLoads) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kProfiles)) {
    SCOPED_TRACE(entry.path().filename());
    const auto info = device_info_from_vulkan_report(file_text(entry.path()));
    ASSERT_TRUE(info) << info.error().message();
    EXPECT_EQ(info->api, Api::kVulkan);
    EXPECT_EQ(info->vendor, entry.path().filename().string().rfind("adreno", 0) == 0 ? "Qualcomm" : "ARM");
    EXPECT_FALSE(info->is_cpu);
    EXPECT_EQ(info->compute_units, 1);
    // What the Vulkan 1.0 specification guarantees everywhere (table "Required Limits").
    EXPECT_GE(info->max_binding_bytes, int64_t{1} << 27);
    EXPECT_GE(info->max_image_width, 4096);
    EXPECT_GE(info->max_image_buffer_texels, 65536);
    EXPECT_GE(info->max_image_layers, 256);
    EXPECT_GE(std::min({info->max_image3d_width, info->max_image3d_height, info->max_image3d_depth}), 256);
    EXPECT_GE(info->max_workgroup_size, 128);
    EXPECT_GE(info->shared_memory_bytes, 16384);
    EXPECT_GE(info->max_argument_bytes, 128);
    EXPECT_GE(info->max_allocation_bytes, int64_t{1} << 30);
    EXPECT_LE(info->subgroup_min, info->subgroup_max);
    const auto again = device_info_from_json(to_json(*info));
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(*again, *info);
    ++count;
  }
  EXPECT_EQ(count, 31);
}

TEST(DeviceInfo, ReportOfAnAdreno) {
  const DeviceInfo info = profile("adreno-740");
  EXPECT_EQ(info.name, "Turnip Adreno (TM) 740");
  EXPECT_EQ(info.platform, "turnip Mesa driver");
  EXPECT_EQ(info.driver_version, "26.2.6");
  EXPECT_EQ(info.max_allocation_bytes, 4294967295);
  EXPECT_EQ(info.max_binding_bytes, 134217728);
  EXPECT_EQ(info.global_memory_bytes, 4294967296);
  EXPECT_EQ(info.buffer_offset_alignment, 4);
  EXPECT_EQ(info.max_image_height, 16384);
  EXPECT_EQ(info.max_image_layers, 2048);
  EXPECT_EQ(info.max_image3d_depth, 2048);
  EXPECT_TRUE(info.image3d_writes);
  EXPECT_EQ(info.max_workgroup_size, 2048);
  EXPECT_EQ(info.max_workgroup_extent, (std::array<int, 3>{1024, 1024, 1024}));
  EXPECT_EQ(info.max_grid, (std::array<int64_t, 3>{65535, 65535, 65535}));
  EXPECT_EQ(info.max_argument_bytes, 256);
  EXPECT_EQ(info.subgroup_min, 64);
  EXPECT_EQ(info.subgroup_max, 128);
  EXPECT_TRUE(info.fp16_arithmetic && info.storage_16bit && info.storage_8bit);
  EXPECT_TRUE(info.packed_dots);
  EXPECT_FALSE(info.dot_signed);
  EXPECT_TRUE(info.dot_unsigned && info.dot_mixed);
}

TEST(DeviceInfo, ReportsWithoutSubgroupsOrFeatures) {
  const DeviceInfo old_mali = profile("mali-g52"), small_mali = profile("mali-g31"), old_adreno = profile("adreno-610");
  EXPECT_EQ(old_mali.subgroup_max, 0);
  EXPECT_FALSE(old_mali.fp16_arithmetic);
  EXPECT_EQ(small_mali.max_image_buffer_texels, 65536);
  EXPECT_EQ(small_mali.max_argument_bytes, 128);
  EXPECT_TRUE(old_adreno.fp16_arithmetic);
  EXPECT_FALSE(old_adreno.storage_16bit);
}

TEST(DeviceInfo, EitherKindOfJsonIsToldApart) {
  const std::string report = file_text(kProfiles / "mali-g610.vulkan.json");
  EXPECT_EQ(*device_info_from_any_json(report), profile("mali-g610"));
  EXPECT_EQ(*device_info_from_any_json(to_json(distinct())), distinct());
  EXPECT_EQ(device_info_from_any_json("[]").error().code(), ErrorCode::kMalformed);
}

// What OpenCL 1.2 guarantees where nothing is known, and no more than the Vulkan driver allocates.
TEST(DeviceInfo, OpenClLimitsAreAssumedFromAReport) {
  const DeviceInfo vulkan = profile("adreno-740"), info = assumed_opencl(vulkan);
  EXPECT_EQ(info.api, Api::kOpenCL);
  EXPECT_EQ(info.max_allocation_bytes, vulkan.global_memory_bytes / 4);
  EXPECT_EQ(info.max_binding_bytes, info.max_allocation_bytes);
  EXPECT_EQ(info.buffer_offset_alignment, 128);
  EXPECT_EQ(info.name, vulkan.name);
  EXPECT_EQ(info.max_image_width, vulkan.max_image_width);
  EXPECT_EQ(info.max_image3d_depth, vulkan.max_image3d_depth);
  EXPECT_FALSE(info.image3d_writes);
  EXPECT_EQ(info.max_workgroup_size, vulkan.max_workgroup_size);
  EXPECT_EQ(info.fp16_arithmetic, vulkan.fp16_arithmetic);
  EXPECT_EQ(assumed_opencl(profile("mali-g610")).max_allocation_bytes, 4294967295);
  DeviceInfo little = vulkan;
  little.global_memory_bytes = int64_t{256} << 20;
  EXPECT_EQ(assumed_opencl(little).max_allocation_bytes, int64_t{128} << 20);
}

TEST(DeviceInfo, SubgroupsWithoutArithmeticDoNotCount) {
  const std::string report = file_text(kProfiles / "adreno-640.vulkan.json");
  EXPECT_EQ(device_info_from_vulkan_report(report)->subgroup_max, 128);
  EXPECT_EQ(device_info_from_vulkan_report(replaced(report, "\"arithmetic\"", "\"quad\""))->subgroup_max, 0);
}

}  // namespace
}  // namespace tessera
