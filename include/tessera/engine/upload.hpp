// Weights of a file → device objects, re-laid in chunks of rows: the host never holds more than one chunk.
#pragma once
#include <algorithm>
#include <cstddef>
#include <functional>
#include <vector>

#include "tessera/exec/resources.hpp"
#include "tessera/gpu/gpu.hpp"
#include "tessera/model/model_file.hpp"
#include "tessera/plan/plan.hpp"

namespace tessera {

inline constexpr int64_t kUploadChunkBytes = 4 << 20;

class WeightUploader {
 public:
  using Progress = std::function<void(int64_t bytes)>;   // uploaded since the last call

  using Lookup = std::function<Result<WeightRef>(std::string_view name)>;   // where the bytes of a weight are

  WeightUploader(gpu::Device& device, Resources& resources, Lookup lookup, Progress progress)
      : device_(device), resources_(resources), lookup_(std::move(lookup)), progress_(std::move(progress)) {}

  // Every plane of every part of `weight`, into objects that exist.
  Status upload(const PlanWeight& weight) {
    if (weight.placement.parts.empty()) return upload_vector(weight.desc);
    std::vector<WeightRef> refs;
    for (const WeightSource& source : weight.desc.sources) {
      TESSERA_ASSIGN(const WeightRef ref, lookup_(source.name));
      refs.push_back(ref);
    }
    for (size_t part = 0; part < weight.placement.parts.size(); ++part)
      for (const PlaneLayout& plane : weight.placement.parts[part].planes) {
        const PlanObject object{.name = {}, .home = Home::kWeight, .layout = {}, .offset = 0, .image_slot = -1, .weight_key = weight.desc.key(), .part = static_cast<int>(part), .plane = plane.plane};
        TESSERA_TRY(upload_plane(weight, weight.placement.parts[part], plane, refs, *resources_.find(resource_key(object))));
      }
    return {};
  }

 private:
  Status upload_vector(const WeightDesc& desc) {
    TESSERA_ASSIGN(const WeightRef ref, lookup_(desc.sources.front().name));
    const int64_t bytes = vector_layout(ref.columns).object_bytes();
    std::vector<float> values(static_cast<size_t>(bytes / 4), 0.0f);
    dequantize_row(ref.type, ref.bytes.data(), ref.columns, values.data());
    const PlanObject object{.name = {}, .home = Home::kWeight, .layout = {}, .offset = 0, .image_slot = -1, .weight_key = desc.key(), .part = 0, .plane = Plane::kWhole};
    TESSERA_TRY(device_.write(*resources_.find(resource_key(object))->buffer, 0, std::as_bytes(std::span(values))));
    progress_(bytes);
    return {};
  }

  // In chunks of the object's lines: a line holds one block of each panel; blocks that take turns stay together.
  Status upload_plane(const PlanWeight& weight, const WeightPart& part, const PlaneLayout& plane, const std::vector<WeightRef>& refs, const Resources::Object& object) {
    const Layout& layout = plane.layout;
    const int64_t lines = layout.lines(), line_bytes = layout.line_bytes();
    const int64_t chunk = round_up(std::max<int64_t>(1, kUploadChunkBytes / line_bytes), layout.interleave);
    const auto row_bytes_of = [&](const WeightSource& source, int64_t row) {
      const WeightRef& ref = refs[static_cast<size_t>(&source - weight.desc.sources.data())];
      return ref.bytes.data() + row * row_bytes(source.type, source.columns);   // a bias is a row in the file and a column here
    };
    for (int64_t first = 0; first < lines; first += chunk) {
      const int64_t count = std::min(chunk, lines - first);
      staging_.assign(static_cast<size_t>(count * line_bytes), std::byte{0});
      for (int64_t panel = 0; panel < layout.panels(); ++panel) {
        const int64_t block = panel * layout.fold + first;
        const int64_t blocks = std::min(count, part.blocks - block);
        if (blocks > 0) pack_plane(weight.desc, weight.placement, part, plane, block, blocks, staging_, first * line_bytes, row_bytes_of);
      }
      TESSERA_TRY(object.image ? device_.write_rows(*object.image, first, count, staging_) : device_.write(*object.buffer, first * line_bytes, staging_));
      progress_(count * line_bytes);
    }
    return {};
  }

  gpu::Device& device_;
  Resources& resources_;
  Lookup lookup_;
  Progress progress_;
  std::vector<std::byte> staging_;
};

}  // namespace tessera
