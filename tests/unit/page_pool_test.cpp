#include "tessera/kv/page_pool.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <set>
#include <vector>

namespace tessera {
namespace {

TEST(PagePool, HandsOutEveryPageOnceThenSaysHowManyThereAre) {
  PagePool pool(5);
  std::set<PageId> seen;
  for (int i = 0; i < 5; ++i) {
    const Result<PageId> page = pool.allocate();
    ASSERT_TRUE(page);
    EXPECT_GE(*page, 0);
    EXPECT_LT(*page, 5);
    EXPECT_TRUE(seen.insert(*page).second) << "page " << *page << " handed out twice";
    EXPECT_EQ(pool.references(*page), 1);
    EXPECT_EQ(pool.free_pages(), 4 - i);
    EXPECT_EQ(pool.live_pages(), i + 1);
  }
  const Result<PageId> none = pool.allocate();
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_NE(none.error().message().find('5'), std::string::npos) << none.error().message();
}

TEST(PagePool, EmptyPoolFailsCleanly) {
  PagePool pool(0);
  EXPECT_EQ(pool.total_pages(), 0);
  EXPECT_EQ(pool.allocate().error().code(), ErrorCode::kOutOfMemory);
}

TEST(PagePool, PageComesBackOnlyWithItsLastReference) {
  PagePool pool(1);
  const PageId page = *pool.allocate();
  pool.retain(page);
  pool.retain(page);
  EXPECT_EQ(pool.references(page), 3);
  EXPECT_EQ(pool.shared_pages(), 1);
  pool.release(page);
  EXPECT_EQ(pool.shared_pages(), 1);
  pool.release(page);
  EXPECT_EQ(pool.shared_pages(), 0);
  EXPECT_FALSE(pool.allocate());
  pool.release(page);
  EXPECT_EQ(pool.references(page), 0);
  EXPECT_EQ(pool.free_pages(), 1);
  EXPECT_EQ(*pool.allocate(), page);
}

TEST(PagePool, FreshPoolGoesUpwardsAndThePageFreedLastIsUsedNext) {
  PagePool pool(4);
  for (PageId expected = 0; expected < 4; ++expected) EXPECT_EQ(*pool.allocate(), expected);
  pool.release(3);
  pool.release(1);
  EXPECT_EQ(*pool.allocate(), 1);
  EXPECT_EQ(*pool.allocate(), 3);
}

TEST(PagePool, CountsMatchAPlainCountOfReferences) {
  constexpr uint32_t kSeed = 20240607;
  RecordProperty("seed", static_cast<int>(kSeed));
  std::mt19937 random(kSeed);
  constexpr int32_t kPages = 9;
  PagePool pool(kPages);
  std::vector<int32_t> counts(kPages, 0);
  for (int step = 0; step < 20000; ++step) {
    const PageId page = static_cast<PageId>(random() % kPages);
    int32_t& count = counts[static_cast<size_t>(page)];
    const uint32_t action = random() % 4;
    if (action == 0) {
      if (const Result<PageId> fresh = pool.allocate(); fresh) {
        ASSERT_EQ(counts[static_cast<size_t>(*fresh)], 0) << "step " << step << ": a live page was handed out";
        counts[static_cast<size_t>(*fresh)] = 1;
      }
    } else if (count > 0 && action == 1) {
      pool.retain(page);
      ++count;
    } else if (count > 0) {
      pool.release(page);
      --count;
    }
    int32_t free = 0, shared = 0;
    for (PageId p = 0; p < kPages; ++p) {
      ASSERT_EQ(pool.references(p), counts[static_cast<size_t>(p)]) << "seed " << kSeed << " step " << step << " page " << p;
      free += counts[static_cast<size_t>(p)] == 0;
      shared += counts[static_cast<size_t>(p)] > 1;
    }
    ASSERT_EQ(pool.free_pages(), free);
    ASSERT_EQ(pool.shared_pages(), shared);
  }
}

// Misuse is a programming error: a message in debug builds, no harm to the pool in release builds.
#ifndef NDEBUG
TEST(PagePoolDeathTest, MisuseStopsDebugBuildsWithAMessage) {
  PagePool pool(2);
  EXPECT_DEATH(pool.release(0), "released a page that is free");
  EXPECT_DEATH(pool.retain(0), "retained a page that is free");
  EXPECT_DEATH(pool.release(2), "not of this pool");
  EXPECT_DEATH(pool.retain(-1), "not of this pool");
  EXPECT_DEATH(static_cast<void>(pool.references(2)), "not of this pool");
  EXPECT_DEATH(PagePool(-1), "negative size");
}
#else
TEST(PagePool, MisuseLeavesThePoolOfReleaseBuildsAsItWas) {
  PagePool pool(2);
  const PageId page = *pool.allocate();
  pool.release(page);
  for (const PageId wrong : {page, PageId{1}, PageId{2}, PageId{-1}}) {
    pool.release(wrong);
    pool.retain(wrong);
    EXPECT_EQ(pool.references(wrong), 0);
  }
  EXPECT_EQ(pool.free_pages(), 2);
  EXPECT_NE(*pool.allocate(), *pool.allocate());
  EXPECT_FALSE(pool.allocate());
  EXPECT_EQ(PagePool(-1).total_pages(), 0);
}
#endif

}  // namespace
}  // namespace tessera
