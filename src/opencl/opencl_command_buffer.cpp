#include "opencl_command_buffer.hpp"

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "tessera/base/text.hpp"

namespace tessera::opencl {
namespace {

struct DriverRow {
  std::string_view platform;  // its whole name: that of Intel's for GPUs begins like that for CPUs; empty: every other one
  bool used;
  std::string_view why;
};

// What was found out of drivers that report the extension. On both that were tried the answers equal the loop's, in order without sync points; what
// they cost does not. A driver gets `true` when somebody has looked at its answers, at its memory over thousands of submissions and at its time.
// Times: 183 small kernels a submission, against the loop, medians of 5 runs at each of two sizes. A whole model's tok/s does not show the difference.
constexpr DriverRow kDrivers[] = {
    // 3.1. clEnqueueCommandBufferKHR copies every recorded command into the queue as the loop would, then adds a marker that waits for all of them:
    // by turns in one process submitting takes 1.2 to 1.3 times as long (once 2.1), until all is done 1.1 to 1.4 times. No memory is lost.
    {"Portable Computing Language", false, "PoCL replays the commands one by one: slower than the loop"},
    // Intel's for CPUs, 2026.2. Every submission keeps 2.1 KiB a command for good, with events, sync points, simultaneous use or without, and releasing
    // buffer and queue gives nothing back: 390 KiB a token of SmolLM2-135M. In a process of its own submitting takes 1.7 to 2.5 times as long.
    {"Intel(R) OpenCL", false, "Intel's driver for CPUs loses memory at every submission"},
    {"", false, "nobody has tried this driver's command buffers yet"},
};

CommandBufferApi find_calls(const OpenClApi& api, cl_platform_id platform) {
  CommandBufferApi calls;
#define TESSERA_FIND_CALL(name) calls.name = reinterpret_cast<decltype(calls.name)>(api.GetExtensionFunctionAddressForPlatform(platform, "cl" #name));
  TESSERA_COMMAND_BUFFER_CALLS(TESSERA_FIND_CALL)
#undef TESSERA_FIND_CALL
  return calls;
}

bool complete(const CommandBufferApi& calls) {
#define TESSERA_HAS_CALL(name) &&calls.name != nullptr
  return true TESSERA_COMMAND_BUFFER_CALLS(TESSERA_HAS_CALL);
#undef TESSERA_HAS_CALL
}

// What the device answers; a bit field of the extension that it does not know is empty.
cl_bitfield bits_of(const OpenClApi& api, cl_device_id device, cl_device_info what) {
  cl_bitfield bits = 0;
  return api.GetDeviceInfo(device, what, sizeof bits, &bits, nullptr) == CL_SUCCESS ? bits : 0;
}

}  // namespace

Result<CommandBuffers> find_command_buffers(const OpenClApi& api, cl_platform_id id, std::string_view platform, cl_device_id device, bool reported) {
  const char* variable = std::getenv("TESSERA_OPENCL_COMMAND_BUFFERS");
  const std::string_view asked = variable != nullptr ? variable : "";
  if (!asked.empty() && asked != "on" && asked != "off")
    return fail(ErrorCode::kInvalidArgument, cat("$TESSERA_OPENCL_COMMAND_BUFFERS is '", escaped(asked), "'; it is on, off or not set"));
  CommandBuffers found;
  found.why = "the device has none";
  if (!reported) return found;
  found.cl = find_calls(api, id);
  found.available = complete(found.cl) && bits_of(api, device, CL_DEVICE_COMMAND_BUFFER_REQUIRED_QUEUE_PROPERTIES_KHR) == 0;
  if (!found.available) {
    found.why = "the driver reports them, but lacks functions or wants another kind of queue";
    return found;
  }
  found.simultaneous = (bits_of(api, device, CL_DEVICE_COMMAND_BUFFER_CAPABILITIES_KHR) & CL_COMMAND_BUFFER_CAPABILITY_SIMULTANEOUS_USE_KHR) != 0;
  const DriverRow& row = *std::find_if(std::begin(kDrivers), std::end(kDrivers),
                                       [&](const DriverRow& each) { return each.platform == platform || each.platform.empty(); });
  found.used = asked.empty() ? row.used : asked == "on";
  found.why = asked.empty() ? row.why : "$TESSERA_OPENCL_COMMAND_BUFFERS says so";
  return found;
}

}  // namespace tessera::opencl
