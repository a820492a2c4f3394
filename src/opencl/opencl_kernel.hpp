// Programs of the OpenCL backend: from source or from a binary to kernel objects.
#pragma once
#include <memory>

#include "opencl_driver.hpp"

namespace tessera::opencl {

class OpenClKernel final : public gpu::Kernel {
 public:
  static Result<std::unique_ptr<OpenClKernel>> compile(Driver& driver, const LoweredKernel& lowered);
  static Result<std::unique_ptr<OpenClKernel>> load(Driver& driver, const LoweredKernel& lowered, std::span<const std::byte> binary);

  const LoweredKernel& lowered() const override { return lowered_; }
  // Best taken after the kernel has run. PoCL 3.1 generates the machine code for a workgroup size at the first dispatch, and its binary holds
  // what exists by then. Measured on one long kernel, with PoCL's own cache empty: from source 2,400 ms + 1,050 ms at the first dispatch;
  // from a binary taken right after the build 13 ms + 1,000 ms; from one taken after the first dispatch 7 ms + 1 ms. Taking the binary
  // makes PoCL also generate a form for any workgroup size (470 to 1,100 ms here), whether or not reqd_work_group_size is in the text.
  Result<std::vector<std::byte>> binary() const override;
  const Driver& driver() const { return driver_; }
  // A kernel object of its own for one dispatch: its arguments are set once and stay.
  Result<Handle<cl_kernel>> create_kernel() const;

 private:
  OpenClKernel(Driver& driver, const LoweredKernel& lowered, Handle<cl_program> program)
      : driver_(driver), lowered_(lowered), program_(std::move(program)) {}
  static Result<std::unique_ptr<OpenClKernel>> build(Driver& driver, const LoweredKernel& lowered, Handle<cl_program> program);
  Status check_against_driver() const;

  Driver& driver_;
  LoweredKernel lowered_;
  Handle<cl_program> program_;
};

}  // namespace tessera::opencl
