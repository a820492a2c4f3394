// Is what is being timed right? The choices of greedy decoding behind a fixed prompt, against those that are known or that float mode makes.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "commands.hpp"

namespace tessera::bench {

struct SelfCheck {
  std::string against;     // whose ids are expected
  int32_t tokens = 0;      // compared
  int32_t agree = 0;       // the same choice, each behind the expected ids before it
  int32_t first_other = -1;   // the first that differs; −1: none
  // Rounding decides near-ties otherwise; a kernel that computes wrongly agrees by chance only.
  bool passed() const { return agree * 10 >= tokens * 9; }
};

// `model` is loaded as `options` say.
Result<SelfCheck> self_check(const Model& model, const ModelOptions& options);

}  // namespace tessera::bench
