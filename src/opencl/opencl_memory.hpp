// Buffers, images and transfers of the OpenCL backend.
#pragma once
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "opencl_driver.hpp"

namespace tessera::opencl {

class OpenClBuffer final : public gpu::Buffer {
 public:
  static Result<std::unique_ptr<OpenClBuffer>> create(Driver& driver, int64_t bytes);
  ~OpenClBuffer() override;

  int64_t bytes() const override { return bytes_; }
  const Driver& driver() const { return driver_; }
  cl_mem memory() const { return memory_.get(); }
  // The object for a range: the buffer itself, or a sub-buffer that equal ranges share and that lives as long as the buffer.
  Result<cl_mem> range(int64_t offset, int64_t bytes);

 private:
  OpenClBuffer(Driver& driver, int64_t bytes, Handle<cl_mem> memory) : driver_(driver), bytes_(bytes), memory_(std::move(memory)) {}

  Driver& driver_;
  int64_t bytes_;
  Handle<cl_mem> memory_;
  std::map<std::pair<int64_t, int64_t>, Handle<cl_mem>> ranges_;  // after memory_: released before it
};

class OpenClImage final : public gpu::Image {
 public:
  static Result<std::unique_ptr<OpenClImage>> create(Driver& driver, const Layout& layout);
  ~OpenClImage() override;

  const Layout& layout() const override { return layout_; }
  const Driver& driver() const { return driver_; }
  cl_mem memory() const { return memory_.get(); }
  // Where an image buffer's texels lie; null for other images.
  cl_mem backing() const { return backing_.get(); }

 private:
  OpenClImage(Driver& driver, const Layout& layout, Handle<cl_mem> backing, Handle<cl_mem> memory)
      : driver_(driver), layout_(layout), backing_(std::move(backing)), memory_(std::move(memory)) {}

  Driver& driver_;
  Layout layout_;
  Handle<cl_mem> backing_;
  Handle<cl_mem> memory_;  // after backing_: released before it
};

// Copies between host and device, in the queue's order.
class Transfers {
 public:
  explicit Transfers(Driver& driver) : driver_(driver) {}

  Status write(OpenClBuffer& buffer, int64_t offset, std::span<const std::byte> bytes);
  Status read(const OpenClBuffer& buffer, int64_t offset, std::span<std::byte> bytes);
  Status fill_zero(OpenClBuffer& buffer, int64_t offset, int64_t bytes);
  Status copy(std::span<const gpu::BufferCopy> copies);   // checked, of buffers of this device
  Status write_rows(OpenClImage& image, int64_t row, int64_t rows, std::span<const std::byte> bytes);
  Status read_rows(const OpenClImage& image, int64_t row, int64_t rows, std::span<std::byte> bytes);

 private:
  // A write in an in-order queue finishes only after the kernels before it, so a blocking one would stall the host for a whole step. Small
  // writes (run-time parameters, token ids, block tables) are copied into a ring of slots and left to the queue. A slot is free again
  // once the queue is known to have passed it; every read and every fence tells, so that in practice nobody ever waits for one.
  static constexpr size_t kSlotBytes = 4096;
  static constexpr size_t kSlots = 64;
  struct Slot {
    uint64_t stamp = 0;
    std::array<std::byte, kSlotBytes> bytes;
  };

  Status write_staged(cl_mem memory, int64_t offset, std::span<const std::byte> bytes);
  Status write_blocking(cl_mem memory, int64_t offset, std::span<const std::byte> bytes);
  void note_blocking_write(size_t bytes);

  Driver& driver_;
  std::unique_ptr<std::array<Slot, kSlots>> ring_ = std::make_unique<std::array<Slot, kSlots>>();
  size_t next_slot_ = 0;
};

}  // namespace tessera::opencl
