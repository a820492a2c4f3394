#include "vulkan_device.hpp"

#include "gpu/checks.hpp"
#include "tessera/base/text.hpp"
#include "vulkan_kernel.hpp"
#include "vulkan_list.hpp"

namespace tessera::vulkan {
namespace {

// `object` as this backend's own type, if it was made by this device.
template <class Own, class Object>
Result<Own*> own(Object& object, const Driver& driver, std::string_view what) {
  TESSERA_TRY(driver.alive());
  auto* mine = dynamic_cast<Own*>(&object);
  if (mine == nullptr || &mine->driver() != &driver) return fail(ErrorCode::kInvalidArgument, cat("the ", what, " was made by another device"));
  return mine;
}

}  // namespace

Result<std::unique_ptr<VulkanDevice>> VulkanDevice::open(std::shared_ptr<Instance> instance, const VulkanApi& api, const FoundDevice& found) {
  TESSERA_ASSIGN(std::unique_ptr<Driver> driver, Driver::open(std::move(instance), api, found));
  return std::unique_ptr<VulkanDevice>(new VulkanDevice(std::move(driver)));
}

VulkanDevice::~VulkanDevice() {
  if (!driver_->drain()) driver_->wait_idle();
}

Result<std::unique_ptr<gpu::Buffer>> VulkanDevice::create_buffer(int64_t bytes) {
  TESSERA_TRY(driver_->alive());
  return VulkanBuffer::create(*driver_, heap_, bytes);
}

Result<std::unique_ptr<gpu::Image>> VulkanDevice::create_image(const Layout& layout) {
  TESSERA_TRY(driver_->alive());
  TESSERA_ASSIGN(auto image, VulkanImage::create(*driver_, heap_, layout));
  TESSERA_TRY(transfers_.prepare(*image));
  return image;
}

Result<std::unique_ptr<gpu::Kernel>> VulkanDevice::compile(const LoweredKernel& lowered) {
  TESSERA_TRY(driver_->alive());
  return VulkanKernel::compile(*driver_, lowered);
}

Result<std::unique_ptr<gpu::Kernel>> VulkanDevice::load(const LoweredKernel& lowered, std::span<const std::byte> binary) {
  TESSERA_TRY(driver_->alive());
  return VulkanKernel::load(*driver_, lowered, binary);
}

Result<std::unique_ptr<gpu::CommandList>> VulkanDevice::create_list() {
  TESSERA_TRY(driver_->alive());
  return std::make_unique<VulkanCommandList>(*driver_);
}

Status VulkanDevice::write(gpu::Buffer& buffer, int64_t offset, std::span<const std::byte> bytes) {
  TESSERA_ASSIGN(auto* mine, own<VulkanBuffer>(buffer, *driver_, "buffer"));
  return transfers_.write(*mine, offset, bytes);
}

Status VulkanDevice::read(const gpu::Buffer& buffer, int64_t offset, std::span<std::byte> bytes) {
  TESSERA_ASSIGN(const auto* mine, own<const VulkanBuffer>(buffer, *driver_, "buffer"));
  return transfers_.read(*mine, offset, bytes);
}

Status VulkanDevice::fill_zero(gpu::Buffer& buffer, int64_t offset, int64_t bytes) {
  TESSERA_ASSIGN(auto* mine, own<VulkanBuffer>(buffer, *driver_, "buffer"));
  return transfers_.fill_zero(*mine, offset, bytes);
}

Status VulkanDevice::copy(std::span<const gpu::BufferCopy> copies) {
  for (const gpu::BufferCopy& each : copies) {
    TESSERA_TRY(own<VulkanBuffer>(*each.buffer, *driver_, "buffer"));
    TESSERA_TRY(gpu::check_copy(each));
  }
  return copies.empty() ? Status() : transfers_.copy(copies);
}

Status VulkanDevice::write_rows(gpu::Image& image, int64_t row, int64_t rows, std::span<const std::byte> bytes) {
  TESSERA_ASSIGN(auto* mine, own<VulkanImage>(image, *driver_, "image"));
  return transfers_.write_rows(*mine, row, rows, bytes);
}

Status VulkanDevice::read_rows(const gpu::Image& image, int64_t row, int64_t rows, std::span<std::byte> bytes) {
  TESSERA_ASSIGN(const auto* mine, own<const VulkanImage>(image, *driver_, "image"));
  return transfers_.read_rows(*mine, row, rows, bytes);
}

Result<gpu::Fence*> VulkanDevice::submit(gpu::CommandList& list, const gpu::SubmitOptions& options) {
  TESSERA_TRY(gpu::check_times(options));
  TESSERA_ASSIGN(auto* mine, own<VulkanCommandList>(list, *driver_, "command list"));
  return options.profiled ? mine->submit_profiled() : mine->submit(options.times);
}

}  // namespace tessera::vulkan

namespace tessera::gpu {

Result<std::vector<DeviceInfo>> list_vulkan_devices() {
  TESSERA_ASSIGN(const vulkan::VulkanApi api, vulkan::load_api(vulkan::library_candidates()));
  TESSERA_ASSIGN(const auto instance, vulkan::Instance::create(api));
  TESSERA_ASSIGN(const auto found, vulkan::find_devices(*instance));
  std::vector<DeviceInfo> infos;
  for (const vulkan::FoundDevice& device : found) infos.push_back(device.info);
  return infos;
}

Result<std::unique_ptr<Device>> open_vulkan_device(size_t index) {
  TESSERA_ASSIGN(const vulkan::VulkanApi api, vulkan::load_api(vulkan::library_candidates()));
  TESSERA_ASSIGN(const auto instance, vulkan::Instance::create(api));
  TESSERA_ASSIGN(const auto found, vulkan::find_devices(*instance));
  if (index >= found.size()) return fail(ErrorCode::kNotFound, cat("Vulkan device ", index, "; there are ", found.size(), ", counted from 0"));
  return vulkan::VulkanDevice::open(instance, instance->api(), found[index]);
}

}  // namespace tessera::gpu
