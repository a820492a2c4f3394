// cl_khr_command_buffer: whether a finished list becomes one object of the driver that is submitted by one call, or stays a loop of calls.
#pragma once
#include <string_view>

#include "opencl_api.hpp"

namespace tessera::opencl {

#define TESSERA_COMMAND_BUFFER_CALLS(CALL)                                                                                            \
  CALL(CreateCommandBufferKHR) CALL(CommandNDRangeKernelKHR) CALL(FinalizeCommandBufferKHR) CALL(EnqueueCommandBufferKHR)             \
  CALL(ReleaseCommandBufferKHR)

// The same in every version of the extension since 0.9.0.
struct CommandBufferApi {
#define TESSERA_DECLARE_CALL(name) cl##name##_fn name = nullptr;
  TESSERA_COMMAND_BUFFER_CALLS(TESSERA_DECLARE_CALL)
#undef TESSERA_DECLARE_CALL
};

struct CommandBuffers {
  bool used = false;          // decided once, when the device is found
  std::string_view why;       // a sentence for people
  bool available = false;     // the device has the extension, its functions are there, and an in-order queue without properties will do
  bool simultaneous = false;  // a buffer may be submitted again while it still runs
  CommandBufferApi cl;
};

// `platform`: the name of the platform, by which drivers are told apart. kInvalidArgument when $TESSERA_OPENCL_COMMAND_BUFFERS is neither on nor off.
// On: used wherever it is available, whatever is known of the driver; off: nowhere.
Result<CommandBuffers> find_command_buffers(const OpenClApi& api, cl_platform_id id, std::string_view platform, cl_device_id device, bool reported);

}  // namespace tessera::opencl
