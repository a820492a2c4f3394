// The kinds of physical object that hold tensors.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace tessera {

enum class Storage : uint8_t { kBuffer, kImageBuffer, kImage2D, kImage2DArray, kImage3D };

constexpr std::string_view name_of(Storage storage) {
  constexpr std::string_view kNames[] = {"buffer", "image_buffer", "image2d", "image2d_array", "image3d"};
  return kNames[static_cast<int>(storage)];
}

constexpr std::optional<Storage> storage_from_name(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(Storage::kImage3D); ++i)
    if (name_of(static_cast<Storage>(i)) == name) return static_cast<Storage>(i);
  return std::nullopt;
}

constexpr bool is_image(Storage storage) { return storage != Storage::kBuffer; }

// What a device allows one object to be (filled from DeviceInfo).
struct StorageLimits {
  int64_t max_buffer_bytes = 0;         // one binding
  int64_t max_object_bytes = 0;         // one allocation
  int64_t max_image_width = 0;          // 2D, texels; 0: the device has no images
  int64_t max_image_height = 0;
  int64_t max_image_buffer_texels = 0;  // 0: no images from buffers
};

}  // namespace tessera
