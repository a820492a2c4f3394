// Recorded work of the OpenCL backend.
#pragma once
#include <memory>
#include <string>

#include "opencl_driver.hpp"

namespace tessera::opencl {

class OpenClFence final : public gpu::Fence {
 public:
  // Not profiled: `last` is the event of the last kernel, null when there was none.
  OpenClFence(Driver& driver, uint64_t stamp, Handle<cl_event> last) : driver_(driver), stamp_(stamp), last_(std::move(last)) {}
  // Profiled: already finished.
  OpenClFence(Driver& driver, uint64_t stamp, std::vector<double> microseconds)
      : driver_(driver), stamp_(stamp), microseconds_(std::move(microseconds)) {}

  Status wait() override;
  std::vector<double> dispatch_microseconds() const override { return microseconds_; }

 private:
  Driver& driver_;
  uint64_t stamp_;
  Handle<cl_event> last_;
  std::vector<double> microseconds_;
};

class OpenClCommandList final : public gpu::CommandList {
 public:
  explicit OpenClCommandList(Driver& driver) : driver_(driver) {}

  Status dispatch(const gpu::DispatchInfo& info) override;
  Status finish() override;
  size_t size() const override { return dispatches_.size(); }

  const Driver& driver() const { return driver_; }
  Result<std::unique_ptr<gpu::Fence>> submit();
  // Runs on a queue that takes timestamps, by itself: waits for what was issued before, and for its own end.
  Result<std::unique_ptr<gpu::Fence>> submit_profiled();

 private:
  // Every dispatch owns a kernel object whose arguments were set when it was recorded, so that submitting is a loop of enqueues.
  struct Recorded {
    Handle<cl_kernel> kernel;
    std::array<size_t, 3> global;
    std::array<size_t, 3> local;
    std::string label;
  };

  Status submittable() const;
  Status enqueue(const Recorded& dispatch, cl_command_queue queue, Handle<cl_event>* event);

  Driver& driver_;
  std::vector<Recorded> dispatches_;
  bool finished_ = false;
};

}  // namespace tessera::opencl
