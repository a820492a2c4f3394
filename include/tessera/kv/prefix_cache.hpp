// Which pages of the KV cache hold which tokens, so that a sequence that begins like an earlier one takes that one's pages instead of
// running the tokens again. Pure host logic; PagedCache owns it, counts the references, and says what is in use.
// Source of the idea: vLLM's automatic prefix caching (a page is found by the hash of its parent and of its own tokens).
#pragma once
#include <algorithm>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tessera/kv/block_table.hpp"
#include "tessera/kv/page_pool.hpp"

namespace tessera {

inline constexpr PageId kNoPage = -1;

// The hash of the text that ends with `tokens`, given that of the text before them (0 at the beginning). Only speed depends on it.
using PrefixHash = uint64_t (*)(uint64_t parent, std::span<const int32_t> tokens);

// One multiply a token spreads it upwards, the shift brings it down again, for the buckets are chosen by the low bits.
inline uint64_t hash_prefix(uint64_t parent, std::span<const int32_t> tokens) {
  uint64_t hash = parent + 0x9e3779b97f4a7c15u;  // 2^64 / golden ratio: a page of zeros at the beginning does not hash to 0
  for (const int32_t token : tokens) {
    hash = (hash ^ static_cast<uint32_t>(token)) * 0xff51afd7ed558ccdu;  // odd, so nothing is lost; from MurmurHash3's finalizer
    hash ^= hash >> 32;
  }
  return hash;
}

struct PrefixCacheStatistics {
  int32_t known_pages = 0;       // whether in use or not
  int64_t lookups = 0;           // that had at least one whole page to look for
  int64_t tokens_looked_up = 0;  // in the whole pages of those lookups
  int64_t tokens_hit = 0;        // of these; tokens_hit / tokens_looked_up is the hit rate
  int64_t evictions = 0;         // pages given up for want of free ones
};

// Full pages as a forest: a page's parent is the page of the tokens just before its own. A page is taken for a text only if its parent is
// the page that was taken for the text before and all its tokens are equal: two texts with one hash are told apart.
//
// A known page is in use (a sequence holds it) or idle. PagedCache keeps this: who holds a page holds its parent too, and lets go of the
// page first. So an idle page has no descendant in use, and all of them became idle before it did: the page that has been idle longest is
// always a leaf, and eviction by age alone takes the longest suffix first and never orphans a page.
//
// Every operation is O(1), those that read tokens O(page size), given a hash that spreads; none allocates memory after construction.
class PrefixCache {
 public:
  PrefixCache(int32_t pages, PageSize page_size, PrefixHash hash = hash_prefix);  // pages = 0: knows nothing ever

  // The page known for `tokens` (page size of them) after the text that ends in `parent`; kNoPage as parent: at the beginning, as result: none.
  PageId find(PageId parent, std::span<const int32_t> tokens) const;
  // `page`, which is in use and not known, becomes known for a text that is not known.
  void insert(PageId page, PageId parent, std::span<const int32_t> tokens);
  void forget(PageId page);   // a known page; its known children, if any, must be forgotten too before anything else is asked
  void set_idle(PageId page);
  void set_in_use(PageId page);
  PageId oldest_idle() const { return entries_[sentinel()].newer; }  // kNoPage: none is idle

  bool knows(PageId page) const { return page >= 0 && page < pages() && at(page).known; }
  PageId parent(PageId page) const { return at(page).parent; }                // of a known page
  std::span<const int32_t> tokens(PageId page) const {                        // of a known page
    return std::span(tokens_).subspan(static_cast<size_t>(page) << page_size_.log2(), static_cast<size_t>(page_size_.tokens()));
  }
  int32_t pages() const { return static_cast<int32_t>(entries_.size()) - 1; }  // that it can know
  int32_t known_pages() const { return known_; }
  int32_t idle_pages() const { return idle_; }

 private:
  struct Entry {
    uint64_t hash = 0;              // of the text up to the end of this page
    PageId parent = kNoPage;
    PageId next_in_bucket = kNoPage;
    PageId older = kNoPage;         // among the idle ones
    PageId newer = kNoPage;
    bool known = false;
    bool idle = false;
  };

  const Entry& at(PageId page) const { return entries_[static_cast<size_t>(page)]; }
  Entry& at(PageId page) { return entries_[static_cast<size_t>(page)]; }
  Entry& or_end(PageId page) { return page == kNoPage ? entries_[sentinel()] : at(page); }
  size_t sentinel() const { return entries_.size() - 1; }
  size_t bucket_of(uint64_t hash) const { return static_cast<size_t>(hash) & (buckets_.size() - 1); }
  uint64_t hash_of(PageId parent, std::span<const int32_t> tokens) const { return hash_(parent == kNoPage ? 0 : at(parent).hash, tokens); }

  PageSize page_size_;
  PrefixHash hash_;
  std::vector<Entry> entries_;   // by page; one more closes the ring of idle pages: its `newer` is the oldest, its `older` the newest
  std::vector<int32_t> tokens_;  // [pages · page size]
  std::vector<PageId> buckets_;  // first page of each bucket; a power of two, at least one bucket a page
  int32_t known_ = 0;
  int32_t idle_ = 0;
};

inline PrefixCache::PrefixCache(int32_t pages, PageSize page_size, PrefixHash hash) : page_size_(page_size), hash_(hash) {
  const size_t count = static_cast<size_t>(std::max(pages, 0));
  entries_.resize(count + 1);
  tokens_.resize(count << page_size.log2());
  buckets_.resize(std::bit_ceil(count), kNoPage);  // bit_ceil(0) = 1
}

inline PageId PrefixCache::find(PageId parent, std::span<const int32_t> tokens) const {
  const uint64_t hash = hash_of(parent, tokens);
  PageId page = buckets_[bucket_of(hash)];
  while (page != kNoPage && !(at(page).hash == hash && at(page).parent == parent && std::ranges::equal(this->tokens(page), tokens)))
    page = at(page).next_in_bucket;
  return page;
}

inline void PrefixCache::insert(PageId page, PageId parent, std::span<const int32_t> tokens) {
  assert(!knows(page) && (parent == kNoPage || knows(parent)) && "a page made known twice, or after a text that is not known");
  assert(find(parent, tokens) == kNoPage && "a text made known twice");
  const uint64_t hash = hash_of(parent, tokens);
  std::ranges::copy(tokens, tokens_.begin() + (static_cast<ptrdiff_t>(page) << page_size_.log2()));
  PageId& first = buckets_[bucket_of(hash)];
  at(page) = {.hash = hash, .parent = parent, .next_in_bucket = first, .known = true};
  first = page;
  ++known_;
}

inline void PrefixCache::forget(PageId page) {
  set_in_use(page);
  PageId* link = &buckets_[bucket_of(at(page).hash)];
  while (*link != page) link = &at(*link).next_in_bucket;
  *link = at(page).next_in_bucket;
  at(page) = {};
  --known_;
}

inline void PrefixCache::set_idle(PageId page) {
  Entry& entry = at(page);
  if (entry.idle) return;
  Entry& end = entries_[sentinel()];
  entry.idle = true;
  entry.older = end.older;
  entry.newer = kNoPage;
  or_end(end.older).newer = page;
  end.older = page;
  ++idle_;
}

inline void PrefixCache::set_in_use(PageId page) {
  Entry& entry = at(page);
  if (!entry.idle) return;
  or_end(entry.older).newer = entry.newer;
  or_end(entry.newer).older = entry.older;
  entry.idle = false;
  entry.older = entry.newer = kNoPage;
  --idle_;
}

}  // namespace tessera
