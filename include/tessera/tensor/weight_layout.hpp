// Weights as they lie on a device: blocks of W rows, split into planes of quants, scales and minima.
//
// W (the tuning row's vector width) rows stand side by side, so that one lane reads the same k of W rows in one vector. Planes of a
// quantized weight, [block] = W rows, group = 32 values of k (or 16, see quant.hpp):
//   quants  uint4 texels: 4-bit: byte (k/2)·W + r holds row r at even k (low nibble) and odd k (high nibble); 8-bit: byte k·W + r
//   high    uint4 texels, of 5- and 6-bit types the bits above these 4: 1 bit a value: byte (k/8)·W + r holds row r, bit k%8;
//           2 bits: byte (k/4)·W + r, from bit 2·(k%4) on
//   scales  W × f16 [block, group]      minima  W × f16 [block, group] (types with a minimum)
// With two levels of scales these two are bytes, to be multiplied by super_scales and super_minima, W × f16 [block, block of the file].
// A plain float weight is one plane of W × its type [block, k]. A vector is float4 texels [1, slice], f32. A bias is a weight of one column:
// what is added to row r stands where the products of row r come out.
// Rows past the last are zero. A weight too big for one object is cut into parts by rows.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tessera/base/bytes.hpp"
#include "tessera/base/status.hpp"
#include "tessera/tensor/layout.hpp"
#include "tessera/tensor/quant.hpp"

namespace tessera {

struct WeightSource {
  std::string name;           // in the model file
  WeightType type = WeightType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  // Rows come in groups of this many (the rows of a head), and each group is padded to whole slices of 4; 0: one group, not padded.
  int64_t group_rows = 0;
  // The first `split_rows` of a group are two halves in the file, i beside i + split_rows / 2; on the device they are neighbours, 2i beside 2i + 1.
  int64_t split_rows = 0;
  bool bias = false;          // one value a row, added to the product: columns = 1, never padded
  bool operator==(const WeightSource&) const = default;

  int64_t padded_rows() const { return group_rows == 0 ? rows : rows / group_rows * round_up(group_rows, 4); }
  // The file's row behind padded row `row` < padded_rows(); −1 for padding.
  int64_t file_row(int64_t row) const {
    if (group_rows == 0) return row;
    const int64_t padded = round_up(group_rows, 4), first = row / padded * group_rows, in_group = row % padded;
    if (in_group >= group_rows) return -1;
    return first + (in_group < split_rows ? in_group / 2 + in_group % 2 * (split_rows / 2) : in_group);
  }
};

// Sources of one type and width, one below the other; or two of equal shape with their blocks taking turns (gate, up, gate, up …).
struct WeightDesc {
  std::vector<WeightSource> sources;
  bool interleaved = false;

  bool operator==(const WeightDesc&) const = default;
  WeightType type() const { return sources.front().type; }
  int64_t columns() const { return sources.front().columns; }
  bool bias() const { return sources.front().bias; }
  int64_t rows() const {
    int64_t total = 0;
    for (const WeightSource& source : sources) total += source.padded_rows();
    return total;
  }
  std::string key() const {
    std::string text;
    for (const WeightSource& source : sources) text += (text.empty() ? "" : interleaved ? "|" : "+") + source.name;
    return text;
  }
};

enum class Plane : uint8_t { kWhole, kQuants, kHigh, kScales, kMinima, kSuperScales, kSuperMinima, kFloats };

constexpr std::string_view name_of(Plane plane) {
  constexpr std::string_view kNames[] = {"whole", "quants", "high", "scales", "minima", "super_scales", "super_minima", "floats"};
  return kNames[static_cast<int>(plane)];
}

struct PlaneLayout {
  Plane plane = Plane::kFloats;
  Layout layout;
};

struct WeightPart {
  int64_t first_block = 0;
  int64_t blocks = 0;
  std::vector<PlaneLayout> planes;

  const Layout* layout(Plane plane) const {
    for (const PlaneLayout& entry : planes)
      if (entry.plane == plane) return &entry.layout;
    return nullptr;
  }
};

struct WeightPlacement {
  int width = 4;              // W
  std::vector<WeightPart> parts;

  int64_t object_bytes() const {
    int64_t total = 0;
    for (const WeightPart& part : parts)
      for (const PlaneLayout& plane : part.planes) total += plane.layout.object_bytes();
    return total;
  }
};

// Blocks of W rows that a weight takes; interleaved sources are padded to whole blocks each.
inline int64_t block_count(const WeightDesc& desc, int width) {
  return desc.interleaved ? static_cast<int64_t>(desc.sources.size()) * ceil_div(desc.sources.front().padded_rows(), width) : ceil_div(desc.rows(), width);
}

// k padded to whole slices: what a kernel walks.
inline int64_t padded_columns(const WeightDesc& desc) {
  return desc.bias() ? 1 : round_up(desc.columns(), is_quantized(desc.type()) ? format_of(desc.type()).block : 4);
}

// `interleave`: blocks that take turns in storages of one line.
inline std::vector<PlaneLayout> plane_layouts(const WeightDesc& desc, int64_t blocks, int width, Storage storage, int64_t interleave = 1) {
  const WeightFormat& format = format_of(desc.type());
  const int64_t k = padded_columns(desc);
  const int64_t turns = row_of(storage).form == StorageForm::kLine && !desc.bias() ? interleave : 1;
  const auto plane = [&](DType element, int64_t texels) { return Layout{.storage = storage, .element = element, .lanes = width, .grid = {blocks, texels}, .interleave = turns}; };
  if (!is_quantized(desc.type())) return {{Plane::kFloats, plane(format.element, k)}};
  const auto bits = [&](int each) { return plane(DType::kU32, k * each / 32); };
  const auto values = [&](DType element, int64_t each) { return plane(element, k / each); };
  std::vector<PlaneLayout> planes = {{Plane::kQuants, bits(format.low_bits())}};
  if (format.high_bits() > 0) planes.push_back({Plane::kHigh, bits(format.high_bits())});
  planes.push_back({Plane::kScales, values(format.element, format.group)});
  if (format.has_min) planes.push_back({Plane::kMinima, values(format.element, format.group)});
  if (format.two_levels()) planes.push_back({Plane::kSuperScales, values(DType::kF16, format.block)});
  if (format.two_levels() && format.has_min) planes.push_back({Plane::kSuperMinima, values(DType::kF16, format.block)});
  return planes;
}

inline Layout vector_layout(int64_t channels) { return Layout{Storage::kBuffer, DType::kF32, 4, {1, ceil_div(channels, 4)}}; }

// `desc` in objects of `storage`, in as few row parts as the limits allow, but no fewer than `least_parts` (if there are as many rows).
inline Result<WeightPlacement> cut_weight(const WeightDesc& desc, int width, Storage storage, const StorageLimits& limits, int64_t least_parts, int64_t interleave) {
  const int64_t step = desc.interleaved ? static_cast<int64_t>(desc.sources.size()) : 1;  // a part holds whole gate/up pairs
  const int64_t units = block_count(desc, width) / step;
  const int64_t most_parts = std::min<int64_t>(units, 64);
  Error last(ErrorCode::kLimit, "");
  for (int64_t count = std::min(least_parts, most_parts); count <= most_parts; ++count) {
    WeightPlacement placement{width, {}};
    const int64_t even = ceil_div(units, count);
    const int64_t units_a_part = even < interleave ? even : round_up(even, interleave);   // no padding but in the last
    bool fits = true;
    for (int64_t first = 0; first < units && fits; first += units_a_part) {
      WeightPart part{first * step, std::min(units_a_part, units - first) * step, {}};
      part.planes = plane_layouts(desc, part.blocks, width, storage, interleave);
      for (PlaneLayout& plane : part.planes) {
        auto fitted = fit(plane.layout, limits);
        if (!fitted) {
          last = std::move(fitted).error();
          fits = false;
          break;
        }
        plane.layout = *fitted;
      }
      placement.parts.push_back(std::move(part));
    }
    if (fits) return placement;
  }
  return fail(std::move(last));
}

// Where a matrix goes. Errors name it: kLimit, kUnsupported (only where the choice is fixed).
inline Result<WeightPlacement> place_weight(const WeightDesc& desc, int width, const StorageChoice& choice, const StorageLimits& limits, int64_t least_parts = 1, int64_t interleave = 1) {
  auto placed = place_by(choice, [&](Storage storage) { return cut_weight(desc, width, storage, limits, least_parts, interleave); });
  if (!placed) return fail(std::move(placed).error().within(cat("weight ", desc.key())));
  return placed;
}

namespace detail {
struct FileRow {
  size_t source = 0;
  int64_t row = -1;  // −1: padding
};

// The file's row that lies as row r of block `block`.
inline FileRow row_behind(const WeightDesc& desc, int64_t block, int width, int r) {
  FileRow found;
  int64_t row = block * width + r;
  if (desc.interleaved) {
    const int64_t sources = static_cast<int64_t>(desc.sources.size());
    found.source = static_cast<size_t>(block % sources);
    row = block / sources * width + r;
  } else {
    while (found.source < desc.sources.size() && row >= desc.sources[found.source].padded_rows()) row -= desc.sources[found.source++].padded_rows();
  }
  if (found.source < desc.sources.size() && row < desc.sources[found.source].padded_rows()) found.row = desc.sources[found.source].file_row(row);
  return found;
}

// kBits bits, from `shift` of each q on, of a group that starts at value k of a row, into the row's words, which are `stride` bytes apart.
template <int kBits>
void pack_bits(const QuantGroup& group, int count, int shift, int64_t k, int64_t stride, std::byte* words) {
  constexpr int64_t kInWord = 32 / kBits;
  for (int i = 0; i < count; ++i) {
    const int64_t value = (k + i) % kInWord;
    const unsigned q = (static_cast<unsigned>(group.q[static_cast<size_t>(i)]) >> shift) & ((1u << kBits) - 1u);
    words[(k + i) / kInWord * stride + value % 4] |= static_cast<std::byte>(q << (value / 4 * kBits));
  }
}

// What one group puts into a plane; `place` is the first byte of the block, r the row in it.
inline void pack_group(const WeightFormat& format, const PlaneLayout& plane, const QuantGroup& group, int64_t g, int r, std::byte* place) {
  const int64_t k = g * format.group, stride = plane.layout.texel_stride();
  const auto put = [&](int64_t index, uint16_t value, int64_t bytes) { std::memcpy(place + index * stride + r * bytes, &value, static_cast<size_t>(bytes)); };
  switch (plane.plane) {
    case Plane::kQuants: format.low_bits() == 4 ? pack_bits<4>(group, format.group, 0, k, stride, place + r * 4) : pack_bits<8>(group, format.group, 0, k, stride, place + r * 4); break;
    case Plane::kHigh: format.high_bits() == 1 ? pack_bits<1>(group, format.group, 4, k, stride, place + r * 4) : pack_bits<2>(group, format.group, 4, k, stride, place + r * 4); break;
    case Plane::kScales: put(g, group.scale, byte_size(format.element)); break;
    case Plane::kMinima: put(g, group.min, byte_size(format.element)); break;
    case Plane::kSuperScales: put(k / format.block, group.super_scale, 2); break;
    case Plane::kSuperMinima: put(k / format.block, group.super_min, 2); break;
    case Plane::kWhole:
    case Plane::kFloats: break;
  }
}
}  // namespace detail

// Fills the blocks [first, first + count) of one plane of one part into `out`, a host copy of the rows of the object from
// `out_base` bytes on (zeroed by the caller). `row_bytes_of(source, row)` gives the file's bytes of a row.
template <class RowBytes>
void pack_plane(const WeightDesc& desc, const WeightPlacement& placement, const WeightPart& part, const PlaneLayout& plane, int64_t first, int64_t count,
                std::span<std::byte> out, int64_t out_base, RowBytes&& row_bytes_of) {
  const WeightFormat& format = format_of(desc.type());
  const int width = placement.width;
  const int64_t columns = desc.columns();
  for (int64_t b = first; b < first + count; ++b) {
    // The texels of one block are a stride apart in every storage, so the address formula is asked once a block.
    const std::array<int64_t, 2> start{b, 0};
    std::byte* place = out.data() + (host_byte_offset(plane.layout, start) - out_base);
    for (int r = 0; r < width; ++r) {
      const detail::FileRow found = detail::row_behind(desc, part.first_block + b, width, r);
      if (found.row < 0) continue;  // padding stays zero
      const std::byte* bytes = row_bytes_of(desc.sources[found.source], found.row);
      if (plane.plane == Plane::kFloats) {
        const int64_t unit = byte_size(plane.layout.element);
        for (int64_t k = 0; k < columns; ++k) std::memcpy(place + k * plane.layout.texel_stride() + r * unit, bytes + k * unit, static_cast<size_t>(unit));
        continue;
      }
      for (int64_t g = 0; g < columns / format.group; ++g) detail::pack_group(format, plane, decode_group(format, bytes, g), g, r, place);
    }
  }
}

}  // namespace tessera
