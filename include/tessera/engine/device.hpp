// Device: one GPU through one API, as an app holds it (src/engine/device.cpp).
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/device/device_info.hpp"
#include "tessera/gpu/gpu.hpp"

namespace tessera {

struct ListedDevice {
  std::string id;   // what open() takes: the API's name and a number, "API:0"
  DeviceInfo info;
};

// A handle; copies share the device. Models keep theirs alive.
class Device {
 public:
  // "auto", the name of an API (its first device), "API:N" as list() says it, or part of a device's name.
  // auto: $TESSERA_DEVICE if it is set; else the first GPU, of the APIs in the order of list(); else the first device that is a CPU.
  // kNotFound says what there is, or what to install.
  static Result<Device> open(std::string_view which = "auto");
  // Every device of every API that answers; empty when there is none.
  static std::vector<ListedDevice> list();
  // Any backend: tests run models on the null device with it.
  static Device wrap(std::unique_ptr<gpu::Device> backend) { return Device(std::move(backend), "given by the caller"); }

  const DeviceInfo& info() const { return backend_->info(); }
  // Why it is this one: "the first GPU", "asked for as …".
  const std::string& choice() const { return choice_; }
  gpu::Device& backend() const { return *backend_; }

 private:
  Device(std::shared_ptr<gpu::Device> backend, std::string choice) : backend_(std::move(backend)), choice_(std::move(choice)) {}
  std::shared_ptr<gpu::Device> backend_;
  std::string choice_;
};

}  // namespace tessera
