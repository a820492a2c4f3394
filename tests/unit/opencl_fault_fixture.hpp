// The real OpenCL driver with single functions replaced: that is how tests make it fail.
#pragma once
#include "../../src/opencl/opencl_device.hpp"
#include "gpu_fixture.hpp"

namespace tessera::gpu {

class OpenClFaultTest : public testing::Test {
 protected:
  void SetUp() override {
    auto loaded = opencl::load_api(opencl::library_candidates());
    if (!loaded) GTEST_SKIP() << "no OpenCL library: " << loaded.error().message();
    api = *loaded;
    auto devices = opencl::find_devices(api);
    if (!devices) GTEST_SKIP() << "no OpenCL device: " << devices.error().message();
    found = devices->front();
    found.command_buffers.used = false;  // the loop, whatever is known of this driver
  }
  std::unique_ptr<Device> open() const {
    auto opened = opencl::OpenClDevice::open(api, found);
    EXPECT_TRUE(opened) << opened.error().message();
    return std::move(*opened);
  }

  opencl::OpenClApi api;
  opencl::FoundDevice found;
};

}  // namespace tessera::gpu
