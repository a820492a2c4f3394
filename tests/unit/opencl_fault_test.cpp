// The OpenCL backend without a driver, and on one that fails: the real driver with single functions replaced.
#include <cstdlib>
#include <cstring>

#include "opencl_fault_fixture.hpp"

namespace tessera::gpu {
namespace {

TEST(OpenClLibrary, MissingLibrarySaysWhatToInstall) {
  const std::vector<std::string> nowhere{"/nonexistent/libOpenCL.so.9", "libtessera-no-such-driver.so"};
  const auto api = opencl::load_api(nowhere);
  ASSERT_FALSE(api);
  EXPECT_EQ(api.error().code(), ErrorCode::kNotFound);
  for (const char* part : {"ocl-icd-libopencl1", "uses-native-library", "libOpenCL.so.9", "libtessera-no-such-driver.so"})
    EXPECT_NE(api.error().message().find(part), std::string::npos) << api.error().message();
}

TEST(OpenClLibrary, EnvironmentNamesTheOnlyCandidate) {
  const char* before = std::getenv("TESSERA_OPENCL_LIBRARY");
  const std::string restored = before != nullptr ? before : "";
  ASSERT_EQ(setenv("TESSERA_OPENCL_LIBRARY", "/nonexistent/driver.so", 1), 0);
  const auto listed = list_opencl_devices();
  const auto opened = open_opencl_device(0);
  ASSERT_EQ(setenv("TESSERA_OPENCL_LIBRARY", restored.c_str(), 1), 0);
  ASSERT_FALSE(listed);
  ASSERT_FALSE(opened);
  EXPECT_EQ(listed.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(opened.error().message().find("/nonexistent/driver.so"), std::string::npos);
}

TEST(OpenClLibrary, LibraryWithoutOpenClIsUnsupported) {
  const auto api = opencl::load_api(std::vector<std::string>{"libm.so.6"});
  ASSERT_FALSE(api);
  EXPECT_EQ(api.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(api.error().message().find("clGetPlatformIDs"), std::string::npos);
}

TEST_F(OpenClFaultTest, NoPlatformIsNotFoundWithAdvice) {
  api.GetPlatformIDs = [](cl_uint, cl_platform_id*, cl_uint*) -> cl_int { return -1001; };  // CL_PLATFORM_NOT_FOUND_KHR of the ICD loader
  const auto devices = opencl::find_devices(api);
  ASSERT_FALSE(devices);
  EXPECT_EQ(devices.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(devices.error().message().find("pocl-opencl-icd"), std::string::npos);
}

TEST_F(OpenClFaultTest, PlatformWithoutDevicesIsNotFound) {
  api.GetDeviceIDs = [](cl_platform_id, cl_device_type, cl_uint, cl_device_id*, cl_uint*) -> cl_int { return CL_DEVICE_NOT_FOUND; };
  EXPECT_EQ(opencl::find_devices(api).error().code(), ErrorCode::kNotFound);
}

TEST_F(OpenClFaultTest, AllocationFailureIsOutOfMemory) {
  api.CreateBuffer = [](cl_context, cl_mem_flags, size_t, void*, cl_int* code) -> cl_mem {
    *code = CL_MEM_OBJECT_ALLOCATION_FAILURE;
    return nullptr;
  };
  const auto device = open();
  const auto made = device->create_buffer(64);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_NE(made.error().message().find("CL_MEM_OBJECT_ALLOCATION_FAILURE"), std::string::npos);
  EXPECT_EQ(device->counters().device_bytes, 0u);
}

TEST_F(OpenClFaultTest, OtherErrorsNameCallAndCode) {
  api.CreateBuffer = [](cl_context, cl_mem_flags, size_t, void*, cl_int* code) -> cl_mem {
    *code = CL_INVALID_VALUE;
    return nullptr;
  };
  const auto made = open()->create_buffer(64);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), ErrorCode::kDriver);
  EXPECT_NE(made.error().message().find("clCreateBuffer"), std::string::npos);
  EXPECT_NE(made.error().message().find("CL_INVALID_VALUE (-30)"), std::string::npos);
}

TEST_F(OpenClFaultTest, LostDeviceStaysLost) {
  api.EnqueueReadBuffer = [](cl_command_queue, cl_mem, cl_bool, size_t, size_t, void*, cl_uint, const cl_event*, cl_event*) -> cl_int {
    return CL_OUT_OF_RESOURCES;
  };
  const auto device = open();
  const auto memory = std::move(*device->create_buffer(64));
  auto list = std::move(*device->create_list());
  ASSERT_TRUE(list->finish());
  auto fence = std::move(*device->submit(*list));
  std::vector<std::byte> bytes(64);
  ASSERT_TRUE(device->write(*memory, 0, bytes));
  EXPECT_EQ(device->read(*memory, 0, bytes).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device->write(*memory, 0, bytes).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device->fill_zero(*memory, 0, 64).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device->create_buffer(64).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device->create_image({Storage::kImage2D, DType::kF32, 4, {2, 2}, 0}).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device->compile(affine_kernel(Target::kOpenCL)).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device->create_list().error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(device->submit(*list).error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(fence->wait().error().code(), ErrorCode::kDeviceLost);
}

TEST_F(OpenClFaultTest, FailedSubmissionNamesTheDispatch) {
  api.EnqueueNDRangeKernel = [](cl_command_queue, cl_kernel, cl_uint, const size_t*, const size_t*, const size_t*, cl_uint, const cl_event*,
                                cl_event*) -> cl_int { return CL_DEVICE_NOT_AVAILABLE; };
  const auto device = open();
  const auto program = std::move(*device->compile(affine_kernel(Target::kOpenCL)));
  const auto memory = std::move(*device->create_buffer(64));
  const auto target = std::move(*device->create_buffer(64));
  auto list = std::move(*device->create_list());
  ASSERT_TRUE(list->dispatch({program.get(), {{memory.get(), 0, 64}, {target.get(), 0, 64}}, {0, 0}, {1, 1, 1}, "layer 3 norm"}));
  ASSERT_TRUE(list->finish());
  const auto submitted = device->submit(*list);
  ASSERT_FALSE(submitted);
  EXPECT_EQ(submitted.error().code(), ErrorCode::kDeviceLost);
  EXPECT_NE(submitted.error().message().find("layer 3 norm"), std::string::npos);
}

TEST_F(OpenClFaultTest, KernelThatRunsFewerItemsThanTheDeviceIsRefused) {
  api.GetKernelWorkGroupInfo = [](cl_kernel, cl_device_id, cl_kernel_work_group_info, size_t, void* answer, size_t*) -> cl_int {
    const size_t four = 4;
    std::memcpy(answer, &four, sizeof four);
    return CL_SUCCESS;
  };
  const auto made = open()->compile(affine_kernel(Target::kOpenCL));
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), ErrorCode::kLimit);
  EXPECT_NE(made.error().message().find("at most 4"), std::string::npos);
}

}  // namespace
}  // namespace tessera::gpu
