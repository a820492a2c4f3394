#include <gtest/gtest.h>

#include <functional>

#include "tessera/gpu/gpu.hpp"

namespace tessera::gpu {
namespace {

DeviceInfo small_device() {
  DeviceInfo info;
  info.name = "small";
  info.global_memory_bytes = 10000;
  info.max_allocation_bytes = 4096;
  info.max_binding_bytes = 1024;
  info.buffer_offset_alignment = 64;
  info.max_image_width = 16;
  info.max_image_height = 8;
  info.max_image_buffer_texels = 100;
  info.max_image_layers = 3;
  info.max_image3d_width = 8;
  info.max_image3d_height = 4;
  info.max_image3d_depth = 2;
  info.max_workgroup_size = 32;
  info.max_workgroup_extent = {32, 16, 4};
  info.max_grid = {1000, 100, 10};
  info.max_argument_bytes = 8;
  return info;
}

LoweredKernel add_kernel() {
  return {.entry = "add",
          .text = "anything",
          .workgroup = {8, 2, 1},
          .slots = {{"x", Storage::kBuffer, false}, {"y", Storage::kImage2D, true}},
          .args = {{"count", ArgType::kInt}}};
}

class NullDeviceTest : public testing::Test {
 protected:
  std::unique_ptr<NullDevice> device = make_null_device(small_device(), Target::kGlsl);
  std::unique_ptr<Kernel> kernel = std::move(*device->compile(add_kernel()));
  std::unique_ptr<Buffer> x = std::move(*device->create_buffer(2048));
  std::unique_ptr<Image> y = std::move(*device->create_image({Storage::kImage2D, DType::kF16, 4, {4, 8}, 0}));
  DispatchInfo good{kernel.get(), {{x.get(), 64, 512}, {.image = y.get()}}, {7}, {3, 2, 1}, "layer 0"};

  Status record(const DispatchInfo& info) { return (*device->create_list())->dispatch(info); }
};

TEST_F(NullDeviceTest, LogsEachSubmittedDispatchAsALine) {
  EXPECT_EQ(device->target(), Target::kGlsl);
  auto list = std::move(*device->create_list());
  ASSERT_TRUE(list->dispatch(good));
  ASSERT_TRUE(list->finish());
  EXPECT_TRUE(device->log().empty());
  ASSERT_TRUE(device->submit(*list));
  auto fence = std::move(*device->submit(*list, {.profiled = true}));
  ASSERT_TRUE(fence->wait());
  EXPECT_TRUE(fence->dispatch_microseconds().empty());
  const std::string line = "layer 0: add grid 3x2x1 of 8x2x1 x=buffer[64+512] y=image2d 8 x 4 count=7";
  EXPECT_EQ(device->log(), (std::vector<std::string>{line, line}));
  const Counters& counters = device->counters();
  EXPECT_EQ(counters.programs_compiled, 1u);
  EXPECT_EQ(counters.lists_recorded, 1u);
  EXPECT_EQ(counters.submissions, 2u);
  EXPECT_EQ(counters.dispatches, 2u);
  EXPECT_EQ(counters.enqueues, 2u);
  EXPECT_EQ(counters.synchronizations, 1u);
}

TEST_F(NullDeviceTest, AnswersReadsWithZeros) {
  std::vector<std::byte> bytes(64, std::byte{1});
  ASSERT_TRUE(device->write(*x, 0, bytes));
  ASSERT_TRUE(device->fill_zero(*x, 0, 2048));
  ASSERT_TRUE(device->read(*x, 1984, bytes));
  EXPECT_EQ(bytes, std::vector<std::byte>(64));
  std::vector<std::byte> row(8 * 8, std::byte{1});
  ASSERT_TRUE(device->write_rows(*y, 3, 1, row));
  ASSERT_TRUE(device->read_rows(*y, 0, 1, row));
  EXPECT_EQ(row, std::vector<std::byte>(64));
  EXPECT_EQ(device->counters().bytes_written, 128u);
  EXPECT_EQ(device->counters().bytes_read, 128u);
  EXPECT_EQ(device->write(*x, 2000, bytes).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(device->read(*x, -1, bytes).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(device->write_rows(*y, 4, 1, row).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(device->write_rows(*y, 0, 2, row).error().code(), ErrorCode::kInvalidArgument);
}

TEST_F(NullDeviceTest, EnforcesMemoryLimits) {
  EXPECT_EQ(device->create_buffer(0).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(device->create_buffer(4097).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(device->counters().device_bytes, 2048u + 256u);
  {
    const auto a = std::move(*device->create_buffer(4096));
    EXPECT_EQ(device->create_buffer(4096).error().code(), ErrorCode::kOutOfMemory);
  }
  EXPECT_TRUE(device->create_buffer(4096));
  EXPECT_EQ(device->counters().device_bytes, 2048u + 256u);
  EXPECT_EQ(device->counters().peak_device_bytes, 2048u + 256u + 4096u);
}

TEST_F(NullDeviceTest, EnforcesImageLimits) {
  const auto code = [&](const Layout& layout) { return device->create_image(layout).error().code(); };
  EXPECT_EQ(code({Storage::kImage2D, DType::kF16, 4, {4, 17}, 0}), ErrorCode::kLimit);
  EXPECT_EQ(code({Storage::kImage2D, DType::kF16, 4, {9, 4}, 0}), ErrorCode::kLimit);
  EXPECT_TRUE(device->create_image({Storage::kImage2D, DType::kF16, 4, {9, 4}, 8}));  // folded into two panels
  EXPECT_EQ(code({Storage::kImageBuffer, DType::kF16, 4, {101}, 0}), ErrorCode::kLimit);
  EXPECT_TRUE(device->create_image({Storage::kImageBuffer, DType::kF16, 4, {100}, 0}));
  EXPECT_TRUE(device->create_image({Storage::kImage2DArray, DType::kF16, 4, {24, 16}, 8}));
  EXPECT_EQ(code({Storage::kImage2DArray, DType::kF16, 4, {25, 16}, 8}), ErrorCode::kLimit);
  EXPECT_EQ(code({Storage::kImage2DArray, DType::kF16, 4, {24, 16}, 0}), ErrorCode::kLimit);
  EXPECT_TRUE(device->create_image({Storage::kImage3D, DType::kF16, 4, {8, 8}, 4}));
  EXPECT_EQ(code({Storage::kImage3D, DType::kF16, 4, {9, 8}, 4}), ErrorCode::kLimit);
  EXPECT_EQ(code({Storage::kImage3D, DType::kF16, 4, {8, 9}, 4}), ErrorCode::kLimit);
  EXPECT_EQ(code({Storage::kBuffer, DType::kF16, 4, {4}, 0}), ErrorCode::kUnsupported);
  EXPECT_EQ(code({Storage::kImage2D, DType::kF16, 4, {0, 4}, 0}), ErrorCode::kInvalidArgument);
}

TEST_F(NullDeviceTest, EnforcesWorkgroupLimits) {
  for (const std::array<int, 3> workgroup : {std::array{33, 1, 1}, {1, 17, 1}, {1, 1, 5}, {8, 8, 1}, {0, 1, 1}, {8, -1, 1}}) {
    LoweredKernel lowered = add_kernel();
    lowered.workgroup = workgroup;
    EXPECT_EQ(device->compile(lowered).error().code(), ErrorCode::kLimit) << workgroup[0] << " " << workgroup[1] << " " << workgroup[2];
  }
  EXPECT_EQ(device->counters().programs_compiled, 1u);
}

TEST_F(NullDeviceTest, ChecksDispatches) {
  ASSERT_TRUE(record(good));
  struct Case {
    const char* what;
    std::function<void(DispatchInfo&)> spoil;
    ErrorCode code;
  };
  const std::vector<Case> cases{
      {"no kernel", [](DispatchInfo& d) { d.kernel = nullptr; }, ErrorCode::kInvalidArgument},
      {"a binding less", [](DispatchInfo& d) { d.bindings.pop_back(); }, ErrorCode::kInvalidArgument},
      {"an arg more", [](DispatchInfo& d) { d.args.push_back(0); }, ErrorCode::kInvalidArgument},
      {"image for buffer", [](DispatchInfo& d) { d.bindings[0] = d.bindings[1]; }, ErrorCode::kInvalidArgument},
      {"buffer for image", [](DispatchInfo& d) { d.bindings[1] = d.bindings[0]; }, ErrorCode::kInvalidArgument},
      {"past the end",
       [](DispatchInfo& d) {
         d.bindings[0] = {d.bindings[0].buffer, 1984, 65};
       },
       ErrorCode::kInvalidArgument},
      {"misaligned", [](DispatchInfo& d) { d.bindings[0].offset = 32; }, ErrorCode::kInvalidArgument},
      {"over the binding limit", [](DispatchInfo& d) { d.bindings[0].bytes = 1025; }, ErrorCode::kLimit},
      {"grid too large",
       [](DispatchInfo& d) {
         d.workgroups = {1, 101, 1};
       },
       ErrorCode::kLimit},
      {"grid empty",
       [](DispatchInfo& d) {
         d.workgroups = {0, 1, 1};
       },
       ErrorCode::kLimit},
  };
  for (const Case& c : cases) {
    DispatchInfo bad = good;
    c.spoil(bad);
    const Status status = record(bad);
    ASSERT_FALSE(status) << c.what;
    EXPECT_EQ(status.error().code(), c.code) << c.what << ": " << status.error().message();
  }
}

TEST_F(NullDeviceTest, ArgumentBytesAreLimited) {
  LoweredKernel lowered = add_kernel();
  lowered.args = {{"a", ArgType::kInt}, {"b", ArgType::kInt}, {"c", ArgType::kInt}};
  const auto many = std::move(*device->compile(lowered));
  good.kernel = many.get();
  good.args = {1, 2, 3};
  EXPECT_EQ(record(good).error().code(), ErrorCode::kLimit);
}

TEST_F(NullDeviceTest, ListsAreFinishedBeforeTheyAreSubmitted) {
  auto list = std::move(*device->create_list());
  EXPECT_EQ(device->submit(*list).error().code(), ErrorCode::kInvalidArgument);
  ASSERT_TRUE(list->finish());
  EXPECT_EQ(list->finish().error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(list->dispatch(good).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(device->submit(*list));
}

TEST_F(NullDeviceTest, HasNoBinaries) {
  const auto binary = kernel->binary();
  ASSERT_TRUE(binary);
  EXPECT_TRUE(binary->empty());
  EXPECT_EQ(device->load(add_kernel(), std::vector<std::byte>(4)).error().code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace tessera::gpu
