#include "tessera/kv/paged_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "allocation_count.hpp"

namespace tessera {
namespace {

PagedCache cache_of(int32_t pages, int32_t page_size, int32_t max_context, int32_t window = 0) {
  return *PagedCache::make({.pages = pages, .page_size = page_size, .max_context_tokens = max_context, .window = window});
}

std::vector<PageId> pages_of(const PagedCache& cache, SequenceId id) {
  const BlockTable table = *cache.block_table(id);
  return {table.pages.begin(), table.pages.end()};
}

bool mentions(const Error& error, const std::string& text) { return error.message().find(text) != std::string::npos; }

TEST(PageSize, IsAPowerOfTwo) {
  for (const int32_t tokens : {1, 2, 16, 64, 1 << 30}) EXPECT_EQ(PageSize::of(tokens)->tokens(), tokens);
  for (const int32_t tokens : {0, -1, -16, 3, 15, 17, INT32_MAX, INT32_MIN}) {
    ASSERT_FALSE(PageSize::of(tokens)) << tokens;
    EXPECT_EQ(PageSize::of(tokens).error().code(), ErrorCode::kInvalidArgument);
    EXPECT_TRUE(mentions(PageSize::of(tokens).error(), std::to_string(tokens)));
  }
}

TEST(PageSize, CutsPositionsAsDivisionDoes) {
  for (const int32_t tokens : {1, 4, 16}) {
    const PageSize size = *PageSize::of(tokens);
    for (int32_t n = 0; n < 70; ++n) {
      EXPECT_EQ(size.page_of(n), n / tokens);
      EXPECT_EQ(size.offset_of(n), n % tokens);
      EXPECT_EQ(size.pages_for(n), (n + tokens - 1) / tokens);
    }
    EXPECT_EQ(size.pages_for(INT32_MAX), static_cast<int32_t>((int64_t{INT32_MAX} + tokens - 1) / tokens));
  }
}

TEST(BlockTable, RowsFollowThePages) {
  const std::vector<PageId> pages = {7, 0, 3};
  const BlockTable table{pages, 10, *PageSize::of(4)};
  EXPECT_EQ(table.row(0), 28);
  EXPECT_EQ(table.row(3), 31);
  EXPECT_EQ(table.row(4), 0);
  EXPECT_EQ(table.row(9), 13);
}

TEST(PagedCache, RefusesOptionsOutOfRange) {
  const PagedCacheOptions bad[] = {
      {.pages = 0, .page_size = 16, .max_context_tokens = 64},  {.pages = -3, .page_size = 16, .max_context_tokens = 64},
      {.pages = 8, .page_size = 12, .max_context_tokens = 64},  {.pages = 8, .page_size = 16, .max_context_tokens = 0},
      {.pages = 8, .page_size = 16, .max_context_tokens = -64}, {.pages = 1 << 27, .page_size = 16, .max_context_tokens = 64},
  };
  for (const PagedCacheOptions& options : bad) {
    const Result<PagedCache> cache = PagedCache::make(options);
    ASSERT_FALSE(cache) << options.pages << ' ' << options.page_size << ' ' << options.max_context_tokens;
    EXPECT_EQ(cache.error().code(), ErrorCode::kInvalidArgument);
  }
}

TEST(PagedCache, TakesPagesAsTokensComeAndGivesThemBack) {
  PagedCache cache = cache_of(8, 4, 32);
  const SequenceId id = cache.create();
  EXPECT_EQ(*cache.length(id), 0);
  EXPECT_EQ(cache.statistics().live_pages, 0);
  for (int32_t n = 1; n <= 9; ++n) {
    ASSERT_TRUE(cache.append(id, 1));
    EXPECT_EQ(*cache.length(id), n);
    EXPECT_EQ(cache.statistics().live_pages, (n + 3) / 4);
  }
  ASSERT_TRUE(cache.truncate(id, 8));
  EXPECT_EQ(pages_of(cache, id).size(), 2u);
  ASSERT_TRUE(cache.truncate(id, 5));
  EXPECT_EQ(pages_of(cache, id).size(), 2u);
  ASSERT_TRUE(cache.truncate(id, 0));
  EXPECT_EQ(cache.statistics().free_pages, 8);
  ASSERT_TRUE(cache.append(id, 32));
  EXPECT_EQ(cache.statistics().free_pages, 0);
  ASSERT_TRUE(cache.free(id));
  EXPECT_EQ(cache.statistics().free_pages, 8);
  EXPECT_EQ(cache.statistics().sequences, 0);
}

TEST(PagedCache, ForkCopiesNothingUntilOneSideWrites) {
  PagedCache cache = cache_of(8, 4, 32);
  const SequenceId first = cache.create();
  ASSERT_TRUE(cache.append(first, 6));
  const std::vector<PageId> pages = pages_of(cache, first);
  const SequenceId second = *cache.fork(first);
  EXPECT_EQ(pages_of(cache, second), pages);
  EXPECT_EQ(*cache.length(second), 6);
  EXPECT_EQ(cache.statistics().live_pages, 2);
  EXPECT_EQ(cache.statistics().shared_pages, 2);

  const auto copy = cache.append(second, 1);
  ASSERT_TRUE(copy);
  ASSERT_TRUE(copy->has_value());
  EXPECT_EQ(**copy, (PageCopy{pages[1], pages_of(cache, second)[1], 2}));
  EXPECT_NE((*copy)->to, pages[1]);
  EXPECT_EQ(pages_of(cache, first), pages) << "the other side keeps its pages";
  EXPECT_EQ(cache.statistics().live_pages, 3);
  EXPECT_EQ(cache.statistics().shared_pages, 1);
  EXPECT_FALSE(*cache.append(first, 1)) << "the page is no longer shared: nothing to copy";
}

TEST(PagedCache, ForkAtAPageBoundaryNeverCopies) {
  PagedCache cache = cache_of(8, 4, 32);
  const SequenceId first = cache.create();
  ASSERT_TRUE(cache.append(first, 8));
  const SequenceId second = *cache.fork(first);
  EXPECT_FALSE(*cache.append(second, 3));
  EXPECT_FALSE(*cache.append(first, 3));
  EXPECT_EQ(cache.statistics().live_pages, 4);
}

TEST(PagedCache, TruncatingIntoASharedPageCopiesOnlyWhatRemains) {
  PagedCache cache = cache_of(8, 4, 32);
  const SequenceId first = cache.create();
  ASSERT_TRUE(cache.append(first, 8));
  const SequenceId second = *cache.fork(first);
  ASSERT_TRUE(cache.truncate(second, 3));
  const auto copy = cache.append(second, 6);
  ASSERT_TRUE(copy && copy->has_value());
  EXPECT_EQ((*copy)->from, pages_of(cache, first)[0]);
  EXPECT_EQ((*copy)->tokens, 3);
}

TEST(PagedCache, AppendOfNothingNeverCopies) {
  PagedCache cache = cache_of(4, 4, 16);
  const SequenceId first = cache.create();
  EXPECT_FALSE(*cache.append(first, 0));
  ASSERT_TRUE(cache.append(first, 2));
  const SequenceId second = *cache.fork(first);
  EXPECT_FALSE(*cache.append(second, 0));
  EXPECT_EQ(cache.statistics().live_pages, 1);
}

TEST(PagedCache, FullContextSaysBothNumbersAndChangesNothing) {
  PagedCache cache = cache_of(8, 4, 10);
  const SequenceId id = cache.create();
  ASSERT_TRUE(cache.append(id, 7));
  const std::vector<PageId> before = pages_of(cache, id);
  for (const int32_t tokens : {4, INT32_MAX}) {
    const auto full = cache.append(id, tokens);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code(), ErrorCode::kContextFull);
    EXPECT_TRUE(mentions(full.error(), "7") && mentions(full.error(), "10")) << full.error().message();
    EXPECT_EQ(pages_of(cache, id), before);
    EXPECT_EQ(*cache.length(id), 7);
  }
  EXPECT_TRUE(cache.append(id, 3)) << "the last token that fits";
}

TEST(PagedCache, FullPoolChangesNothing) {
  PagedCache cache = cache_of(3, 4, 100);
  const SequenceId first = cache.create();
  ASSERT_TRUE(cache.append(first, 6));
  const SequenceId second = *cache.fork(first);
  const auto full = cache.append(second, 5);  // one page for the copy, one for token 9: only one is free
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_TRUE(mentions(full.error(), "1 of 3")) << full.error().message();
  EXPECT_EQ(pages_of(cache, second), pages_of(cache, first));
  EXPECT_EQ(*cache.length(second), 6);
  EXPECT_EQ(cache.statistics().free_pages, 1);
  EXPECT_TRUE(cache.append(second, 2)) << "what fits still goes";
}

TEST(PagedCache, ArgumentsOutOfRange) {
  PagedCache cache = cache_of(4, 4, 16);
  const SequenceId id = cache.create();
  ASSERT_TRUE(cache.append(id, 5));
  EXPECT_EQ(cache.append(id, -1).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(cache.truncate(id, -1).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(cache.truncate(id, 6).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(*cache.length(id), 5);
}

TEST(PagedCache, UnknownSequencesAreRefusedEverywhere) {
  PagedCache cache = cache_of(4, 4, 16);
  const SequenceId gone = cache.create();
  EXPECT_FALSE(cache.length(SequenceId{})) << "an id that nobody set must not name the first sequence";
  ASSERT_TRUE(cache.free(gone));
  const SequenceId newer = cache.create();
  EXPECT_NE(newer, gone) << "a freed id must not name the sequence that follows it";
  for (const SequenceId id : {gone, SequenceId{}, SequenceId{99}, SequenceId{UINT64_MAX}}) {
    EXPECT_EQ(cache.append(id, 1).error().code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(cache.truncate(id, 0).error().code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(cache.fork(id).error().code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(cache.free(id).error().code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(cache.length(id).error().code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(cache.block_table(id).error().code(), ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(cache.statistics().sequences, 1);
}

TEST(PagedCache, PerTokenPathAllocatesNoHostMemory) {
  PagedCache cache = cache_of(512, 4, 1000);
  const SequenceId first = cache.create();
  ASSERT_TRUE(cache.append(first, 301));
  const SequenceId second = *cache.fork(first);
  const int64_t before = allocation_count;
  bool good = true;
  for (int i = 0; i < 600; ++i) {
    good = good && cache.append(first, 1) && cache.append(second, 1) && cache.block_table(first)->row(301 + i) >= 0;
    if (i % 50 == 0) good = good && cache.truncate(second, *cache.length(second) - 1);
  }
  EXPECT_EQ(allocation_count - before, 0);
  EXPECT_TRUE(good);
  ASSERT_TRUE(cache.free(second));
  const int64_t freed = allocation_count;
  EXPECT_TRUE(cache.fork(first).has_value());
  EXPECT_EQ(allocation_count - freed, 0) << "a fork reuses the memory of a freed sequence";
}

// The model: a sequence is a plain list of token values. The "device" is one int a token row; the test writes it only through block tables
// and copies it only where a PageCopy says so, and poisons every free page. If the bookkeeping is wrong anywhere, a value is wrong.
// The page that a copy goes to may be the one that the same append lets go of.
TEST(PagedCache, LetsGoBehindTheWindowBeforeItTakes) {
  PagedCache cache = cache_of(3, 4, 64, 4);
  const SequenceId a = cache.create();
  ASSERT_TRUE(cache.append(a, 8));
  const SequenceId b = *cache.fork(a);
  ASSERT_TRUE(cache.append(b, 1));   // lets go of the first page, which a holds still
  ASSERT_EQ(cache.truncate(a, 7).value_or(-1), 7);
  ASSERT_EQ(cache.available_pages(), 0);
  const auto copy = cache.append(a, 1);   // the last page is b's as well, and the first one is a's alone
  ASSERT_TRUE(copy) << copy.error().message();
  EXPECT_EQ(*copy, (PageCopy{.from = pages_of(cache, b)[1], .to = pages_of(cache, a)[1], .tokens = 3}));
  EXPECT_TRUE(cache.free(a) && cache.free(b));
  EXPECT_EQ(cache.available_pages(), 3);
}

class Model {
 public:
  Model(uint32_t seed, int32_t pages, int32_t page_size, int32_t max_context, int32_t window)
      : random_(seed), page_size_(page_size), max_context_(max_context), window_(window), cache_(cache_of(pages, page_size, max_context, window)),
        device_(static_cast<size_t>(pages) * static_cast<size_t>(page_size), kPoison) {}

  struct Outcomes {
    int appends = 0, copies = 0, out_of_memory = 0, context_full = 0, truncates = 0, forks = 0, frees = 0, refused = 0, let_go = 0, begun_anew = 0;
  } outcomes;

  // One random operation. Empty: all as it should be.
  std::string step() {
    const uint32_t action = below(100);
    if (sequences_.empty() || (action < 4 && sequences_.size() < 12)) {
      sequences_[cache_.create()];
    } else if (action < 6 && !dead_.empty()) {
      return refused(dead_[below(static_cast<uint32_t>(dead_.size()))]);
    } else if (action < 70) {
      return append();
    } else if (action < 84) {
      return truncate();
    } else if (action < 93 && sequences_.size() < 12) {
      return fork();
    } else {
      return free(any());
    }
    return {};
  }

  std::string check() {
    std::vector<int32_t> references(static_cast<size_t>(cache_.pool().total_pages()), 0);
    for (const auto& [id, values] : sequences_) {
      const BlockTable table = *cache_.block_table(id);
      if (table.length != static_cast<int32_t>(values.size())) return "a length differs";
      const size_t page_size = static_cast<size_t>(page_size_);
      if (table.pages.size() != (values.size() + page_size - 1) / page_size) return "pages do not fit the length";
      if (table.first != first_[id]) return "not the pages before the window are let go";
      for (const PageId page : held(table)) ++references[static_cast<size_t>(page)];
      for (int32_t position = table.first * page_size_; position < table.length; ++position)
        if (device_[static_cast<size_t>(table.row(position))] != values[static_cast<size_t>(position)]) return "a token's content differs";
    }
    int32_t live = 0, shared = 0;
    for (size_t page = 0; page < references.size(); ++page) {
      if (cache_.pool().references(static_cast<PageId>(page)) != references[page]) return "references do not add up";
      live += references[page] > 0;
      shared += references[page] > 1;
      if (references[page] == 0) poison(static_cast<PageId>(page));
    }
    const PagedCacheStatistics s = cache_.statistics();
    const bool right = s.live_pages == live && s.shared_pages == shared && s.free_pages == static_cast<int32_t>(references.size()) - live &&
                       s.sequences == static_cast<int32_t>(sequences_.size());
    return right ? "" : "statistics differ";
  }

  // Frees everything; the number of pages that did not come back.
  int32_t leaked() {
    while (!sequences_.empty()) free(sequences_.begin()->first);
    return cache_.pool().total_pages() - cache_.pool().free_pages();
  }

 private:
  static constexpr int kPoison = -1;

  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  SequenceId any() { return std::next(sequences_.begin(), below(static_cast<uint32_t>(sequences_.size())))->first; }
  void poison(PageId page) { std::fill_n(device_.begin() + page * page_size_, page_size_, kPoison); }

  static std::span<const PageId> held(const BlockTable& table) { return table.pages.subspan(static_cast<size_t>(table.first)); }
  // The first page that the token at `length` sees.
  int32_t first_seen(int32_t length) const { return window_ == 0 ? 0 : std::max(0, length - window_ + 1) / page_size_; }

  bool is_shared(PageId page) {
    int owners = 0;
    for (const auto& [other, values] : sequences_) owners += std::ranges::count(held(*cache_.block_table(other)), page) > 0;
    return owners > 1;
  }

  std::string append() {
    const SequenceId id = any();
    std::vector<int>& values = sequences_[id];
    const int32_t length = static_cast<int32_t>(values.size());
    const int32_t tokens = below(4) == 0 ? static_cast<int32_t>(below(static_cast<uint32_t>(3 * page_size_ + 2))) : 1;
    const std::vector<PageId> table_before = pages_of(cache_, id);
    const bool copy_expected = tokens > 0 && length % page_size_ != 0 && is_shared(table_before.back());
    int32_t pages_needed = (length + tokens + page_size_ - 1) / page_size_ - (length + page_size_ - 1) / page_size_ + (copy_expected ? 1 : 0);
    for (int32_t i = first_[id]; i < first_seen(length); ++i) pages_needed -= !is_shared(table_before[static_cast<size_t>(i)]);
    const int32_t free_before = cache_.statistics().free_pages;
    if (cache_.pages_to_append(id, tokens).value_or(INT32_MAX) != pages_needed) return "not as many pages to append";

    const auto copy = cache_.append(id, tokens);
    if (!copy) return append_failed(copy.error().code(), id, table_before, length + tokens > max_context_, pages_needed > free_before, free_before);
    if (length + tokens > max_context_ || pages_needed > free_before) return "an append that must fail succeeded";
    if (copy->has_value() != copy_expected) return copy_expected ? "a shared page was not copied" : "a page was copied needlessly";
    if (*copy && (*copy)->tokens != length % page_size_) return "a copy of the wrong number of tokens";
    if (*copy) {
      std::copy_n(device_.begin() + (*copy)->from * page_size_, (*copy)->tokens, device_.begin() + (*copy)->to * page_size_);
      ++outcomes.copies;
    }
    outcomes.let_go += first_seen(length) > first_[id];
    first_[id] = std::max(first_[id], first_seen(length));
    const BlockTable table = *cache_.block_table(id);
    for (int32_t position = length; position < length + tokens; ++position) {
      values.push_back(next_value_++);
      device_[static_cast<size_t>(table.row(position))] = values.back();
    }
    ++outcomes.appends;
    return {};
  }

  std::string append_failed(ErrorCode code, SequenceId id, const std::vector<PageId>& table_before, bool context_full, bool out_of_memory,
                            int32_t free_before) {
    if (code != (context_full ? ErrorCode::kContextFull : ErrorCode::kOutOfMemory) || !(context_full || out_of_memory)) return "the wrong error";
    if (pages_of(cache_, id) != table_before || cache_.statistics().free_pages != free_before) return "a failed append changed something";
    ++(context_full ? outcomes.context_full : outcomes.out_of_memory);
    return {};
  }

  std::string truncate() {
    const SequenceId id = any();
    std::vector<int>& values = sequences_[id];
    const size_t back = std::min<size_t>(values.size(), below(2) == 0 ? below(3) : below(static_cast<uint32_t>(max_context_)));
    values.resize(values.size() - back);
    ++outcomes.truncates;
    const Result<int32_t> kept = cache_.truncate(id, static_cast<int32_t>(values.size()));
    if (first_seen(static_cast<int32_t>(values.size())) < first_[id]) {   // what the next token sees is not all there
      values.clear();
      ++outcomes.begun_anew;
    }
    first_[id] = std::min(first_[id], static_cast<int32_t>(values.size() + static_cast<size_t>(page_size_) - 1) / page_size_);
    return kept && *kept == static_cast<int32_t>(values.size()) ? "" : "truncate failed, or kept another number of tokens";
  }

  std::string fork() {
    const SequenceId parent = any();
    const int32_t free_before = cache_.statistics().free_pages;
    const Result<SequenceId> child = cache_.fork(parent);
    if (!child || sequences_.count(*child) > 0 || cache_.statistics().free_pages != free_before) return "fork failed, or took pages";
    sequences_[*child] = sequences_[parent];
    first_[*child] = first_[parent];
    ++outcomes.forks;
    return {};
  }

  std::string free(SequenceId id) {
    sequences_.erase(id);
    dead_.push_back(id);
    ++outcomes.frees;
    return cache_.free(id) ? "" : "free failed";
  }

  std::string refused(SequenceId id) {
    ++outcomes.refused;
    return cache_.append(id, 1) || cache_.fork(id) || cache_.free(id) || cache_.truncate(id, 0) ? "a dead sequence was accepted" : "";
  }

  std::mt19937 random_;
  int32_t page_size_;
  int32_t max_context_;
  int32_t window_;
  PagedCache cache_;
  std::vector<int> device_;  // [pages · page size]
  std::map<SequenceId, std::vector<int>> sequences_;
  std::map<SequenceId, int32_t> first_;   // pages of each that the window has left behind
  std::vector<SequenceId> dead_;
  int next_value_ = 0;
};

struct Shape {
  int32_t pages, page_size, max_context, window = 0;
};

class PagedCacheModel : public testing::TestWithParam<Shape> {};

TEST_P(PagedCacheModel, AgreesWithFlatSequencesOverRandomOperations) {
  constexpr int kSteps = 50000;
  const Shape shape = GetParam();
  const uint32_t seed = 7100 + static_cast<uint32_t>(shape.page_size);
  std::cout << "seed " << seed << ", " << kSteps << " operations\n";
  Model model(seed, shape.pages, shape.page_size, shape.max_context, shape.window);
  for (int i = 0; i < kSteps; ++i) {
    const std::string step = model.step();
    ASSERT_EQ(step, "") << "seed " << seed << " step " << i;
    const std::string state = model.check();
    ASSERT_EQ(state, "") << "seed " << seed << " step " << i;
  }
  const Model::Outcomes& seen = model.outcomes;
  for (const int count : {seen.appends, seen.out_of_memory, seen.context_full, seen.truncates, seen.forks, seen.frees, seen.refused})
    EXPECT_GT(count, 50) << "the random walk misses a kind of outcome";
  if (shape.page_size > 1) EXPECT_GT(seen.copies, 50);
  else EXPECT_EQ(seen.copies, 0) << "a page of one token is never partly filled";
  for (const int count : {seen.let_go, seen.begun_anew}) EXPECT_TRUE(shape.window == 0 ? count == 0 : count > 50) << count << " pages behind the window";
  EXPECT_EQ(model.leaked(), 0);
}

INSTANTIATE_TEST_SUITE_P(Shapes, PagedCacheModel, testing::Values(Shape{40, 1, 17}, Shape{24, 4, 40}, Shape{14, 16, 100}, Shape{36, 1, 12, 6}, Shape{24, 4, 36, 13}),
                         [](const auto& row) { return "page" + std::to_string(row.param.page_size) + (row.param.window == 0 ? "" : "_window" + std::to_string(row.param.window)); });

}  // namespace
}  // namespace tessera
