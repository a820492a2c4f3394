// Tensor virtualization: where the texels of a logical tensor lie in one physical object.
//
// A tensor is a grid of texels, named axes outermost first, the last axis fastest. A texel is what one kernel read returns: 1, 2 or 4
// elements, or a whole vector of a CPU driver's width (8, 16). A Layout places the grid in a buffer or an image. It is ONE description
// used three ways: locate() with numbers packs on the host, locate() with IndexText prints the kernel's address, extent() sizes the object.
// Host and kernel therefore cannot disagree.
//
// The outermost extent never enters an address, so kernel text does not depend on the number of tokens or pages. (Whether an image2d is
// folded does depend on it: activations are not. Layers are folded always, at a constant.)
// Source of the idea: ML Drift, arXiv 2505.00232, section 3.1; the formulas here are this project's.
#pragma once
#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tessera/base/bytes.hpp"
#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"
#include "tessera/tensor/dtype.hpp"
#include "tessera/tensor/storage.hpp"

namespace tessera {

struct Layout {
  Storage storage = Storage::kBuffer;
  DType element = DType::kF32;
  int lanes = 4;               // elements per texel: 1, 2, 4, 8, 16
  std::vector<int64_t> grid;   // extents in texels, outermost first; at least one axis
  int64_t fold = 0;            // rows after which an image continues in its next panel or layer; 0 = never
  int64_t interleave = 1;      // on one line: this many rows take turns, texel by texel, so that lanes that walk a row each read neighbours

  bool operator==(const Layout&) const = default;

  int64_t texels() const {
    int64_t count = 1;
    for (int64_t extent : grid) count *= extent;
    return count;
  }
  int64_t rows() const { return grid.back() == 0 ? 0 : texels() / grid.back(); }
  // What lies on one line is padded to whole runs of interleaved rows.
  int64_t line_rows() const { return round_up(rows(), interleave); }
  // Images hold at most 4 elements a pixel: a wider texel is several neighbouring pixels.
  int pixels_per_texel() const { return is_image(storage) && lanes > 4 ? lanes / 4 : 1; }
  int64_t texel_bytes() const { return lanes * byte_size(element); }
  int64_t pixel_bytes() const { return texel_bytes() / pixels_per_texel(); }
  // Panels of columns side by side.
  int64_t panels() const { return fold != 0 && row_of(storage).form == StorageForm::kPanels ? ceil_div(rows(), fold) : 1; }
  ImageExtent extent() const {
    const int64_t width = grid.back() * pixels_per_texel();
    switch (row_of(storage).form) {
      case StorageForm::kLine: return {line_rows() * width, 1, 1};
      case StorageForm::kPanels: return {width * panels(), fold == 0 ? rows() : fold, 1};
      case StorageForm::kLayers: return {width, fold == 0 ? rows() : std::min(rows(), fold), fold == 0 ? 1 : ceil_div(rows(), fold)};
    }
    return {};
  }
  // Bytes of the object's content: what a host copy of it takes, and (images: without the driver's padding) what is charged to the memory plan.
  int64_t object_bytes() const { return extent().pixels() * pixel_bytes(); }
  // The object as the host writes and reads it: rows of pixels; where all lies on one line, rows of the grid.
  int64_t lines() const { return row_of(storage).form == StorageForm::kLine ? line_rows() : extent().height * extent().depth; }
  int64_t line_bytes() const { return lines() == 0 ? 0 : object_bytes() / lines(); }
  // From a texel to its right neighbour in the grid.
  int64_t texel_stride() const { return texel_bytes() * interleave; }
};

// Buffer: x = texel index. Image: the texel's first pixel.
template <class Index>
struct TexelAddress {
  Index x = 0;
  Index y = 0;
  Index z = 0;
};

// `coords` has one entry an axis of layout.grid. Index is int64_t or IndexText.
template <class Index>
TexelAddress<Index> locate(const Layout& layout, std::span<const Index> coords) {
  assert(coords.size() == layout.grid.size());
  const size_t last = coords.size() - 1;
  Index row = Index(0);
  for (size_t axis = 0; axis < last; ++axis) row = (axis == 0 || layout.grid[axis] != 1) ? row * Index(layout.grid[axis]) + coords[axis] : row;
  // Axes of size 1 vanish, but never the outermost: its extent is a run-time matter.
  const Index column = last > 0 && layout.grid[last] == 1 ? Index(0) : coords[last];
  const Index pixels(layout.pixels_per_texel()), width(layout.grid[last]);
  if (layout.interleave > 1) return {(((row / layout.interleave) * width + column) * Index(layout.interleave) + row % layout.interleave) * pixels};
  if (row_of(layout.storage).form == StorageForm::kLine) return {(row * width + column) * pixels};
  if (layout.fold == 0) return {column * pixels, row};
  if (row_of(layout.storage).form == StorageForm::kLayers) return {column * pixels, row % layout.fold, row / layout.fold};
  return {(row / layout.fold) * (width * pixels) + column * pixels, row % layout.fold};
}

// Byte offset of a texel in a host copy of the object (image rows packed without padding).
inline int64_t host_byte_offset(const Layout& layout, std::span<const int64_t> coords) {
  const TexelAddress<int64_t> at = locate<int64_t>(layout, coords);
  const ImageExtent extent = layout.extent();
  return ((at.z * extent.height + at.y) * extent.width + at.x) * layout.pixel_bytes();
}

inline std::string text_of(const ImageExtent& extent) { return cat(extent.width, " x ", extent.height, extent.depth == 1 ? "" : cat(" x ", extent.depth)); }

// Whether the object of `layout` can be made: kUnsupported where the device has no such object, kLimit where it would be too large.
inline Status check_limits(const Layout& layout, const StorageLimits& limits) {
  const ImageExtent needed = layout.extent(), most = largest(layout.storage, limits);
  if (std::min({most.width, most.height, most.depth}) == 0) return fail(ErrorCode::kUnsupported, cat("the device has no ", name_of(layout.storage)));
  const int64_t bytes = layout.object_bytes(), most_bytes = limits.*row_of(layout.storage).bytes;
  if (bytes > most_bytes) return fail(ErrorCode::kLimit, cat("needs ", bytes, " bytes as ", name_of(layout.storage), "; the device allows ", most_bytes));
  if (needed.within(most)) return {};
  return fail(ErrorCode::kLimit, cat("needs ", text_of(needed), " pixels as ", name_of(layout.storage), "; the device allows ", text_of(most)));
}

// Rows of a layer, if the device allows as many. 2,048 layers hold 32,768 rows: 131,072 rows of a weight in blocks of 4. More rows a layer would
// leave more of the last one empty.
inline constexpr int64_t kLayerRows = 16;

// Rows after which `wanted` is folded: a power of two, so that the address is a shift and a mask.
inline int64_t fold_of(const Layout& wanted, int64_t max_height) {
  const StorageForm form = row_of(wanted.storage).form;
  if (form == StorageForm::kLine || (form == StorageForm::kPanels && wanted.rows() <= max_height)) return 0;
  const auto most = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(max_height)));
  return form == StorageForm::kLayers ? std::min(kLayerRows, most) : most;
}

// The layout that `wanted` becomes within `limits`: an image too high is folded. The planner answers a failure with the next storage, or
// with a tensor in parts.
inline Result<Layout> fit(Layout wanted, const StorageLimits& limits) {
  constexpr int64_t kMaxIndex = INT32_MAX;  // kernels index with 32-bit int
  if (wanted.texels() > kMaxIndex) return fail(ErrorCode::kLimit, cat(wanted.texels(), " texels in one object; kernels index at most ", kMaxIndex));
  wanted.fold = fold_of(wanted, largest(wanted.storage, limits).height);
  TESSERA_TRY(check_limits(wanted, limits));
  return wanted;
}

// What `place(storage)` gives for the first storage of `choice` that it does not refuse; where it refuses all, why not in a buffer.
template <class Place>
auto place_by(const StorageChoice& choice, Place&& place) -> decltype(place(choice.storage)) {
  auto placed = place(choice.storage);
  if (!placed && choice.fixed) return fail(std::move(placed).error().within(cat("storage ", name_of(choice.storage), ", which was asked for")));
  for (int next = static_cast<int>(choice.storage) - 1; !placed && next >= 0; --next)
    if (auto other = place(static_cast<Storage>(next)); other || next == 0) placed = std::move(other);
  return placed;
}

}  // namespace tessera
