#include "opencl_driver.hpp"

#include <algorithm>

#include "tessera/base/text.hpp"

namespace tessera::opencl {
namespace {

struct ErrorRow {
  cl_int code;
  std::string_view name;
  ErrorCode kind = ErrorCode::kDriver;
};

#define TESSERA_ERROR_ROW(code, ...) \
  ErrorRow { code, #code __VA_OPT__(, ErrorCode::) __VA_ARGS__ }
constexpr ErrorRow kErrors[] = {
    TESSERA_ERROR_ROW(CL_DEVICE_NOT_FOUND, kNotFound),
    // Handed to a call whose handles are ours and valid, these say that the device or its context is gone.
    TESSERA_ERROR_ROW(CL_DEVICE_NOT_AVAILABLE, kDeviceLost),
    TESSERA_ERROR_ROW(CL_INVALID_COMMAND_QUEUE, kDeviceLost),
    TESSERA_ERROR_ROW(CL_INVALID_CONTEXT, kDeviceLost),
    TESSERA_ERROR_ROW(CL_MEM_OBJECT_ALLOCATION_FAILURE, kOutOfMemory),
    TESSERA_ERROR_ROW(CL_OUT_OF_RESOURCES, kOutOfMemory),
    TESSERA_ERROR_ROW(CL_OUT_OF_HOST_MEMORY, kOutOfMemory),
    TESSERA_ERROR_ROW(CL_IMAGE_FORMAT_NOT_SUPPORTED, kUnsupported),
    TESSERA_ERROR_ROW(CL_BUILD_PROGRAM_FAILURE, kCompile),
    TESSERA_ERROR_ROW(CL_COMPILE_PROGRAM_FAILURE, kCompile),
    TESSERA_ERROR_ROW(CL_INVALID_BUFFER_SIZE, kLimit),
    TESSERA_ERROR_ROW(CL_INVALID_IMAGE_SIZE, kLimit),
    TESSERA_ERROR_ROW(CL_INVALID_WORK_GROUP_SIZE, kLimit),
    TESSERA_ERROR_ROW(CL_COMPILER_NOT_AVAILABLE),
    TESSERA_ERROR_ROW(CL_PROFILING_INFO_NOT_AVAILABLE),
    TESSERA_ERROR_ROW(CL_MEM_COPY_OVERLAP),
    TESSERA_ERROR_ROW(CL_IMAGE_FORMAT_MISMATCH),
    TESSERA_ERROR_ROW(CL_MAP_FAILURE),
    TESSERA_ERROR_ROW(CL_MISALIGNED_SUB_BUFFER_OFFSET),
    TESSERA_ERROR_ROW(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST),
    TESSERA_ERROR_ROW(CL_LINKER_NOT_AVAILABLE),
    TESSERA_ERROR_ROW(CL_LINK_PROGRAM_FAILURE),
    TESSERA_ERROR_ROW(CL_KERNEL_ARG_INFO_NOT_AVAILABLE),
    TESSERA_ERROR_ROW(CL_INVALID_VALUE),
    TESSERA_ERROR_ROW(CL_INVALID_DEVICE_TYPE),
    TESSERA_ERROR_ROW(CL_INVALID_PLATFORM),
    TESSERA_ERROR_ROW(CL_INVALID_DEVICE),
    TESSERA_ERROR_ROW(CL_INVALID_QUEUE_PROPERTIES),
    TESSERA_ERROR_ROW(CL_INVALID_HOST_PTR),
    TESSERA_ERROR_ROW(CL_INVALID_MEM_OBJECT),
    TESSERA_ERROR_ROW(CL_INVALID_IMAGE_FORMAT_DESCRIPTOR),
    TESSERA_ERROR_ROW(CL_INVALID_IMAGE_DESCRIPTOR),
    TESSERA_ERROR_ROW(CL_INVALID_BINARY),
    TESSERA_ERROR_ROW(CL_INVALID_BUILD_OPTIONS),
    TESSERA_ERROR_ROW(CL_INVALID_PROGRAM),
    TESSERA_ERROR_ROW(CL_INVALID_PROGRAM_EXECUTABLE),
    TESSERA_ERROR_ROW(CL_INVALID_KERNEL_NAME),
    TESSERA_ERROR_ROW(CL_INVALID_KERNEL_DEFINITION),
    TESSERA_ERROR_ROW(CL_INVALID_KERNEL),
    TESSERA_ERROR_ROW(CL_INVALID_ARG_INDEX),
    TESSERA_ERROR_ROW(CL_INVALID_ARG_VALUE),
    TESSERA_ERROR_ROW(CL_INVALID_ARG_SIZE),
    TESSERA_ERROR_ROW(CL_INVALID_KERNEL_ARGS),
    TESSERA_ERROR_ROW(CL_INVALID_WORK_DIMENSION),
    TESSERA_ERROR_ROW(CL_INVALID_WORK_ITEM_SIZE),
    TESSERA_ERROR_ROW(CL_INVALID_GLOBAL_OFFSET),
    TESSERA_ERROR_ROW(CL_INVALID_EVENT_WAIT_LIST),
    TESSERA_ERROR_ROW(CL_INVALID_EVENT),
    TESSERA_ERROR_ROW(CL_INVALID_OPERATION),
    TESSERA_ERROR_ROW(CL_INVALID_COMMAND_BUFFER_KHR),
    TESSERA_ERROR_ROW(CL_INVALID_SYNC_POINT_WAIT_LIST_KHR),
    TESSERA_ERROR_ROW(CL_INCOMPATIBLE_COMMAND_QUEUE_KHR),
    TESSERA_ERROR_ROW(CL_INVALID_GLOBAL_WORK_SIZE),
    TESSERA_ERROR_ROW(CL_INVALID_PROPERTY),
};
#undef TESSERA_ERROR_ROW

const ErrorRow* find_error(cl_int code) {
  const auto row = std::find_if(std::begin(kErrors), std::end(kErrors), [code](const ErrorRow& r) { return r.code == code; });
  return row == std::end(kErrors) ? nullptr : row;
}

}  // namespace

std::string error_text(cl_int code) {
  const ErrorRow* row = find_error(code);
  return cat(row != nullptr ? row->name : "unknown OpenCL error", " (", code, ")");
}

Status Driver::alive() const {
  if (lost) return fail(ErrorCode::kDeviceLost, cat(info.name, " was lost earlier; open the device again"));
  return {};
}

Status Driver::check(cl_int code, std::string_view call) {
  if (code == CL_SUCCESS) return {};
  const ErrorRow* row = find_error(code);
  const ErrorCode kind = row != nullptr ? row->kind : ErrorCode::kDriver;
  if (kind == ErrorCode::kDeviceLost) lost = true;
  return fail(kind, cat(call, " failed on ", info.name, ": ", error_text(code)));
}

Status Driver::check_wait(cl_int code, std::string_view call) {
  if (code == CL_OUT_OF_RESOURCES || code == CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST) {
    lost = true;
    return fail(ErrorCode::kDeviceLost, cat(call, " failed on ", info.name, ": ", error_text(code), "; the work did not finish"));
  }
  return check(code, call);
}

Status Driver::drain() {
  if (kernels_in_flight()) ++counters.synchronizations;
  TESSERA_TRY(check_wait(cl.Finish(queue.get()), "clFinish"));
  finished_up_to(issued);
  return {};
}

void Driver::note_memory(int64_t bytes) {
  counters.device_bytes += static_cast<uint64_t>(bytes);
  counters.peak_device_bytes = std::max(counters.peak_device_bytes, counters.device_bytes);
}

}  // namespace tessera::opencl
