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
  // Rounding decides near-ties otherwise: SmolLM2 keeps 63 of 64 choices, and random models, whose logits lie close, 29 to 32 of 32. A kernel that computes
  // wrongly agrees by chance only.
  bool passed() const { return agree * 4 >= tokens * 3; }
};

// `model` is loaded as `options` say.
Result<SelfCheck> self_check(const Model& model, const ModelOptions& options);

}  // namespace tessera::bench
