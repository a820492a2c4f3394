// Weights as they lie on a device: blocks of W rows, split into planes of quants, scales and minima.
//
// W (the tuning row's vector width) rows stand side by side, so that one lane reads the same k of W rows in one vector. Planes of a
// quantized weight, [block] = W rows, group = 32 values of k:
//   quants  uint4 texels: 4-bit: byte (k/2)·W + r holds row r at even k (low nibble) and odd k (high nibble); 8-bit: byte k·W + r
//   scales  W × f16 [block, group]      minima  W × f16 [block, group] (types with a minimum)
// A plain float weight is one plane of W × f16/f32 [block, k]. A vector is float4 texels [1, slice], f32. A bias is a weight of one column:
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

enum class Plane : uint8_t { kWhole, kQuants, kScales, kMinima, kFloats };

constexpr std::string_view name_of(Plane plane) {
  constexpr std::string_view kNames[] = {"whole", "quants", "scales", "minima", "floats"};
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
inline int64_t padded_columns(const WeightDesc& desc) { return desc.bias() ? 1 : round_up(desc.columns(), format_of(desc.type()).block == 1 ? 4 : 32); }

inline std::vector<PlaneLayout> plane_layouts(const WeightDesc& desc, int64_t blocks, int width, Storage storage) {
  const WeightFormat& format = format_of(desc.type());
  const int64_t k = padded_columns(desc);
  if (!is_quantized(desc.type())) {
    const DType element = desc.type() == WeightType::kF16 ? DType::kF16 : DType::kF32;
    return {{Plane::kFloats, Layout{storage, element, width, {blocks, k}}}};
  }
  const int64_t texels = k * width * format.bits / 8 / 16;
  std::vector<PlaneLayout> planes = {{Plane::kQuants, Layout{storage, DType::kU32, 4, {blocks, texels}}},
                                     {Plane::kScales, Layout{storage, DType::kF16, width, {blocks, k / 32}}}};
  if (format.has_min) planes.push_back({Plane::kMinima, Layout{storage, DType::kF16, width, {blocks, k / 32}}});
  return planes;
}

inline Layout vector_layout(int64_t channels) { return Layout{Storage::kBuffer, DType::kF32, 4, {1, ceil_div(channels, 4)}}; }

// Where a matrix goes: `storage` if the limits allow it, cut into as few row parts as that needs; else buffers, cut likewise.
inline Result<WeightPlacement> place_weight(const WeightDesc& desc, int width, Storage storage, const StorageLimits& limits) {
  const int64_t step = desc.interleaved ? static_cast<int64_t>(desc.sources.size()) : 1;  // a part holds whole gate/up pairs
  const int64_t units = block_count(desc, width) / step;
  Error last(ErrorCode::kLimit, "");
  for (const Storage candidate : {storage, Storage::kBuffer}) {
    for (int64_t count = 1; count <= std::min<int64_t>(units, 64); ++count) {
      WeightPlacement placement{width, {}};
      const int64_t units_a_part = ceil_div(units, count);
      bool fits = true;
      for (int64_t first = 0; first < units && fits; first += units_a_part) {
        WeightPart part{first * step, std::min(units_a_part, units - first) * step, {}};
        part.planes = plane_layouts(desc, part.blocks, width, candidate);
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
  }
  return fail(std::move(last).within(cat("weight ", desc.key())));
}

// Fills the blocks [first, first + count) of one plane of one part into `out`, a host copy of the rows of the object from
// `out_base` bytes on (zeroed by the caller). `row_bytes_of(source, row)` gives the file's bytes of a row.
template <class RowBytes>
void pack_plane(const WeightDesc& desc, const WeightPlacement& placement, const WeightPart& part, const PlaneLayout& plane, int64_t first, int64_t count,
                std::span<std::byte> out, int64_t out_base, RowBytes&& row_bytes_of) {
  const WeightFormat& format = format_of(desc.type());
  const int width = placement.width;
  const int64_t columns = desc.columns();
  const int64_t lane_sources = static_cast<int64_t>(desc.sources.size());
  for (int64_t b = first; b < first + count; ++b) {
    const int64_t block = part.first_block + b;
    // The texels of one block are neighbours in every storage, so the address formula is asked once a block.
    const std::array<int64_t, 2> start{b, 0};
    std::byte* place = out.data() + (host_byte_offset(plane.layout, start) - out_base);
    for (int r = 0; r < width; ++r) {
      size_t source = 0;
      int64_t row = block * width + r;
      if (desc.interleaved) {
        source = static_cast<size_t>(block % lane_sources);
        row = block / lane_sources * width + r;
      } else {
        while (source < desc.sources.size() && row >= desc.sources[source].padded_rows()) row -= desc.sources[source++].padded_rows();
      }
      if (source >= desc.sources.size() || row >= desc.sources[source].padded_rows()) continue;  // padding stays zero
      const int64_t file_row = desc.sources[source].file_row(row);
      if (file_row < 0) continue;
      const std::byte* bytes = row_bytes_of(desc.sources[source], file_row);
      if (plane.plane == Plane::kFloats) {
        const int64_t unit = byte_size(plane.layout.element);
        for (int64_t k = 0; k < columns; ++k) std::memcpy(place + (k * width + r) * unit, bytes + k * unit, static_cast<size_t>(unit));
        continue;
      }
      QuantGroup group;
      for (int64_t g = 0; g < columns / 32; ++g) {
        format.decode(bytes + g * format.block_bytes, group);
        if (plane.plane == Plane::kScales) std::memcpy(place + (g * width + r) * 2, &group.scale, 2);
        if (plane.plane == Plane::kMinima) std::memcpy(place + (g * width + r) * 2, &group.min, 2);
        if (plane.plane != Plane::kQuants) continue;
        std::byte* quants = place + int64_t{32} * g * width * format.bits / 8 + r;
        for (int k = 0; k < 32; ++k) {
          const auto q = static_cast<unsigned>(group.q[static_cast<size_t>(k)]);
          if (format.bits == 8) quants[k * width] = static_cast<std::byte>(q);
          else quants[k / 2 * width] |= static_cast<std::byte>(k % 2 == 1 ? q << 4 : q);
        }
      }
    }
  }
}

}  // namespace tessera
