// What the schedulers know of an answer that is being made.
#pragma once
#include <cstdint>
#include <vector>

#include "tessera/kv/paged_cache.hpp"

namespace tessera {

struct Work {
  SequenceId sequence{};
  std::vector<int32_t> tokens;    // of the whole conversation: what the sequence holds, then what is to be run; at least one is
  int32_t begin = 0;              // tokens that the sequence held when the work came: giving it up goes back to these
  int32_t remaining = 1;          // tokens that may still be chosen
  int32_t steps_at_once = 1;      // the most tokens in one submission, 1 to kStepsAtOnce; 1 where the host chooses them

  // The scheduler's own.
  int32_t held = 0;               // tokens that the sequence holds
  bool running = false;           // admitted: it has or gets the pages that it needs
  uint64_t arrival = 0;           // its place among all that came
  uint64_t turn = 0;              // of its last decode step

  int32_t to_run() const { return static_cast<int32_t>(tokens.size()) - held; }
};

}  // namespace tessera
