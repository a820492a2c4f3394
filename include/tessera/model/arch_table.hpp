// The architectures, all of them. A new one: its file, and its line here.
#pragma once
#include <array>
#include <string_view>

#include "tessera/base/text.hpp"
#include "tessera/model/arch_llama.hpp"
#include "tessera/model/arch_qwen2.hpp"

namespace tessera {

inline constexpr std::array<const Architecture*, 2> kArchitectures{&kLlama, &kQwen2};

// Null when this build does not know the architecture.
constexpr const Architecture* find_architecture(std::string_view name) {
  for (const Architecture* architecture : kArchitectures)
    if (architecture->name == name) return architecture;
  return nullptr;
}

inline Result<Graph> build_step(const StepRequest& request) {
  const Architecture* architecture = find_architecture(request.config->architecture);
  if (architecture == nullptr) return fail(ErrorCode::kUnsupported, cat("architecture '", escaped(request.config->architecture), "' has no graph"));
  return architecture->build(request);
}

}  // namespace tessera
