// Compiles lowered kernels with compilers that need no device: clang's OpenCL front end; glslangValidator and spirv-val.
#pragma once
#include <sys/wait.h>

#include <cstdio>
#include <initializer_list>
#include <string>

#include "../temporary_folder.hpp"
#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"
#include "tessera/codegen/variant.hpp"

namespace tessera::test {

struct ToolRun {
  int exit_code = 0;
  std::string output;  // stdout and stderr
};

inline ToolRun run_tool(const std::string& command) {
  ToolRun run;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return {127, "popen failed"};
  char part[4096];
  for (size_t got = 0; (got = fread(part, 1, sizeof part, pipe)) > 0;) run.output.append(part, got);
  const int status = pclose(pipe);
  run.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return run;
}

// The first of `names` that is on PATH.
inline Result<std::string> find_tool(std::initializer_list<std::string> names, std::string_view debian_package) {
  for (const std::string& name : names)
    if (run_tool("command -v " + name).exit_code == 0) return name;
  return fail(ErrorCode::kNotFound, cat(*names.begin(), " is not on PATH; Debian package ", debian_package));
}

inline Status compiled(const ToolRun& run, const LoweredKernel& kernel) {
  if (run.exit_code == 0) return {};
  return fail(ErrorCode::kCompile, cat(run.output, "\n--- the text\n", kernel.text));
}

// OpenCL C 1.2 without any extension; texts that name subgroups, packed dots or half arithmetic as OpenCL C 3.0, where clang 14 knows these.
inline Status compile_opencl(const LoweredKernel& kernel) {
  static const Result<std::string> clang = find_tool({"clang-14", "clang", "clang-15", "clang-16", "clang-17", "clang-18", "clang-19"}, "clang-14");
  if (!clang) return fail(clang.error());
  const TemporaryFolder folder;
  const std::string path = folder.file("kernel.cl", kernel.text);
  const bool extended = kernel.text.find("#pragma OPENCL EXTENSION") != std::string::npos;
  return compiled(run_tool(cat(*clang, " -x cl -target spir64 -cl-std=", extended ? "CL3.0" : "CL1.2",
                               " -Xclang -finclude-default-header -fsyntax-only -Wall -Werror -Wno-unused-variable -Wno-self-assign "
                               "-Wno-tautological-compare -Wno-ignored-pragmas ",
                               path)),
                  kernel);
}

inline Status compile_glsl(const LoweredKernel& kernel) {
  static const Result<std::string> glslang = find_tool({"glslangValidator"}, "glslang-tools");
  static const Result<std::string> validator = find_tool({"spirv-val"}, "spirv-tools");
  if (!glslang) return fail(glslang.error());
  if (!validator) return fail(validator.error());
  const TemporaryFolder folder;
  const std::string path = folder.file("kernel.comp", kernel.text);
  return compiled(
      run_tool(cat(*glslang, " -V --target-env vulkan1.1 -o ", path, ".spv ", path, " && ", *validator, " --target-env vulkan1.1 ", path, ".spv")),
      kernel);
}

}  // namespace tessera::test
