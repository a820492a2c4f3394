// Device: one GPU through one API, as an app holds it.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/device/device_info.hpp"
#include "tessera/gpu/gpu.hpp"

namespace tessera {

// A handle; copies share the device. Models keep theirs alive.
class Device {
 public:
  // "auto", "opencl", "opencl:N" (N as list() counts), or part of a device's name. kNotFound says what there is, or what to install.
  static Result<Device> open(std::string_view which = "auto");
  // Every device of every API that answers; empty when there is none.
  static std::vector<DeviceInfo> list();
  // Any backend: tests run models on the null device with it.
  static Device wrap(std::unique_ptr<gpu::Device> backend) { return Device(std::move(backend)); }

  const DeviceInfo& info() const { return backend_->info(); }
  gpu::Device& backend() const { return *backend_; }

 private:
  explicit Device(std::shared_ptr<gpu::Device> backend) : backend_(std::move(backend)) {}
  std::shared_ptr<gpu::Device> backend_;
};

inline std::vector<DeviceInfo> Device::list() {
  auto devices = gpu::list_opencl_devices();
  return devices ? *devices : std::vector<DeviceInfo>{};
}

inline Result<Device> Device::open(std::string_view which) {
  TESSERA_ASSIGN(const std::vector<DeviceInfo> devices, gpu::list_opencl_devices());
  std::string known;
  for (size_t i = 0; i < devices.size(); ++i) {
    const std::string id = cat("opencl:", i);
    known += cat("\n  ", id, "  ", devices[i].name);
    const bool first_asked = i == 0 && (which == "auto" || which == "opencl");
    const bool named = which != "auto" && devices[i].name.find(which) != std::string::npos;
    if (!first_asked && which != id && !named) continue;
    TESSERA_ASSIGN(auto backend, gpu::open_opencl_device(i));
    return Device(std::move(backend));
  }
  return fail(ErrorCode::kNotFound, cat("no device '", escaped(which), "'. There are:", known));
}

}  // namespace tessera
