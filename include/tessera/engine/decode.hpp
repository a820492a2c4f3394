// The decode scheduler: which answers get their next tokens in one step, and how many. Pure logic.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tessera/engine/step_plans.hpp"
#include "tessera/engine/work.hpp"
#include "tessera/ops/sample.hpp"

namespace tessera {

enum class StopReason { kEndOfText, kMaxTokens, kStopString, kCancelled, kContextFull };

inline std::string_view name_of(StopReason reason) {
  constexpr std::string_view kNames[] = {"end of text", "max tokens", "stop string", "cancelled", "context full"};
  return kNames[static_cast<int>(reason)];
}

// Fair: who waited longest comes first, so that of n answers each is in every ⌈n / kMostRows⌉-th step.
class DecodeScheduler {
 public:
  // Those of `running` that have one token to run, at most kMostRows, into `chosen`. They are not chosen again before all others were.
  void choose(std::span<Work* const> running, std::vector<Work*>& chosen) {
    chosen.clear();
    for (Work* work : running)
      if (work->to_run() == 1) chosen.push_back(work);
    std::ranges::sort(chosen, {}, [](const Work* work) { return std::pair(work->turn, work->arrival); });
    if (chosen.size() > kMostRows) chosen.resize(kMostRows);
    for (Work* work : chosen) work->turn = ++turn_;
  }

  // Steps in one submission, so that nobody gets more tokens than it may have: the ids of a step stay on the device for the next one.
  static int32_t steps(std::span<Work* const> chosen, int32_t context_tokens) {
    int32_t steps = kStepsAtOnce;
    for (const Work* work : chosen) steps = std::min({steps, work->steps_at_once, work->remaining, context_tokens - work->held});
    return std::max(steps, 1);
  }

  static StepShape shape(size_t rows) { return rows == 1 ? StepShape{1, LogitRows::kLast} : StepShape{static_cast<int64_t>(kMostRows), LogitRows::kAll}; }

 private:
  uint64_t turn_ = 0;
};

}  // namespace tessera
