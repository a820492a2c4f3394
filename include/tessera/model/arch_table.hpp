// The architectures, all of them: general.architecture → the function that builds its step graph.
#pragma once
#include <array>
#include <string_view>

#include "tessera/model/arch_llama.hpp"
#include "tessera/model/step_graph.hpp"

namespace tessera {

struct Architecture {
  std::string_view name;
  Result<Graph> (*build)(const StepRequest& request);
};

inline constexpr std::array<Architecture, 1> kArchitectures{{{"llama", build_llama}}};

inline Result<Graph> build_step(const StepRequest& request) {
  for (const Architecture& architecture : kArchitectures)
    if (architecture.name == request.config->architecture) return architecture.build(request);
  return fail(ErrorCode::kUnsupported, cat("architecture '", escaped(request.config->architecture), "' has no graph"));
}

}  // namespace tessera
