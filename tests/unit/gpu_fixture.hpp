// What the tests of the GPU backends share: each of them runs once for every API of gpu::backends(), on that API's first device, and is skipped, saying
// why, where there is none. Kernels are written in the dialect, since that is all a backend is ever given.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "kernel_texts.hpp"
#include "tessera/gpu/gpu.hpp"

namespace tessera::gpu {

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

inline std::vector<float> ramp(size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

inline uint32_t bits(float value) { return std::bit_cast<uint32_t>(value); }

// Kernel `name` of the dialect, from `text`.
inline LoweredKernel dialect_kernel(const std::string& name, const std::string& text, std::map<std::string, Layout> tensors, Target target, const WordChoice& words = {}) {
  Result<LoweredKernel> made = lower(test::KernelTexts{{name, text}}, {name, {}, std::move(tensors), words}, target, {});
  EXPECT_TRUE(made) << made.error().message();
  return std::move(*made);
}

// y[i] = x[i] * factor + offset, 8 lanes a group.
inline LoweredKernel affine_kernel(Target target) {
  const Layout floats = test::buffer_of(DType::kF32, 1, {1});
  return dialect_kernel("affine", R"(tensor in  float x [i];
tensor out float y [i];
arg float factor;
arg int   offset;
kernel affine(8, 1, 1) {
  const int i = global_id(0);
  y.write(x.read(i) * factor + float(offset), i);
})",
                        {{"x", floats}, {"y", floats}}, target);
}

// The APIs of this build, by which tests are named: nothing is opened when they are listed.
inline std::vector<Api> apis() {
  std::vector<Api> all;
  for (const Backend& backend : backends()) all.push_back(backend.api);
  return all;
}
inline std::string api_name(const testing::TestParamInfo<Api>& info) { return std::string(name_of(info.param)); }

inline const Backend& backend_of(Api api) {
  return *std::find_if(backends().begin(), backends().end(), [&](const Backend& backend) { return backend.api == api; });
}

// The first device of one API.
class GpuTest : public testing::Test {
 protected:
  // Skips the test where there is no device. What follows in a SetUp() looks at `device` first.
  void open(Api api) {
    auto opened = backend_of(api).open(0);
    if (!opened && opened.error().code() == ErrorCode::kNotFound) GTEST_SKIP() << "no " << name_of(api) << " device: " << opened.error().message();
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
  std::unique_ptr<Kernel> affine() { return kernel(affine_kernel(device->target())); }
  std::unique_ptr<CommandList> new_list() { return std::move(*device->create_list()); }
  std::vector<float> floats(const Buffer& from, int64_t offset, size_t count) {
    std::vector<float> values(count);
    const Status status = device->read(from, offset, std::as_writable_bytes(std::span(values)));
    EXPECT_TRUE(status) << status.error().message();
    return values;
  }
  // How far apart two ranges of 8 floats in one buffer can be bound.
  int64_t stride() const { return std::max<int64_t>(32, device->info().buffer_offset_alignment); }
  void run(CommandList& list) {
    auto fence = device->submit(list);
    ASSERT_TRUE(fence) << fence.error().message();
    ASSERT_TRUE((*fence)->wait());
  }

  std::unique_ptr<Device> device;
};

}  // namespace tessera::gpu
