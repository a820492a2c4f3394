// Tensor virtualization: where the texels of a logical tensor lie in one physical object.
//
// A tensor is a grid of texels, named axes outermost first, the last axis fastest. A texel is what one kernel read returns: 1, 2 or 4
// elements, or a whole vector of a CPU driver's width (8, 16). A Layout places the grid in a buffer or an image. It is ONE description
// used three ways: locate() with numbers packs on the host, locate() with IndexText prints the kernel's address, object_bytes() and
// image_width() size the object. Host and kernel therefore cannot disagree.
//
// The outermost extent never enters an address, so kernel text does not depend on the number of tokens or pages (a folded image's does:
// only weights are folded).
// Source of the idea: ML Drift, arXiv 2505.00232, section 3.1; the formulas here are this project's.
#pragma once
#include <bit>
#include <cassert>
#include <cstdint>
#include <span>
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
  int64_t fold = 0;            // image2d: rows after which the image continues in the next panel of columns; 0 = never

  bool operator==(const Layout&) const = default;

  int64_t texels() const {
    int64_t count = 1;
    for (int64_t extent : grid) count *= extent;
    return count;
  }
  int64_t rows() const { return grid.back() == 0 ? 0 : texels() / grid.back(); }
  // Images hold at most 4 elements a pixel: a wider texel is several neighbouring pixels.
  int pixels_per_texel() const { return lanes > 4 ? lanes / 4 : 1; }
  int64_t texel_bytes() const { return lanes * byte_size(element); }
  int64_t image_width() const {
    const int64_t panel = grid.back() * pixels_per_texel();
    return storage == Storage::kImageBuffer ? texels() * pixels_per_texel() : fold == 0 ? panel : panel * ceil_div(rows(), fold);
  }
  int64_t image_height() const { return storage == Storage::kImageBuffer ? 1 : fold == 0 ? rows() : fold; }
  // Bytes of the object's content: what a host copy of it takes, and (images: without the driver's padding) what is charged to the memory plan.
  int64_t object_bytes() const {
    if (!is_image(storage)) return texels() * texel_bytes();
    return image_width() * image_height() * (texel_bytes() / pixels_per_texel());
  }
};

// Buffer: x = texel index. Image: (x, y) = the texel's first pixel.
template <class Index>
struct TexelAddress {
  Index x;
  Index y;
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
  if (layout.storage == Storage::kBuffer || layout.storage == Storage::kImageBuffer)
    return {(row * Index(layout.grid[last]) + column) * Index(layout.storage == Storage::kBuffer ? 1 : layout.pixels_per_texel()), Index(0)};
  const Index x = column * Index(layout.pixels_per_texel());
  if (layout.fold == 0) return {x, row};
  return {(row / layout.fold) * Index(layout.grid[last] * layout.pixels_per_texel()) + x, row % layout.fold};
}

// Byte offset of a texel in a host copy of the object (image rows packed without padding).
inline int64_t host_byte_offset(const Layout& layout, std::span<const int64_t> coords) {
  const TexelAddress<int64_t> at = locate<int64_t>(layout, coords);
  const int64_t unit = layout.texel_bytes() / (is_image(layout.storage) ? layout.pixels_per_texel() : 1);
  return (at.y * (is_image(layout.storage) ? layout.image_width() : 0) + at.x) * unit;
}

// The layout that `wanted` becomes within `limits`: an image too high is folded. Fails with kLimit when the object cannot be made;
// the planner then tries the next storage, or cuts the tensor into parts.
inline Result<Layout> fit(Layout wanted, const StorageLimits& limits) {
  constexpr int64_t kMaxIndex = INT32_MAX;  // kernels index with 32-bit int
  if (wanted.texels() > kMaxIndex) return fail(ErrorCode::kLimit, cat(wanted.texels(), " texels in one object; kernels index at most ", kMaxIndex));
  switch (wanted.storage) {
    case Storage::kBuffer:
      if (wanted.object_bytes() > limits.max_buffer_bytes)
        return fail(ErrorCode::kLimit, cat("needs a buffer of ", wanted.object_bytes(), " bytes; the device binds at most ", limits.max_buffer_bytes));
      return wanted;
    case Storage::kImageBuffer:
      if (wanted.object_bytes() > limits.max_object_bytes)
        return fail(ErrorCode::kLimit, cat("needs an image buffer of ", wanted.object_bytes(), " bytes; the device allocates at most ", limits.max_object_bytes));
      if (wanted.image_width() > limits.max_image_buffer_texels)
        return fail(ErrorCode::kLimit, cat("needs an image buffer of ", wanted.image_width(), " texels; the device allows ", limits.max_image_buffer_texels));
      return wanted;
    case Storage::kImage2D:
      // A power of two keeps the address a shift and a mask.
      wanted.fold = wanted.rows() > limits.max_image_height ? static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(limits.max_image_height))) : 0;
      if (wanted.object_bytes() > limits.max_object_bytes)
        return fail(ErrorCode::kLimit, cat("needs an image of ", wanted.object_bytes(), " bytes; the device allocates at most ", limits.max_object_bytes));
      if (wanted.image_width() > limits.max_image_width)
        return fail(ErrorCode::kLimit, cat("needs an image ", wanted.image_width(), " texels wide; the device allows ", limits.max_image_width));
      return wanted;
    default: return fail(ErrorCode::kUnsupported, cat("storage ", name_of(wanted.storage), " is not placed yet"));
  }
}

}  // namespace tessera
