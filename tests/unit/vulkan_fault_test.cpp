// The Vulkan backend on a driver that fails: every call in turn, damaged binaries, missing features, a lost device.
#include <algorithm>
#include <array>
#include <cstring>

#include "gpu_fixture.hpp"
#include "vulkan_fault_fixture.hpp"

namespace tessera::gpu {
namespace {

TEST_F(VulkanFaultTest, TooLittleMemoryNamesTheBytesAndLeavesNothing) {
  static bool full;
  full = true;
  api.AllocateMemory = [](VkDevice of, const VkMemoryAllocateInfo* info, const VkAllocationCallbacks* callbacks, VkDeviceMemory* made) -> VkResult {
    return full ? VK_ERROR_OUT_OF_DEVICE_MEMORY : real.AllocateMemory(of, info, callbacks, made);
  };
  const auto device = open();
  for (const int64_t bytes : {int64_t{3} << 20, int64_t{96} << 20}) {   // in a block with others, on its own
    const auto made = device->create_buffer(bytes);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(made.error().message().find(bytes_text(static_cast<uint64_t>(bytes))), std::string::npos) << made.error().message();
    EXPECT_NE(made.error().message().find("VK_ERROR_OUT_OF_DEVICE_MEMORY"), std::string::npos) << made.error().message();
  }
  EXPECT_EQ(device->create_image({Storage::kImage2D, DType::kF32, 4, {8, 8}, 0}).error().code(), ErrorCode::kOutOfMemory);
  EXPECT_EQ(device->counters().buffers_created, 0u);
  EXPECT_EQ(device->counters().images_created, 0u);
  EXPECT_EQ(device->counters().device_bytes, 0u);
  full = false;
  EXPECT_TRUE(device->create_buffer(3 << 20));
  EXPECT_TRUE(device->create_image({Storage::kImage2D, DType::kF32, 4, {8, 8}, 0}));
}

// Everything that a device is for, until something fails.
Status use(Device& device, std::span<const std::byte> program) {
  TESSERA_ASSIGN(const auto x, device.create_buffer(64));
  TESSERA_ASSIGN(const auto y, device.create_buffer(64));
  TESSERA_ASSIGN(const auto texels, device.create_image({Storage::kImageBuffer, DType::kF32, 4, {2, 2}, 0}));
  TESSERA_ASSIGN(const auto image, device.create_image({Storage::kImage2D, DType::kF32, 4, {2, 2}, 0}));
  std::vector<std::byte> bytes(64);
  TESSERA_TRY(device.write(*x, 0, bytes));
  TESSERA_TRY(device.fill_zero(*y, 0, 64));
  TESSERA_TRY(device.write_rows(*texels, 0, 2, bytes));
  TESSERA_TRY(device.write_rows(*image, 0, 2, bytes));
  TESSERA_TRY(device.read_rows(*image, 0, 2, bytes));
  TESSERA_ASSIGN(const auto kernel, device.load(affine_kernel(Target::kGlsl), program));
  TESSERA_TRY(kernel->binary());
  TESSERA_ASSIGN(const auto list, device.create_list());
  for (int i = 0; i < 2; ++i) TESSERA_TRY(list->dispatch({kernel.get(), {{x.get(), 0, 32}, {y.get(), 0, 32}}, {bits(1.0f), 1}, {1, 1, 1}, {}}));
  TESSERA_TRY(list->finish());
  for (int i = 0; i < 3; ++i) TESSERA_TRY(device.submit(*list));
  TESSERA_TRY(device.submit(*list, {.profiled = true}));
  return device.read(*y, 0, bytes);
}

// Each call in turn fails: the error comes out, nothing crashes, and every object is destroyed.
TEST_F(VulkanFaultTest, WhateverFailsNothingIsLeftBehind) {
  const auto program = *(*open()->compile(affine_kernel(Target::kGlsl)))->binary();
  const auto once = [&]() -> Status {
    auto opened = try_open();
    if (!opened) return fail(opened.error());
    return use(**opened, program);
  };
  watch();
  const Status good = once();
  ASSERT_TRUE(good) << good.error().message();
  expect_nothing_left("no failure");
  std::array<int, std::size(kFaults)> counts{};
  for (size_t i = 0; i < std::size(kFaults); ++i) counts[i] = kFaults[i].calls->count;
  for (size_t i = 0; i < std::size(kFaults); ++i) {
    const Fault& fault = kFaults[i];
    const bool profiles = std::strcmp(fault.name, "vkGetQueryPoolResults") == 0 || std::strcmp(fault.name, "vkCreateQueryPool") == 0;
    EXPECT_TRUE(counts[i] > 0 || (profiles && found.timestamp_bits == 0)) << fault.name << " is never called";
    for (int failing = 1; failing <= std::min(counts[i], 6); ++failing) {
      const std::string what = cat(fault.name, " failing at call ", failing);
      watch();
      fault.calls->failing = failing;
      const Status status = once();
      // Memory has other kinds and smaller blocks to go to.
      const bool may_recover = std::strcmp(fault.name, "vkAllocateMemory") == 0 || std::strcmp(fault.name, "vkMapMemory") == 0;
      EXPECT_TRUE(!status || may_recover) << what << " went unnoticed";
      if (!status) {
        EXPECT_EQ(status.error().code(), ErrorCode::kOutOfMemory) << what << ": " << status.error().message();
        EXPECT_NE(status.error().message().find(fault.name), std::string::npos) << what << ": " << status.error().message();
      }
      expect_nothing_left(what);
    }
  }
}

// A driver may have a format for textures alone. Such an image is made, and read, but no list may write it.
TEST_F(VulkanFaultTest, AnImageOfAFormatThatKernelsCannotWriteIsOnlyRead) {
  api.GetPhysicalDeviceFormatProperties = [](VkPhysicalDevice of, VkFormat format, VkFormatProperties* properties) {
    real.GetPhysicalDeviceFormatProperties(of, format, properties);
    properties->optimalTilingFeatures &= ~VkFormatFeatureFlags{VK_FORMAT_FEATURE_STORAGE_IMAGE_BIT};
    properties->bufferFeatures &= ~VkFormatFeatureFlags{VK_FORMAT_FEATURE_STORAGE_TEXEL_BUFFER_BIT};
  };
  const auto device = open();
  const auto memory = std::move(*device->create_buffer(64));
  const Layout buffer = test::buffer_of(DType::kF32, 4, {4});
  for (const Storage storage : {Storage::kImage2D, Storage::kImageBuffer, Storage::kImage3D}) {
    const Layout layout{storage, DType::kF32, 4, {2, 2}, storage == Storage::kImage3D ? 1 : 0};
    const auto image = device->create_image(layout);
    ASSERT_TRUE(image) << image.error().message();
    const auto kernel = [&](const std::string& text, std::map<std::string, Layout> tensors) {
      auto made = device->compile(dialect_kernel("copy", text, std::move(tensors), Target::kGlsl));
      EXPECT_TRUE(made) << made.error().message();
      return std::move(*made);
    };
    const auto reader = kernel("tensor in float4 x [row, slice];\ntensor out float4 y [i];\nkernel copy(1, 1, 1) { y.write(x.read(0, 0), 0); }\n", {{"x", layout}, {"y", buffer}});
    const auto writer = kernel("tensor in float4 x [i];\ntensor out float4 y [row, slice];\nkernel copy(1, 1, 1) { y.write(x.read(0), 0, 0); }\n", {{"x", buffer}, {"y", layout}});
    const auto list = std::move(*device->create_list());
    EXPECT_TRUE(list->dispatch({reader.get(), {{.image = image->get()}, {memory.get(), 0, 64}}, {}, {1, 1, 1}, {}}));
    const Status status = list->dispatch({writer.get(), {{memory.get(), 0, 64}, {.image = image->get()}}, {}, {1, 1, 1}, "a step"});
    ASSERT_FALSE(status) << name_of(storage);
    EXPECT_EQ(status.error().code(), ErrorCode::kUnsupported);
    for (const std::string& part : {std::string("kernel 'copy' for a step"), std::string("slot 1 'y'"), cat("cannot write an ", name_of(storage), " of 4 x f32 on ", found.info.name)})
      EXPECT_NE(status.error().message().find(part), std::string::npos) << status.error().message();
    EXPECT_EQ(list->size(), 1u);
  }
}

TEST_F(VulkanFaultTest, PipelineThatCannotBeMadeNamesTheKernel) {
  api.CreateComputePipelines = [](VkDevice, VkPipelineCache, uint32_t, const VkComputePipelineCreateInfo*, const VkAllocationCallbacks*, VkPipeline*) -> VkResult {
    return VK_ERROR_INVALID_SHADER_NV;
  };
  const auto device = open();
  const auto made = device->compile(affine_kernel(Target::kGlsl));
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), ErrorCode::kCompile);
  EXPECT_NE(made.error().message().find("'affine'"), std::string::npos) << made.error().message();
  EXPECT_EQ(device->counters().programs_compiled, 0u);
  EXPECT_EQ(device->counters().kernels_created, 0u);
}

TEST_F(VulkanFaultTest, DamagedBinariesAreRefused) {
  const auto device = open();
  const LoweredKernel lowered = affine_kernel(Target::kGlsl);
  const std::vector<std::byte> good = *(*device->compile(lowered))->binary();
  ASSERT_TRUE(device->load(lowered, good));
  for (size_t bytes = 0; bytes < good.size(); ++bytes) EXPECT_FALSE(device->load(lowered, std::span(good).first(bytes))) << bytes << " of " << good.size() << " bytes";
  for (size_t at = 0; at < good.size(); at += 3) {
    std::vector<std::byte> bad = good;
    bad[at] ^= std::byte{0x20};
    EXPECT_FALSE(device->load(lowered, bad)) << "byte " << at;
  }
  std::vector<std::byte> longer = good;
  longer.resize(good.size() + 8);
  EXPECT_FALSE(device->load(lowered, longer));
  EXPECT_EQ(device->counters().programs_loaded, 1u);
}

TEST_F(VulkanFaultTest, KernelThatNeedsWhatTheDeviceLacksIsRefused) {
  struct Feature {
    const char* capability;   // of SPIR-V
    const char* value;        // what the kernel computes with it, from x
    DType element;
    WordChoice words;
    bool there;
    void (*lose)(DeviceInfo& info);
  };
  const DeviceInfo all = found.info;
  const Feature kFeatures[] = {
      {"StorageBuffer16BitAccess", "x.read(i)", DType::kF16, {}, all.storage_16bit, [](DeviceInfo& info) { info.storage_16bit = false; }},
      {"Float16", "float(x.read<calc>(i) + x.read<calc>(i))", DType::kF32, {.half_calc = true}, all.fp16_arithmetic, [](DeviceInfo& info) { info.fp16_arithmetic = false; }},
      {"GroupNonUniform", "subgroup_sum(x.read(i))", DType::kF32, {.subgroups = true}, all.subgroup_max > 0, [](DeviceInfo& info) { info.subgroup_min = info.subgroup_max = 0; }},
  };
  for (const Feature& feature : kFeatures) {
    const LoweredKernel lowered =
        dialect_kernel("feature", cat("tensor in float x [i]; tensor out float y [i];\nkernel feature(8, 1, 1) { const int i = global_id(0); y.write(", feature.value, ", i); }"),
                       {{"x", test::buffer_of(feature.element, 1, {1})}, {"y", test::buffer_of(DType::kF32, 1, {1})}}, Target::kGlsl, feature.words);
    found.info = all;
    if (feature.there) {
      const auto device = open();
      const auto made = device->compile(lowered);
      EXPECT_TRUE(made) << made.error().message();
    }
    feature.lose(found.info);
    const auto made = open()->compile(lowered);
    ASSERT_FALSE(made) << feature.capability;
    EXPECT_EQ(made.error().code(), ErrorCode::kUnsupported);
    for (const char* part : {"'feature'", feature.capability, found.info.name.c_str()})
      EXPECT_NE(made.error().message().find(part), std::string::npos) << made.error().message();
  }
}

// Every call on a lost device says so, and destroying what it made is safe.
void expect_lost(Device& device, CommandList& list, Fence& fence, Buffer& buffer, Image& image) {
  std::vector<std::byte> bytes(64);
  EXPECT_EQ(device.write(buffer, 0, bytes).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device.read(buffer, 0, bytes).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device.fill_zero(buffer, 0, 64).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device.write_rows(image, 0, 2, bytes).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device.read_rows(image, 0, 2, bytes).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device.create_buffer(64).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device.create_image({Storage::kImage2D, DType::kF32, 4, {2, 2}, 0}).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device.compile(affine_kernel(Target::kGlsl)).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device.load(affine_kernel(Target::kGlsl), bytes).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device.create_list().error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device.submit(list).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device.submit(list, {.profiled = true}).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(fence.wait().error().code(), ErrorCode::kDeviceLost);
}

TEST_F(VulkanFaultTest, DeviceLostAtSubmitStaysLost) {
  watch();
  {
    const auto device = open();
    const auto memory = std::move(*device->create_buffer(64));
    const auto image = std::move(*device->create_image({Storage::kImage2D, DType::kF32, 4, {2, 2}, 0}));
    const auto list = std::move(*device->create_list());
    ASSERT_TRUE(list->finish());
    Fence* fence = *device->submit(*list);
    ASSERT_TRUE(fence->wait());
    Calls& submits = Watched<&VulkanApi::QueueSubmit>::calls;
    submits.code = VK_ERROR_DEVICE_LOST;
    submits.failing = submits.count + 1;
    EXPECT_EQ(device->submit(*list).error().code(), ErrorCode::kDeviceLost);
    expect_lost(*device, *list, *fence, *memory, *image);
    EXPECT_EQ(submits.count, submits.failing);   // nothing reached the driver after that
  }
  expect_nothing_left("a loss at submit");
}

TEST_F(VulkanFaultTest, DeviceLostAtWaitStaysLost) {
  watch();
  {
    const auto device = open();
    const auto kernel = std::move(*device->compile(affine_kernel(Target::kGlsl)));
    const auto memory = std::move(*device->create_buffer(1 << 20)), target = std::move(*device->create_buffer(1 << 20));
    const auto image = std::move(*device->create_image({Storage::kImage2D, DType::kF32, 4, {2, 2}, 0}));
    auto list = std::move(*device->create_list());
    // Enough of it to be running still when the list is destroyed.
    for (int i = 0; i < 20; ++i)
      ASSERT_TRUE(list->dispatch({kernel.get(), {{memory.get(), 0, 1 << 20}, {target.get(), 0, 1 << 20}}, {bits(1.0f), 1}, {1 << 15, 1, 1}, {}}));
    ASSERT_TRUE(list->finish());
    Fence* fence = *device->submit(*list);
    Calls& waits = Watched<&VulkanApi::WaitForFences>::calls;
    waits.code = VK_ERROR_DEVICE_LOST;
    waits.failing = waits.count + 1;
    EXPECT_EQ(fence->wait().error().code(), ErrorCode::kDeviceLost);
    expect_lost(*device, *list, *fence, *memory, *image);
    EXPECT_EQ(waits.count, waits.failing);
    list.reset();
  }
  expect_nothing_left("a loss at wait");
}

}  // namespace
}  // namespace tessera::gpu
