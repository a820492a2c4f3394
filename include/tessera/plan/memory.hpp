// Lifetimes → places: intermediates of a step share one arena.
// Greedy by size (Pisarchyk and Lee, arXiv 2001.03288, section 5.2): the largest first, each at the lowest offset free for its whole life.
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "tessera/base/bytes.hpp"

namespace tessera {

struct Lifetime {
  int64_t bytes = 0;
  int first = 0;   // index of the dispatch that writes it first
  int last = 0;    // index of the last dispatch that touches it; inclusive, so that no dispatch reads and writes one range
};

struct ArenaPlacement {
  std::vector<int64_t> offsets;
  int64_t bytes = 0;
  int64_t lower_bound = 0;
};

inline bool overlap_in_time(const Lifetime& a, const Lifetime& b) { return a.first <= b.last && b.first <= a.last; }

inline ArenaPlacement place_in_arena(const std::vector<Lifetime>& lives, int64_t alignment) {
  ArenaPlacement placement{std::vector<int64_t>(lives.size(), 0), 0, 0};
  std::vector<size_t> order(lives.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lives[a].bytes > lives[b].bytes; });
  std::vector<size_t> placed;  // by offset
  for (size_t i : order) {
    int64_t offset = 0;
    for (size_t j : placed) {
      if (!overlap_in_time(lives[i], lives[j])) continue;
      if (placement.offsets[j] >= offset + lives[i].bytes) break;  // the gap before j is wide enough
      offset = std::max(offset, round_up(placement.offsets[j] + lives[j].bytes, alignment));
    }
    placement.offsets[i] = offset;
    placement.bytes = std::max(placement.bytes, offset + lives[i].bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), i, [&](size_t a, size_t b) { return placement.offsets[a] < placement.offsets[b]; }), i);
  }
  for (const Lifetime& at : lives) {  // a largest live set begins where some tensor begins
    int64_t alive = 0;
    for (const Lifetime& other : lives)
      if (other.first <= at.first && at.first <= other.last) alive += other.bytes;
    placement.lower_bound = std::max(placement.lower_bound, alive);
  }
  return placement;
}

}  // namespace tessera
