// Block formats against raw blocks and their float32 values from the format's own project (tests/model/conform/dequant).
#include "tessera/tensor/quant.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tessera {
namespace {

const std::string kFolder = TESSERA_SOURCE_DIR "/tests/model/conform/dequant/";

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The data of a little-endian float32 .npy file, version 1: magic, version, header length, header, data.
std::vector<float> read_npy(const std::string& path) {
  const std::string file = read_all(path);
  uint16_t header_bytes = 0;
  if (file.size() < 10 || file.find("'<f4'") == std::string::npos) return {};
  std::memcpy(&header_bytes, file.data() + 8, 2);
  std::vector<float> values((file.size() - 10 - header_bytes) / 4);
  std::memcpy(values.data(), file.data() + 10 + header_bytes, values.size() * 4);
  return values;
}

TEST(Quant, DequantizesExactlyAsPublished) {
  for (const WeightFormat& format : kWeightFormats) {
    if (format.type == WeightType::kF32) continue;  // nothing to convert
    const std::string blocks = read_all(kFolder + std::string(format.name) + ".bin");
    const std::vector<float> expected = read_npy(kFolder + std::string(format.name) + ".npy");
    ASSERT_FALSE(expected.empty()) << format.name;
    const auto columns = static_cast<int64_t>(expected.size());
    ASSERT_EQ(row_bytes(format.type, columns), static_cast<int64_t>(blocks.size())) << format.name;
    std::vector<float> values(expected.size());
    dequantize_row(format.type, reinterpret_cast<const std::byte*>(blocks.data()), columns, values.data());
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(expected[i]))
        EXPECT_TRUE(std::isnan(values[i])) << format.name << " at " << i;
      else
        ASSERT_EQ(values[i], expected[i]) << format.name << " at " << i;
    }
  }
}

TEST(Quant, F32IsCopied) {
  const float row[3] = {1.5f, -0.0f, std::numeric_limits<float>::denorm_min()};
  float out[3];
  dequantize_row(WeightType::kF32, reinterpret_cast<const std::byte*>(row), 3, out);
  EXPECT_EQ(std::memcmp(row, out, sizeof row), 0);
}

TEST(Quant, TableAgreesWithPublishedSizes) {
  const auto index = nlohmann::json::parse(std::ifstream(kFolder + "index.json"));
  for (const WeightFormat& format : kWeightFormats) {
    EXPECT_EQ(&format_of(format.type), &format);
    EXPECT_EQ(format_from_ggml(format.ggml_type), &format);
    EXPECT_EQ(format.decode != nullptr, is_quantized(format.type)) << format.name;
    if (!index.contains(format.name)) continue;
    const auto& facts = index[std::string(format.name)];
    EXPECT_EQ(format.ggml_type, facts["ggml_type"].get<uint32_t>()) << format.name;
    EXPECT_EQ(format.block, facts["block"].get<int>()) << format.name;
    EXPECT_EQ(format.block_bytes, facts["bytes"].get<int>()) << format.name;
  }
  EXPECT_EQ(format_from_ggml(14), nullptr);  // Q6_K
}

// The kernels' form of a weight: planes of q, scale and min.
TEST(Quant, PlanesMeanTheSameAsTheRow) {
  for (const WeightFormat& format : kWeightFormats) {
    if (!format.decode) continue;
    const std::string blocks = read_all(kFolder + std::string(format.name) + ".bin");
    const auto* bytes = reinterpret_cast<const std::byte*>(blocks.data());
    const int64_t count = static_cast<int64_t>(blocks.size()) / format.block_bytes;
    std::vector<float> expected(static_cast<size_t>(count) * 32);
    dequantize_row(format.type, bytes, count * 32, expected.data());
    for (int64_t block = 0; block < count; ++block) {
      QuantGroup group{};
      format.decode(bytes + block * format.block_bytes, group);
      EXPECT_TRUE(format.has_min || group.min == 0);
      for (size_t i = 0; i < 32; ++i) {
        EXPECT_TRUE(format.bits == 8 || group.q[i] < 16);
        const double value = static_cast<double>(half_to_float(group.scale)) * (quant_value(format, group.q[i]) - format.zero_point) +
                             static_cast<double>(half_to_float(group.min));
        ASSERT_EQ(static_cast<float>(value), expected[static_cast<size_t>(block) * 32 + i]) << format.name << " block " << block;
      }
    }
  }
}

}  // namespace
}  // namespace tessera
