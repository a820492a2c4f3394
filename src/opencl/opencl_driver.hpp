// What everything made by one OpenCL device shares: functions, handles, counters, error mapping, and how far the queue has got.
#pragma once
#include <utility>

#include "opencl_command_buffer.hpp"
#include "tessera/gpu/gpu.hpp"

namespace tessera::opencl {

// Owns one reference to a driver object.
template <class Raw>
class Handle {
 public:
  using Release = cl_int(CL_API_CALL*)(Raw);
  Handle() = default;
  Handle(Raw raw, Release release) : raw_(raw), release_(release) {}
  Handle(Handle&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)), release_(other.release_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(raw_, other.raw_);
    std::swap(release_, other.release_);
    return *this;
  }
  ~Handle() {
    if (raw_ != nullptr) release_(raw_);
  }
  Raw get() const { return raw_; }
  explicit operator bool() const { return raw_ != nullptr; }

 private:
  Raw raw_ = nullptr;
  Release release_ = nullptr;
};

// "CL_OUT_OF_RESOURCES (-5)"
std::string error_text(cl_int code);

struct Driver {
  OpenClApi cl;
  CommandBuffers command_buffers;
  DeviceInfo info;
  std::string compile_options;
  gpu::Counters counters;
  cl_device_id device = nullptr;
  Handle<cl_context> context;
  Handle<cl_command_queue> queue;  // in order, without profiling
  bool lost = false;               // sticky

  // The in-order queue as a counter: commands are stamped 1, 2, 3…; all up to `completed` are known to have finished.
  uint64_t issued = 0;
  uint64_t completed = 0;
  uint64_t last_kernels = 0;  // stamp of the latest submission of kernels

  uint64_t stamp() { return ++issued; }
  void finished_up_to(uint64_t stamp) { completed = stamp > completed ? stamp : completed; }
  bool kernels_in_flight() const { return last_kernels > completed; }

  // kDeviceLost once the device has been lost.
  Status alive() const;
  // The error of a driver call: out of memory, unsupported, or kDriver with the code's name. Codes that only a dead device gives mark it lost.
  Status check(cl_int code, std::string_view call);
  // The same for calls that wait: what they report went wrong earlier, on the device itself, so that resource errors too mean it is lost.
  Status check_wait(cl_int code, std::string_view call);
  // Waits for everything issued. A synchronization only if kernels were running: waiting for one's own upload is not.
  Status drain();
  void note_memory(int64_t bytes);  // positive: created; negative: released
};

}  // namespace tessera::opencl
