// The OpenCL driver library as a table of functions, found at run time: nothing links against libOpenCL, so one binary starts with or
// without a driver. Only src/opencl sees this header.
#pragma once
#define CL_TARGET_OPENCL_VERSION 300
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS  // clCreateCommandQueue: its successor is missing from 1.2 drivers
#define CL_ENABLE_BETA_EXTENSIONS          // cl_khr_command_buffer: newer headers hide it without
#include <CL/cl.h>
#include <CL/cl_ext.h>

#include <span>
#include <string>
#include <vector>

#include "tessera/base/status.hpp"

namespace tessera::opencl {

// Every function that is called, all of OpenCL 1.2 or older.
// clang-format off
#define TESSERA_OPENCL_CALLS(CALL)                                                                                                     \
  CALL(GetPlatformIDs) CALL(GetPlatformInfo) CALL(GetDeviceIDs) CALL(GetDeviceInfo) CALL(CreateContext) CALL(ReleaseContext)           \
  CALL(CreateCommandQueue) CALL(ReleaseCommandQueue) CALL(CreateBuffer) CALL(CreateSubBuffer) CALL(CreateImage)                        \
  CALL(GetSupportedImageFormats) CALL(ReleaseMemObject) CALL(CreateProgramWithSource) CALL(CreateProgramWithBinary) CALL(BuildProgram) \
  CALL(GetProgramBuildInfo) CALL(GetProgramInfo) CALL(ReleaseProgram) CALL(CreateKernel) CALL(ReleaseKernel) CALL(SetKernelArg)        \
  CALL(GetKernelInfo) CALL(GetKernelWorkGroupInfo) CALL(EnqueueNDRangeKernel) CALL(EnqueueReadBuffer) CALL(EnqueueWriteBuffer)         \
  CALL(EnqueueFillBuffer) CALL(EnqueueCopyBuffer) CALL(EnqueueReadImage) CALL(EnqueueWriteImage) CALL(WaitForEvents)                   \
  CALL(GetEventProfilingInfo) CALL(ReleaseEvent) CALL(Flush) CALL(Finish) CALL(GetExtensionFunctionAddressForPlatform)
// clang-format on

struct OpenClApi {
#define TESSERA_DECLARE_CALL(name) decltype(&::cl##name) name = nullptr;
  TESSERA_OPENCL_CALLS(TESSERA_DECLARE_CALL)
#undef TESSERA_DECLARE_CALL
};

// Where the driver may be, in the order to try. $TESSERA_OPENCL_LIBRARY, when set, is the only candidate: a wrong path must not be
// papered over by another driver.
std::vector<std::string> library_candidates();

// kNotFound (naming what was tried and what to install) when no candidate opens; kUnsupported when one lacks a function of OpenCL 1.2.
// The library stays open for the life of the process: several drivers crash when they are unloaded.
Result<OpenClApi> load_api(std::span<const std::string> candidates);

// What a user does about a missing driver.
std::string_view install_advice();

}  // namespace tessera::opencl
