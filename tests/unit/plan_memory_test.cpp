// The arena: properties of the placement over random lifetimes, and cases where the best answer is known.
#include "tessera/plan/memory.hpp"

#include <gtest/gtest.h>

#include <random>

namespace tessera {
namespace {

bool overlap_in_space(const Lifetime& a, int64_t a_offset, const Lifetime& b, int64_t b_offset) { return a_offset < b_offset + b.bytes && b_offset < a_offset + a.bytes; }

// The most bytes alive at any one dispatch, counted dispatch by dispatch.
int64_t most_alive(const std::vector<Lifetime>& lives, int dispatches) {
  int64_t most = 0;
  for (int d = 0; d < dispatches; ++d) {
    int64_t alive = 0;
    for (const Lifetime& life : lives)
      if (life.first <= d && d <= life.last) alive += life.bytes;
    most = std::max(most, alive);
  }
  return most;
}

TEST(PlaceInArena, RandomLifetimesNeverOverlap) {
  std::mt19937 random(1);
  const auto below = [&](uint32_t n) { return static_cast<int>(random() % n); };
  for (int round = 0; round < 2000; ++round) {
    const int dispatches = 1 + below(12);
    const int64_t alignment = int64_t{1} << below(9);
    std::vector<Lifetime> lives(static_cast<size_t>(below(14)));
    for (Lifetime& life : lives) {
      life.first = below(static_cast<uint32_t>(dispatches));
      life.last = life.first + below(static_cast<uint32_t>(dispatches - life.first));
      life.bytes = below(4) == 0 ? 64 * (1 + below(4)) : 1 + below(1000);  // equal sizes, too
    }
    const ArenaPlacement placement = place_in_arena(lives, alignment);
    ASSERT_EQ(placement.offsets.size(), lives.size());
    int64_t end = 0;
    for (size_t i = 0; i < lives.size(); ++i) {
      ASSERT_GE(placement.offsets[i], 0);
      ASSERT_EQ(placement.offsets[i] % alignment, 0);
      end = std::max(end, placement.offsets[i] + lives[i].bytes);
      for (size_t j = 0; j < i; ++j)
        ASSERT_FALSE(overlap_in_time(lives[i], lives[j]) && overlap_in_space(lives[i], placement.offsets[i], lives[j], placement.offsets[j])) << "round " << round << ": " << i << " and " << j;
    }
    ASSERT_EQ(placement.bytes, end);
    ASSERT_EQ(placement.lower_bound, most_alive(lives, dispatches));
    ASSERT_LE(placement.lower_bound, placement.bytes);
  }
}

TEST(PlaceInArena, ChainsReachTheLowerBound) {
  // A chain: each tensor is written by one dispatch and read by the next.
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{64, 64, 64, 64, 64}, {64, 128, 192, 256}, {256, 192, 128}, {64, 1024, 64, 1024, 64}}) {
    std::vector<Lifetime> lives;
    for (size_t i = 0; i < sizes.size(); ++i) lives.push_back({sizes[i], static_cast<int>(i), static_cast<int>(i) + 1});
    const ArenaPlacement placement = place_in_arena(lives, 64);
    EXPECT_EQ(placement.bytes, placement.lower_bound);
  }
}

TEST(PlaceInArena, FillsTheGapThatIsWideEnough) {
  // 300 and 200 live always; 100 dies early and leaves a gap that the last 100 fits into.
  const std::vector<Lifetime> lives = {{300, 0, 9}, {200, 0, 9}, {100, 0, 3}, {100, 4, 9}};
  const ArenaPlacement placement = place_in_arena(lives, 4);
  EXPECT_EQ(placement.bytes, 600);
  EXPECT_EQ(placement.lower_bound, 600);
  EXPECT_EQ(placement.offsets[2], placement.offsets[3]);
}

TEST(PlaceInArena, OneDispatchNeverReadsAndWritesOneRange) {
  const ArenaPlacement placement = place_in_arena({{64, 0, 1}, {64, 1, 2}}, 64);  // written by dispatch 1, which still reads the first
  EXPECT_NE(placement.offsets[0], placement.offsets[1]);
}

TEST(PlaceInArena, NothingTakesNothing) {
  const ArenaPlacement placement = place_in_arena({}, 64);
  EXPECT_EQ(placement.bytes, 0);
  EXPECT_EQ(placement.lower_bound, 0);
}

}  // namespace
}  // namespace tessera
