#include "glsl_compiler.hpp"

#include <shaderc/shaderc.h>

#include <cstring>
#include <memory>

#include "tessera/base/text.hpp"

namespace tessera::vulkan {

Result<std::vector<uint32_t>> compile_glsl(const std::string& text, const std::string& name) {
  const std::unique_ptr<shaderc_compiler, void (*)(shaderc_compiler_t)> compiler(shaderc_compiler_initialize(), shaderc_compiler_release);
  const std::unique_ptr<shaderc_compile_options, void (*)(shaderc_compile_options_t)> options(shaderc_compile_options_initialize(),
                                                                                              shaderc_compile_options_release);
  if (!compiler || !options) return fail(ErrorCode::kOutOfMemory, "shaderc could not start");
  shaderc_compile_options_set_target_env(options.get(), shaderc_target_env_vulkan, shaderc_env_version_vulkan_1_1);
  shaderc_compile_options_set_target_spirv(options.get(), shaderc_spirv_version_1_3);
  shaderc_compile_options_set_optimization_level(options.get(), shaderc_optimization_level_performance);
  const std::unique_ptr<shaderc_compilation_result, void (*)(shaderc_compilation_result_t)> result(
      shaderc_compile_into_spv(compiler.get(), text.data(), text.size(), shaderc_compute_shader, name.c_str(), "main", options.get()),
      shaderc_result_release);
  if (!result) return fail(ErrorCode::kOutOfMemory, "shaderc gave no result");
  if (shaderc_result_get_compilation_status(result.get()) != shaderc_compilation_status_success)
    return fail(ErrorCode::kCompile, cat("kernel '", name, "': ", shaderc_result_get_error_message(result.get())));
  std::vector<uint32_t> words(shaderc_result_get_length(result.get()) / 4);
  std::memcpy(words.data(), shaderc_result_get_bytes(result.get()), words.size() * 4);
  return words;
}

}  // namespace tessera::vulkan
