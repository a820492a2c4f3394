// What every backend checks before it calls its driver, and how it walks an image.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tessera/base/text.hpp"
#include "tessera/gpu/gpu.hpp"

namespace tessera::gpu {

inline Status check_range(int64_t offset, int64_t bytes, int64_t available, std::string_view what) {
  if (offset >= 0 && bytes >= 0 && offset <= available && bytes <= available - offset) return {};
  return fail(ErrorCode::kInvalidArgument, cat(what, " [", offset, ", ", offset, " + ", bytes, ") of an object that has ", available));
}

inline Status check_copy(const BufferCopy& copy) {
  TESSERA_TRY(check_range(copy.from, copy.bytes, copy.buffer->bytes(), "copy of bytes"));
  TESSERA_TRY(check_range(copy.to, copy.bytes, copy.buffer->bytes(), "copy to bytes"));
  if (copy.from + copy.bytes <= copy.to || copy.to + copy.bytes <= copy.from) return {};
  return fail(ErrorCode::kInvalidArgument, cat("copy of ", copy.bytes, " bytes from ", copy.from, " to ", copy.to, ": the ranges overlap"));
}

// Lines [line, line + lines) exist and `bytes` is exactly their size.
inline Status check_lines(const Layout& layout, int64_t line, int64_t lines, size_t bytes) {
  TESSERA_TRY(check_range(line, lines, layout.lines(), "rows"));
  const int64_t needed = lines * layout.line_bytes();
  if (bytes == static_cast<size_t>(needed)) return {};
  return fail(ErrorCode::kInvalidArgument, cat(lines, " image rows take ", needed, " bytes, ", bytes, " were given"));
}

inline Status check_image(const Layout& layout, const DeviceInfo& info) {
  if (layout.grid.empty() || layout.texels() <= 0) return fail(ErrorCode::kInvalidArgument, "an image without texels");
  auto status = check_limits(layout, info.storage_limits());
  return status ? status : fail(std::move(status).error().within(info.name));
}

// A binding of [offset, offset + bytes) of a buffer of `size` bytes.
inline Status check_binding(int64_t offset, int64_t bytes, int64_t size, const DeviceInfo& info) {
  TESSERA_TRY(check_range(offset, bytes, size, "bytes"));
  if (bytes == 0) return fail(ErrorCode::kInvalidArgument, "a binding of 0 bytes");
  if (offset % info.buffer_offset_alignment == 0) return {};
  return fail(ErrorCode::kInvalidArgument,
              cat("offset ", offset, " is not a multiple of ", info.buffer_offset_alignment, ", which ", info.name, " needs"));
}

// An image of `layout` bound to `slot`; `writable`: whether kernels can write images of its format.
inline Status check_bound_image(const KernelSlot& slot, const Layout& layout, bool writable, const DeviceInfo& info) {
  if (layout.storage != slot.storage)
    return fail(ErrorCode::kInvalidArgument, cat("needs storage ", name_of(slot.storage), ", has ", name_of(layout.storage)));
  if (!slot.written || writable) return {};
  return fail(ErrorCode::kUnsupported, cat("is written, but kernels cannot write an ", name_of(layout.storage), " of ", layout.lanes, " x ", name_of(layout.element), " on ", info.name));
}

// An image read and written by one dispatch has no defined content (OpenCL 1.2; the dialect forbids it for every API).
inline Status check_image_hazards(const LoweredKernel& lowered, const std::vector<Binding>& bindings) {
  for (size_t w = 0; w < bindings.size(); ++w) {
    if (!lowered.slots[w].written || bindings[w].image == nullptr) continue;
    for (size_t r = 0; r < bindings.size(); ++r)
      if (r != w && bindings[r].image == bindings[w].image)
        return fail(ErrorCode::kInvalidArgument,
                    cat("slots '", lowered.slots[w].tensor, "' and '", lowered.slots[r].tensor, "' write and use one image"));
  }
  return {};
}

// A dispatch against its kernel and the device's limits; what is bound is the backend's to check.
inline Status check_dispatch(const LoweredKernel& lowered, const DispatchInfo& info, const DeviceInfo& device) {
  if (info.bindings.size() != lowered.slots.size())
    return fail(ErrorCode::kInvalidArgument, cat("has ", lowered.slots.size(), " slots, ", info.bindings.size(), " bindings were given"));
  if (info.args.size() != lowered.args.size())
    return fail(ErrorCode::kInvalidArgument, cat("has ", lowered.args.size(), " args, ", info.args.size(), " were given"));
  for (size_t axis = 0; axis < 3; ++axis) {
    const int64_t groups = info.workgroups[axis];
    const int64_t most = std::min<int64_t>(device.max_grid[axis], INT32_MAX / lowered.workgroup[axis]);  // global ids are int
    if (groups < 1 || groups > most) return fail(ErrorCode::kLimit, cat(groups, " workgroups on axis ", axis, "; allowed: 1 to ", most));
  }
  return check_image_hazards(lowered, info.bindings);
}

struct ImageBox {
  std::array<int64_t, 3> origin;   // x, y, z in pixels
  std::array<int64_t, 3> region;
  int64_t first_byte = 0;          // in the host's copy of the lines
};

// `copy(box)` for each box of pixels that lines [line, line + lines) of an image are: rows of one layer, or whole layers.
template <class Copy>
Status for_each_box(const Layout& layout, int64_t line, int64_t lines, Copy&& copy) {
  const ImageExtent extent = layout.extent();
  for (int64_t done = 0; done < lines;) {
    const int64_t y = (line + done) % extent.height, z = (line + done) / extent.height, left = lines - done;
    const int64_t layers = y == 0 && left >= extent.height ? left / extent.height : 1;
    const int64_t rows = std::min(left, extent.height - y);
    TESSERA_TRY(copy(ImageBox{{0, y, z}, {extent.width, rows, layers}, done * layout.line_bytes()}));
    done += rows * layers;
  }
  return {};
}

inline Status check_times(const SubmitOptions& options) {
  if (options.times >= 1 && options.times <= (options.profiled ? 1 : kMaxTimes)) return {};
  return fail(ErrorCode::kInvalidArgument, cat("submit of ", options.times, " runs", options.profiled ? " with a profile, which is of one" : ""));
}

}  // namespace tessera::gpu
