// How settings are searched: one at a time from where they are, upwards and downwards as long as it pays, until a round over all changes none.
#pragma once
#include <algorithm>
#include <vector>

#include "samples.hpp"
#include "tessera/device/op_settings.hpp"

namespace tessera::bench {

enum class Outcome {
  kSame,        // plans as something that was tried before
  kRejected,    // does not plan, compile or run, or computes something else
  kSlower,      // or not measurably faster
  kFarSlower,   // going on this way will not help
  kFaster,
};

// `attempt(row)` measures a row against the best so far, which it is from then on if it is kFaster. `stop()` ends the search with what there is.
template <class Attempt, class Stop>
TuningRow search(const std::vector<OpSetting>& settings, const Tuning& start, TuningRow best, Attempt&& attempt, Stop&& stop) {
  constexpr int kRounds = 3;
  for (int round = 0; round < kRounds; ++round) {
    bool changed = false;
    for (const OpSetting& setting : settings)
      for (const bool up : {true, false}) {
        const int from = (best.*setting.row).value_or(start.*setting.value);
        std::vector<int> values;
        std::ranges::copy_if(setting.values, std::back_inserter(values), [&](int value) { return up ? value > from : value < from; });
        if (!up) std::ranges::reverse(values);
        for (const int value : values) {
          if (stop()) return best;
          TuningRow candidate = best;
          candidate.*setting.row = value;
          const Outcome outcome = attempt(candidate);
          if (outcome == Outcome::kFaster) best = candidate, changed = true;
          if (outcome == Outcome::kRejected || outcome == Outcome::kFarSlower) break;
        }
      }
    if (!changed) break;
  }
  return best;
}

// From where on contexts are long. `pays(tokens, as_long)`: whether steps behind so many tokens, which are one kind now, are faster as the other.
template <class Pays>
int search_long(const std::vector<int>& values, int from, Pays&& pays) {
  for (const bool up : {true, false}) {
    int best = from;
    std::vector<int> further;
    std::ranges::copy_if(values, std::back_inserter(further), [&](int value) { return up ? value > from : value < from; });
    if (!up) std::ranges::reverse(further);
    for (const int value : further) {
      if (!pays((best + value) / 2, !up)) break;   // in the middle of those that change
      best = value;
    }
    if (best != from) return best;
  }
  return from;
}

// Ratios of times that were taken by turns, of the candidate to the best: faster only where that is plain beyond the noise.
inline constexpr double kWorthIt = 0.98;
inline constexpr double kFarSlower = 1.3;
inline bool is_faster(const Samples& ratios) { return ratios.median() < kWorthIt && ratios.at(0.75) < 1.0; }
inline bool is_far_slower(const Samples& ratios) { return ratios.median() > kFarSlower; }

}  // namespace tessera::bench
