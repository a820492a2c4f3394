// The device objects that plans refer to: weights, KV pages, inputs, outputs, the arena. Made once, shared by all plans of a model.
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tessera/gpu/gpu.hpp"
#include "tessera/plan/plan.hpp"

namespace tessera {

// The key of a plan object that outlives a step. Arena objects have none.
inline std::string resource_key(const PlanObject& object) {
  if (object.home != Home::kWeight) return object.name;
  return cat(object.weight_key, '#', object.part, '#', name_of(object.plane));
}

// What the plans of a model need of the arena together: they never run at the same time, so they share it.
struct ArenaNeeds {
  int64_t buffer_bytes = 0;
  std::vector<Layout> images;   // equal but for the rows: as many as one plan uses at once, of the most rows

  // Kernel text does not know the rows: an image of more serves a tensor of fewer.
  static bool same_class(const Layout& a, Layout b) {
    b.grid.front() = a.grid.front();
    return a == b;
  }

  // Which image of the arena serves slot `slot` of `plan`: the n-th of its class.
  int image_for(const Plan& plan, int slot) const {
    const Layout& wanted = plan.image_slots[static_cast<size_t>(slot)];
    auto ordinal = std::count_if(plan.image_slots.begin(), plan.image_slots.begin() + slot, [&](const Layout& other) { return same_class(other, wanted); });
    for (size_t i = 0; i < images.size(); ++i)
      if (same_class(images[i], wanted) && ordinal-- == 0) return static_cast<int>(i);
    return -1;
  }

  void merge(const Plan& plan) {
    buffer_bytes = std::max(buffer_bytes, plan.arena_bytes);
    for (size_t slot = 0; slot < plan.image_slots.size(); ++slot) {
      const Layout& wanted = plan.image_slots[slot];
      const int at = image_for(plan, static_cast<int>(slot));
      if (at < 0) {
        images.push_back(wanted);
      } else if (images[static_cast<size_t>(at)].rows() < wanted.rows()) {
        images[static_cast<size_t>(at)] = wanted;
      }
    }
  }

  int64_t bytes() const {
    int64_t total = buffer_bytes;
    for (const Layout& image : images) total += image.object_bytes();
    return total;
  }
};

class Resources {
 public:
  struct Object {
    Layout layout;
    std::unique_ptr<gpu::Buffer> buffer;
    std::unique_ptr<gpu::Image> image;
  };

  explicit Resources(gpu::Device& device) : device_(device) {}

  bool contains(const std::string& key) const { return objects_.contains(key); }

  // Makes the object of `layout` under `key`. kOutOfMemory names it.
  Result<Object*> create(const std::string& key, const Layout& layout) {
    Object object{layout, nullptr, nullptr};
    if (is_image(layout.storage)) {
      auto image = device_.create_image(layout);
      if (!image) return fail(std::move(image).error().within(key));
      object.image = std::move(*image);
    } else {
      auto buffer = device_.create_buffer(layout.object_bytes());
      if (!buffer) return fail(std::move(buffer).error().within(key));
      object.buffer = std::move(*buffer);
    }
    return &(objects_[key] = std::move(object));
  }

  // Makes what `plan` binds beside the arena and is not there yet.
  Status create_objects(const Plan& plan) {
    for (const PlanObject& object : plan.objects)
      if (object.home != Home::kArenaBuffer && object.home != Home::kArenaImage && !contains(resource_key(object))) TESSERA_TRY(create(resource_key(object), object.layout));
    return {};
  }

  Object* find(const std::string& key) {
    const auto it = objects_.find(key);
    return it == objects_.end() ? nullptr : &it->second;
  }

  Status create_arena(const ArenaNeeds& needs) {
    needs_ = needs;
    if (needs.buffer_bytes > 0) {
      TESSERA_ASSIGN(arena_, device_.create_buffer(needs.buffer_bytes));
    }
    for (const Layout& layout : needs.images) {
      TESSERA_ASSIGN(auto image, device_.create_image(layout));
      arena_images_.push_back(std::move(image));
    }
    return {};
  }

  // Where an object of `plan` lies.
  Result<gpu::Binding> binding(const Plan& plan, const PlanObject& object) {
    const int64_t bytes = object.layout.object_bytes();
    if (object.home == Home::kArenaBuffer) return gpu::Binding{arena_.get(), object.offset, bytes, nullptr};
    if (object.home == Home::kArenaImage) return gpu::Binding{nullptr, 0, 0, arena_images_[static_cast<size_t>(needs_.image_for(plan, object.image_slot))].get()};
    const Object* found = find(resource_key(object));
    if (found == nullptr) return fail(ErrorCode::kInvalidArgument, cat("no device object for ", resource_key(object)));
    // A plan may see less of a buffer than there is (fewer rows of the logits), never more.
    return gpu::Binding{found->buffer.get(), 0, found->buffer ? std::min(bytes, found->buffer->bytes()) : 0, found->image.get()};
  }

 private:
  gpu::Device& device_;
  std::map<std::string, Object> objects_;
  std::unique_ptr<gpu::Buffer> arena_;
  std::vector<std::unique_ptr<gpu::Image>> arena_images_;
  ArenaNeeds needs_;
};

}  // namespace tessera
