// A device that passes every call on to another one: tests override what is to be different.
#pragma once
#include <memory>
#include <span>
#include <string_view>

#include "tessera/engine/device.hpp"

namespace tessera::test {

class ForwardingDevice : public gpu::Device {
 public:
  explicit ForwardingDevice(const tessera::Device& device) : device_(device), inner_(&device_.backend()) {}

  const DeviceInfo& info() const override { return inner_->info(); }
  Target target() const override { return inner_->target(); }
  std::string_view compile_options() const override { return inner_->compile_options(); }
  const gpu::Counters& counters() const override { return inner_->counters(); }
  Result<std::unique_ptr<gpu::Buffer>> create_buffer(int64_t bytes) override { return inner_->create_buffer(bytes); }
  Result<std::unique_ptr<gpu::Image>> create_image(const Layout& layout) override { return inner_->create_image(layout); }
  Result<std::unique_ptr<gpu::Kernel>> compile(const LoweredKernel& lowered) override { return inner_->compile(lowered); }
  Result<std::unique_ptr<gpu::Kernel>> load(const LoweredKernel& lowered, std::span<const std::byte> binary) override { return inner_->load(lowered, binary); }
  Result<std::unique_ptr<gpu::CommandList>> create_list() override { return inner_->create_list(); }
  Status write(gpu::Buffer& buffer, int64_t offset, std::span<const std::byte> bytes) override { return inner_->write(buffer, offset, bytes); }
  Status read(const gpu::Buffer& buffer, int64_t offset, std::span<std::byte> bytes) override { return inner_->read(buffer, offset, bytes); }
  Status fill_zero(gpu::Buffer& buffer, int64_t offset, int64_t bytes) override { return inner_->fill_zero(buffer, offset, bytes); }
  Status copy(std::span<const gpu::BufferCopy> copies) override { return inner_->copy(copies); }
  Status write_rows(gpu::Image& image, int64_t row, int64_t rows, std::span<const std::byte> bytes) override { return inner_->write_rows(image, row, rows, bytes); }
  Status read_rows(const gpu::Image& image, int64_t row, int64_t rows, std::span<std::byte> bytes) override { return inner_->read_rows(image, row, rows, bytes); }
  Result<gpu::Fence*> submit(gpu::CommandList& list, const gpu::SubmitOptions& options) override { return inner_->submit(list, options); }

 protected:
  gpu::Device& inner() const { return *inner_; }

 private:
  tessera::Device device_;
  gpu::Device* inner_;
};

}  // namespace tessera::test
