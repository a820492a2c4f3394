// Which tuning rows a device gets: every profile in tests/data/devices, by name.
#include "tessera/device/tuning.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <vector>

#include "tessera/ops/matmul.hpp"

namespace tessera {
namespace {

using Labels = std::vector<std::string>;

std::map<std::string, DeviceInfo> profiles() {
  std::map<std::string, DeviceInfo> out;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(TESSERA_TEST_DATA) + "/devices")) {
    std::ifstream in(entry.path(), std::ios::binary);
    const auto info = device_info_from_vulkan_report(std::string(std::istreambuf_iterator<char>(in), {}));
    EXPECT_TRUE(info) << entry.path() << ": " << info.error().message();
    if (info) out.emplace(entry.path().stem().stem().string(), *info);
  }
  return out;
}

Labels labels(const DeviceInfo& info) {
  Labels out;
  for (const TuningRow* row : rows_for(info)) out.push_back(row->label());
  return out;
}

DeviceInfo named(std::string name, std::string api_version = "1.3") {
  DeviceInfo info;
  info.name = std::move(name);
  info.api_version = std::move(api_version);
  return info;
}

TEST(TuningRows, EveryProfileGetsItsRows) {
  const Labels a6{"adreno-6xx"}, a7{"adreno-7xx"}, a8{"adreno-8xx"}, bifrost{"mali-bifrost"}, valhall{"mali-valhall"};
  const std::map<std::string, Labels> expected{
      {"adreno-610", a6}, {"adreno-615", a6}, {"adreno-618", a6}, {"adreno-619", a6}, {"adreno-620", a6}, {"adreno-630", a6}, {"adreno-640", a6}, {"adreno-643", a6},
      {"adreno-650", {"adreno-6xx", "adreno-6xx 650"}}, {"adreno-660", {"adreno-6xx", "adreno-6xx 660"}}, {"adreno-680", a6}, {"adreno-690", a6},
      {"adreno-725", a7}, {"adreno-730", a7}, {"adreno-735", a7}, {"adreno-740", {"adreno-7xx", "adreno-7xx 740"}}, {"adreno-750", {"adreno-7xx", "adreno-7xx 750"}}, {"adreno-x1-85", a7},
      {"adreno-810", a8}, {"adreno-829", a8}, {"adreno-830", a8}, {"adreno-840", a8},
      {"mali-g31", bifrost}, {"mali-g52", bifrost}, {"mali-g52r1", bifrost}, {"mali-g72", bifrost}, {"mali-g76", bifrost},
      {"mali-g310", valhall}, {"mali-g610", valhall}, {"mali-g720", valhall}, {"mali-g725", valhall}};
  std::map<std::string, Labels> found;
  for (const auto& [name, info] : profiles()) found[name] = labels(info);
  EXPECT_EQ(found.size(), 31u);
  EXPECT_EQ(found, expected);
}

// What only the version string of an OpenCL driver says.
TEST(TuningRows, AnAdrenoWhoseNameHasNoNumberIsFoundByItsVersion) {
  EXPECT_EQ(labels(named("QUALCOMM Adreno(TM)", "OpenCL 2.0 Adreno(TM) 640")), Labels{"adreno-6xx"});
  EXPECT_EQ(labels(named("QUALCOMM Adreno(TM)", "OpenCL 3.0 Adreno(TM) 740")), (Labels{"adreno-7xx", "adreno-7xx 740"}));
  EXPECT_EQ(labels(named("QUALCOMM Adreno(TM) 735", "OpenCL 3.0 Adreno(TM) 735")), Labels{"adreno-7xx"});
}

TEST(TuningRows, OthersGetTheNeutralRow) {
  for (const char* name : {"", "Adreno (TM) 540", "Adreno", "QUALCOMM Adreno(TM)", "Mali-T880", "Mali", "PowerVR B-Series BXM-8-256", "Samsung Xclipse 940", "NVIDIA Tegra 740", "Intel(R) UHD Graphics 750"}) {
    DeviceInfo info = named(name);
    info.max_image_width = 16384;
    info.subgroup_max = 64;
    EXPECT_TRUE(rows_for(info).empty()) << name;
    EXPECT_EQ(tuning_for(info), Tuning{}) << name;
  }
}

// Later rows win, and a setting is taken only where the device can follow it.
TEST(TuningRows, SpecialRowsWinAndDevicesLimitThem) {
  const auto all = profiles();
  EXPECT_EQ(tuning_for(all.at("adreno-730")).weight_storage, Storage::kImage2D);
  EXPECT_EQ(tuning_for(all.at("adreno-740")).weight_storage, Storage::kBuffer);
  EXPECT_EQ(tuning_for(all.at("adreno-740")).row_workgroup, 256);
  EXPECT_TRUE(tuning_for(all.at("adreno-640")).words.subgroups);
  EXPECT_FALSE(tuning_for(all.at("adreno-610")).words.subgroups);   // reports none
  EXPECT_FALSE(tuning_for(all.at("mali-g610")).words.subgroups);
}

TEST(TuningRows, WideVectorsAreForRegistersThatHoldThem) {
  DeviceInfo cpu = named("pthread-haswell");
  cpu.api = Api::kOpenCL;
  cpu.is_cpu = true;
  for (const auto& [width, wide] : {std::pair{0, 0}, {8, 0}, {16, 16}, {32, 16}}) {
    cpu.native_vector_width = width;
    EXPECT_EQ(tuning_for(cpu).attention_width, wide) << width;
  }
}

// What Mesa's compilers showed (bench/mobile): spills and registers, where a kernel keeps more than a lane holds.
TEST(TuningRows, LanesOfPhonesKeepWhatTheirRegistersHold) {
  const auto all = profiles();
  const auto tokens = [&](const char* name) { return std::pair(tuning_for(all.at(name)).gemm_tokens, tuning_for(all.at(name)).gemm_gated_tokens); };
  EXPECT_EQ(tokens("adreno-630"), std::pair(8, 4));
  EXPECT_EQ(tokens("adreno-650"), std::pair(4, 2));
  EXPECT_EQ(tokens("adreno-660"), std::pair(4, 4));
  EXPECT_EQ(tokens("adreno-740"), std::pair(4, 0));
  EXPECT_EQ(tokens("mali-g52"), std::pair(4, 2));
  EXPECT_EQ(tokens("mali-g610"), std::pair(4, 2));
  for (const char* name : {"adreno-630", "adreno-650", "mali-g52", "mali-g610"}) EXPECT_FALSE(tuning_for(all.at(name)).fuse_norm) << name;
  for (const char* name : {"adreno-660", "adreno-730", "adreno-740"}) EXPECT_TRUE(tuning_for(all.at(name)).fuse_norm) << name;
  // Of rows of x too long for shared memory to hold many of them, a workgroup serves more lanes; the one lane of a CPU's workgroup stays alone.
  const Tuning phone = tuning_for(all.at("adreno-740"));
  EXPECT_EQ(ops::int8_gemv_workgroup(2048, phone), 64);
  EXPECT_EQ(ops::int8_gemv_workgroup(8192, phone), 128);
  Tuning cpu = phone;
  cpu.gemv_workgroup = 1;
  EXPECT_EQ(ops::int8_gemv_workgroup(8192, cpu), 1);
}

TEST(TuningRows, PackedDotsNeedTheirInstructions) {
  const auto all = profiles();
  EXPECT_EQ(tuning_for(all.at("adreno-740")).words.dot, DotForm::kSignedUnsigned);
  EXPECT_EQ(tuning_for(all.at("mali-g610")).words.dot, DotForm::kSignedSigned);
  EXPECT_TRUE(tuning_for(all.at("adreno-650")).int8_activations);
  EXPECT_FALSE(tuning_for(all.at("adreno-630")).int8_activations);   // has them, in as many instructions as without
  EXPECT_FALSE(tuning_for(all.at("mali-g52")).int8_activations);
  DeviceInfo without = all.at("adreno-740");
  without.packed_dots = false;
  EXPECT_EQ(tuning_for(without).words.dot, DotForm::kPlain);
  EXPECT_FALSE(tuning_for(without).int8_activations);
}

TEST(TuningRows, ActivationsAreHalvesWhereADeviceComputesInThem) {
  for (const auto& [name, info] : profiles()) EXPECT_EQ(tuning_for(info).activation_type, info.fp16_arithmetic ? DType::kF16 : DType::kF32) << name;
}

TEST(Tuning, LanesShareABlocksColumnsWhereBlocksAreFew) {
  Tuning t;
  t.gemv_workgroup = 64;
  t.gemv_lanes = 4096;
  EXPECT_EQ(t.gemv_split_of(12288, 18), 1);   // an output projection fills the device
  EXPECT_EQ(t.gemv_split_of(4096, 18), 1);
  EXPECT_EQ(t.gemv_split_of(4095, 18), 2);
  EXPECT_EQ(t.gemv_split_of(384, 18), 16);    // SmolLM2's gate and up; 16 lanes of 64 leave runs of four
  EXPECT_EQ(t.gemv_split_of(144, 18), 16);
  EXPECT_EQ(t.gemv_split_of(144, 7), 4);      // no lane without a group
  EXPECT_EQ(t.gemv_split_of(144, 1), 1);
  t.gemv_workgroup = 1;
  EXPECT_EQ(t.gemv_split_of(144, 18), 1);
  t.gemv_workgroup = 64;
  t.gemv_lanes = 0;
  EXPECT_EQ(t.gemv_split_of(144, 18), 1);
}

// Every row is reached by a device, says why, and fits what its devices allow; kernels that reduce need powers of two.
TEST(TuningRows, AreReachableAndWithinTheLimitsOfTheirDevices) {
  std::set<const TuningRow*> reached;
  auto all = profiles();
  DeviceInfo cpu = named("pthread-haswell");
  cpu.is_cpu = true;
  cpu.native_vector_width = 16;
  cpu.max_workgroup_size = 4096;
  cpu.max_workgroup_extent = {4096, 4096, 4096};
  for (const Api api : {Api::kOpenCL, Api::kVulkan}) {
    cpu.api = api;
    all.emplace(cat("a CPU driver of ", name_of(api)), cpu);
  }
  for (const auto& [name, info] : all) {
    const auto rows = rows_for(info);
    reached.insert(rows.begin(), rows.end());
    const Tuning t = tuning_for(info);
    if (t.gemm_gated_tokens > 0) {
      EXPECT_EQ(t.gemm_tokens % t.gemm_gated_tokens, 0) << name;   // the planner pads rows to gemm_tokens
    }
    for (const int workgroup : {t.gemv_workgroup, t.gemm_workgroup, t.row_workgroup, t.item_workgroup, t.attention_workgroup, std::max(t.attention_tile_workgroup, 1)}) {
      EXPECT_LE(workgroup, info.max_workgroup_size) << name;
      EXPECT_LE(workgroup, info.max_workgroup_extent[0]) << name;
      EXPECT_TRUE(std::has_single_bit(static_cast<unsigned>(workgroup))) << name << ": " << workgroup;
    }
    // Lanes past a whole subgroup stand idle; where several sizes are possible, the smallest decides.
    if (info.subgroup_max > 0) {
      EXPECT_EQ(t.gemv_workgroup % info.subgroup_min, 0) << name;
    }
    if (info.api == Api::kVulkan) {
      EXPECT_EQ(t.vector_width, 4) << name;   // GLSL has no wider vectors
      EXPECT_LE(t.attention_width, 4) << name;
    }
  }
  EXPECT_EQ(reached.size(), tuning_rows().size());
  for (const TuningRow& row : tuning_rows()) EXPECT_FALSE(row.why.empty()) << row.label();
}

}  // namespace
}  // namespace tessera
