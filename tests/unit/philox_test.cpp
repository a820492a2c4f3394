#include "tessera/engine/philox.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <set>

namespace tessera {
namespace {

using Counter = std::array<uint32_t, 4>;
using Key = std::array<uint32_t, 2>;

// The known answers that the authors publish with the Random123 library for philox4x32 with 10 rounds.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32(Counter{0, 0, 0, 0}, Key{0, 0}), (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32(Counter{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, Key{0xffffffff, 0xffffffff}),
            (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32(Counter{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, Key{0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// The first known answer again, through the mapping to [0, 1): words 1:0 are e169c58d:6627e8d5, of which the upper 53 bits count.
TEST(Philox, UniformIsTheUpper53BitsOfTheFirstTwoWords) {
  EXPECT_EQ(philox_uniform(0, 0), static_cast<double>(0xe169c58d6627e8d5ull >> 11) / 9007199254740992.0);
}

TEST(Philox, EveryBitOfSeedAndPositionCounts) {
  std::set<double> draws{philox_uniform(0, 0)};
  for (int bit = 0; bit < 64; ++bit) {
    draws.insert(philox_uniform(uint64_t{1} << bit, 0));
    draws.insert(philox_uniform(0, uint64_t{1} << bit));
  }
  EXPECT_EQ(draws.size(), 129u);
}

// Mean and variance of n uniforms: 1/2 and 1/12, with standard errors 1/√(12n) and 1/√(180n). Five of them: a right generator is outside
// for one seed in 10⁶; the seeds are fixed.
TEST(Philox, UniformHasTheMomentsOfAUniform) {
  constexpr int kDraws = 100000;
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{0xfeedfacecafebeef}}) {
    double sum = 0, squares = 0;
    for (uint64_t n = 0; n < kDraws; ++n) {
      const double u = philox_uniform(seed, n);
      ASSERT_GE(u, 0.0);
      ASSERT_LT(u, 1.0);
      sum += u;
      squares += (u - 0.5) * (u - 0.5);
    }
    EXPECT_NEAR(sum / kDraws, 0.5, 5 / std::sqrt(12.0 * kDraws)) << "seed " << seed;
    EXPECT_NEAR(squares / kDraws, 1.0 / 12, 5 / std::sqrt(180.0 * kDraws)) << "seed " << seed;
  }
}

static_assert(philox_uniform(0, 0) > 0, "usable in constant expressions");

}  // namespace
}  // namespace tessera
