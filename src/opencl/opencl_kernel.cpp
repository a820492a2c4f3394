#include "opencl_kernel.hpp"

#include "tessera/base/text.hpp"

namespace tessera::opencl {
namespace {

// The end of what the compiler said: the errors stand there, after pages of warnings and notes.
std::string build_log_tail(const Driver& driver, cl_program program) {
  constexpr size_t kTailBytes = 4000;
  size_t length = 0;
  if (driver.cl.GetProgramBuildInfo(program, driver.device, CL_PROGRAM_BUILD_LOG, 0, nullptr, &length) != CL_SUCCESS) return "(no build log)";
  std::string log(length, '\0');
  if (driver.cl.GetProgramBuildInfo(program, driver.device, CL_PROGRAM_BUILD_LOG, length, log.data(), nullptr) != CL_SUCCESS) return "(no build log)";
  while (!log.empty() && (log.back() == '\0' || log.back() == '\n')) log.pop_back();
  return log.size() <= kTailBytes ? log : "…" + log.substr(log.size() - kTailBytes);
}

}  // namespace

Result<std::unique_ptr<OpenClKernel>> OpenClKernel::build(Driver& driver, const LoweredKernel& lowered, Handle<cl_program> program) {
  const cl_int code = driver.cl.BuildProgram(program.get(), 1, &driver.device, driver.compile_options.c_str(), nullptr, nullptr);
  if (auto status = driver.check(code, "clBuildProgram"); !status) {
    const ErrorCode kind = status.error().code();
    return fail(kind, cat("kernel '", lowered.entry, "': ", status.error().message(), "\n", build_log_tail(driver, program.get())));
  }
  std::unique_ptr<OpenClKernel> kernel(new OpenClKernel(driver, lowered, std::move(program)));
  if (auto status = kernel->check_against_driver(); !status) return fail(std::move(status).error().within(cat("kernel '", lowered.entry, "'")));
  return kernel;
}

Result<std::unique_ptr<OpenClKernel>> OpenClKernel::compile(Driver& driver, const LoweredKernel& lowered) {
  const char* text = lowered.text.c_str();
  const size_t length = lowered.text.size();
  cl_int code = CL_SUCCESS;
  Handle<cl_program> program(driver.cl.CreateProgramWithSource(driver.context.get(), 1, &text, &length, &code), driver.cl.ReleaseProgram);
  TESSERA_TRY(driver.check(code, "clCreateProgramWithSource"));
  TESSERA_ASSIGN(std::unique_ptr<OpenClKernel> kernel, build(driver, lowered, std::move(program)));
  ++driver.counters.programs_compiled;
  return kernel;
}

Result<std::unique_ptr<OpenClKernel>> OpenClKernel::load(Driver& driver, const LoweredKernel& lowered, std::span<const std::byte> binary) {
  if (binary.empty()) return fail(ErrorCode::kInvalidArgument, "an empty program binary");
  const auto* bytes = reinterpret_cast<const unsigned char*>(binary.data());
  const size_t length = binary.size();
  cl_int code = CL_SUCCESS;
  Handle<cl_program> program(driver.cl.CreateProgramWithBinary(driver.context.get(), 1, &driver.device, &length, &bytes, nullptr, &code),
                             driver.cl.ReleaseProgram);
  TESSERA_TRY(driver.check(code, "clCreateProgramWithBinary"));
  TESSERA_ASSIGN(std::unique_ptr<OpenClKernel> kernel, build(driver, lowered, std::move(program)));
  ++driver.counters.programs_loaded;
  return kernel;
}

Result<Handle<cl_kernel>> OpenClKernel::create_kernel() const {
  cl_int code = CL_SUCCESS;
  Handle<cl_kernel> kernel(driver_.cl.CreateKernel(program_.get(), lowered_.entry.c_str(), &code), driver_.cl.ReleaseKernel);
  TESSERA_TRY(driver_.check(code, "clCreateKernel"));
  ++driver_.counters.kernels_created;
  return kernel;
}

// Asked of the compiled kernel, not of the device: some drivers allow a kernel fewer work items than the device's limit says.
Status OpenClKernel::check_against_driver() const {
  TESSERA_ASSIGN(const Handle<cl_kernel> kernel, create_kernel());
  cl_uint arguments = 0;
  TESSERA_TRY(driver_.check(driver_.cl.GetKernelInfo(kernel.get(), CL_KERNEL_NUM_ARGS, sizeof arguments, &arguments, nullptr), "clGetKernelInfo"));
  const size_t declared = lowered_.slots.size() + lowered_.args.size();
  if (arguments != declared) return fail(ErrorCode::kCompile, cat("the text has ", arguments, " arguments, its description ", declared));
  size_t allowed = 0;
  TESSERA_TRY(
      driver_.check(driver_.cl.GetKernelWorkGroupInfo(kernel.get(), driver_.device, CL_KERNEL_WORK_GROUP_SIZE, sizeof allowed, &allowed, nullptr),
                    "clGetKernelWorkGroupInfo"));
  const auto [x, y, z] = lowered_.workgroup;
  const int64_t wanted = int64_t{x} * y * z;
  if (x > 0 && y > 0 && z > 0 && wanted <= static_cast<int64_t>(allowed)) return {};
  return fail(ErrorCode::kLimit, cat("a workgroup of ", x, " x ", y, " x ", z, "; ", driver_.info.name, " runs this kernel with at most ", allowed));
}

Result<std::vector<std::byte>> OpenClKernel::binary() const {
  size_t length = 0;
  TESSERA_TRY(driver_.check(driver_.cl.GetProgramInfo(program_.get(), CL_PROGRAM_BINARY_SIZES, sizeof length, &length, nullptr), "clGetProgramInfo"));
  std::vector<std::byte> bytes(length);
  if (length == 0) return bytes;
  auto* target = reinterpret_cast<unsigned char*>(bytes.data());
  TESSERA_TRY(driver_.check(driver_.cl.GetProgramInfo(program_.get(), CL_PROGRAM_BINARIES, sizeof target, &target, nullptr), "clGetProgramInfo"));
  return bytes;
}

}  // namespace tessera::opencl
