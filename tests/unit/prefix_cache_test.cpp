#include "tessera/kv/prefix_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "allocation_count.hpp"
#include "tessera/kv/paged_cache.hpp"

namespace tessera {
namespace {

using Ids = std::vector<int32_t>;

uint64_t always_the_same(uint64_t, std::span<const int32_t>) { return 7; }

PagedCache cache_of(int32_t pages, int32_t page_size = 4, PrefixHash hash = hash_prefix) {
  return *PagedCache::make({.pages = pages, .page_size = page_size, .max_context_tokens = 1000, .prefix_hash = hash});
}

// Tokens first, first + 1, …
Ids ids_of(int32_t first, int32_t count) {
  Ids ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

Ids joined(Ids head, const Ids& tail) {
  head.insert(head.end(), tail.begin(), tail.end());
  return head;
}

std::vector<PageId> pages_of(const PagedCache& cache, SequenceId id) {
  const BlockTable table = *cache.block_table(id);
  return {table.pages.begin(), table.pages.end()};
}

// A sequence that ran all of `ids`: what an engine does.
SequenceId run(PagedCache& cache, const Ids& ids) {
  const SequenceId id = cache.create();
  const int32_t held = *cache.adopt(id, ids);
  EXPECT_TRUE(cache.append(id, static_cast<int32_t>(ids.size()) - held));
  EXPECT_TRUE(cache.publish(id, ids));
  return id;
}

// Runs `ids`, and leaves only what the prefix cache keeps of it.
std::vector<PageId> run_and_free(PagedCache& cache, const Ids& ids) {
  const SequenceId id = run(cache, ids);
  const std::vector<PageId> pages = pages_of(cache, id);
  EXPECT_TRUE(cache.free(id));
  return pages;
}

// Tokens of `ids` that a new sequence would not have to run.
int32_t hit(PagedCache& cache, const Ids& ids) {
  const SequenceId id = cache.create();
  const int32_t tokens = *cache.adopt(id, ids);
  EXPECT_TRUE(cache.free(id));
  return tokens;
}

TEST(PrefixCache, ASequenceThatBeginsLikeAnEarlierOneTakesItsPages) {
  PagedCache cache = cache_of(8);
  const std::vector<PageId> pages = run_and_free(cache, ids_of(0, 10));
  EXPECT_EQ(cache.statistics().cached_pages, 2) << "full pages are kept, the partly filled one is not";
  EXPECT_EQ(cache.statistics().free_pages, 6);
  EXPECT_EQ(cache.statistics().live_pages, 0);

  const SequenceId id = cache.create();
  EXPECT_EQ(*cache.adopt(id, joined(ids_of(0, 8), ids_of(500, 9))), 8);
  EXPECT_EQ(*cache.length(id), 8);
  EXPECT_EQ(pages_of(cache, id), (std::vector<PageId>{pages[0], pages[1]}));
  EXPECT_FALSE(*cache.append(id, 9)) << "what follows whole pages needs no copy";
  EXPECT_EQ(cache.statistics().live_pages, 5);
  EXPECT_EQ(cache.statistics().cached_pages, 0);
}

TEST(PrefixCache, TakesWholePagesOfTheCommonBeginningAndNeverTheLastToken) {
  PagedCache cache = cache_of(8);
  run_and_free(cache, ids_of(0, 12));
  for (const auto& [ids, expected] : std::vector<std::pair<Ids, int32_t>>{{ids_of(0, 12), 8},
                                                                          {ids_of(0, 13), 12},
                                                                          {ids_of(0, 9), 8},
                                                                          {ids_of(0, 8), 4},
                                                                          {ids_of(0, 4), 0},
                                                                          {ids_of(0, 1), 0},
                                                                          {{}, 0},
                                                                          {joined(ids_of(0, 7), ids_of(50, 9)), 4},
                                                                          {ids_of(4, 9), 0},
                                                                          {joined(ids_of(100, 4), ids_of(4, 9)), 0}})
    EXPECT_EQ(hit(cache, ids), expected) << ids.size() << " tokens";
}

TEST(PrefixCache, NeverTakesMoreThanTheContextHolds) {
  PagedCache cache = *PagedCache::make({.pages = 8, .page_size = 4, .max_context_tokens = 10});
  run_and_free(cache, ids_of(0, 10));
  EXPECT_EQ(hit(cache, ids_of(0, 100)), 8);
}

TEST(PrefixCache, EqualHashesOfDifferentTokensAreToldApart) {
  PagedCache cache = cache_of(16, 4, always_the_same);
  const std::vector<PageId> first = run_and_free(cache, ids_of(0, 8));
  const std::vector<PageId> second = run_and_free(cache, ids_of(100, 8));
  const std::vector<PageId> third = run_and_free(cache, joined(ids_of(100, 4), ids_of(4, 4)));  // the first's second page after another first page
  EXPECT_EQ(cache.statistics().prefix_cache.known_pages, 5);
  EXPECT_EQ(hit(cache, ids_of(200, 9)), 0);
  EXPECT_EQ(hit(cache, joined(ids_of(0, 4), ids_of(104, 5))), 4);
  for (const auto& [ids, pages] : {std::pair(ids_of(0, 9), first), std::pair(ids_of(100, 9), second),
                                   std::pair(joined(ids_of(100, 4), ids_of(4, 5)), std::vector<PageId>{second[0], third[1]})}) {
    const SequenceId id = cache.create();
    EXPECT_EQ(*cache.adopt(id, ids), 8);
    EXPECT_EQ(pages_of(cache, id), pages);
    ASSERT_TRUE(cache.free(id));
  }
  cache.clear_prefix_cache();
  EXPECT_EQ(cache.statistics().free_pages, 16);
}

TEST(PrefixCache, EvictsWhatWasLetGoOfLongestAgoAndOfOneTextTheEndFirst) {
  PagedCache cache = cache_of(6);
  const Ids old = ids_of(0, 12), newer = ids_of(100, 12);
  run_and_free(cache, old);
  run_and_free(cache, newer);
  EXPECT_EQ(cache.statistics().free_pages, 0);
  EXPECT_EQ(hit(cache, joined(old, {1})), 12);  // used last from here on

  const SequenceId id = cache.create();
  for (const auto& [old_left, newer_left] : {std::pair(12, 8), std::pair(12, 4), std::pair(12, 0), std::pair(8, 0), std::pair(4, 0), std::pair(0, 0)}) {
    ASSERT_TRUE(cache.append(id, 4));
    // Looked up without taking: to take a page makes it the one used last.
    const auto known = [&](const Ids& ids) {
      PageId page = kNoPage;
      int32_t tokens = 0;
      for (; tokens < 12; tokens += 4)
        if ((page = cache.prefix_cache().find(page, std::span(ids).subspan(static_cast<size_t>(tokens), 4))) == kNoPage) break;
      return tokens;
    };
    EXPECT_EQ(known(old), old_left);
    EXPECT_EQ(known(newer), newer_left);
  }
  EXPECT_EQ(cache.statistics().prefix_cache.evictions, 6);
  EXPECT_EQ(cache.statistics().live_pages, 6);
  EXPECT_EQ(cache.append(id, 1).error().code(), ErrorCode::kOutOfMemory);
}

TEST(PrefixCache, PagesInUseAreNotEvicted) {
  PagedCache cache = cache_of(4);
  const SequenceId holder = run(cache, ids_of(0, 8));
  run_and_free(cache, ids_of(100, 8));
  const SequenceId id = cache.create();
  ASSERT_TRUE(cache.append(id, 8));
  EXPECT_EQ(hit(cache, ids_of(0, 9)), 8);
  EXPECT_EQ(hit(cache, ids_of(100, 9)), 0);
  const std::vector<PageId> before = pages_of(cache, id);
  const auto full = cache.append(id, 1);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_EQ(pages_of(cache, id), before);
  ASSERT_TRUE(cache.free(holder));
  EXPECT_TRUE(cache.append(id, 1));
}

TEST(PrefixCache, OutOfMemorySaysWhatThereIsAndChangesNothing) {
  PagedCache cache = cache_of(5);
  const SequenceId holder = run(cache, ids_of(0, 4));
  run_and_free(cache, ids_of(100, 12));
  const SequenceId id = cache.create();
  const auto full = cache.append(id, 17);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_NE(full.error().message().find("1 of 5 pages free and 3 more to take from the prefix cache"), std::string::npos) << full.error().message();
  EXPECT_EQ(*cache.length(id), 0);
  EXPECT_EQ(cache.statistics().free_pages, 1);
  EXPECT_EQ(cache.statistics().prefix_cache.evictions, 0);
  EXPECT_EQ(hit(cache, ids_of(100, 13)), 12);
  EXPECT_TRUE(cache.append(id, 16)) << "what is free and what is cached together";
  EXPECT_EQ(*cache.length(holder), 4);
}

TEST(PrefixCache, APublishedPageIsNeverWrittenAgain) {
  PagedCache cache = cache_of(8);
  const Ids ids = ids_of(0, 8);
  const SequenceId id = run(cache, ids);
  const std::vector<PageId> pages = pages_of(cache, id);
  ASSERT_TRUE(cache.truncate(id, 6));
  const auto copy = cache.append(id, 2);
  ASSERT_TRUE(copy && copy->has_value());
  EXPECT_EQ(**copy, (PageCopy{pages[1], pages_of(cache, id)[1], 2}));
  EXPECT_NE(pages_of(cache, id)[1], pages[1]);
  const Ids other = joined(ids_of(0, 6), ids_of(60, 2));
  ASSERT_TRUE(cache.publish(id, other));
  for (const Ids& text : {ids, other}) {
    const SequenceId later = cache.create();
    EXPECT_EQ(*cache.adopt(later, joined(text, {1})), 8);
    EXPECT_EQ(pages_of(cache, later)[1], text == ids ? pages[1] : pages_of(cache, id)[1]);
    ASSERT_TRUE(cache.free(later));
  }
  ASSERT_TRUE(cache.truncate(id, 4));  // at a page boundary there is nothing to copy
  EXPECT_FALSE(*cache.append(id, 1));
  EXPECT_EQ(hit(cache, joined(other, {1})), 8);
}

// Without the prefix cache this append would succeed; so it must with it.
TEST(PrefixCache, ForgetsAPageWhereThereIsNoRoomToCopyIt) {
  PagedCache cache = cache_of(3);
  const Ids ids = ids_of(0, 12);
  const SequenceId id = run(cache, ids);
  const std::vector<PageId> pages = pages_of(cache, id);
  ASSERT_TRUE(cache.truncate(id, 6));                 // the third page stays known, in use by nobody
  const auto copy = cache.append(id, 3);              // needs one page for the third, and has none for a copy of the second
  ASSERT_TRUE(copy) << copy.error().message();
  EXPECT_FALSE(copy->has_value());
  EXPECT_EQ(pages_of(cache, id)[1], pages[1]);
  EXPECT_EQ(hit(cache, ids), 4) << "the second page has new content and is not known for the old one";
  EXPECT_EQ(cache.statistics().prefix_cache.known_pages, 1);
  EXPECT_EQ(cache.statistics().prefix_cache.evictions, 1);
  EXPECT_EQ(cache.statistics().live_pages, 3);
}

TEST(PrefixCache, TheFirstToPublishATextWins) {
  PagedCache cache = cache_of(16);
  const Ids ids = ids_of(0, 8);
  const SequenceId first = cache.create(), second = cache.create();
  ASSERT_TRUE(cache.append(first, 8) && cache.append(second, 8));
  ASSERT_TRUE(cache.publish(first, ids) && cache.publish(second, ids));
  EXPECT_EQ(cache.statistics().prefix_cache.known_pages, 2);
  EXPECT_NE(pages_of(cache, second), pages_of(cache, first)) << "the second keeps its pages";
  ASSERT_TRUE(cache.append(second, 4) && cache.publish(second, ids_of(0, 12)));
  EXPECT_EQ(hit(cache, ids_of(0, 13)), 8) << "pages after one that is not known are not known";
  ASSERT_TRUE(cache.free(second));
  EXPECT_EQ(cache.statistics().live_pages, 2);
  EXPECT_EQ(cache.statistics().cached_pages, 0);
  EXPECT_EQ(cache.statistics().free_pages, 14);
}

TEST(PrefixCache, AForkPublishesOnFromWhatItShares) {
  PagedCache cache = cache_of(16);
  const SequenceId first = cache.create();
  ASSERT_TRUE(cache.append(first, 10));
  const SequenceId second = *cache.fork(first);
  ASSERT_TRUE(cache.publish(first, ids_of(0, 10)));
  const SequenceId third = *cache.fork(first);
  for (const SequenceId id : {second, third}) {
    const Ids ids = joined(ids_of(0, 10), ids_of(id == second ? 20 : 30, 2));
    ASSERT_TRUE(cache.append(id, 2) && cache.publish(id, ids));
    EXPECT_EQ(hit(cache, joined(ids, {1})), 12);
  }
  EXPECT_EQ(cache.statistics().prefix_cache.known_pages, 4);
  EXPECT_EQ(cache.statistics().shared_pages, 2) << "the prefix cache is not a user";
}

TEST(PrefixCache, CountsWhatWasLookedForAndFound) {
  PagedCache cache = cache_of(8);
  hit(cache, ids_of(0, 4));  // no whole page may be taken: not a lookup
  EXPECT_EQ(cache.statistics().prefix_cache.lookups, 0);
  run_and_free(cache, ids_of(0, 12));  // looks for 8, finds none
  hit(cache, ids_of(0, 15));           // 12 of 12
  hit(cache, joined(ids_of(0, 4), ids_of(50, 5)));  // 4 of 8
  const PrefixCacheStatistics s = cache.statistics().prefix_cache;
  EXPECT_EQ(s.lookups, 3);
  EXPECT_EQ(s.tokens_looked_up, 28);
  EXPECT_EQ(s.tokens_hit, 16);
  EXPECT_EQ(s.known_pages, 3);
  EXPECT_EQ(s.evictions, 0);
}

TEST(PrefixCache, RefusesWhatDoesNotFitTheSequence) {
  PagedCache cache = cache_of(8);
  const SequenceId id = run(cache, ids_of(0, 6));
  EXPECT_EQ(cache.adopt(id, ids_of(0, 9)).error().code(), ErrorCode::kInvalidArgument);
  for (const int32_t count : {0, 5, 7}) EXPECT_EQ(cache.publish(id, ids_of(0, count)).error().code(), ErrorCode::kInvalidArgument);
  const SequenceId fork = *cache.fork(id);
  cache.clear_prefix_cache();
  ASSERT_TRUE(cache.publish(id, ids_of(0, 6)));
  EXPECT_EQ(cache.publish(fork, ids_of(90, 6)).error().code(), ErrorCode::kInvalidArgument) << "one page cannot hold two texts";
  ASSERT_TRUE(cache.free(fork));
  EXPECT_EQ(cache.adopt(fork, ids_of(0, 9)).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(cache.publish(fork, {}).error().code(), ErrorCode::kInvalidArgument);
}

TEST(PrefixCache, ClearingForgetsAllAndTakesNothingFromSequences) {
  PagedCache cache = cache_of(8);
  const SequenceId id = run(cache, ids_of(0, 8));
  run_and_free(cache, joined(ids_of(0, 4), ids_of(40, 4)));
  const std::vector<PageId> pages = pages_of(cache, id);
  cache.clear_prefix_cache();
  EXPECT_EQ(cache.statistics().prefix_cache.known_pages, 0);
  EXPECT_EQ(cache.statistics().cached_pages, 0);
  EXPECT_EQ(cache.statistics().live_pages, 2);
  EXPECT_EQ(pages_of(cache, id), pages);
  EXPECT_EQ(hit(cache, ids_of(0, 9)), 0);
  ASSERT_TRUE(cache.publish(id, ids_of(0, 8)));
  EXPECT_EQ(hit(cache, ids_of(0, 9)), 8) << "what a sequence holds can be published again";
}

TEST(PrefixCache, CanBeTurnedOff) {
  PagedCache cache = *PagedCache::make({.pages = 8, .page_size = 4, .max_context_tokens = 100, .prefix_cache = false});
  run_and_free(cache, ids_of(0, 12));
  EXPECT_EQ(hit(cache, ids_of(0, 12)), 0);
  cache.clear_prefix_cache();
  EXPECT_EQ(cache.statistics().free_pages, 8);
  EXPECT_EQ(cache.statistics().prefix_cache.lookups, 0);
}

TEST(PrefixCache, AllocatesNoHostMemoryAfterItWasMade) {
  PagedCache cache = cache_of(16, 4);
  const Ids texts[] = {ids_of(0, 45), ids_of(100, 45), joined(ids_of(0, 20), ids_of(200, 25))};
  ASSERT_TRUE(cache.free(cache.create()));  // the memory for one sequence
  const int64_t before = allocation_count;
  bool good = true;
  for (int round = 0; round < 30; ++round) {
    const std::span<const int32_t> ids = texts[round % 3];
    const SequenceId id = cache.create();
    const Result<int32_t> held = cache.adopt(id, ids);
    good = good && held.has_value();
    for (int32_t n = held.value_or(0) + 1; n <= 45; ++n) good = good && cache.append(id, 1) && cache.publish(id, ids.first(static_cast<size_t>(n)));
    good = good && cache.truncate(id, 30) && cache.append(id, 1) && cache.free(id);
  }
  cache.clear_prefix_cache();
  EXPECT_EQ(allocation_count - before, 0);
  EXPECT_TRUE(good);
  EXPECT_GT(cache.statistics().prefix_cache.evictions, 20);
  EXPECT_GT(cache.statistics().prefix_cache.tokens_hit, 100);
  EXPECT_EQ(cache.statistics().free_pages, 16);
}

TEST(PrefixCache, TheHashTellsOrderAndParentApart) {
  const Ids up = {1, 2}, down = {2, 1}, zeros = {0, 0};
  EXPECT_NE(hash_prefix(0, up), hash_prefix(0, down));
  EXPECT_NE(hash_prefix(0, up), hash_prefix(1, up));
  EXPECT_NE(hash_prefix(0, zeros), hash_prefix(hash_prefix(0, zeros), zeros));
  // 4096 pages that differ in one token spread over 4096 buckets about as chance would: at least 1 - 1/e of them are hit, less 5%.
  std::vector<bool> seen(4096);
  for (int32_t token = 0; token < 4096; ++token) seen[hash_prefix(0, Ids{5, token, 9}) & 4095] = true;
  EXPECT_GT(std::count(seen.begin(), seen.end(), true), 4096 * 0.58);
}

}  // namespace
}  // namespace tessera
