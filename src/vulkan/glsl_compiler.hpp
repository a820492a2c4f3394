// GLSL → SPIR-V behind one function, so that prebuilt SPIR-V could take its place. The compiler is shaderc.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "tessera/base/status.hpp"

namespace tessera::vulkan {

// SPIR-V 1.3 for Vulkan 1.1. kCompile carries the compiler's messages. Any thread. Cost: some milliseconds a kernel.
Result<std::vector<uint32_t>> compile_glsl(const std::string& text, const std::string& name);

}  // namespace tessera::vulkan
