// Device memory, sub-allocated: drivers allow few allocations (4096 is common) and make each a system call.
#pragma once
#include <list>
#include <map>

#include "vulkan_driver.hpp"

namespace tessera::vulkan {

// Buffers and images of optimal tiling may not share a page (bufferImageGranularity): each kind has blocks of its own.
enum class Content { kBuffers, kImages };

class Heap;

// A piece of a block of device memory. Gives it back when it goes.
class Memory {
 public:
  Memory() = default;
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept {
    std::swap(heap_, other.heap_);
    std::swap(block_, other.block_);
    std::swap(offset_, other.offset_);
    return *this;
  }
  ~Memory();

  VkDeviceMemory object() const;
  VkDeviceSize offset() const { return offset_; }
  // Where the host sees it, for as long as it lives, coherent; null where it cannot.
  std::byte* mapped() const;

 private:
  friend class Heap;
  struct Block;
  Memory(Heap* heap, Block* block, VkDeviceSize offset) : heap_(heap), block_(block), offset_(offset) {}
  Heap* heap_ = nullptr;
  Block* block_ = nullptr;
  VkDeviceSize offset_ = 0;
};

class Heap {
 public:
  explicit Heap(Driver& driver);
  ~Heap();

  // The device's own memory, that the host sees too where there is such (phones: all of it), so that nothing is copied. `host`: the host must see it.
  // kOutOfMemory when no kind of memory has room.
  Result<Memory> allocate(const VkMemoryRequirements& needs, Content content, bool host = false);

 private:
  friend class Memory;
  struct Kind {
    uint32_t type = 0;
    bool visible = false;
    int rank = 0;
  };
  // What is smaller shares blocks of this size; the waste of the last block is bounded by it.
  static constexpr VkDeviceSize kBlockBytes = VkDeviceSize{16} << 20;
  static constexpr VkDeviceSize kSharedBytes = kBlockBytes / 4;

  Result<Memory::Block*> make_block(const Kind& kind, Content content, VkDeviceSize bytes);
  void release(Memory::Block* block, VkDeviceSize offset);

  Driver& driver_;
  std::vector<Kind> kinds_;   // the best first
  std::list<Memory::Block> blocks_;
};

struct Memory::Block {
  Handle<VkDeviceMemory> memory;
  VkDeviceSize bytes = 0;
  uint32_t type = 0;
  Content content = Content::kBuffers;
  bool shared = false;
  std::byte* mapped = nullptr;
  std::map<VkDeviceSize, VkDeviceSize> taken{};   // offset → end

  // The lowest place with room; `bytes` of the block when there is none.
  VkDeviceSize place(VkDeviceSize size, VkDeviceSize alignment) const;
};

}  // namespace tessera::vulkan
