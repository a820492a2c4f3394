// The kinds of physical object that hold tensors, and what a device allows them to be. A storage is a row here, a row of how kernels reach it
// (codegen/access.hpp) and a row of what a GPU API calls it (src/opencl/opencl_memory.cpp).
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace tessera {

// In the order of fallback: where a device cannot do one, the one before it stands in, down to the buffer.
enum class Storage : uint8_t { kBuffer, kImageBuffer, kImage2D, kImage2DArray, kImage3D };

// How the rows of a tensor's texels fill an object.
enum class StorageForm : uint8_t {
  kLine,    // one behind the other
  kPanels,  // one below the other; an image too high continues in the next panel of columns
  kLayers,  // one below the other; every so many rows begin the next layer
};

// Pixels of an object along its axes (of a buffer: texels).
struct ImageExtent {
  int64_t width = 1;
  int64_t height = 1;
  int64_t depth = 1;
  bool operator==(const ImageExtent&) const = default;

  int64_t pixels() const { return width * height * depth; }
  bool within(const ImageExtent& most) const { return width <= most.width && height <= most.height && depth <= most.depth; }
};

// What a device allows one object to be (filled from DeviceInfo).
struct StorageLimits {
  int64_t max_buffer_bytes = 0;         // one binding
  int64_t max_object_bytes = 0;         // one allocation
  int64_t max_image_width = 0;          // 2D, texels; 0: the device has no images
  int64_t max_image_height = 0;
  int64_t max_image_buffer_texels = 0;  // 0: no images from buffers
  int64_t max_image_layers = 0;         // of a 2D array; 0: no arrays
  int64_t max_image3d_width = 0;        // 0: no 3D images
  int64_t max_image3d_height = 0;
  int64_t max_image3d_depth = 0;
  bool image3d_writes = false;          // kernels write 3D images
};

struct StorageRow {
  using Limit = int64_t StorageLimits::*;
  std::string_view name;
  StorageForm form;
  Limit width = nullptr;    // the greatest extents; null: bounded by bytes alone (width), 1 (the others)
  Limit height = nullptr;
  Limit depth = nullptr;
  Limit bytes = &StorageLimits::max_object_bytes;
  bool StorageLimits::*written = nullptr;  // whether kernels can write it; null: always
};

// By Storage.
inline constexpr std::array kStorageRows{
    StorageRow{.name = "buffer", .form = StorageForm::kLine, .bytes = &StorageLimits::max_buffer_bytes},
    StorageRow{.name = "image_buffer", .form = StorageForm::kLine, .width = &StorageLimits::max_image_buffer_texels},
    StorageRow{.name = "image2d", .form = StorageForm::kPanels, .width = &StorageLimits::max_image_width, .height = &StorageLimits::max_image_height},
    StorageRow{.name = "image2d_array", .form = StorageForm::kLayers, .width = &StorageLimits::max_image_width, .height = &StorageLimits::max_image_height, .depth = &StorageLimits::max_image_layers},
    StorageRow{.name = "image3d", .form = StorageForm::kLayers, .width = &StorageLimits::max_image3d_width, .height = &StorageLimits::max_image3d_height, .depth = &StorageLimits::max_image3d_depth,
               .written = &StorageLimits::image3d_writes},
};

constexpr const StorageRow& row_of(Storage storage) { return kStorageRows[static_cast<size_t>(storage)]; }
constexpr std::string_view name_of(Storage storage) { return row_of(storage).name; }
constexpr bool is_image(Storage storage) { return storage != Storage::kBuffer; }

constexpr std::optional<Storage> storage_from_name(std::string_view name) {
  for (size_t i = 0; i < kStorageRows.size(); ++i)
    if (kStorageRows[i].name == name) return static_cast<Storage>(i);
  return std::nullopt;
}

// "buffer, image_buffer, …": for help texts and errors.
inline std::string storage_names() {
  std::string names;
  for (const StorageRow& row : kStorageRows) names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

// Where the tensors of a kind are to lie.
struct StorageChoice {
  Storage storage = Storage::kBuffer;
  bool fixed = false;  // there or nowhere: a user asked for it. Else the storages before it stand in where it cannot be.

  constexpr StorageChoice(Storage wanted = Storage::kBuffer, bool there_or_nowhere = false) : storage(wanted), fixed(there_or_nowhere) {}
  bool operator==(const StorageChoice&) const = default;
};

constexpr bool is_writable(Storage storage, const StorageLimits& limits) {
  return row_of(storage).written == nullptr || limits.*row_of(storage).written;
}

// The greatest extents; 0 where the device has no such object.
constexpr ImageExtent largest(Storage storage, const StorageLimits& limits) {
  const StorageRow& row = row_of(storage);
  return {row.width == nullptr ? std::numeric_limits<int64_t>::max() : limits.*row.width, row.height == nullptr ? 1 : limits.*row.height,
          row.depth == nullptr ? 1 : limits.*row.depth};
}

}  // namespace tessera
