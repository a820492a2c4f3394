// Block formats against raw blocks and their float32 values from the format's own project: tests/data/quant, made by make.py there, and
// tests/model/conform/dequant, quantized from real numbers.
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

#include "tessera/base/text.hpp"

namespace tessera {
namespace {

const std::string kRandom = TESSERA_TEST_DATA "/quant/";
const std::string kReal = TESSERA_SOURCE_DIR "/tests/model/conform/dequant/";

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

std::string raw_blocks(const WeightFormat& format) { return read_all(cat(kRandom, format.name, ".bin")); }

// Bit for bit, but that one NaN is as good as another.
void expect_dequantizes(const WeightFormat& format, const std::string& folder) {
  const std::string blocks = read_all(cat(folder, format.name, ".bin"));
  const std::vector<float> expected = read_npy(cat(folder, format.name, ".npy"));
  ASSERT_FALSE(expected.empty()) << folder << format.name;
  const auto columns = static_cast<int64_t>(expected.size());
  ASSERT_EQ(row_bytes(format.type, columns), static_cast<int64_t>(blocks.size())) << format.name;
  std::vector<float> values(expected.size());
  dequantize_row(format.type, reinterpret_cast<const std::byte*>(blocks.data()), columns, values.data());
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(expected[i]))
      EXPECT_TRUE(std::isnan(values[i])) << format.name << " at " << i;
    else
      ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected[i])) << format.name << " at " << i << ": " << values[i] << ", " << expected[i];
  }
}

TEST(Quant, DequantizesExactlyAsPublished) {
  for (const WeightFormat& format : kWeightFormats) {
    if (format.type == WeightType::kF32) continue;  // nothing to convert
    expect_dequantizes(format, kRandom);
    if (std::ifstream(cat(kReal, format.name, ".bin"))) expect_dequantizes(format, kReal);
  }
}

TEST(Quant, F32IsCopied) {
  const float row[3] = {1.5f, -0.0f, std::numeric_limits<float>::denorm_min()};
  float out[3];
  dequantize_row(WeightType::kF32, reinterpret_cast<const std::byte*>(row), 3, out);
  EXPECT_EQ(std::memcmp(row, out, sizeof row), 0);
}

TEST(Quant, TableAgreesWithPublishedSizes) {
  const auto index = nlohmann::json::parse(std::ifstream(kReal + "index.json"));
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
  EXPECT_EQ(format_from_ggml(10), nullptr);  // Q2_K
}

// The kernels' form of a weight: q of so many bits, scale and min.
TEST(Quant, GroupsMeanTheSameAsTheRow) {
  for (const WeightFormat& format : kWeightFormats) {
    if (!format.decode) continue;
    const std::string blocks = raw_blocks(format);
    const auto* bytes = reinterpret_cast<const std::byte*>(blocks.data());
    const int64_t columns = static_cast<int64_t>(blocks.size()) / format.block_bytes * format.block;
    std::vector<float> expected(static_cast<size_t>(columns));
    dequantize_row(format.type, bytes, columns, expected.data());
    for (int64_t g = 0; g < columns / format.group; ++g) {
      const QuantGroup group = decode_group(format, bytes, g);
      EXPECT_TRUE(format.has_min || (group.min == 0 && group.super_min == 0));
      EXPECT_TRUE(!format.two_levels() || (group.scale < 256 && group.min < 256)) << "a byte each";
      for (int i = 0; i < format.group; ++i) {
        const uint8_t q = group.q[static_cast<size_t>(i)];
        EXPECT_LT(q >> format.bits, 1) << format.name;
        const double value = static_cast<double>(scale_of(format, group)) * (quant_value(format, q) - format.zero_point) + static_cast<double>(min_of(format, group));
        const float found = expected[static_cast<size_t>(g * format.group + i)];
        if (std::isnan(value)) EXPECT_TRUE(std::isnan(found)) << format.name;
        else ASSERT_EQ(static_cast<float>(value), found) << format.name << " group " << g;
      }
    }
  }
}

}  // namespace
}  // namespace tessera
