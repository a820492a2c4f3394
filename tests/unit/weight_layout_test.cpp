// Weights as they lie on a device. The packed planes are read back here by an unpacking of our own, texel by texel through locate(), and
// must give what dequantize_row gives; every other byte is zero, and every byte that a value lies in belongs to that value alone.
#include "tessera/tensor/weight_layout.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <random>

#include "random_blocks.hpp"
#include "tessera/base/text.hpp"

namespace tessera {
namespace {

constexpr StorageLimits kWide{.max_buffer_bytes = 1 << 28,
                              .max_object_bytes = 1 << 28,
                              .max_image_width = 16384,
                              .max_image_height = 16384,
                              .max_image_buffer_texels = 1 << 26,
                              .max_image_layers = 2048,
                              .max_image3d_width = 2048,
                              .max_image3d_height = 2048,
                              .max_image3d_depth = 2048,
                              .image3d_writes = true};

using Bytes = std::vector<std::byte>;

Bytes random_rows(WeightType type, int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  return test::random_blocks(type, rows * columns / format_of(type).block, random, 1.0f);
}

// One plane of one part on the host, with a mark on every byte that somebody has read.
struct HostPlane {
  Layout layout;
  Bytes bytes;
  std::vector<uint8_t> bits_read;  // of each byte

  // `count` bytes from byte `byte_in_block` of a block on, of which `bits` are read; images hold 4 elements a pixel, neighbours side by side.
  const std::byte* at(int64_t block, int64_t byte_in_block, uint8_t bits, int64_t count) {
    const int64_t texel = byte_in_block / layout.texel_bytes(), rest = byte_in_block % layout.texel_bytes();
    const std::array<int64_t, 2> coords{block, texel};
    const TexelAddress<int64_t> place = locate<int64_t>(layout, coords);
    const ImageExtent extent = layout.extent();
    const int64_t pixel_bytes = layout.texel_bytes() / (is_image(layout.storage) && layout.lanes > 4 ? layout.lanes / 4 : 1);
    const int64_t offset = ((place.z * extent.height + place.y) * extent.width + place.x) * pixel_bytes + rest;
    for (int64_t i = offset; i < offset + count; ++i) {
      EXPECT_EQ(bits_read[static_cast<size_t>(i)] & bits, 0) << "two values in byte " << i;
      bits_read[static_cast<size_t>(i)] |= bits;
    }
    return bytes.data() + offset;
  }
};

struct PackedPart {
  WeightPart part;
  std::map<Plane, HostPlane> planes;
};

// Packs everything in uneven runs of blocks, as an upload in chunks does.
std::vector<PackedPart> pack(const WeightDesc& desc, const WeightPlacement& placement, const std::vector<Bytes>& files) {
  std::vector<PackedPart> packed;
  for (const WeightPart& part : placement.parts) {
    PackedPart out{part, {}};
    for (const PlaneLayout& plane : part.planes) {
      HostPlane host{plane.layout, Bytes(static_cast<size_t>(plane.layout.object_bytes())), {}};
      host.bits_read.resize(host.bytes.size());
      for (int64_t first = 0; first < part.blocks; first += 3)
        pack_plane(desc, placement, part, plane, first, std::min<int64_t>(3, part.blocks - first), host.bytes, 0, [&](const WeightSource& source, int64_t row) {
          const size_t file = static_cast<size_t>(&source - desc.sources.data());
          return files[file].data() + row * row_bytes(source.type, source.columns);
        });
      out.planes.emplace(plane.plane, std::move(host));
    }
    packed.push_back(std::move(out));
  }
  return packed;
}

// The value of [padded row r of block b, column k]: the header comment of weight_layout.hpp, read once more.
float value_at(PackedPart& part, const WeightFormat& format, int width, int64_t block, int64_t r, int64_t k) {
  constexpr uint8_t kAll = 0xff;
  const auto number = [&]<class T>(T, Plane plane, int64_t index) {  // one serves many values
    T bits{};
    HostPlane& host = part.planes.at(plane);
    std::fill(host.bits_read.begin(), host.bits_read.end(), uint8_t{0});
    std::memcpy(&bits, host.at(block, (index * width + r) * static_cast<int64_t>(sizeof bits), kAll, sizeof bits), sizeof bits);
    return bits;
  };
  const auto half_at = [&](Plane plane, int64_t index) { return half_to_float(number(uint16_t{}, plane, index)); };
  const auto level_at = [&](Plane plane, Plane super) {
    const int64_t group = k / format.group;
    if (!format.two_levels()) return half_at(plane, group);
    const int low = format.element == DType::kI8 ? number(int8_t{}, plane, group) : number(uint8_t{}, plane, group);
    return half_at(super, k / format.block) * static_cast<float>(low);
  };
  if (format.bits >= 16) {
    HostPlane& floats = part.planes.at(Plane::kFloats);
    float value = 0.0f;
    uint16_t bits = 0;
    if (format.bits == 32) std::memcpy(&value, floats.at(block, (k * width + r) * 4, kAll, 4), 4);
    else std::memcpy(&bits, floats.at(block, (k * width + r) * 2, kAll, 2), 2);
    return format.bits == 32 ? value : format.element == DType::kF16 ? half_to_float(bits) : std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
  // `each` bits a value: words of 32 / each values, value 4i + j from bit `each` · i of byte j on.
  const auto bits_at = [&](Plane plane, int64_t each) {
    const int64_t in_word = k % (32 / each), shift = in_word / 4 * each;
    const auto mask = static_cast<uint8_t>(((1 << each) - 1) << shift);
    return (static_cast<int>(*part.planes.at(plane).at(block, (k / (32 / each) * width + r) * 4 + in_word % 4, mask, 1)) & mask) >> shift;
  };
  int q = bits_at(Plane::kQuants, format.bits == 8 ? 8 : 4);
  if (format.bits == 8) q = static_cast<int8_t>(q);
  if (format.bits == 5) q |= bits_at(Plane::kHigh, 1) << 4;
  if (format.bits == 6) q |= bits_at(Plane::kHigh, 2) << 4;
  if (format.codebook != nullptr) q = (*format.codebook)[static_cast<size_t>(q)];
  return level_at(Plane::kScales, Plane::kSuperScales) * static_cast<float>(q - format.zero_point) + (format.has_min ? level_at(Plane::kMinima, Plane::kSuperMinima) : 0.0f);
}

struct Shape {
  std::vector<int64_t> rows;  // of each source
  int64_t columns;
  bool interleaved;
  int64_t group_rows;
  int64_t split_rows = 0;
  bool bias = false;

  // Where a row of the file goes within its source.
  int64_t place(int64_t file_row) const {
    if (group_rows == 0) return file_row;
    int64_t in_group = file_row % group_rows;
    if (in_group < split_rows) in_group = in_group < split_rows / 2 ? 2 * in_group : 2 * in_group - split_rows + 1;
    return file_row / group_rows * ((group_rows + 3) / 4 * 4) + in_group;
  }
};

WeightDesc describe(WeightType type, const Shape& shape) {
  WeightDesc desc;
  for (size_t i = 0; i < shape.rows.size(); ++i) desc.sources.push_back({cat("w", i), type, shape.rows[i], shape.columns, shape.group_rows, shape.split_rows, shape.bias});
  desc.interleaved = shape.interleaved;
  return desc;
}

void expect_round_trip(WeightType type, const Shape& shape, int width, Storage storage, const StorageLimits& limits, size_t least_parts, int64_t fold, int64_t interleave = 1) {
  SCOPED_TRACE(cat(format_of(type).name, " w", width, " ", name_of(storage), " rows ", shape.rows[0], "+… columns ", shape.columns, shape.interleaved ? " interleaved" : "", " parts ", least_parts));
  const WeightFormat& format = format_of(type);
  const WeightDesc desc = describe(type, shape);
  const auto placement = place_weight(desc, width, storage, limits, 1, interleave);
  ASSERT_TRUE(placement) << placement.error().message();
  ASSERT_GE(placement->parts.size(), least_parts);
  std::vector<Bytes> files;
  for (size_t i = 0; i < shape.rows.size(); ++i) files.push_back(random_rows(type, shape.rows[i], shape.columns, static_cast<uint32_t>(i + 1)));
  std::vector<PackedPart> packed = pack(desc, *placement, files);

  int64_t next_block = 0;
  for (PackedPart& part : packed) {
    ASSERT_EQ(part.part.first_block, next_block);
    ASSERT_EQ(part.part.first_block % (shape.interleaved ? static_cast<int64_t>(shape.rows.size()) : 1), 0) << "a part begins with a whole pair";
    next_block += part.part.blocks;
    for (const PlaneLayout& plane : part.part.planes) {
      ASSERT_EQ(plane.layout.storage, storage);
      ASSERT_EQ(plane.layout.fold, fold);
    }
  }
  ASSERT_EQ(next_block, block_count(desc, width));

  std::vector<float> row(static_cast<size_t>(shape.columns));
  const auto expect_row = [&](int64_t block, int64_t r, size_t source, int64_t file_row) {
    auto part = std::find_if(packed.begin(), packed.end(), [&](const PackedPart& p) { return block >= p.part.first_block && block < p.part.first_block + p.part.blocks; });
    dequantize_row(type, files[source].data() + file_row * row_bytes(type, shape.columns), shape.columns, row.data());
    for (int64_t k = 0; k < shape.columns; ++k) ASSERT_EQ(value_at(*part, format, width, block - part->part.first_block, r, k), row[static_cast<size_t>(k)]) << "source " << source << " row " << file_row << " column " << k;
  };
  int64_t stacked = 0;
  for (size_t source = 0; source < shape.rows.size(); ++source) {
    for (int64_t file_row = 0; file_row < shape.rows[source]; ++file_row) {
      const int64_t at = shape.place(file_row);
      if (shape.interleaved) expect_row(at / width * static_cast<int64_t>(shape.rows.size()) + static_cast<int64_t>(source), at % width, source, file_row);
      else expect_row((stacked + at) / width, (stacked + at) % width, source, file_row);
    }
    stacked += desc.sources[source].padded_rows();
  }
  // What no value was read from is padding.
  for (PackedPart& part : packed)
    for (auto& [plane, host] : part.planes) {
      const bool counted = plane == Plane::kQuants || plane == Plane::kHigh || plane == Plane::kFloats;
      for (size_t i = 0; counted && i < host.bytes.size(); ++i)
        ASSERT_EQ(static_cast<uint8_t>(host.bytes[i]) & ~unsigned{host.bits_read[i]}, 0u) << name_of(plane) << " byte " << i;
    }
}

const std::vector<Shape>& shapes(WeightType type) {
  static const std::vector<Shape> quantized = {{{5}, 32, false, 0}, {{127}, 96, false, 0}, {{12, 4, 4}, 64, false, 0}, {{21, 21}, 32, true, 0}, {{12, 6}, 32, false, 6}, {{20, 10}, 32, false, 10, 8}};
  static const std::vector<Shape> plain = {{{1}, 1, false, 0}, {{3}, 5, false, 0}, {{127}, 127, false, 0}, {{12, 4, 4}, 3, false, 0}, {{21, 21}, 5, true, 0}, {{12, 6}, 7, false, 6}, {{12, 6}, 7, false, 6, 6},
                                           {{127}, 1, false, 0, 0, true}, {{21, 21}, 1, true, 0, 0, true}, {{20, 10}, 1, false, 10, 8, true}};
  static const std::vector<Shape> large_blocks = {{{5}, 256, false, 0}, {{37}, 512, false, 0}, {{12, 4, 4}, 256, false, 0}, {{21, 21}, 256, true, 0}, {{12, 6}, 256, false, 6}, {{20, 10}, 256, false, 10, 8}};
  return !is_quantized(type) ? plain : format_of(type).block == 32 ? quantized : large_blocks;
}

TEST(PackPlane, UnpacksToTheFilesValues) {
  for (const WeightFormat& format : kWeightFormats)
    for (const int width : {4, 8, 16})
      for (size_t s = 0; s < kStorageRows.size(); ++s)
        for (const Shape& shape : shapes(format.type))
          expect_round_trip(format.type, shape, width, static_cast<Storage>(s), kWide, 1, row_of(static_cast<Storage>(s)).form == StorageForm::kLayers ? kLayerRows : 0);
}

TEST(PackPlane, UnpacksFromParts) {
  for (const WeightFormat& format : kWeightFormats)
    for (const bool interleaved : {false, true}) {
      const Shape shape{interleaved ? std::vector<int64_t>{45, 45} : std::vector<int64_t>{90}, std::max(32, format.block), interleaved, 0};
      StorageLimits limits = kWide;
      limits.max_buffer_bytes = limits.max_object_bytes = plane_layouts(describe(format.type, shape), 6, 4, Storage::kBuffer)[0].layout.object_bytes();
      expect_round_trip(format.type, shape, 4, Storage::kBuffer, limits, 4, 0);
      expect_round_trip(format.type, shape, 4, Storage::kImage2D, limits, 4, 0);
      StorageLimits thin = kWide;  // 3 layers of 2 blocks
      thin.max_image_height = 2, thin.max_image_layers = 3;
      expect_round_trip(format.type, shape, 4, Storage::kImage2DArray, thin, 4, 2);
    }
}

// Texel by texel, blocks take turns: neighbours in memory belong to neighbouring blocks.
TEST(PackPlane, UnpacksWhereBlocksTakeTurns) {
  for (const WeightFormat& format : kWeightFormats)
    for (const Storage storage : {Storage::kBuffer, Storage::kImageBuffer, Storage::kImage2D})
      for (const Shape& shape : shapes(format.type)) expect_round_trip(format.type, shape, 4, storage, kWide, 1, 0, 8);
  const auto placed = place_weight(describe(WeightType::kQ4_0, {{20}, 32, false, 0}), 4, Storage::kBuffer, kWide, 1, 8);
  ASSERT_TRUE(placed);
  const Layout& quants = *placed->parts[0].layout(Plane::kQuants);
  EXPECT_EQ(quants.object_bytes(), 8 * 4 * 16);  // 5 blocks of 4 words, padded to 8
  const std::array<int64_t, 2> first{0, 0}, right{0, 1}, below{1, 0};
  EXPECT_EQ(host_byte_offset(quants, below) - host_byte_offset(quants, first), 16);
  EXPECT_EQ(host_byte_offset(quants, right) - host_byte_offset(quants, first), 8 * 16);
}

TEST(PlaceWeight, MakesAtLeastAsManyPartsAsAskedFor) {
  const WeightDesc desc = describe(WeightType::kQ4_0, {{64}, 32, false, 0}), pair = describe(WeightType::kQ4_0, {{8, 8}, 32, true, 0});
  EXPECT_EQ(place_weight(desc, 4, Storage::kImage2D, kWide, 4)->parts.size(), 4u);
  EXPECT_EQ(place_weight(desc, 4, Storage::kBuffer, kWide, 3)->parts.size(), 3u);
  EXPECT_EQ(place_weight(desc, 4, Storage::kBuffer, kWide, 100)->parts.size(), 16u);  // no more than there are blocks
  EXPECT_EQ(place_weight(pair, 4, Storage::kBuffer, kWide, 100)->parts.size(), 2u);   // or pairs
}

TEST(PlaceWeight, RefusesWhatWasAskedForAndCannotBe) {
  StorageLimits limits = kWide;
  limits.max_image_width = 8;
  const auto placement = place_weight(describe(WeightType::kQ4_0, {{64}, 512, false, 0}), 4, {Storage::kImage2D, true}, limits);
  ASSERT_FALSE(placement);
  EXPECT_EQ(placement.error().code(), ErrorCode::kLimit);
  for (const char* part : {"weight w0", "image2d", "asked for", "8 x 16384"}) EXPECT_NE(placement.error().message().find(part), std::string::npos) << placement.error().message();
}

TEST(PackPlane, UnpacksFromFoldedImages) {
  StorageLimits limits = kWide;
  limits.max_image_height = 7;  // folds are powers of two: 4 rows a panel
  for (const WeightFormat& format : kWeightFormats)
    for (const int width : {4, 8, 16})
      for (const Storage storage : {Storage::kImage2D, Storage::kImage2DArray}) expect_round_trip(format.type, {{127}, std::max(64, format.block), false, 0}, width, storage, limits, 1, 4);
}

TEST(PlaceWeight, PadsABiasToItsLastBlockOnly) {
  const auto placement = place_weight(describe(WeightType::kF32, {{21, 21}, 1, true, 0, 0, true}), 8, Storage::kBuffer, kWide);
  ASSERT_TRUE(placement);
  EXPECT_EQ(placement->object_bytes(), 2 * 24 * 4);
}

TEST(PlaceWeight, FallsBackToBuffersWhereImagesAreTooNarrow) {
  StorageLimits limits = kWide;
  limits.max_image_width = 8;
  limits.max_image_buffer_texels = 0;
  const auto placement = place_weight(describe(WeightType::kQ4_0, {{64}, 512, false, 0}), 4, Storage::kImage2D, limits);
  ASSERT_TRUE(placement) << placement.error().message();
  EXPECT_EQ(placement->parts.size(), 1u);
  for (const PlaneLayout& plane : placement->parts[0].planes) EXPECT_EQ(plane.layout.storage, Storage::kBuffer);
}

TEST(PlaceWeight, NamesTheWeightThatFitsNowhere) {
  StorageLimits limits = kWide;
  limits.max_buffer_bytes = limits.max_object_bytes = 100;  // less than one block of rows
  const auto placement = place_weight(describe(WeightType::kF32, {{64}, 512, false, 0}), 4, Storage::kImage2D, limits);
  ASSERT_FALSE(placement);
  EXPECT_EQ(placement.error().code(), ErrorCode::kLimit);
  EXPECT_NE(placement.error().message().find("w0"), std::string::npos) << placement.error().message();
  EXPECT_NE(placement.error().message().find("100"), std::string::npos) << placement.error().message();
}

TEST(WeightPlacement, CountsItsBytes) {
  const auto placement = place_weight(describe(WeightType::kQ4_1, {{127}, 96, false, 0}), 8, Storage::kBuffer, kWide);
  ASSERT_TRUE(placement);
  // 16 blocks of 8 rows: half a byte a value, and two bytes of scale and of minimum for each 32.
  EXPECT_EQ(placement->object_bytes(), 16 * 8 * (96 / 2 + 96 / 32 * 2 * 2));
}

}  // namespace
}  // namespace tessera
