// Recorded work of the OpenCL backend.
#pragma once
#include <memory>
#include <string>

#include "opencl_driver.hpp"

namespace tessera::opencl {

class OpenClFence final : public gpu::Fence {
 public:
  explicit OpenClFence(Driver& driver) : driver_(driver) {}
  // Not profiled: `last` is the event of the last kernel, null when there was none.
  void submitted(uint64_t stamp, Handle<cl_event> last) {
    stamp_ = stamp;
    last_ = std::move(last);
    microseconds_.clear();
  }
  // Profiled: already finished.
  void finished(uint64_t stamp, std::vector<double> microseconds) {
    stamp_ = stamp;
    last_ = {};
    microseconds_ = std::move(microseconds);
  }

  Status wait() override;
  std::vector<double> dispatch_microseconds() const override { return microseconds_; }

 private:
  Driver& driver_;
  uint64_t stamp_ = 0;
  Handle<cl_event> last_;
  std::vector<double> microseconds_;
};

class OpenClCommandList final : public gpu::CommandList {
 public:
  explicit OpenClCommandList(Driver& driver) : driver_(driver), fence_(driver) {}

  Status dispatch(const gpu::DispatchInfo& info) override;
  Status finish() override;
  size_t size() const override { return dispatches_.size(); }

  const Driver& driver() const { return driver_; }
  Result<gpu::Fence*> submit(int32_t times);
  // Runs on a queue that takes timestamps, by itself: waits for what was issued before, and for its own end.
  Result<gpu::Fence*> submit_profiled();

 private:
  // Every dispatch owns a kernel object whose arguments were set when it was recorded, so that submitting is a loop of enqueues, or one of the command
  // buffer that they were recorded into (opencl_command_buffer.hpp).
  struct Recorded {
    Handle<cl_kernel> kernel;
    std::array<size_t, 3> global;
    std::array<size_t, 3> local;
    std::string label;
  };

  Status record();
  Status submittable() const;
  Status enqueue(const Recorded& dispatch, cl_command_queue queue, Handle<cl_event>* event);
  Status enqueue_recorded(Handle<cl_event>& event);

  Driver& driver_;
  OpenClFence fence_;
  std::vector<Recorded> dispatches_;
  Handle<cl_command_buffer_khr> commands_;  // none: submit by the loop
  bool finished_ = false;
};

}  // namespace tessera::opencl
