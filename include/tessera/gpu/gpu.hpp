// The six small interfaces between the executor and a GPU API. A backend implements them; nothing above names an API.
//
// Threads: one thread at a time uses a Device and what it made; the engine owns that rule. Lifetime: a Device outlives all it made.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/log.hpp"
#include "tessera/base/status.hpp"
#include "tessera/codegen/variant.hpp"
#include "tessera/device/device_info.hpp"
#include "tessera/tensor/layout.hpp"

namespace tessera::gpu {

// What a device has done since it was opened. Tests decide by these, never by time.
struct Counters {
  uint64_t buffers_created = 0;
  uint64_t images_created = 0;
  uint64_t device_bytes = 0;        // live bytes of buffers and images
  uint64_t peak_device_bytes = 0;
  uint64_t programs_compiled = 0;   // from source
  uint64_t programs_loaded = 0;     // from a binary
  uint64_t kernels_created = 0;
  uint64_t lists_recorded = 0;
  uint64_t descriptor_updates = 0;  // bindings of a dispatch handed to the driver
  uint64_t dispatches = 0;
  uint64_t submissions = 0;
  uint64_t enqueues = 0;            // calls of the driver that submitting lists took: one a list that the driver records, else one a dispatch
  uint64_t synchronizations = 0;    // the host waited for the device
  uint64_t bytes_written = 0;       // host → device
  uint64_t bytes_read = 0;          // device → host
};

class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual int64_t bytes() const = 0;
};

class Image {
 public:
  virtual ~Image() = default;
  virtual const Layout& layout() const = 0;
};

// A compiled program, ready to be dispatched with its slots bound.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual const LoweredKernel& lowered() const = 0;
  // The driver's binary for the program cache; empty when the driver gives none.
  virtual Result<std::vector<std::byte>> binary() const = 0;
};

// One tensor at its place: a range of a buffer, or an image.
struct Binding {
  Buffer* buffer = nullptr;
  int64_t offset = 0;   // bytes; a multiple of DeviceInfo::buffer_offset_alignment
  int64_t bytes = 0;
  Image* image = nullptr;
};

// Bytes [from, from + bytes) of a buffer to its bytes from `to` on; the two do not overlap.
struct BufferCopy {
  Buffer* buffer = nullptr;
  int64_t from = 0;
  int64_t to = 0;
  int64_t bytes = 0;
};

struct DispatchInfo {
  Kernel* kernel = nullptr;
  std::vector<Binding> bindings;        // one a slot of the lowered kernel, in order
  std::vector<uint32_t> args;           // bit patterns, in order
  std::array<int64_t, 3> workgroups{1, 1, 1};
  std::string_view label;               // for profiles and logs
  // Whether it waits for the dispatches before it in its list. Without, it may run beside those since the last one that waits, so that none of them
  // may touch what another writes.
  bool barrier = true;
};

inline constexpr int32_t kMaxTimes = 64;
struct SubmitOptions {
  bool profiled = false;
  int32_t times = 1;   // 1 to kMaxTimes
};

// Submitted work. wait() returns once it is finished; a lost device is kDeviceLost here and from then on.
class Fence {
 public:
  virtual ~Fence() = default;
  virtual Status wait() = 0;
  // After wait(), when the submission was profiled: microseconds of each dispatch in order. Empty where the device has no timestamps.
  virtual std::vector<double> dispatch_microseconds() const = 0;
};

// Work recorded once and submitted many times. A dispatch with a barrier sees what all before it wrote; lists take effect in the order of their
// submission.
// The buffers, images and kernels that a list uses must outlive it.
class CommandList {
 public:
  virtual ~CommandList() = default;
  virtual Status dispatch(const DispatchInfo& info) = 0;
  virtual Status finish() = 0;   // no dispatch() after it, no submit() before it
  virtual size_t size() const = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  virtual Target target() const = 0;
  virtual std::string_view compile_options() const = 0;  // what shapes a program besides its text: part of every cache key
  virtual const Counters& counters() const = 0;

  virtual Result<std::unique_ptr<Buffer>> create_buffer(int64_t bytes) = 0;              // content undefined
  virtual Result<std::unique_ptr<Image>> create_image(const Layout& layout) = 0;          // storage is an image kind
  virtual Result<std::unique_ptr<Kernel>> compile(const LoweredKernel& lowered) = 0;      // kCompile carries the build log's tail
  virtual Result<std::unique_ptr<Kernel>> load(const LoweredKernel& lowered, std::span<const std::byte> binary) = 0;  // any error: compile instead
  virtual Result<std::unique_ptr<CommandList>> create_list() = 0;

  // Ordered with submissions. `bytes` may be reused when write returns; read returns with the data there.
  virtual Status write(Buffer& buffer, int64_t offset, std::span<const std::byte> bytes) = 0;
  virtual Status read(const Buffer& buffer, int64_t offset, std::span<std::byte> bytes) = 0;
  virtual Status fill_zero(Buffer& buffer, int64_t offset, int64_t bytes) = 0;
  virtual Status copy(std::span<const BufferCopy> copies) = 0;   // in any order among each other; none of it visits the host
  // Rows [row, row + rows) of the image's Layout::lines(), packed as host_byte_offset says, so that a tensor too big for the host at once can
  // be streamed into it.
  virtual Status write_rows(Image& image, int64_t row, int64_t rows, std::span<const std::byte> bytes) = 0;
  virtual Status read_rows(const Image& image, int64_t row, int64_t rows, std::span<std::byte> bytes) = 0;

  // Returns as soon as the work is handed over. With `times` above 1 the list runs as often in this one submission, each run after the one before.
  // A profiled submission runs it once, and waits for all work before it and for its own.
  // The fence is the list's own, so that submitting allocates nothing: valid until the list is submitted again or destroyed.
  virtual Result<Fence*> submit(CommandList& list, const SubmitOptions& options = {}) = 0;
};

// The devices of one API, GPUs before CPUs, or why there are none (kNotFound says what to install). Opening is by index into that list.
// The driver library is found at run time; $TESSERA_OPENCL_LIBRARY, $TESSERA_VULKAN_LIBRARY name another one.
Result<std::vector<DeviceInfo>> list_opencl_devices();
Result<std::unique_ptr<Device>> open_opencl_device(size_t index);
Result<std::vector<DeviceInfo>> list_vulkan_devices();
Result<std::unique_ptr<Device>> open_vulkan_device(size_t index);

// One API: all that is known of it above this layer.
struct Backend {
  Api api;
  Result<std::vector<DeviceInfo>> (*list)();
  Result<std::unique_ptr<Device>> (*open)(size_t index);
};
// In the order of preference: where two APIs reach one GPU, the kernels of the first are the ones that its vendor's compiler was tuned on longer.
std::span<const Backend> backends();

// An API that this build leaves out.
struct LeftOut {
  Api api;
  std::string_view what_to_do;
};
std::span<const LeftOut> left_out();

// Records dispatches as text, holds no memory, answers reads with zeros. `info` decides the limits it enforces.
class NullDevice : public Device {
 public:
  virtual const std::vector<std::string>& log() const = 0;
};
std::unique_ptr<NullDevice> make_null_device(const DeviceInfo& info, Target target);

}  // namespace tessera::gpu
