#include <cstdio>
#include <tessera/gpu/gpu.hpp>
#include <tessera/version.hpp>

int main() {
  std::printf("tessera %.*s\n", static_cast<int>(tessera::kVersion.size()), tessera::kVersion.data());
  const auto devices = tessera::gpu::list_opencl_devices();
  if (!devices) {
    std::fprintf(stderr, "%s\n", devices.error().message().c_str());
    return 1;
  }
  for (const tessera::DeviceInfo& device : *devices) std::printf("%s, %s\n", device.name.c_str(), device.platform.c_str());
}
