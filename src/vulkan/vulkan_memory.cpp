#include "vulkan_memory.hpp"

#include <cstring>

#include "gpu/checks.hpp"
#include "tessera/base/text.hpp"

namespace tessera::vulkan {
namespace {

struct FormatRow {
  DType element;
  VkFormat pixels;   // four elements each
};
constexpr FormatRow kFormats[] = {
    {DType::kF32, VK_FORMAT_R32G32B32A32_SFLOAT}, {DType::kF16, VK_FORMAT_R16G16B16A16_SFLOAT},
    {DType::kBF16, VK_FORMAT_R16G16B16A16_UINT},  // there is no such float: kernels widen the bits
    {DType::kI8, VK_FORMAT_R8G8B8A8_SINT},        {DType::kU8, VK_FORMAT_R8G8B8A8_UINT},
    {DType::kI32, VK_FORMAT_R32G32B32A32_SINT},   {DType::kU32, VK_FORMAT_R32G32B32A32_UINT},
};

struct ImageKind {
  Storage storage;
  VkImageType type;
  VkImageViewType view;
};
constexpr ImageKind kImageKinds[] = {{Storage::kImage2D, VK_IMAGE_TYPE_2D, VK_IMAGE_VIEW_TYPE_2D},
                                     {Storage::kImage2DArray, VK_IMAGE_TYPE_2D, VK_IMAGE_VIEW_TYPE_2D_ARRAY},
                                     {Storage::kImage3D, VK_IMAGE_TYPE_3D, VK_IMAGE_VIEW_TYPE_3D}};

const ImageKind* kind_of(Storage storage) {
  for (const ImageKind& kind : kImageKinds)
    if (kind.storage == storage) return &kind;
  return nullptr;
}

Result<VkFormat> format_of(const Layout& layout) {
  if (layout.lanes >= 4)   // texels wider than 4 elements are several pixels
    for (const FormatRow& row : kFormats)
      if (row.element == layout.element) return row.pixels;
  return fail(ErrorCode::kUnsupported, cat("an image of ", layout.lanes, " x ", name_of(layout.element)));
}

Result<std::pair<Handle<VkBuffer>, Memory>> make_buffer(Driver& driver, Heap& heap, int64_t bytes, VkBufferUsageFlags usage, bool host = false) {
  VkBufferCreateInfo create{};
  create.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  create.size = static_cast<VkDeviceSize>(bytes);
  create.usage = usage | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
  TESSERA_ASSIGN(Handle<VkBuffer> buffer, driver.make<VkBuffer>(driver.vk.CreateBuffer, create, driver.vk.DestroyBuffer, "vkCreateBuffer"));
  VkMemoryRequirements needs{};
  driver.vk.GetBufferMemoryRequirements(driver.device, buffer.get(), &needs);
  TESSERA_ASSIGN(Memory memory, heap.allocate(needs, Content::kBuffers, host));
  TESSERA_TRY(driver.check(driver.vk.BindBufferMemory(driver.device, buffer.get(), memory.object(), memory.offset()), "vkBindBufferMemory"));
  return std::pair(std::move(buffer), std::move(memory));
}

// Whether kernels can write what they can read: a driver may have a format for textures alone.
Result<bool> check_format(const Driver& driver, VkFormat format, const Layout& layout) {
  VkFormatProperties features{};
  driver.vk.GetPhysicalDeviceFormatProperties(driver.found.id, format, &features);
  constexpr VkFormatFeatureFlags kTexels = VK_FORMAT_FEATURE_UNIFORM_TEXEL_BUFFER_BIT;
  constexpr VkFormatFeatureFlags kImage = VK_FORMAT_FEATURE_SAMPLED_IMAGE_BIT | VK_FORMAT_FEATURE_TRANSFER_SRC_BIT | VK_FORMAT_FEATURE_TRANSFER_DST_BIT;
  const bool texels = layout.storage == Storage::kImageBuffer;
  const bool there = texels ? (features.bufferFeatures & kTexels) == kTexels : (features.optimalTilingFeatures & kImage) == kImage;
  if (!there) return fail(ErrorCode::kUnsupported, cat(driver.info().name, " has no ", name_of(layout.storage), " of ", layout.lanes, " x ", name_of(layout.element)));
  return texels ? (features.bufferFeatures & VK_FORMAT_FEATURE_STORAGE_TEXEL_BUFFER_BIT) != 0 : (features.optimalTilingFeatures & VK_FORMAT_FEATURE_STORAGE_IMAGE_BIT) != 0;
}

VkImageSubresourceRange whole(const Layout& layout) {
  return {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, layout.storage == Storage::kImage2DArray ? static_cast<uint32_t>(layout.extent().depth) : 1};
}

VkBufferImageCopy copy_of(const Layout& layout, const gpu::ImageBox& box) {
  const bool array = layout.storage == Storage::kImage2DArray;
  const auto z = box.origin[2], depth = box.region[2];
  VkBufferImageCopy copy{};
  copy.bufferOffset = static_cast<VkDeviceSize>(box.first_byte);
  copy.imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, array ? static_cast<uint32_t>(z) : 0, array ? static_cast<uint32_t>(depth) : 1};
  copy.imageOffset = {static_cast<int32_t>(box.origin[0]), static_cast<int32_t>(box.origin[1]), array ? 0 : static_cast<int32_t>(z)};
  copy.imageExtent = {static_cast<uint32_t>(box.region[0]), static_cast<uint32_t>(box.region[1]), array ? 1 : static_cast<uint32_t>(depth)};
  return copy;
}

}  // namespace

Result<std::unique_ptr<VulkanBuffer>> VulkanBuffer::create(Driver& driver, Heap& heap, int64_t bytes) {
  if (bytes <= 0) return fail(ErrorCode::kInvalidArgument, cat("a buffer of ", bytes, " bytes"));
  if (bytes > driver.info().max_allocation_bytes)
    return fail(ErrorCode::kLimit, cat("a buffer of ", bytes, " bytes; ", driver.info().name, " allows ", driver.info().max_allocation_bytes));
  TESSERA_ASSIGN(auto made, make_buffer(driver, heap, bytes, VK_BUFFER_USAGE_STORAGE_BUFFER_BIT));
  ++driver.counters.buffers_created;
  driver.note_memory(bytes);
  return std::unique_ptr<VulkanBuffer>(new VulkanBuffer(driver, bytes, std::move(made.second), std::move(made.first)));
}

VulkanBuffer::~VulkanBuffer() { driver_.note_memory(-bytes_); }

Result<std::unique_ptr<VulkanImage>> VulkanImage::create(Driver& driver, Heap& heap, const Layout& layout) {
  if (!is_image(layout.storage)) return fail(ErrorCode::kUnsupported, cat("storage ", name_of(layout.storage), " as an image"));
  TESSERA_TRY(gpu::check_image(layout, driver.info()));
  TESSERA_ASSIGN(const VkFormat format, format_of(layout));
  TESSERA_ASSIGN(const bool writable, check_format(driver, format, layout));
  std::unique_ptr<VulkanImage> image(new VulkanImage(driver, layout, writable));
  driver.note_memory(layout.object_bytes());   // the destructor takes it back
  TESSERA_TRY(layout.storage == Storage::kImageBuffer ? image->make_texels(heap, format) : image->make_image(heap, format));
  ++driver.counters.images_created;
  return image;
}

VulkanImage::~VulkanImage() { driver_.note_memory(-layout_.object_bytes()); }

Status VulkanImage::make_texels(Heap& heap, VkFormat format) {
  const VkBufferUsageFlags storage = writable_ ? VK_BUFFER_USAGE_STORAGE_TEXEL_BUFFER_BIT : 0;
  TESSERA_ASSIGN(auto made, make_buffer(driver_, heap, layout_.object_bytes(), VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT | storage));
  backing_ = std::move(made.first);
  memory_ = std::move(made.second);
  VkBufferViewCreateInfo create{};
  create.sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO;
  create.buffer = backing_.get();
  create.format = format;
  create.range = VK_WHOLE_SIZE;
  TESSERA_ASSIGN(texels_, driver_.make<VkBufferView>(driver_.vk.CreateBufferView, create, driver_.vk.DestroyBufferView, "vkCreateBufferView"));
  return {};
}

Status VulkanImage::make_image(Heap& heap, VkFormat format) {
  const ImageKind& kind = *kind_of(layout_.storage);
  const ImageExtent extent = layout_.extent();
  const auto depth = static_cast<uint32_t>(extent.depth);
  const bool array = layout_.storage == Storage::kImage2DArray;
  VkImageCreateInfo create{};
  create.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO;
  create.imageType = kind.type;
  create.format = format;
  create.extent = {static_cast<uint32_t>(extent.width), static_cast<uint32_t>(extent.height), array ? 1 : depth};
  create.mipLevels = 1;
  create.arrayLayers = array ? depth : 1;
  create.samples = VK_SAMPLE_COUNT_1_BIT;
  create.tiling = VK_IMAGE_TILING_OPTIMAL;
  create.usage = VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT;
  if (writable_) create.usage |= VK_IMAGE_USAGE_STORAGE_BIT;
  TESSERA_ASSIGN(image_, driver_.make<VkImage>(driver_.vk.CreateImage, create, driver_.vk.DestroyImage, "vkCreateImage"));
  VkMemoryRequirements needs{};
  driver_.vk.GetImageMemoryRequirements(driver_.device, image_.get(), &needs);
  TESSERA_ASSIGN(memory_, heap.allocate(needs, Content::kImages));
  TESSERA_TRY(driver_.check(driver_.vk.BindImageMemory(driver_.device, image_.get(), memory_.object(), memory_.offset()), "vkBindImageMemory"));
  VkImageViewCreateInfo view{};
  view.sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO;
  view.image = image_.get();
  view.viewType = kind.view;
  view.format = format;
  view.subresourceRange = whole(layout_);
  TESSERA_ASSIGN(view_, driver_.make<VkImageView>(driver_.vk.CreateImageView, view, driver_.vk.DestroyImageView, "vkCreateImageView"));
  return {};
}

Transfers::~Transfers() { driver_.free_commands(commands_); }

template <class Record>
Status Transfers::run(Record&& record) {
  if (commands_ == VK_NULL_HANDLE) {
    TESSERA_ASSIGN(commands_, driver_.make_commands());
    TESSERA_ASSIGN(fence_, driver_.make_fence());
  }
  VkCommandBufferBeginInfo begin{};
  begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  TESSERA_TRY(driver_.check(driver_.vk.BeginCommandBuffer(commands_, &begin), "vkBeginCommandBuffer"));
  VkMemoryBarrier barrier{VK_STRUCTURE_TYPE_MEMORY_BARRIER, nullptr, VK_ACCESS_MEMORY_WRITE_BIT, VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT};
  driver_.vk.CmdPipelineBarrier(commands_, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 1, &barrier, 0, nullptr, 0, nullptr);
  record(commands_);
  barrier.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT;
  barrier.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
  driver_.vk.CmdPipelineBarrier(commands_, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, nullptr, 0, nullptr);
  TESSERA_TRY(driver_.check(driver_.vk.EndCommandBuffer(commands_), "vkEndCommandBuffer"));
  TESSERA_ASSIGN(const uint64_t stamp, driver_.submit(std::span(&commands_, 1), fence_.get()));
  return driver_.wait(fence_.get(), stamp);
}

Status Transfers::make_staging(size_t bytes) {
  TESSERA_TRY(driver_.drain());
  if (bytes <= staging_bytes_) return {};
  staging_ = {};
  staging_memory_ = {};
  staging_bytes_ = 0;
  TESSERA_ASSIGN(auto made, make_buffer(driver_, heap_, static_cast<int64_t>(bytes), 0, true));
  staging_ = std::move(made.first);
  staging_memory_ = std::move(made.second);
  staging_bytes_ = bytes;
  return {};
}

Status Transfers::prepare(const VulkanImage& image) {
  if (image.backing() != VK_NULL_HANDLE) return {};
  TESSERA_TRY(driver_.drain());
  return run([&](VkCommandBuffer commands) {
    VkImageMemoryBarrier barrier{};
    barrier.sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER;
    barrier.dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    barrier.oldLayout = VK_IMAGE_LAYOUT_UNDEFINED;
    barrier.newLayout = VK_IMAGE_LAYOUT_GENERAL;
    barrier.srcQueueFamilyIndex = barrier.dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED;
    barrier.image = image.image();
    barrier.subresourceRange = whole(image.layout());
    driver_.vk.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 0, nullptr, 0, nullptr, 1, &barrier);
  });
}

Status Transfers::write_bytes(VkBuffer buffer, const Memory& memory, int64_t offset, std::span<const std::byte> bytes) {
  TESSERA_TRY(driver_.drain());
  driver_.counters.bytes_written += bytes.size();
  if (memory.mapped() != nullptr) {
    std::memcpy(memory.mapped() + offset, bytes.data(), bytes.size());
    return {};
  }
  TESSERA_TRY(make_staging(bytes.size()));
  std::memcpy(staging_memory_.mapped(), bytes.data(), bytes.size());
  return run([&](VkCommandBuffer commands) {
    const VkBufferCopy copy{0, static_cast<VkDeviceSize>(offset), bytes.size()};
    driver_.vk.CmdCopyBuffer(commands, staging_.get(), buffer, 1, &copy);
  });
}

Status Transfers::read_bytes(VkBuffer buffer, const Memory& memory, int64_t offset, std::span<std::byte> bytes) {
  TESSERA_TRY(driver_.drain());
  driver_.counters.bytes_read += bytes.size();
  if (memory.mapped() != nullptr) {
    std::memcpy(bytes.data(), memory.mapped() + offset, bytes.size());
    return {};
  }
  TESSERA_TRY(make_staging(bytes.size()));
  TESSERA_TRY(run([&](VkCommandBuffer commands) {
    const VkBufferCopy copy{static_cast<VkDeviceSize>(offset), 0, bytes.size()};
    driver_.vk.CmdCopyBuffer(commands, buffer, staging_.get(), 1, &copy);
  }));
  std::memcpy(bytes.data(), staging_memory_.mapped(), bytes.size());
  return {};
}

Status Transfers::write(VulkanBuffer& buffer, int64_t offset, std::span<const std::byte> bytes) {
  TESSERA_TRY(gpu::check_range(offset, static_cast<int64_t>(bytes.size()), buffer.bytes(), "write of bytes"));
  return bytes.empty() ? Status() : write_bytes(buffer.get(), buffer.memory(), offset, bytes);
}

Status Transfers::read(const VulkanBuffer& buffer, int64_t offset, std::span<std::byte> bytes) {
  TESSERA_TRY(gpu::check_range(offset, static_cast<int64_t>(bytes.size()), buffer.bytes(), "read of bytes"));
  return bytes.empty() ? Status() : read_bytes(buffer.get(), buffer.memory(), offset, bytes);
}

Status Transfers::fill_zero(VulkanBuffer& buffer, int64_t offset, int64_t bytes) {
  TESSERA_TRY(gpu::check_range(offset, bytes, buffer.bytes(), "fill of bytes"));
  if (bytes == 0) return {};
  TESSERA_TRY(driver_.drain());
  if (buffer.memory().mapped() != nullptr) {
    std::memset(buffer.memory().mapped() + offset, 0, static_cast<size_t>(bytes));
    return {};
  }
  if (offset % 4 != 0 || bytes % 4 != 0) {   // vkCmdFillBuffer fills words
    const std::vector<std::byte> zeros(static_cast<size_t>(bytes));
    return write(buffer, offset, zeros);
  }
  return run([&](VkCommandBuffer commands) {
    driver_.vk.CmdFillBuffer(commands, buffer.get(), static_cast<VkDeviceSize>(offset), static_cast<VkDeviceSize>(bytes), 0);
  });
}

Status Transfers::copy(std::span<const gpu::BufferCopy> copies) {
  TESSERA_TRY(driver_.drain());
  return run([&](VkCommandBuffer commands) {
    for (const gpu::BufferCopy& each : copies) {
      const VkBuffer buffer = static_cast<const VulkanBuffer*>(each.buffer)->get();
      const VkBufferCopy range{static_cast<VkDeviceSize>(each.from), static_cast<VkDeviceSize>(each.to), static_cast<VkDeviceSize>(each.bytes)};
      driver_.vk.CmdCopyBuffer(commands, buffer, buffer, 1, &range);
    }
  });
}

Status Transfers::write_rows(VulkanImage& image, int64_t row, int64_t rows, std::span<const std::byte> bytes) {
  const Layout& layout = image.layout();
  TESSERA_TRY(gpu::check_lines(layout, row, rows, bytes.size()));
  if (bytes.empty()) return {};
  if (image.backing() != VK_NULL_HANDLE) return write_bytes(image.backing(), image.memory(), row * layout.line_bytes(), bytes);
  TESSERA_TRY(make_staging(bytes.size()));
  std::memcpy(staging_memory_.mapped(), bytes.data(), bytes.size());
  driver_.counters.bytes_written += bytes.size();
  return run([&](VkCommandBuffer commands) {
    (void)gpu::for_each_box(layout, row, rows, [&](const gpu::ImageBox& box) -> Status {
      const VkBufferImageCopy copy = copy_of(layout, box);
      driver_.vk.CmdCopyBufferToImage(commands, staging_.get(), image.image(), VK_IMAGE_LAYOUT_GENERAL, 1, &copy);
      return {};
    });
  });
}

Status Transfers::read_rows(const VulkanImage& image, int64_t row, int64_t rows, std::span<std::byte> bytes) {
  const Layout& layout = image.layout();
  TESSERA_TRY(gpu::check_lines(layout, row, rows, bytes.size()));
  if (bytes.empty()) return {};
  if (image.backing() != VK_NULL_HANDLE) return read_bytes(image.backing(), image.memory(), row * layout.line_bytes(), bytes);
  TESSERA_TRY(make_staging(bytes.size()));
  driver_.counters.bytes_read += bytes.size();
  TESSERA_TRY(run([&](VkCommandBuffer commands) {
    (void)gpu::for_each_box(layout, row, rows, [&](const gpu::ImageBox& box) -> Status {
      const VkBufferImageCopy copy = copy_of(layout, box);
      driver_.vk.CmdCopyImageToBuffer(commands, image.image(), VK_IMAGE_LAYOUT_GENERAL, staging_.get(), 1, &copy);
      return {};
    });
  }));
  std::memcpy(bytes.data(), staging_memory_.mapped(), bytes.size());
  return {};
}

}  // namespace tessera::vulkan
