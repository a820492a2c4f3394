// The prefill scheduler: cuts a run of prompt tokens into chunks of the planned shapes. Pure logic.
#pragma once
#include <algorithm>
#include <cstdint>

#include "tessera/engine/step_plans.hpp"

namespace tessera {

struct PrefillChunk {
  StepShape shape;       // a planned shape
  int64_t tokens = 0;    // active tokens, ≤ shape.tokens
};

class PrefillScheduler {
 public:
  // `tokens` > 0 prompt tokens; `logits` says whose logits are asked for.
  PrefillScheduler(int64_t tokens, LogitRows logits) : remaining_(tokens), logits_(logits) {}

  bool done() const { return remaining_ == 0; }

  // Chunks of the greatest size without logits, then the smallest shape that holds the rest, with them.
  PrefillChunk next() {
    const int64_t limit = logits_ == LogitRows::kAll ? kAllLogitsChunk : kLargestChunk;
    const int64_t tokens = std::min(remaining_, limit);
    remaining_ -= tokens;
    if (logits_ == LogitRows::kAll) return {{kAllLogitsChunk, LogitRows::kAll}, tokens};
    if (remaining_ > 0) return {{kLargestChunk, LogitRows::kNone}, tokens};
    const int64_t shape = *std::find_if(std::begin(kChunkTokens), std::end(kChunkTokens), [&](int64_t size) { return size >= tokens; });
    return {{shape, LogitRows::kLast}, tokens};
  }

 private:
  int64_t remaining_;
  LogitRows logits_;
};

}  // namespace tessera
