// Buffers, programs and what a backend says of its device.
#include <algorithm>

#include "gpu_fixture.hpp"

namespace tessera::gpu {
namespace {

class GpuDeviceTest : public GpuTest, public testing::WithParamInterface<Api> {
 protected:
  void SetUp() override { open(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Apis, GpuDeviceTest, testing::ValuesIn(apis()), api_name);

// What only OpenCL promises.
class OpenClDeviceTest : public GpuTest {
 protected:
  void SetUp() override { open(Api::kOpenCL); }
};

TEST_P(GpuDeviceTest, InfoIsComplete) {
  const DeviceInfo& info = device->info();
  EXPECT_EQ(info.api, GetParam());
  EXPECT_FALSE(info.name.empty());
  EXPECT_FALSE(info.vendor.empty());
  EXPECT_FALSE(info.platform.empty());
  EXPECT_FALSE(info.driver_version.empty());
  EXPECT_FALSE(info.api_version.empty());
  EXPECT_GE(info.compute_units, 1);
  EXPECT_GT(info.global_memory_bytes, 0);
  EXPECT_GE(info.max_allocation_bytes, 1 << 20);
  EXPECT_GT(info.max_binding_bytes, 0);
  EXPECT_GE(info.buffer_offset_alignment, 1);
  EXPECT_GE(info.max_workgroup_size, 1);
  EXPECT_GE(info.max_workgroup_extent[2], 1);
  EXPECT_GE(info.shared_memory_bytes, 1024);  // OpenCL's minimum for the embedded profile; Vulkan's is 16 KiB
  EXPECT_GE(info.max_argument_bytes, 128);    // Vulkan's minimum
  EXPECT_LE(info.subgroup_min, info.subgroup_max);
  EXPECT_FALSE(device->compile_options().empty());
  const auto listed = backend_of(GetParam()).list();
  ASSERT_TRUE(listed);
  EXPECT_EQ(listed->at(0), info);
}

TEST_F(OpenClDeviceTest, InfoIsThatOfOpenCl) {
  const DeviceInfo& info = device->info();
  EXPECT_EQ(info.api_version.rfind("OpenCL ", 0), 0u) << info.api_version;
  EXPECT_EQ(info.max_binding_bytes, info.max_allocation_bytes);
  EXPECT_GE(info.max_argument_bytes, 256);
  EXPECT_NE(device->compile_options().find("-cl-std="), std::string_view::npos);
  EXPECT_EQ(device->compile_options().find("relaxed"), std::string_view::npos);
}

TEST_P(GpuDeviceTest, IndexPastTheEndIsNotFound) {
  const auto opened = backend_of(GetParam()).open(1000);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), ErrorCode::kNotFound);
}

TEST_P(GpuDeviceTest, BufferRoundTripAtAnyOffset) {
  const auto memory = buffer(10000);
  std::vector<uint8_t> sent(10000);
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<uint8_t>(i * 7);
  // OpenCL: small writes go through a staging ring, the large one does not; 300 of them go round the ring more than once.
  ASSERT_TRUE(device->write(*memory, 0, bytes_of(sent)));
  for (int64_t i = 0; i < 300; ++i) {
    const std::vector<uint8_t> byte{static_cast<uint8_t>(255 - i % 256)};
    sent[static_cast<size_t>(i * 33)] = byte[0];
    ASSERT_TRUE(device->write(*memory, i * 33, bytes_of(byte)));
  }
  std::vector<uint8_t> got(9999);
  ASSERT_TRUE(device->read(*memory, 1, std::as_writable_bytes(std::span(got))));
  EXPECT_TRUE(std::equal(got.begin(), got.end(), sent.begin() + 1));
  EXPECT_EQ(device->counters().bytes_written, 10300u);
  EXPECT_EQ(device->counters().bytes_read, 9999u);
}

TEST_P(GpuDeviceTest, BytesMayBeReusedWhenWriteReturns) {
  const auto memory = buffer(4096);
  std::vector<uint8_t> bytes(64, 1);
  for (int64_t i = 0; i < 64; ++i) {
    std::fill(bytes.begin(), bytes.end(), static_cast<uint8_t>(i));
    ASSERT_TRUE(device->write(*memory, i * 64, bytes_of(bytes)));
    std::fill(bytes.begin(), bytes.end(), uint8_t{0xee});
  }
  std::vector<uint8_t> got(4096);
  ASSERT_TRUE(device->read(*memory, 0, std::as_writable_bytes(std::span(got))));
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], i / 64) << i;
}

TEST_P(GpuDeviceTest, FillZeroTouchesOnlyItsRange) {
  for (const auto& [offset, bytes] : {std::pair<int64_t, int64_t>{16, 32}, {3, 7}, {0, 64}}) {
    const auto memory = buffer(64);
    std::vector<uint8_t> values(64, 0xab);
    ASSERT_TRUE(device->write(*memory, 0, bytes_of(values)));
    ASSERT_TRUE(device->fill_zero(*memory, offset, bytes));
    ASSERT_TRUE(device->read(*memory, 0, std::as_writable_bytes(std::span(values))));
    for (int64_t i = 0; i < 64; ++i) EXPECT_EQ(values[static_cast<size_t>(i)], i >= offset && i < offset + bytes ? 0 : 0xab) << i;
  }
}

TEST_P(GpuDeviceTest, CopiesWithinBuffersInOrderWithWritesAndReads) {
  const auto a = buffer(256), b = buffer(64);
  std::vector<uint8_t> values(256), expected;
  std::iota(values.begin(), values.end(), uint8_t{0});
  ASSERT_TRUE(device->write(*a, 0, bytes_of(values)));
  ASSERT_TRUE(device->write(*b, 0, std::as_bytes(std::span(values).first(64))));
  const std::vector<BufferCopy> copies{{a.get(), 0, 192, 64}, {a.get(), 100, 64, 20}, {b.get(), 32, 0, 32}};
  const uint64_t moved = device->counters().bytes_written + device->counters().bytes_read;
  ASSERT_TRUE(device->copy(copies));
  EXPECT_EQ(device->counters().bytes_written + device->counters().bytes_read, moved) << "a copy visits the host";
  expected = values;
  std::copy_n(values.begin(), 64, expected.begin() + 192);
  std::copy_n(values.begin() + 100, 20, expected.begin() + 64);
  std::vector<uint8_t> got(256);
  ASSERT_TRUE(device->read(*a, 0, std::as_writable_bytes(std::span(got))));
  EXPECT_EQ(got, expected);
  ASSERT_TRUE(device->read(*b, 0, std::as_writable_bytes(std::span(got).first(64))));
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(got[i], i % 32 + 32) << i;
  EXPECT_TRUE(device->copy({}));
  const BufferCopy refused[] = {{b.get(), 0, 31, 32}, {b.get(), 0, 0, 1}, {b.get(), -1, 32, 8}, {b.get(), 0, 60, 8}, {b.get(), 60, 0, 8}, {b.get(), 0, 32, -4}};
  for (const BufferCopy& each : refused) EXPECT_EQ(device->copy({&each, 1}).error().code(), ErrorCode::kInvalidArgument) << each.from << " " << each.to;
}

TEST_P(GpuDeviceTest, RangesOutsideABufferAreRefused) {
  const auto memory = buffer(64);
  const std::vector<uint8_t> values(16);
  std::vector<uint8_t> got(16);
  for (const int64_t offset : {int64_t{-1}, int64_t{49}, int64_t{64}, INT64_MAX, INT64_MIN}) {
    EXPECT_EQ(device->write(*memory, offset, bytes_of(values)).error().code(), ErrorCode::kInvalidArgument) << offset;
    EXPECT_EQ(device->read(*memory, offset, std::as_writable_bytes(std::span(got))).error().code(), ErrorCode::kInvalidArgument) << offset;
    EXPECT_EQ(device->fill_zero(*memory, offset, 16).error().code(), ErrorCode::kInvalidArgument) << offset;
  }
  EXPECT_EQ(device->fill_zero(*memory, 0, -4).error().code(), ErrorCode::kInvalidArgument);
}

TEST_P(GpuDeviceTest, TooLargeOrEmptyBuffersAreRefused) {
  if (device->info().max_allocation_bytes == INT64_MAX) GTEST_SKIP() << "this device says that no buffer is too large";
  EXPECT_EQ(device->create_buffer(0).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(device->create_buffer(-5).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(device->create_buffer(device->info().max_allocation_bytes + 1).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->counters().buffers_created, 0u);
}

TEST_P(GpuDeviceTest, MemoryIsCountedWhileItLives) {
  auto a = buffer(1000);
  {
    const auto b = buffer(500);
    EXPECT_EQ(device->counters().device_bytes, 1500u);
  }
  EXPECT_EQ(device->counters().device_bytes, 1000u);
  a.reset();
  EXPECT_EQ(device->counters().device_bytes, 0u);
  EXPECT_EQ(device->counters().peak_device_bytes, 1500u);
  EXPECT_EQ(device->counters().buffers_created, 2u);
}

TEST_P(GpuDeviceTest, BuildErrorsCarryTheLog) {
  LoweredKernel broken = affine_kernel(device->target());
  broken.text.insert(broken.text.rfind('}'), "no_such_name = 1;");
  const auto made = device->compile(broken);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), ErrorCode::kCompile);
  EXPECT_NE(made.error().message().find("'affine'"), std::string::npos);
  EXPECT_NE(made.error().message().find("no_such_name"), std::string::npos) << made.error().message();
  EXPECT_EQ(device->counters().programs_compiled, 0u);
  EXPECT_EQ(device->counters().kernels_created, 0u);
}

TEST_P(GpuDeviceTest, TooWideWorkgroupsAreRefused) {
  LoweredKernel too_wide = affine_kernel(device->target());
  too_wide.workgroup = {device->info().max_workgroup_size, 2, 1};
  EXPECT_EQ(device->compile(too_wide).error().code(), ErrorCode::kLimit);
}

// A Vulkan shader's entry is always main and its push constants have no count to compare with.
TEST_F(OpenClDeviceTest, TextThatContradictsItsDescriptionIsRefused) {
  LoweredKernel wrong_entry = affine_kernel(Target::kOpenCL);
  wrong_entry.entry = "missing";
  EXPECT_FALSE(device->compile(wrong_entry));
  LoweredKernel one_arg_less = affine_kernel(Target::kOpenCL);
  one_arg_less.args.pop_back();
  EXPECT_EQ(device->compile(one_arg_less).error().code(), ErrorCode::kCompile);
}

TEST_P(GpuDeviceTest, BinaryLoadsAndComputesTheSame) {
  const auto compiled = affine();
  const auto binary = compiled->binary();
  ASSERT_TRUE(binary) << binary.error().message();
  if (binary->empty()) GTEST_SKIP() << "this driver gives no binaries";
  auto loaded = device->load(affine_kernel(device->target()), *binary);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(device->counters().programs_compiled, 1u);
  EXPECT_EQ(device->counters().programs_loaded, 1u);
  const auto x = buffer(32), y = buffer(32);
  ASSERT_TRUE(device->write(*x, 0, bytes_of(ramp(8))));
  const auto list = new_list();
  ASSERT_TRUE(list->dispatch({loaded->get(), {{x.get(), 0, 32}, {y.get(), 0, 32}}, {bits(2.0f), 1}, {1, 1, 1}, {}}));
  ASSERT_TRUE(list->finish());
  run(*list);
  EXPECT_EQ(floats(*y, 0, 8), (std::vector<float>{1, 3, 5, 7, 9, 11, 13, 15}));
}

TEST_P(GpuDeviceTest, NonsenseBinaryIsAnError) {
  const std::vector<std::byte> nonsense(100, std::byte{0x5a});
  EXPECT_FALSE(device->load(affine_kernel(device->target()), nonsense));
  EXPECT_FALSE(device->load(affine_kernel(device->target()), {}));
  EXPECT_EQ(device->counters().programs_loaded, 0u);
}

}  // namespace
}  // namespace tessera::gpu
