// The OpenCL devices of this machine and their facts.
#pragma once
#include <vector>

#include "opencl_command_buffer.hpp"
#include "tessera/device/device_info.hpp"

namespace tessera::opencl {

struct FoundDevice {
  cl_device_id id = nullptr;
  DeviceInfo info;
  std::string compile_options;
  CommandBuffers command_buffers;
};

// Usable devices (OpenCL 1.2 or newer, little endian, available, with a compiler), GPUs before CPUs, else in the drivers' order.
// kNotFound when there is none, saying which were passed over and why.
Result<std::vector<FoundDevice>> find_devices(const OpenClApi& api);

}  // namespace tessera::opencl
