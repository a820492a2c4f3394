// The prefix cache inside PagedCache against a flat model, over random operations.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <iterator>
#include <map>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tessera/kv/paged_cache.hpp"

namespace tessera {
namespace {

using Ids = std::vector<int32_t>;

struct Shape {
  const char* name;
  int32_t pages, page_size, max_context;
  PrefixHash hash;
};

uint64_t always_the_same(uint64_t, std::span<const int32_t>) { return 7; }

// A sequence is a plain list of tokens. The "device" is one number a token row, written only through block tables, copied only where a
// PageCopy says so; free pages are poisoned. Keys and values depend on the token and on all before it, so the number that a row must hold
// names the whole text up to there: a page taken after the wrong text is seen, and not only one with the wrong tokens.
class Model {
 public:
  Model(uint32_t seed, const Shape& shape)
      : random_(seed), page_size_(shape.page_size), max_context_(shape.max_context),
        cache_(*PagedCache::make(
            {.pages = shape.pages, .page_size = shape.page_size, .max_context_tokens = shape.max_context, .prefix_hash = shape.hash})),
        device_(static_cast<size_t>(shape.pages * shape.page_size), kPoison), was_known_(static_cast<size_t>(shape.pages)) {
    // Few texts with common beginnings, and pages that are equal after different beginnings.
    for (int i = 0; i < 5; ++i) {
      Ids text(static_cast<size_t>(max_context_));
      for (int32_t& token : text) token = static_cast<int32_t>(below(3));
      if (i > 0) std::copy_n(texts_[below(static_cast<uint32_t>(i))].begin(), below(static_cast<uint32_t>(max_context_)), text.begin());
      texts_.push_back(text);
    }
  }

  // One random operation and a look at everything. Empty: all as it should be.
  std::string step() {
    struct Row {
      const char* name;
      uint32_t weight;  // out of 1000
      std::string (Model::*act)();
    };
    static constexpr Row kBegin = {"begin", 140, &Model::begin};
    static constexpr Row kRows[] = {{"append", 400, &Model::append},    {"publish", 220, &Model::publish}, kBegin,
                                    {"free", 90, &Model::free},         {"truncate", 80, &Model::truncate}, {"fork", 50, &Model::fork},
                                    {"refused", 19, &Model::refused},   {"clear", 1, &Model::clear}};
    const Row* row = kRows;
    for (uint32_t at = below(1000); at >= row->weight; ++row) at -= row->weight;
    if (sequences_.empty()) row = &kBegin;
    std::string wrong = (this->*row->act)();
    if (wrong.empty()) wrong = check();
    ++operations[row->name];
    return wrong.empty() ? wrong : std::string(row->name) + ": " + wrong;
  }

  // Frees and forgets everything; the number of pages that did not come back.
  int32_t leaked() {
    while (!sequences_.empty()) free();
    cache_.clear_prefix_cache();
    return cache_.pool().total_pages() - cache_.pool().free_pages();
  }

  PagedCacheStatistics statistics() const { return cache_.statistics(); }
  std::map<std::string, int> operations;
  std::map<std::string, int> outcomes;

 private:
  static constexpr int kPoison = -1;

  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  SequenceId any() { return std::next(sequences_.begin(), below(static_cast<uint32_t>(sequences_.size())))->first; }
  const PrefixCache& prefix() const { return cache_.prefix_cache(); }
  int& row(int32_t index) { return device_[static_cast<size_t>(index)]; }
  // The number of the text that is `token` after the text numbered `before`; -1 is the empty text.
  int text_number(int before, int32_t token) { return numbers_.try_emplace({before, token}, static_cast<int>(numbers_.size())).first->second; }
  int32_t users(PageId page) const {
    int32_t count = 0;
    for (const auto& [id, ids] : sequences_) count += static_cast<int32_t>(std::ranges::count(cache_.block_table(id)->pages, page));
    return count;
  }

  std::string begin() {
    if (sequences_.size() >= 10) return free();
    const SequenceId id = cache_.create();
    Ids& ids = sequences_[id];
    if (below(4) == 0) return {};  // one that adopts nothing, so that two publish the same text
    Ids wanted = texts_[below(5)];
    wanted.resize(below(static_cast<uint32_t>(max_context_) + 1));
    if (!wanted.empty() && below(3) == 0) wanted[below(static_cast<uint32_t>(wanted.size()))] = 9;
    // What must be found, by a look at every page.
    int32_t expected = 0;
    for (PageId parent = kNoPage, next; (expected + 1) * page_size_ < static_cast<int32_t>(wanted.size()); parent = next, ++expected) {
      const std::span<const int32_t> tokens = std::span(wanted).subspan(static_cast<size_t>(expected * page_size_), static_cast<size_t>(page_size_));
      for (next = 0; next < prefix().pages(); ++next)
        if (prefix().knows(next) && prefix().parent(next) == parent && std::ranges::equal(prefix().tokens(next), tokens)) break;
      if (next == prefix().pages()) break;
    }
    const auto got = cache_.adopt(id, wanted);
    if (!got || *got != expected * page_size_) return "adopted not what is known";
    ids.assign(wanted.begin(), wanted.begin() + *got);
    published_[id] = expected;
    ++outcomes[*got > 0 ? "hit" : "miss"];
    return {};
  }

  std::string append() {
    const SequenceId id = any();
    Ids& ids = sequences_[id];
    const int32_t length = static_cast<int32_t>(ids.size());
    const int32_t tokens = static_cast<int32_t>(below(3) == 0 ? below(static_cast<uint32_t>(3 * page_size_ + 2)) : below(3));
    const PagedCacheStatistics before = cache_.statistics();
    const BlockTable old = *cache_.block_table(id);
    const Ids old_pages(old.pages.begin(), old.pages.end());
    const bool writes_last = tokens > 0 && length % page_size_ != 0;
    const bool others_use_last = writes_last && users(old_pages.back()) > 1;
    const bool last_is_known = writes_last && prefix().knows(old_pages.back());
    const int32_t available = before.free_pages + before.cached_pages;
    const int32_t needed = cache_.pages_for(length + tokens) - cache_.pages_for(length) + (others_use_last ? 1 : 0);

    const auto copy = cache_.append(id, tokens);
    if (length + tokens > max_context_ || needed > available) {
      const bool context = length + tokens > max_context_;
      ++outcomes[context ? "context full" : "out of memory"];
      if (copy || copy.error().code() != (context ? ErrorCode::kContextFull : ErrorCode::kOutOfMemory)) return "not the error expected";
      const PagedCacheStatistics after = cache_.statistics();
      const bool same = std::ranges::equal(cache_.block_table(id)->pages, old_pages) && *cache_.length(id) == length &&
                        after.free_pages == before.free_pages && after.prefix_cache.known_pages == before.prefix_cache.known_pages;
      return same ? "" : "a failed append changed something";
    }
    if (!copy) return "failed: " + copy.error().message();
    if (copy->has_value() != (others_use_last || (last_is_known && needed < available))) return "a copy too many or too few";
    if (last_is_known && !*copy) {
      ++outcomes["written in place"];
      was_known_[static_cast<size_t>(old_pages.back())] = false;  // not by eviction
    }
    if (*copy) {
      if ((*copy)->from != old_pages.back() || (*copy)->tokens != length % page_size_) return "the wrong copy";
      std::copy_n(&row((*copy)->from * page_size_), (*copy)->tokens, &row((*copy)->to * page_size_));
      ++outcomes[others_use_last ? "copied for a fork" : "copied for the prefix cache"];
    }
    const BlockTable table = *cache_.block_table(id);
    const Ids& text = texts_[below(5)];
    for (int32_t position = length; position < length + tokens; ++position) {
      ids.push_back(text[static_cast<size_t>(position)]);
      row(table.row(position)) = text_number(position == 0 ? -1 : row(table.row(position - 1)), ids.back());
    }
    return {};
  }

  std::string publish() {
    const SequenceId id = any();
    const int32_t before = prefix().known_pages();
    if (!cache_.publish(id, sequences_[id])) return "failed";
    const BlockTable table = *cache_.block_table(id);
    const int32_t full = table.length / page_size_;
    if (full == std::exchange(published_[id], full)) return prefix().known_pages() == before ? "" : "something new where no page was filled";
    // Known from the first page on, up to one whose text another page has.
    PageId parent = kNoPage;
    for (int32_t i = 0; i < full; ++i) {
      const PageId page = table.pages[static_cast<size_t>(i)];
      const PageId first = prefix().find(parent, std::span(sequences_[id]).subspan(static_cast<size_t>(i * page_size_), static_cast<size_t>(page_size_)));
      if (first == kNoPage) return "a full page is not known";
      if (first != page) break;
      parent = page;
    }
    ++outcomes[prefix().known_pages() > before ? "published" : "nothing to publish"];
    return {};
  }

  std::string truncate() {
    const SequenceId id = any();
    Ids& ids = sequences_[id];
    ids.resize(ids.size() - std::min<size_t>(ids.size(), below(2) == 0 ? below(3) : below(static_cast<uint32_t>(max_context_))));
    published_[id] = std::min(published_[id], static_cast<int32_t>(ids.size()) / page_size_);
    return cache_.truncate(id, static_cast<int32_t>(ids.size())) ? "" : "failed";
  }

  std::string fork() {
    if (sequences_.size() >= 10) return free();
    const SequenceId parent = any();
    const auto child = cache_.fork(parent);
    if (!child) return "failed";
    sequences_[*child] = sequences_[parent];
    published_[*child] = published_[parent];
    return {};
  }

  std::string free() {
    const SequenceId id = any();
    sequences_.erase(id);
    return cache_.free(id) ? "" : "failed";
  }

  std::string clear() {
    cache_.clear_prefix_cache();
    std::fill(was_known_.begin(), was_known_.end(), false);
    idle_order_.clear();
    published_.clear();
    return prefix().known_pages() == 0 ? "" : "something is still known";
  }
  std::string refused() {
    const SequenceId id = any();
    Ids wrong = sequences_[id];
    wrong.push_back(0);
    if (cache_.publish(id, wrong)) return "published more than there is";
    return !sequences_[id].empty() && cache_.adopt(id, wrong) ? "adopted into a sequence that is not empty" : "";
  }

  std::string check() {
    for (const auto& [id, ids] : sequences_) {
      const BlockTable table = *cache_.block_table(id);
      if (table.length != static_cast<int32_t>(ids.size())) return "a length differs";
      if (static_cast<int32_t>(table.pages.size()) != cache_.pages_for(table.length)) return "pages do not fit the length";
      int text = -1;
      for (int32_t position = 0; position < table.length; ++position)
        if (row(table.row(position)) != (text = text_number(text, ids[static_cast<size_t>(position)]))) return "a token's content differs";
    }
    const std::string wrong = check_pages();
    return wrong.empty() ? check_evictions() : wrong;
  }

  std::string check_pages() {
    int32_t live = 0, shared = 0, cached = 0, known = 0;
    for (PageId page = 0; page < cache_.pool().total_pages(); ++page) {
      const int32_t used_by = users(page);
      if (cache_.pool().references(page) != used_by + (prefix().knows(page) ? 1 : 0)) return "references do not add up";
      live += used_by > 0;
      shared += used_by > 1;
      known += prefix().knows(page);
      cached += prefix().knows(page) && used_by == 0;
      if (cache_.pool().references(page) == 0) std::fill_n(&row(page * page_size_), page_size_, kPoison);
      if (!prefix().knows(page)) continue;
      const PageId parent = prefix().parent(page);
      if (parent != kNoPage && (!prefix().knows(parent) || users(parent) < used_by)) return "a known page without its parent";
      int text = parent == kNoPage ? -1 : row((parent + 1) * page_size_ - 1);
      for (int32_t i = 0; i < page_size_; ++i)
        if (row(page * page_size_ + i) != (text = text_number(text, prefix().tokens(page)[static_cast<size_t>(i)]))) return "a known page was written";
    }
    const PagedCacheStatistics s = cache_.statistics();
    const bool right = s.live_pages == live && s.shared_pages == shared && s.cached_pages == cached && s.prefix_cache.known_pages == known &&
                       s.live_pages + s.cached_pages + s.free_pages == cache_.pool().total_pages() &&
                       s.sequences == static_cast<int32_t>(sequences_.size());
    return right ? "" : "statistics differ";
  }

  // Pages that are known no more were idle longest; of one sequence, the later ones first.
  std::string check_evictions() {
    std::erase_if(idle_order_, [&](PageId page) { return prefix().knows(page) && users(page) > 0; });  // adopted
    const auto evicted = [&](PageId page) { return !prefix().knows(page); };
    const auto kept = std::ranges::find_if_not(idle_order_, evicted);
    if (std::find_if(kept, idle_order_.end(), evicted) != idle_order_.end()) return "evicted a page that was used later than one that stays";
    int32_t gone = 0;
    for (PageId page = 0; page < prefix().pages(); ++page) gone += was_known_[static_cast<size_t>(page)] && !prefix().knows(page);
    if (gone != kept - idle_order_.begin()) return "a page in use was forgotten";
    evictions_ += gone;
    if (cache_.statistics().prefix_cache.evictions != evictions_) return "evictions are not counted";
    idle_order_.erase(idle_order_.begin(), kept);

    std::vector<std::pair<int, PageId>> fresh;  // became idle in this step: by depth, deepest first
    for (PageId page = 0; page < prefix().pages(); ++page) {
      was_known_[static_cast<size_t>(page)] = prefix().knows(page);
      if (!prefix().knows(page) || users(page) > 0 || std::ranges::count(idle_order_, page) > 0) continue;
      int depth = 0;
      for (PageId up = page; up != kNoPage; up = prefix().parent(up)) ++depth;
      fresh.emplace_back(-depth, page);
    }
    std::ranges::sort(fresh);
    for (const auto& [depth, page] : fresh) idle_order_.push_back(page);
    return {};
  }

  std::mt19937 random_;
  int32_t page_size_;
  int32_t max_context_;
  PagedCache cache_;
  std::vector<int> device_;  // [pages · page size]
  std::map<std::pair<int, int32_t>, int> numbers_;
  std::vector<Ids> texts_;
  std::map<SequenceId, Ids> sequences_;
  std::map<SequenceId, int32_t> published_;  // full pages at the last publish
  std::vector<bool> was_known_;
  std::vector<PageId> idle_order_;  // the page that has been idle longest first
  int64_t evictions_ = 0;
};

class PrefixCacheModel : public testing::TestWithParam<Shape> {};

TEST_P(PrefixCacheModel, AgreesWithFlatSequencesOverRandomOperations) {
  constexpr int kSteps = 50000;
  const Shape shape = GetParam();
  const uint32_t seed = 9100 + static_cast<uint32_t>(shape.page_size);
  Model model(seed, shape);
  for (int i = 0; i < kSteps; ++i) {
    const std::string wrong = model.step();
    ASSERT_EQ(wrong, "") << "seed " << seed << " step " << i;
  }
  std::cout << "seed " << seed << ", " << kSteps << " operations\n";
  for (const auto& [name, count] : model.operations) EXPECT_GT(count, 10) << name;
  const bool copies = shape.page_size > 1;  // a page of one token is never partly filled
  for (const char* name : {"hit", "miss", "published", "nothing to publish", "out of memory", "context full"}) EXPECT_GT(model.outcomes[name], 50) << name;
  for (const char* name : {"copied for a fork", "copied for the prefix cache", "written in place"})
    EXPECT_GE(model.outcomes[name], copies ? 5 : 0) << name;
  EXPECT_GT(model.statistics().prefix_cache.evictions, 500);
  EXPECT_EQ(model.leaked(), 0);
}

INSTANTIATE_TEST_SUITE_P(Shapes, PrefixCacheModel,
                         testing::Values(Shape{"page1", 40, 1, 17, hash_prefix}, Shape{"page4", 24, 4, 40, hash_prefix},
                                         Shape{"page16", 14, 16, 100, hash_prefix}, Shape{"page4_one_hash", 24, 4, 40, always_the_same}),
                         [](const auto& row) { return std::string(row.param.name); });

}  // namespace
}  // namespace tessera
