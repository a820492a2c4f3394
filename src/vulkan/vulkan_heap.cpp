#include "vulkan_heap.hpp"

#include <algorithm>

#include "tessera/base/text.hpp"

namespace tessera::vulkan {

Memory::~Memory() {
  if (block_ != nullptr) heap_->release(block_, offset_);
}

VkDeviceMemory Memory::object() const { return block_->memory.get(); }
std::byte* Memory::mapped() const { return block_ == nullptr || block_->mapped == nullptr ? nullptr : block_->mapped + offset_; }

VkDeviceSize Memory::Block::place(VkDeviceSize size, VkDeviceSize alignment) const {
  const auto up = [&](VkDeviceSize value) { return (value + alignment - 1) / alignment * alignment; };
  VkDeviceSize at = 0;
  for (const auto& [offset, end] : taken) {
    if (offset >= at + size) break;   // the gap before it is wide enough
    at = up(end);
  }
  return at + size <= bytes ? at : bytes;
}

Heap::Heap(Driver& driver) : driver_(driver) {
  VkPhysicalDeviceMemoryProperties memory{};
  driver.vk.GetPhysicalDeviceMemoryProperties(driver.found.id, &memory);
  constexpr VkMemoryPropertyFlags kSeen = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  constexpr VkMemoryPropertyFlags kRefused = VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT | VK_MEMORY_PROPERTY_PROTECTED_BIT |
                                             VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD | VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD;
  for (uint32_t type = 0; type < memory.memoryTypeCount; ++type) {
    const VkMemoryPropertyFlags flags = memory.memoryTypes[type].propertyFlags;
    if ((flags & kRefused) != 0) continue;
    const bool visible = (flags & kSeen) == kSeen;
    const int local = (flags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT) != 0 ? 4 : 0;
    const int cached = visible && (flags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT) != 0 ? 1 : 0;   // reads of logits
    kinds_.push_back({type, visible, local + (visible ? 2 : 0) + cached});
  }
  std::stable_sort(kinds_.begin(), kinds_.end(), [](const Kind& a, const Kind& b) { return a.rank > b.rank; });
}

Heap::~Heap() = default;

Result<Memory> Heap::allocate(const VkMemoryRequirements& needs, Content content, bool host) {
  Status last = fail(ErrorCode::kUnsupported, cat(driver_.info().name, " has no memory that ", host ? "the host sees" : "fits"));
  const bool shared = needs.size <= kSharedBytes;
  for (const Kind& kind : kinds_) {
    if ((needs.memoryTypeBits & (1u << kind.type)) == 0 || (host && !kind.visible)) continue;
    if (shared)
      for (Memory::Block& block : blocks_) {
        if (!block.shared || block.type != kind.type || block.content != content) continue;
        const VkDeviceSize offset = block.place(needs.size, needs.alignment);
        if (offset == block.bytes) continue;
        block.taken[offset] = offset + needs.size;
        return Memory(this, &block, offset);
      }
    auto made = make_block(kind, content, shared ? kBlockBytes : needs.size);
    if (!made && shared && made.error().code() == ErrorCode::kOutOfMemory) made = make_block(kind, content, needs.size);
    if (made) {
      (*made)->taken[0] = needs.size;
      return Memory(this, *made, 0);
    }
    if (made.error().code() != ErrorCode::kOutOfMemory) return fail(std::move(made).error());
    last = fail(std::move(made).error());
  }
  return fail(std::move(last).error());
}

Result<Memory::Block*> Heap::make_block(const Kind& kind, Content content, VkDeviceSize bytes) {
  VkMemoryAllocateInfo allocate{};
  allocate.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
  allocate.allocationSize = bytes;
  allocate.memoryTypeIndex = kind.type;
  auto memory = driver_.make<VkDeviceMemory>(driver_.vk.AllocateMemory, allocate, driver_.vk.FreeMemory, "vkAllocateMemory");
  if (!memory) return fail(std::move(memory).error().within(bytes_text(bytes)));
  void* mapped = nullptr;
  if (kind.visible) TESSERA_TRY(driver_.check(driver_.vk.MapMemory(driver_.device, memory->get(), 0, VK_WHOLE_SIZE, 0, &mapped), "vkMapMemory"));
  blocks_.push_back({std::move(*memory), bytes, kind.type, content, bytes == kBlockBytes, static_cast<std::byte*>(mapped)});
  return &blocks_.back();
}

void Heap::release(Memory::Block* block, VkDeviceSize offset) {
  block->taken.erase(offset);
  if (!block->taken.empty()) return;
  blocks_.remove_if([&](const Memory::Block& other) { return &other == block; });
}

}  // namespace tessera::vulkan
