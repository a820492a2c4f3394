// Recorded lists of the OpenCL backend: where they are used, that they give what the loop gives, what they cost in calls, and drivers that fail.
#include <cstdlib>

#include "opencl_fault_fixture.hpp"

namespace tessera::gpu {
namespace {

constexpr const char* kVariable = "TESSERA_OPENCL_COMMAND_BUFFERS";

// The real functions, for those of the tests that do what the driver does, and something besides.
opencl::OpenClApi real;
opencl::CommandBufferApi real_buffers;

class CommandBufferTest : public OpenClFaultTest {
 protected:
  void SetUp() override {
    const char* before = std::getenv(kVariable);
    restored = before != nullptr ? before : "";
    unsetenv(kVariable);
    OpenClFaultTest::SetUp();
    if (IsSkipped()) return;
    if (!found.command_buffers.available) GTEST_SKIP() << found.info.name << " has no command buffers";
    found.command_buffers.used = true;
    real = api;
    real_buffers = found.command_buffers.cl;
  }
  void TearDown() override {
    if (!restored.empty()) setenv(kVariable, restored.c_str(), 1);
  }
  // The first device, found once more.
  opencl::CommandBuffers find(const char* asked = nullptr) const {
    if (asked != nullptr) setenv(kVariable, asked, 1);
    const auto devices = opencl::find_devices(api);
    unsetenv(kVariable);
    EXPECT_TRUE(devices) << devices.error().message();
    return devices->front().command_buffers;
  }
  static opencl::CommandBuffers find_as(const opencl::OpenClApi& api, const std::string& platform) {
    cl_platform_id id = nullptr;
    EXPECT_EQ(api.GetPlatformIDs(1, &id, nullptr), CL_SUCCESS);
    cl_device_id device = nullptr;
    EXPECT_EQ(api.GetDeviceIDs(id, CL_DEVICE_TYPE_ALL, 1, &device, nullptr), CL_SUCCESS);
    return *opencl::find_command_buffers(api, id, platform, device, true);
  }

  std::string restored;
};

TEST_F(CommandBufferTest, UsedWhereADriverIsKnownToBeBetterOffOrWhenAsked) {
  for (const char* platform : {"Portable Computing Language", "Intel(R) OpenCL", "a driver of tomorrow"}) {
    EXPECT_TRUE(find_as(api, platform).available) << platform;
    EXPECT_FALSE(find_as(api, platform).used) << platform;
  }
  EXPECT_NE(find_as(api, "Portable Computing Language").why.find("slower"), std::string_view::npos);
  EXPECT_NE(find_as(api, "Intel(R) OpenCL").why.find("memory"), std::string_view::npos);
  EXPECT_NE(find_as(api, "Intel(R) OpenCL Graphics").why.find("nobody"), std::string_view::npos);
  EXPECT_TRUE(find("on").used);
  EXPECT_FALSE(find("off").used);
  setenv(kVariable, "maybe", 1);
  const auto devices = opencl::find_devices(api);
  unsetenv(kVariable);
  ASSERT_FALSE(devices);
  EXPECT_EQ(devices.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(devices.error().message().find("'maybe'"), std::string::npos) << devices.error().message();
}

// Asked for or not: where the driver has not got them, lists are loops.
TEST_F(CommandBufferTest, NotUsedWhereTheDriverLacksThem) {
  api.GetDeviceInfo = [](cl_device_id device, cl_device_info what, size_t bytes, void* answer, size_t* length) -> cl_int {
    if (what == CL_DEVICE_EXTENSIONS) what = CL_DEVICE_VERSION;  // a text without it
    return real.GetDeviceInfo(device, what, bytes, answer, length);
  };
  EXPECT_FALSE(find("on").used);
  EXPECT_FALSE(find("on").available);
  EXPECT_EQ(find("on").why, "the device has none");

  api.GetDeviceInfo = [](cl_device_id device, cl_device_info what, size_t bytes, void* answer, size_t* length) -> cl_int {
    const cl_int code = real.GetDeviceInfo(device, what, bytes, answer, length);
    if (what == CL_DEVICE_COMMAND_BUFFER_REQUIRED_QUEUE_PROPERTIES_KHR) *static_cast<cl_command_queue_properties*>(answer) = CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE;
    return code;
  };
  EXPECT_FALSE(find("on").used);
  EXPECT_NE(find("on").why.find("another kind of queue"), std::string_view::npos);

  api = real;
  api.GetExtensionFunctionAddressForPlatform = [](cl_platform_id platform, const char* name) -> void* {
    return std::string_view(name) == "clFinalizeCommandBufferKHR" ? nullptr : real.GetExtensionFunctionAddressForPlatform(platform, name);
  };
  EXPECT_FALSE(find("on").used);
  found.command_buffers = find("on");
  const auto device = open();
  const auto program = std::move(*device->compile(affine_kernel(Target::kOpenCL)));
  const auto x = std::move(*device->create_buffer(32)), y = std::move(*device->create_buffer(32));
  const auto list = std::move(*device->create_list());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(list->dispatch({program.get(), {{x.get(), 0, 32}, {y.get(), 0, 32}}, {bits(1.0f), 0}, {1, 1, 1}, {}}));
  ASSERT_TRUE(list->finish());
  ASSERT_TRUE(device->submit(*list));
  EXPECT_EQ(device->counters().enqueues, 3u);
}

// y[i] = the mirrored x of its workgroup, through shared memory, and 1.
LoweredKernel mirror_kernel() {
  const Layout floats = test::buffer_of(DType::kF32, 1, {1});
  return dialect_kernel("mirror", R"(tensor in  float x [i];
tensor out float y [i];
shared float group[8];
kernel mirror(8, 1, 1) {
  const int lane = local_id(0);
  group[lane] = x.read(global_id(0));
  workgroup_barrier();
  y.write(group[7 - lane] + 1.0f, global_id(0));
})",
                        {{"x", floats}, {"y", floats}}, Target::kOpenCL);
}

const Layout kPicture{Storage::kImage2D, DType::kF32, 4, {2, 4}, 0};

// y = x reversed and halved, each an image of 2 rows of 4 texels.
LoweredKernel picture_kernel() {
  return dialect_kernel("picture", R"(tensor in  float4 x [row, slice];
tensor out float4 y [row, slice];
kernel picture(1, 1, 1) {
  y.write(x.read(1 - group_id(0), 3 - group_id(1)) * 0.5f + float4(1.0f), group_id(0), group_id(1));
})",
                        {{"x", kPicture}, {"y", kPicture}}, Target::kOpenCL);
}

// 1,600 dispatches, every one on what the one before wrote: ranges of a buffer, shared memory, images. Submitted `times` times without waiting, then
// profiled, then once more.
struct Outcome {
  std::vector<float> values;
  Counters submitted;  // what one submission added
};
Outcome chain(Device& device, int times) {
  constexpr int64_t kItems = 4096, kLinks = 600, kPictures = 400;
  const int64_t part = kItems * 4;
  const auto affine = std::move(*device.compile(affine_kernel(Target::kOpenCL)));
  const auto mirror = std::move(*device.compile(mirror_kernel()));
  const auto picture = std::move(*device.compile(picture_kernel()));
  const auto memory = std::move(*device.create_buffer(2 * part));
  const auto a = std::move(*device.create_image(kPicture)), b = std::move(*device.create_image(kPicture));
  EXPECT_TRUE(device.write(*memory, 0, bytes_of(ramp(kItems))));
  for (Image* image : {a.get(), b.get()}) EXPECT_TRUE(device.write_rows(*image, 0, 2, bytes_of(ramp(32))));

  const auto list = std::move(*device.create_list());
  const Binding low{memory.get(), 0, part}, high{memory.get(), part, part};
  for (int64_t i = 0; i < kLinks; ++i) {
    EXPECT_TRUE(list->dispatch({affine.get(), {low, high}, {bits(0.5f), static_cast<uint32_t>(i % 7)}, {kItems / 8, 1, 1}, "affine"}));
    EXPECT_TRUE(list->dispatch({mirror.get(), {high, low}, {}, {kItems / 8, 1, 1}, "mirror"}));
    if (i >= kPictures / 2) continue;
    EXPECT_TRUE(list->dispatch({picture.get(), {{.image = a.get()}, {.image = b.get()}}, {}, {2, 4, 1}, "picture"}));
    EXPECT_TRUE(list->dispatch({picture.get(), {{.image = b.get()}, {.image = a.get()}}, {}, {2, 4, 1}, "picture"}));
  }
  EXPECT_EQ(list->size(), 2u * kLinks + kPictures);
  const Status finished = list->finish();
  EXPECT_TRUE(finished) << finished.error().message();

  Outcome outcome;
  const Counters before = device.counters();
  for (int i = 0; i < times; ++i) EXPECT_TRUE(device.submit(*list));
  const Counters& after = device.counters();
  outcome.submitted.enqueues = (after.enqueues - before.enqueues) / static_cast<uint64_t>(times);
  outcome.submitted.dispatches = (after.dispatches - before.dispatches) / static_cast<uint64_t>(times);
  outcome.submitted.submissions = (after.submissions - before.submissions) / static_cast<uint64_t>(times);
  outcome.submitted.kernels_created = after.kernels_created - before.kernels_created;
  outcome.submitted.synchronizations = after.synchronizations - before.synchronizations;
  const auto profiled = device.submit(*list, {.profiled = true});
  EXPECT_TRUE(profiled) << profiled.error().message();
  EXPECT_EQ((*profiled)->dispatch_microseconds().size(), list->size());
  const auto fence = device.submit(*list);
  EXPECT_TRUE(fence) << fence.error().message();
  EXPECT_TRUE((*fence)->wait());
  outcome.values.resize(kItems + 64);
  const auto values = std::as_writable_bytes(std::span(outcome.values));
  EXPECT_TRUE(device.read(*memory, 0, values.first(static_cast<size_t>(part))));
  EXPECT_TRUE(device.read_rows(*a, 0, 2, values.subspan(static_cast<size_t>(part), 128)));
  EXPECT_TRUE(device.read_rows(*b, 0, 2, values.subspan(static_cast<size_t>(part) + 128, 128)));
  return outcome;
}

TEST_F(CommandBufferTest, GivesWhatTheLoopGivesInOneCall) {
  found.command_buffers.used = false;
  const Outcome loop = chain(*open(), 3);
  EXPECT_EQ(loop.submitted.enqueues, 1600u);
  EXPECT_EQ(loop.submitted.dispatches, 1600u);
  found.command_buffers.used = true;
  for (const bool simultaneous : {found.command_buffers.simultaneous, false}) {
    found.command_buffers.simultaneous = simultaneous;
    const Outcome recorded = chain(*open(), 3);
    EXPECT_EQ(recorded.values, loop.values) << simultaneous;
    EXPECT_EQ(recorded.submitted.enqueues, 1u);
    EXPECT_EQ(recorded.submitted.dispatches, 1600u);
    EXPECT_EQ(recorded.submitted.submissions, 1u);
    EXPECT_EQ(recorded.submitted.kernels_created, 0u);
    EXPECT_LE(recorded.submitted.synchronizations, simultaneous ? 0u : 2u);  // else it is submitted again only when it is done
  }
}

// One dispatch called "layer 3 norm", on a device whose command buffers may have been replaced.
struct OneDispatch {
  explicit OneDispatch(std::unique_ptr<Device> opened) : device(std::move(opened)) {
    EXPECT_TRUE(list->dispatch({program.get(), {{x.get(), 0, 32}, {y.get(), 0, 32}}, {bits(1.0f), 0}, {1, 1, 1}, "layer 3 norm"}));
  }
  std::unique_ptr<Device> device;
  std::unique_ptr<Kernel> program = std::move(*device->compile(affine_kernel(Target::kOpenCL)));
  std::unique_ptr<Buffer> x = std::move(*device->create_buffer(32)), y = std::move(*device->create_buffer(32));
  std::unique_ptr<CommandList> list = std::move(*device->create_list());
};

void expect_error(const Status& status, ErrorCode code, std::initializer_list<const char*> parts) {
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), code) << status.error().message();
  for (const char* part : parts) EXPECT_NE(status.error().message().find(part), std::string::npos) << status.error().message();
}

int live_buffers = 0;

TEST_F(CommandBufferTest, EveryBufferIsReleased) {
  live_buffers = 0;
  found.command_buffers.cl.CreateCommandBufferKHR = [](cl_uint count, const cl_command_queue* queues, const cl_command_buffer_properties_khr* properties,
                                                       cl_int* code) -> cl_command_buffer_khr {
    ++live_buffers;
    return real_buffers.CreateCommandBufferKHR(count, queues, properties, code);
  };
  found.command_buffers.cl.ReleaseCommandBufferKHR = [](cl_command_buffer_khr buffer) -> cl_int {
    --live_buffers;
    return real_buffers.ReleaseCommandBufferKHR(buffer);
  };
  OneDispatch one(open());
  ASSERT_TRUE(one.list->finish());
  EXPECT_EQ(live_buffers, 1);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(one.device->submit(*one.list));
  one.list.reset();  // perhaps while it runs
  EXPECT_EQ(live_buffers, 0);
  auto empty = std::move(*one.device->create_list());
  ASSERT_TRUE(empty->finish());
  ASSERT_TRUE(one.device->submit(*empty));
  EXPECT_EQ(live_buffers, 0);

  found.command_buffers.cl.FinalizeCommandBufferKHR = [](cl_command_buffer_khr) -> cl_int { return CL_OUT_OF_RESOURCES; };
  OneDispatch failing(open());
  EXPECT_FALSE(failing.list->finish());
  failing.list.reset();
  EXPECT_EQ(live_buffers, 0);
}

TEST_F(CommandBufferTest, FailureToRecordSaysWhatAndWhatToDo) {
  found.command_buffers.cl.CreateCommandBufferKHR = [](cl_uint, const cl_command_queue*, const cl_command_buffer_properties_khr*, cl_int* code) -> cl_command_buffer_khr {
    *code = CL_OUT_OF_HOST_MEMORY;
    return nullptr;
  };
  OneDispatch create(open());
  expect_error(create.list->finish(), ErrorCode::kOutOfMemory, {"clCreateCommandBufferKHR", "CL_OUT_OF_HOST_MEMORY", "TESSERA_OPENCL_COMMAND_BUFFERS=off"});

  found.command_buffers.cl = real_buffers;
  found.command_buffers.cl.CommandNDRangeKernelKHR = [](auto...) -> cl_int { return CL_INVALID_OPERATION; };
  OneDispatch command(open());
  expect_error(command.list->finish(), ErrorCode::kDriver, {"clCommandNDRangeKernelKHR", "CL_INVALID_OPERATION", "layer 3 norm", "TESSERA_OPENCL_COMMAND_BUFFERS=off"});

  found.command_buffers.cl = real_buffers;
  found.command_buffers.cl.FinalizeCommandBufferKHR = [](cl_command_buffer_khr) -> cl_int { return CL_OUT_OF_RESOURCES; };
  OneDispatch finalize(open());
  expect_error(finalize.list->finish(), ErrorCode::kOutOfMemory, {"clFinalizeCommandBufferKHR", "CL_OUT_OF_RESOURCES"});
  EXPECT_EQ(finalize.device->counters().lists_recorded, 0u);
  EXPECT_EQ(finalize.device->submit(*finalize.list).error().code(), ErrorCode::kInvalidArgument);  // it is not finished
}

TEST_F(CommandBufferTest, FailureToSubmitIsReported) {
  found.command_buffers.cl.EnqueueCommandBufferKHR = [](cl_uint, cl_command_queue*, cl_command_buffer_khr, cl_uint, const cl_event*, cl_event*) -> cl_int {
    return CL_INVALID_COMMAND_BUFFER_KHR;
  };
  OneDispatch refused(open());
  ASSERT_TRUE(refused.list->finish());
  const auto submitted = refused.device->submit(*refused.list);
  ASSERT_FALSE(submitted);
  expect_error(fail(submitted.error()), ErrorCode::kDriver, {"clEnqueueCommandBufferKHR", "CL_INVALID_COMMAND_BUFFER_KHR (-1138)"});
  EXPECT_EQ(refused.device->counters().dispatches, 0u);
  EXPECT_TRUE(refused.device->submit(*refused.list, {.profiled = true}));  // the profiled path is the loop

  found.command_buffers.cl.EnqueueCommandBufferKHR = [](cl_uint, cl_command_queue*, cl_command_buffer_khr, cl_uint, const cl_event*, cl_event*) -> cl_int {
    return CL_DEVICE_NOT_AVAILABLE;
  };
  OneDispatch lost(open());
  ASSERT_TRUE(lost.list->finish());
  EXPECT_EQ(lost.device->submit(*lost.list).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(lost.device->create_list().error().code(), ErrorCode::kDeviceLost);
}

TEST_F(CommandBufferTest, WorkThatDidNotFinishIsALostDevice) {
  api.WaitForEvents = [](cl_uint, const cl_event*) -> cl_int { return CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST; };
  OneDispatch one(open());
  ASSERT_TRUE(one.list->finish());
  const auto fence = one.device->submit(*one.list);
  ASSERT_TRUE(fence);
  EXPECT_EQ((*fence)->wait().error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(one.device->submit(*one.list).error().code(), ErrorCode::kDeviceLost);
}

}  // namespace
}  // namespace tessera::gpu
