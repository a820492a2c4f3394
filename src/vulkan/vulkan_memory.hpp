// Buffers, images and transfers of the Vulkan backend.
#pragma once
#include <memory>

#include "vulkan_heap.hpp"

namespace tessera::vulkan {

class VulkanBuffer final : public gpu::Buffer {
 public:
  static Result<std::unique_ptr<VulkanBuffer>> create(Driver& driver, Heap& heap, int64_t bytes);
  ~VulkanBuffer() override;

  int64_t bytes() const override { return bytes_; }
  const Driver& driver() const { return driver_; }
  VkBuffer get() const { return buffer_.get(); }
  const Memory& memory() const { return memory_; }

 private:
  VulkanBuffer(Driver& driver, int64_t bytes, Memory memory, Handle<VkBuffer> buffer)
      : driver_(driver), bytes_(bytes), memory_(std::move(memory)), buffer_(std::move(buffer)) {}

  Driver& driver_;
  int64_t bytes_;
  Memory memory_;
  Handle<VkBuffer> buffer_;  // after memory_: destroyed before it
};

// An image, or a buffer seen as texels. Images are in layout GENERAL from their creation on: kernels read and write them by turns.
class VulkanImage final : public gpu::Image {
 public:
  static Result<std::unique_ptr<VulkanImage>> create(Driver& driver, Heap& heap, const Layout& layout);
  ~VulkanImage() override;

  const Layout& layout() const override { return layout_; }
  const Driver& driver() const { return driver_; }
  VkImageView view() const { return view_.get(); }
  VkBufferView texels() const { return texels_.get(); }
  VkImage image() const { return image_.get(); }
  VkBuffer backing() const { return backing_.get(); }   // of texels; null for other images
  const Memory& memory() const { return memory_; }
  bool writable() const { return writable_; }           // by kernels

 private:
  VulkanImage(Driver& driver, const Layout& layout, bool writable) : driver_(driver), layout_(layout), writable_(writable) {}
  Status make_texels(Heap& heap, VkFormat format);
  Status make_image(Heap& heap, VkFormat format);

  Driver& driver_;
  Layout layout_;
  bool writable_;
  Memory memory_;
  Handle<VkBuffer> backing_;   // what follows is destroyed before what it is made of
  Handle<VkBufferView> texels_;
  Handle<VkImage> image_;
  Handle<VkImageView> view_;
};

// Copies between host and device, after everything that was submitted. Where the host sees the memory it copies there and then, which submits nothing:
// on phones that is every buffer. A long prompt so waits once a chunk (7 times for 1000 tokens in 8 chunks), for the microseconds that writing its ids takes.
// Queued copies, as OpenCL's, would not end that wait: chunks of one size are one command buffer, which drivers handle best when it is not pending twice.
// The rest goes through a staging buffer, which is not part of any memory plan: as large as the largest copy.
class Transfers {
 public:
  Transfers(Driver& driver, Heap& heap) : driver_(driver), heap_(heap) {}
  ~Transfers();

  Status write(VulkanBuffer& buffer, int64_t offset, std::span<const std::byte> bytes);
  Status read(const VulkanBuffer& buffer, int64_t offset, std::span<std::byte> bytes);
  Status fill_zero(VulkanBuffer& buffer, int64_t offset, int64_t bytes);
  Status copy(std::span<const gpu::BufferCopy> copies);   // checked, of buffers of this device
  Status write_rows(VulkanImage& image, int64_t row, int64_t rows, std::span<const std::byte> bytes);
  Status read_rows(const VulkanImage& image, int64_t row, int64_t rows, std::span<std::byte> bytes);
  // From the layout that drivers create images in to GENERAL.
  Status prepare(const VulkanImage& image);

 private:
  Status write_bytes(VkBuffer buffer, const Memory& memory, int64_t offset, std::span<const std::byte> bytes);
  Status read_bytes(VkBuffer buffer, const Memory& memory, int64_t offset, std::span<std::byte> bytes);
  Status make_staging(size_t bytes);
  // Records, submits and waits.
  template <class Record>
  Status run(Record&& record);

  Driver& driver_;
  Heap& heap_;
  VkCommandBuffer commands_ = VK_NULL_HANDLE;
  Handle<VkFence> fence_;
  Memory staging_memory_;
  Handle<VkBuffer> staging_;
  size_t staging_bytes_ = 0;
};

}  // namespace tessera::vulkan
