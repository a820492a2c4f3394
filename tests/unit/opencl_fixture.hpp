// What the tests of the OpenCL backend share. They run on whatever OpenCL device this machine has and are skipped, saying why, where there is
// none. Kernels here are written by hand: codegen has its own tests.
#pragma once
#include <gtest/gtest.h>

#include <bit>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "tessera/gpu/gpu.hpp"

namespace tessera::gpu {

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

// y[i] = x[i] * factor + offset, 8 work items a group.
inline LoweredKernel affine_kernel() {
  return {.entry = "affine",
          .text = R"(__kernel __attribute__((reqd_work_group_size(8, 1, 1)))
void affine(__global const float* x, __global float* y, float factor, int offset) {
  const int i = (int)get_global_id(0);
  y[i] = x[i] * factor + (float)offset;
})",
          .workgroup = {8, 1, 1},
          .slots = {{"x", Storage::kBuffer, false}, {"y", Storage::kBuffer, true}},
          .args = {{"factor", ArgType::kFloat}, {"offset", ArgType::kInt}}};
}

inline std::vector<float> ramp(size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

inline uint32_t bits(float value) { return std::bit_cast<uint32_t>(value); }

class OpenClDeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = open_opencl_device(0);
    if (!opened && opened.error().code() == ErrorCode::kNotFound) GTEST_SKIP() << "no OpenCL device: " << opened.error().message();
    ASSERT_TRUE(opened) << opened.error().message();
    device = std::move(*opened);
  }

  std::unique_ptr<Buffer> buffer(int64_t bytes) {
    auto made = device->create_buffer(bytes);
    EXPECT_TRUE(made) << made.error().message();
    return std::move(*made);
  }
  std::unique_ptr<Kernel> kernel(const LoweredKernel& lowered) {
    auto made = device->compile(lowered);
    EXPECT_TRUE(made) << made.error().message();
    return std::move(*made);
  }
  std::vector<float> floats(const Buffer& from, int64_t offset, size_t count) {
    std::vector<float> values(count);
    const Status status = device->read(from, offset, std::as_writable_bytes(std::span(values)));
    EXPECT_TRUE(status) << status.error().message();
    return values;
  }
  void run(CommandList& list) {
    auto fence = device->submit(list);
    ASSERT_TRUE(fence) << fence.error().message();
    ASSERT_TRUE((*fence)->wait());
  }

  std::unique_ptr<Device> device;
};

}  // namespace tessera::gpu
