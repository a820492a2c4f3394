// The commands of tessera-bench.
#pragma once
#include <cstdint>
#include <string>

#include "tessera/tessera.hpp"

namespace tessera::bench {

struct SessionsOptions {
  std::string model;
  std::string device = "auto";
  int32_t sessions = 8;
  int32_t prompt = 64;    // tokens
  int32_t tokens = 64;    // of each answer
  int32_t rounds = 5;
  SamplerOptions sampler;
};
// Rates of several sessions at once, printed.
Status run_sessions(const SessionsOptions& options);

}  // namespace tessera::bench
