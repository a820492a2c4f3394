#include "opencl_memory.hpp"

#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "gpu/checks.hpp"
#include "tessera/base/text.hpp"

namespace tessera::opencl {
namespace {

Result<cl_channel_type> channel_type(DType element) {
  switch (element) {
    case DType::kF32: return cl_channel_type{CL_FLOAT};
    case DType::kF16: return cl_channel_type{CL_HALF_FLOAT};
    case DType::kBF16: return cl_channel_type{CL_UNSIGNED_INT16};  // there is no such float: kernels widen the bits
    case DType::kI8: return cl_channel_type{CL_SIGNED_INT8};
    case DType::kU8: return cl_channel_type{CL_UNSIGNED_INT8};
    case DType::kI32: return cl_channel_type{CL_SIGNED_INT32};
    case DType::kU32: return cl_channel_type{CL_UNSIGNED_INT32};
  }
  return fail(ErrorCode::kUnsupported, "an image of an unknown element type");
}

// Texels wider than 4 elements are several RGBA pixels.
cl_channel_order channel_order(int lanes) { return lanes == 1 ? CL_R : lanes == 2 ? CL_RG : CL_RGBA; }

// What OpenCL calls a storage; nothing for one that is no image.
std::optional<cl_mem_object_type> image_type(Storage storage) {
  constexpr std::pair<Storage, cl_mem_object_type> kTypes[] = {
      {Storage::kImageBuffer, CL_MEM_OBJECT_IMAGE1D_BUFFER}, {Storage::kImage2D, CL_MEM_OBJECT_IMAGE2D}, {Storage::kImage2DArray, CL_MEM_OBJECT_IMAGE2D_ARRAY},
      {Storage::kImage3D, CL_MEM_OBJECT_IMAGE3D}};
  for (const auto& [known, type] : kTypes)
    if (known == storage) return type;
  return std::nullopt;
}

// Asked before creating: drivers answer an image they cannot make with several different errors.
Status check_format(const Driver& driver, const cl_image_format& format, cl_mem_object_type type, const Layout& layout) {
  cl_uint count = 0;
  std::vector<cl_image_format> formats;
  if (driver.cl.GetSupportedImageFormats(driver.context.get(), CL_MEM_READ_WRITE, type, 0, nullptr, &count) == CL_SUCCESS) formats.resize(count);
  if (count > 0 && driver.cl.GetSupportedImageFormats(driver.context.get(), CL_MEM_READ_WRITE, type, count, formats.data(), nullptr) != CL_SUCCESS)
    formats.clear();
  for (const cl_image_format& known : formats)
    if (known.image_channel_order == format.image_channel_order && known.image_channel_data_type == format.image_channel_data_type) return {};
  return fail(ErrorCode::kUnsupported,
              cat(driver.info.name, " has no ", name_of(layout.storage), " of ", layout.lanes, " x ", name_of(layout.element)));
}

Result<Handle<cl_mem>> create_memory(Driver& driver, int64_t bytes) {
  cl_int code = CL_SUCCESS;
  Handle<cl_mem> memory(driver.cl.CreateBuffer(driver.context.get(), CL_MEM_READ_WRITE, static_cast<size_t>(bytes), nullptr, &code),
                        driver.cl.ReleaseMemObject);
  if (auto status = driver.check(code, "clCreateBuffer"); !status)
    return fail(std::move(status).error().within(bytes_text(static_cast<uint64_t>(bytes))));
  return memory;
}

std::array<size_t, 3> sizes_of(const std::array<int64_t, 3>& pixels) {
  return {static_cast<size_t>(pixels[0]), static_cast<size_t>(pixels[1]), static_cast<size_t>(pixels[2])};
}

}  // namespace

Result<std::unique_ptr<OpenClBuffer>> OpenClBuffer::create(Driver& driver, int64_t bytes) {
  if (bytes <= 0) return fail(ErrorCode::kInvalidArgument, cat("a buffer of ", bytes, " bytes"));
  if (bytes > driver.info.max_allocation_bytes)
    return fail(ErrorCode::kLimit, cat("a buffer of ", bytes, " bytes; ", driver.info.name, " allows ", driver.info.max_allocation_bytes));
  TESSERA_ASSIGN(Handle<cl_mem> memory, create_memory(driver, bytes));
  ++driver.counters.buffers_created;
  driver.note_memory(bytes);
  return std::unique_ptr<OpenClBuffer>(new OpenClBuffer(driver, bytes, std::move(memory)));
}

OpenClBuffer::~OpenClBuffer() { driver_.note_memory(-bytes_); }

Result<cl_mem> OpenClBuffer::range(int64_t offset, int64_t bytes) {
  if (offset == 0 && bytes == bytes_) return memory_.get();
  TESSERA_TRY(gpu::check_binding(offset, bytes, bytes_, driver_.info));
  if (const auto found = ranges_.find({offset, bytes}); found != ranges_.end()) return found->second.get();
  const cl_buffer_region region{static_cast<size_t>(offset), static_cast<size_t>(bytes)};
  cl_int code = CL_SUCCESS;
  Handle<cl_mem> part(driver_.cl.CreateSubBuffer(memory_.get(), CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION, &region, &code),
                      driver_.cl.ReleaseMemObject);
  TESSERA_TRY(driver_.check(code, "clCreateSubBuffer"));
  return ranges_.emplace(std::pair(offset, bytes), std::move(part)).first->second.get();
}

Result<std::unique_ptr<OpenClImage>> OpenClImage::create(Driver& driver, const Layout& layout) {
  const std::optional<cl_mem_object_type> kind = image_type(layout.storage);
  if (!kind) return fail(ErrorCode::kUnsupported, cat("storage ", name_of(layout.storage), " as an OpenCL image"));
  TESSERA_TRY(gpu::check_image(layout, driver.info));
  TESSERA_ASSIGN(const cl_channel_type type, channel_type(layout.element));
  const cl_image_format format{channel_order(layout.lanes), type};
  TESSERA_TRY(check_format(driver, format, *kind, layout));
  const ImageExtent extent = layout.extent();
  cl_image_desc desc{};
  desc.image_type = *kind;
  desc.image_width = static_cast<size_t>(extent.width);
  desc.image_height = static_cast<size_t>(extent.height);  // OpenCL looks at what the type has
  desc.image_depth = desc.image_array_size = static_cast<size_t>(extent.depth);
  Handle<cl_mem> backing;
  if (*kind == CL_MEM_OBJECT_IMAGE1D_BUFFER) {
    TESSERA_ASSIGN(backing, create_memory(driver, layout.object_bytes()));
    desc.mem_object = backing.get();
  }
  cl_int code = CL_SUCCESS;
  Handle<cl_mem> memory(driver.cl.CreateImage(driver.context.get(), CL_MEM_READ_WRITE, &format, &desc, nullptr, &code), driver.cl.ReleaseMemObject);
  TESSERA_TRY(driver.check(code, cat("clCreateImage (", name_of(layout.storage), ", ", name_of(layout.element), " x ", layout.lanes, ")")));
  ++driver.counters.images_created;
  driver.note_memory(layout.object_bytes());
  return std::unique_ptr<OpenClImage>(new OpenClImage(driver, layout, std::move(backing), std::move(memory)));
}

OpenClImage::~OpenClImage() { driver_.note_memory(-layout_.object_bytes()); }

void Transfers::note_blocking_write(size_t bytes) {
  if (driver_.kernels_in_flight()) ++driver_.counters.synchronizations;
  driver_.finished_up_to(driver_.stamp());
  driver_.counters.bytes_written += bytes;
}

Status Transfers::write_staged(cl_mem memory, int64_t offset, std::span<const std::byte> bytes) {
  Slot& slot = (*ring_)[next_slot_];
  if (slot.stamp > driver_.completed) TESSERA_TRY(driver_.drain());
  std::memcpy(slot.bytes.data(), bytes.data(), bytes.size());
  const cl_int code = driver_.cl.EnqueueWriteBuffer(driver_.queue.get(), memory, CL_FALSE, static_cast<size_t>(offset), bytes.size(),
                                                    slot.bytes.data(), 0, nullptr, nullptr);
  TESSERA_TRY(driver_.check(code, "clEnqueueWriteBuffer"));
  slot.stamp = driver_.stamp();
  next_slot_ = (next_slot_ + 1) % kSlots;
  driver_.counters.bytes_written += bytes.size();
  return {};
}

Status Transfers::write_blocking(cl_mem memory, int64_t offset, std::span<const std::byte> bytes) {
  const cl_int code = driver_.cl.EnqueueWriteBuffer(driver_.queue.get(), memory, CL_TRUE, static_cast<size_t>(offset), bytes.size(), bytes.data(), 0,
                                                    nullptr, nullptr);
  TESSERA_TRY(driver_.check_wait(code, "clEnqueueWriteBuffer"));
  note_blocking_write(bytes.size());
  return {};
}

Status Transfers::write(OpenClBuffer& buffer, int64_t offset, std::span<const std::byte> bytes) {
  TESSERA_TRY(gpu::check_range(offset, static_cast<int64_t>(bytes.size()), buffer.bytes(), "write of bytes"));
  if (bytes.empty()) return {};
  return bytes.size() <= kSlotBytes ? write_staged(buffer.memory(), offset, bytes) : write_blocking(buffer.memory(), offset, bytes);
}

Status Transfers::read(const OpenClBuffer& buffer, int64_t offset, std::span<std::byte> bytes) {
  TESSERA_TRY(gpu::check_range(offset, static_cast<int64_t>(bytes.size()), buffer.bytes(), "read of bytes"));
  if (bytes.empty()) return {};
  const cl_int code = driver_.cl.EnqueueReadBuffer(driver_.queue.get(), buffer.memory(), CL_TRUE, static_cast<size_t>(offset), bytes.size(),
                                                   bytes.data(), 0, nullptr, nullptr);
  TESSERA_TRY(driver_.check_wait(code, "clEnqueueReadBuffer"));
  driver_.finished_up_to(driver_.stamp());
  ++driver_.counters.synchronizations;
  driver_.counters.bytes_read += bytes.size();
  return {};
}

Status Transfers::fill_zero(OpenClBuffer& buffer, int64_t offset, int64_t bytes) {
  TESSERA_TRY(gpu::check_range(offset, bytes, buffer.bytes(), "fill of bytes"));
  if (bytes == 0) return {};
  constexpr cl_uint kZero = 0;
  const size_t pattern_bytes = offset % 4 == 0 && bytes % 4 == 0 ? 4 : 1;  // both must be multiples of the pattern
  const cl_int code = driver_.cl.EnqueueFillBuffer(driver_.queue.get(), buffer.memory(), &kZero, pattern_bytes, static_cast<size_t>(offset),
                                                   static_cast<size_t>(bytes), 0, nullptr, nullptr);
  TESSERA_TRY(driver_.check(code, "clEnqueueFillBuffer"));
  driver_.stamp();
  return {};
}

Status Transfers::copy(std::span<const gpu::BufferCopy> copies) {
  for (const gpu::BufferCopy& each : copies) {
    const cl_mem memory = static_cast<const OpenClBuffer*>(each.buffer)->memory();
    const cl_int code = driver_.cl.EnqueueCopyBuffer(driver_.queue.get(), memory, memory, static_cast<size_t>(each.from), static_cast<size_t>(each.to),
                                                     static_cast<size_t>(each.bytes), 0, nullptr, nullptr);
    TESSERA_TRY(driver_.check(code, "clEnqueueCopyBuffer"));
  }
  driver_.stamp();
  return {};
}

Status Transfers::write_rows(OpenClImage& image, int64_t row, int64_t rows, std::span<const std::byte> bytes) {
  TESSERA_TRY(gpu::check_lines(image.layout(), row, rows, bytes.size()));
  if (bytes.empty()) return {};
  if (image.backing() != nullptr) return write_blocking(image.backing(), row * image.layout().line_bytes(), bytes);
  TESSERA_TRY(gpu::for_each_box(image.layout(), row, rows, [&](const gpu::ImageBox& box) {
    const cl_int code =
        driver_.cl.EnqueueWriteImage(driver_.queue.get(), image.memory(), CL_TRUE, sizes_of(box.origin).data(), sizes_of(box.region).data(), 0, 0,
                                                     bytes.data() + box.first_byte, 0, nullptr, nullptr);
    return driver_.check_wait(code, "clEnqueueWriteImage");
  }));
  note_blocking_write(bytes.size());
  return {};
}

Status Transfers::read_rows(const OpenClImage& image, int64_t row, int64_t rows, std::span<std::byte> bytes) {
  TESSERA_TRY(gpu::check_lines(image.layout(), row, rows, bytes.size()));
  if (bytes.empty()) return {};
  if (image.backing() != nullptr) {
    const size_t offset = static_cast<size_t>(row * image.layout().line_bytes());
    const cl_int code =
        driver_.cl.EnqueueReadBuffer(driver_.queue.get(), image.backing(), CL_TRUE, offset, bytes.size(), bytes.data(), 0, nullptr, nullptr);
    TESSERA_TRY(driver_.check_wait(code, "clEnqueueReadBuffer"));
  } else {
    TESSERA_TRY(gpu::for_each_box(image.layout(), row, rows, [&](const gpu::ImageBox& box) {
      const cl_int code =
          driver_.cl.EnqueueReadImage(driver_.queue.get(), image.memory(), CL_TRUE, sizes_of(box.origin).data(), sizes_of(box.region).data(), 0, 0,
                                                     bytes.data() + box.first_byte, 0, nullptr, nullptr);
      return driver_.check_wait(code, "clEnqueueReadImage");
    }));
  }
  driver_.finished_up_to(driver_.stamp());
  ++driver_.counters.synchronizations;
  driver_.counters.bytes_read += bytes.size();
  return {};
}

}  // namespace tessera::opencl
