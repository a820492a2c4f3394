// The prefill scheduler: cuts prompts into chunks of the planned shapes. Pure logic.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>

#include "tessera/engine/step_plans.hpp"
#include "tessera/engine/work.hpp"

namespace tessera {

struct PrefillChunk {
  StepShape shape;       // a planned shape
  int64_t tokens = 0;    // active tokens, ≤ shape.tokens
};

// The next chunk of a prompt of which `tokens` > 0 are left: as many as `most`, a planned size, without logits; the last of them in the smallest shape that
// holds it, with those of its last row.
inline PrefillChunk prefill_chunk(int64_t tokens, int64_t most = kLargestChunk) {
  if (tokens > most) return {{most, LogitRows::kNone}, most};
  return {{*std::ranges::lower_bound(kChunkTokens, tokens), LogitRows::kLast}, tokens};
}

// Evaluation: the logits of every row.
inline PrefillChunk all_logits_chunk(int64_t tokens) { return {{kAllLogitsChunk, LogitRows::kAll}, std::min(tokens, kAllLogitsChunk)}; }

class PrefillScheduler {
 public:
  // The one whose prompt is run next: the first to come of those that have more than a token to run. Null: none has.
  static Work* choose(std::span<Work* const> running) {
    const auto it = std::ranges::find_if(running, [](const Work* work) { return work->to_run() > 1; });
    return it == running.end() ? nullptr : *it;
  }

  // While answers are being made a chunk is short, for they wait for it.
  static PrefillChunk next(const Work& work, bool others_wait) { return prefill_chunk(work.to_run(), others_wait ? kSharedChunk : kLargestChunk); }
};

}  // namespace tessera
