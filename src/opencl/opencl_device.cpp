#include "opencl_device.hpp"

#include "gpu/checks.hpp"
#include "opencl_kernel.hpp"
#include "opencl_list.hpp"
#include "tessera/base/text.hpp"

namespace tessera::opencl {
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

Result<std::unique_ptr<OpenClDevice>> OpenClDevice::open(const OpenClApi& api, const FoundDevice& found) {
  auto driver = std::make_unique<Driver>();
  driver->cl = api;
  driver->command_buffers = found.command_buffers;
  driver->info = found.info;
  driver->compile_options = found.compile_options;
  driver->device = found.id;
  cl_int code = CL_SUCCESS;
  driver->context = Handle<cl_context>(api.CreateContext(nullptr, 1, &found.id, nullptr, nullptr, &code), api.ReleaseContext);
  TESSERA_TRY(driver->check(code, "clCreateContext"));
  driver->queue = Handle<cl_command_queue>(api.CreateCommandQueue(driver->context.get(), found.id, 0, &code), api.ReleaseCommandQueue);
  TESSERA_TRY(driver->check(code, "clCreateCommandQueue"));
  return std::unique_ptr<OpenClDevice>(new OpenClDevice(std::move(driver)));
}

// The queue may still read the staging ring.
OpenClDevice::~OpenClDevice() { driver_->cl.Finish(driver_->queue.get()); }

Result<std::unique_ptr<gpu::Buffer>> OpenClDevice::create_buffer(int64_t bytes) {
  TESSERA_TRY(driver_->alive());
  return OpenClBuffer::create(*driver_, bytes);
}

Result<std::unique_ptr<gpu::Image>> OpenClDevice::create_image(const Layout& layout) {
  TESSERA_TRY(driver_->alive());
  return OpenClImage::create(*driver_, layout);
}

Result<std::unique_ptr<gpu::Kernel>> OpenClDevice::compile(const LoweredKernel& lowered) {
  TESSERA_TRY(driver_->alive());
  return OpenClKernel::compile(*driver_, lowered);
}

Result<std::unique_ptr<gpu::Kernel>> OpenClDevice::load(const LoweredKernel& lowered, std::span<const std::byte> binary) {
  TESSERA_TRY(driver_->alive());
  return OpenClKernel::load(*driver_, lowered, binary);
}

Result<std::unique_ptr<gpu::CommandList>> OpenClDevice::create_list() {
  TESSERA_TRY(driver_->alive());
  return std::make_unique<OpenClCommandList>(*driver_);
}

Status OpenClDevice::write(gpu::Buffer& buffer, int64_t offset, std::span<const std::byte> bytes) {
  TESSERA_ASSIGN(auto* mine, own<OpenClBuffer>(buffer, *driver_, "buffer"));
  return transfers_.write(*mine, offset, bytes);
}

Status OpenClDevice::read(const gpu::Buffer& buffer, int64_t offset, std::span<std::byte> bytes) {
  TESSERA_ASSIGN(const auto* mine, own<const OpenClBuffer>(buffer, *driver_, "buffer"));
  return transfers_.read(*mine, offset, bytes);
}

Status OpenClDevice::fill_zero(gpu::Buffer& buffer, int64_t offset, int64_t bytes) {
  TESSERA_ASSIGN(auto* mine, own<OpenClBuffer>(buffer, *driver_, "buffer"));
  return transfers_.fill_zero(*mine, offset, bytes);
}

Status OpenClDevice::copy(std::span<const gpu::BufferCopy> copies) {
  for (const gpu::BufferCopy& each : copies) {
    TESSERA_TRY(own<OpenClBuffer>(*each.buffer, *driver_, "buffer"));
    TESSERA_TRY(gpu::check_copy(each));
  }
  return copies.empty() ? Status() : transfers_.copy(copies);
}

Status OpenClDevice::write_rows(gpu::Image& image, int64_t row, int64_t rows, std::span<const std::byte> bytes) {
  TESSERA_ASSIGN(auto* mine, own<OpenClImage>(image, *driver_, "image"));
  return transfers_.write_rows(*mine, row, rows, bytes);
}

Status OpenClDevice::read_rows(const gpu::Image& image, int64_t row, int64_t rows, std::span<std::byte> bytes) {
  TESSERA_ASSIGN(const auto* mine, own<const OpenClImage>(image, *driver_, "image"));
  return transfers_.read_rows(*mine, row, rows, bytes);
}

Result<gpu::Fence*> OpenClDevice::submit(gpu::CommandList& list, const gpu::SubmitOptions& options) {
  TESSERA_TRY(gpu::check_times(options));
  TESSERA_ASSIGN(auto* mine, own<OpenClCommandList>(list, *driver_, "command list"));
  return options.profiled ? mine->submit_profiled() : mine->submit(options.times);
}

}  // namespace tessera::opencl

namespace tessera::gpu {

Result<std::vector<DeviceInfo>> list_opencl_devices() {
  TESSERA_ASSIGN(const opencl::OpenClApi api, opencl::load_api(opencl::library_candidates()));
  TESSERA_ASSIGN(const auto found, opencl::find_devices(api));
  std::vector<DeviceInfo> infos;
  for (const opencl::FoundDevice& device : found) infos.push_back(device.info);
  return infos;
}

Result<std::unique_ptr<Device>> open_opencl_device(size_t index) {
  TESSERA_ASSIGN(const opencl::OpenClApi api, opencl::load_api(opencl::library_candidates()));
  TESSERA_ASSIGN(const auto found, opencl::find_devices(api));
  if (index >= found.size()) return fail(ErrorCode::kNotFound, cat("OpenCL device ", index, "; there are ", found.size(), ", counted from 0"));
  return opencl::OpenClDevice::open(api, found[index]);
}

}  // namespace tessera::gpu
