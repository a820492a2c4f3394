// The paged KV cache as bookkeeping: which pages hold the tokens of which sequence. Forks share pages and copy on write; full pages that a
// sequence publishes stay known when it is freed, and a later sequence that begins with the same tokens adopts them.
// Pure host logic: the engine keeps the device tensors and does the page copies that append() asks for.
// Source of the idea: PagedAttention (Kwon et al., SOSP 2023, arXiv 2309.06180), section 4.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"
#include "tessera/kv/block_table.hpp"
#include "tessera/kv/page_pool.hpp"
#include "tessera/kv/prefix_cache.hpp"

namespace tessera {

struct PagedCacheOptions {
  int32_t pages = 0;               // in the pool, for all sequences together; >= 1
  int32_t page_size = 16;          // tokens; a power of two; pages · page_size must fit an int32 (kernels index rows with one)
  int32_t max_context_tokens = 0;  // of one sequence; >= 1; may exceed what the pool holds
  int32_t window = 0;              // tokens that a token sees, itself among them, the last of all; append() lets go of the pages before them. 0: all
  bool prefix_cache = true;        // false, or a window, for which a text's first pages do not stay: publish() and adopt() do nothing
  PrefixHash prefix_hash = hash_prefix;  // the tests give one that collides
};

// Names a sequence of one cache. An id is not used again, so one that was freed is told apart from a newer sequence. SequenceId{} names none.
enum class SequenceId : uint64_t {};

// The first `tokens` tokens of page `from`, in every layer, belong in page `to` as well.
struct PageCopy {
  PageId from;
  PageId to;
  int32_t tokens;
  bool operator==(const PageCopy&) const = default;
};

struct PagedCacheStatistics {
  int32_t sequences;
  int32_t live_pages;    // pages in use by sequences; a shared page counts once
  int32_t shared_pages;  // pages in use by two sequences or more
  int32_t cached_pages;  // pages in use by no sequence that the prefix cache knows; append() takes them when none is free
  int32_t free_pages;    // live, cached and free pages together are all pages
  PrefixCacheStatistics prefix_cache;
};

// Not thread safe; the scheduler owns it. A sequence id that is not alive in this cache is kInvalidArgument everywhere.
// Cost: append and truncate O(pages gained or lost), fork and free O(pages of the sequence), adopt and publish O(tokens in the pages gained
// or published), clear_prefix_cache O(all pages and sequences), the rest O(1) amortised. Host memory for all pages a sequence can have is
// taken in create() and fork(), where a freed sequence left none: nothing else allocates.
class PagedCache {
 public:
  // kInvalidArgument names the option that is out of range.
  static Result<PagedCache> make(const PagedCacheOptions& options);

  SequenceId create();                        // empty, holds no page
  Result<SequenceId> fork(SequenceId id);     // equal to `id` now, independent from here on; takes no page
  Status free(SequenceId id);

  // Makes room for `tokens` >= 0 more. At most the last page can be both partly filled and shared; it is then replaced by a fresh one,
  // and the device must do the returned copy before it writes any token of this or a later append.
  // Pages in use by no sequence are evicted from the prefix cache when none is free: those let go of longest ago first, of one sequence the
  // last first. The prefix cache thus never makes an append fail.
  // Lets go of what lies before the window of the first of them.
  // kContextFull: the sequence would exceed max_context_tokens. kOutOfMemory: other sequences use too many pages. On error nothing changed.
  Result<std::optional<PageCopy>> append(SequenceId id, int32_t tokens);
  // Forgets the tokens from position `length` on (0 ≤ length ≤ the present length) and releases the pages that held only them. Gives the length
  // then: 0 instead of `length` where the window of the token that comes next is not whole any more.
  Result<int32_t> truncate(SequenceId id, int32_t length);

  // Gives an empty sequence the known pages of the longest run of whole pages that begins `ids`, and says how many tokens it then holds (0:
  // none). At least the last of `ids` is left out, so that there is one to run for the logits. kInvalidArgument: the sequence is not empty.
  Result<int32_t> adopt(SequenceId id, std::span<const int32_t> ids);
  // Makes the full pages of the sequence known. `ids` are all its tokens, from position 0; kInvalidArgument: not as many as its length. Their
  // keys and values must be on the device before anything that is submitted after this call reads them. Costs nothing between full pages.
  // The first one wins: a page whose text is known already by another page stays the sequence's own, and so do the pages after it as long
  // as that other page is known (who holds a known page holds all before it); each page that gets full tries again.
  Status publish(SequenceId id, std::span<const int32_t> ids);
  // Forgets all that was published, e.g. because the device failed; sequences keep their pages. The counters go on.
  void clear_prefix_cache();

  Result<BlockTable> block_table(SequenceId id) const;
  Result<int32_t> length(SequenceId id) const;  // tokens
  int32_t pages_for(int32_t tokens) const { return page_size_.pages_for(tokens); }
  PageSize page_size() const { return page_size_; }
  int32_t max_context_tokens() const { return max_context_tokens_; }
  // That append() of `tokens` takes: those gained, and one for a last page that other sequences hold too, less those it lets go of. May be below 0.
  Result<int32_t> pages_to_append(SequenceId id, int32_t tokens) const;
  // That appending `tokens`, at most `part` at once, takes at any time: behind a window the later parts have pages that the earlier ones let go of.
  Result<int32_t> pages_to_run(SequenceId id, int32_t tokens, int32_t part) const;
  int32_t available_pages() const { return pool_.free_pages() + prefix_.idle_pages(); }   // that append() can take
  PagedCacheStatistics statistics() const;
  const PagePool& pool() const { return pool_; }
  const PrefixCache& prefix_cache() const { return prefix_; }

 private:
  struct Sequence {
    std::vector<PageId> pages;
    int32_t length = 0;
    int32_t first = 0;        // pages before this one are let go
    int32_t known = 0;        // that many of its first pages are known to the prefix cache, each as the child of the one before
    int32_t published = 0;    // full pages that publish() has looked at; more than `known` where others were first
    uint32_t generation = 1;  // of the slot: counts the sequences that lived in it
    bool alive = false;
  };

  PagedCache(const PagedCacheOptions& options, PageSize page_size)
      : pool_(options.pages), prefix_(options.prefix_cache && options.window == 0 ? options.pages : 0, page_size, options.prefix_hash), page_size_(page_size),
        max_context_tokens_(options.max_context_tokens), window_(options.window) {}
  Result<size_t> slot_of(SequenceId id) const;
  int32_t users(PageId page) const { return pool_.references(page) - (prefix_.knows(page) ? 1 : 0); }  // sequences
  int32_t first_page_seen(int32_t length) const { return window_ == 0 ? 0 : page_size_.page_of(std::max(0, length - window_ + 1)); }   // of the token at `length`
  int32_t pages_let_go(const Sequence& sequence) const;
  PageId take_page();
  void share_page(PageId page);
  void release_page(PageId page);
  void forget_page(PageId page);
  void drop_pages(Sequence& sequence, int32_t keep);
  PageCopy unshare_last_page(Sequence& sequence);
  std::span<const int32_t> tokens_of_page(std::span<const int32_t> ids, int32_t index) const {
    return ids.subspan(static_cast<size_t>(index) << page_size_.log2(), static_cast<size_t>(page_size_.tokens()));
  }

  PagePool pool_;       // one reference a sequence that holds the page, one if it is known
  PrefixCache prefix_;
  PageSize page_size_;
  int32_t max_context_tokens_;
  int32_t window_;
  int32_t sequences_ = 0;            // alive
  int32_t shared_ = 0;               // pages with two users or more
  PrefixCacheStatistics counters_;   // without known_pages
  std::vector<Sequence> slots_;      // the low half of a SequenceId is the slot, the high half its generation
  std::vector<uint32_t> free_slots_;
};

inline Result<PagedCache> PagedCache::make(const PagedCacheOptions& options) {
  TESSERA_ASSIGN(const PageSize page_size, PageSize::of(options.page_size));
  const int32_t most_pages = INT32_MAX >> page_size.log2();
  if (options.pages < 1 || options.pages > most_pages)
    return fail(ErrorCode::kInvalidArgument,
                cat("a KV cache of ", options.pages, " pages of ", options.page_size, " tokens; it must be 1 to ", most_pages, " pages"));
  if (options.max_context_tokens < 1)
    return fail(ErrorCode::kInvalidArgument, cat("max_context_tokens is ", options.max_context_tokens, "; it must be at least 1"));
  if (options.window < 0) return fail(ErrorCode::kInvalidArgument, cat("window is ", options.window, " tokens; it must be 0 (all) or more"));
  return PagedCache(options, page_size);
}

inline SequenceId PagedCache::create() {
  if (free_slots_.empty()) {
    // Those that one sequence holds are distinct, hence never more than the pool has.
    slots_.emplace_back().pages.reserve(static_cast<size_t>(window_ != 0 ? pages_for(max_context_tokens_) : std::min(pages_for(max_context_tokens_), pool_.total_pages())));
    free_slots_.push_back(static_cast<uint32_t>(slots_.size() - 1));
  }
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  Sequence& sequence = slots_[slot];
  sequence.alive = true;
  ++sequences_;
  return static_cast<SequenceId>(uint64_t{sequence.generation} << 32 | slot);
}

inline Result<SequenceId> PagedCache::fork(SequenceId id) {
  TESSERA_ASSIGN(const size_t parent, slot_of(id));
  const SequenceId child_id = create();
  Sequence& child = slots_[*slot_of(child_id)];
  child.pages.assign(slots_[parent].pages.begin(), slots_[parent].pages.end());
  child.length = slots_[parent].length;
  child.first = slots_[parent].first;
  child.known = slots_[parent].known;
  child.published = slots_[parent].published;
  for (const PageId page : std::span(child.pages).subspan(static_cast<size_t>(child.first))) share_page(page);
  return child_id;
}

inline Status PagedCache::free(SequenceId id) {
  TESSERA_ASSIGN(const size_t slot, slot_of(id));
  Sequence& sequence = slots_[slot];
  drop_pages(sequence, 0);
  sequence.length = sequence.known = sequence.published = 0;
  sequence.alive = false;
  ++sequence.generation;
  free_slots_.push_back(static_cast<uint32_t>(slot));
  --sequences_;
  return {};
}

inline Result<std::optional<PageCopy>> PagedCache::append(SequenceId id, int32_t tokens) {
  TESSERA_ASSIGN(const size_t slot, slot_of(id));
  Sequence& sequence = slots_[slot];
  if (tokens < 0) return fail(ErrorCode::kInvalidArgument, cat("append of ", tokens, " tokens; it must be at least 0"));
  if (tokens > max_context_tokens_ - sequence.length)
    return fail(ErrorCode::kContextFull,
                cat("the context holds ", sequence.length, " of at most ", max_context_tokens_, " tokens; no room for ", tokens, " more"));

  const int32_t length = sequence.length + tokens;
  const int32_t new_pages = pages_for(length) - static_cast<int32_t>(sequence.pages.size());
  TESSERA_ASSIGN(const int32_t needed, pages_to_append(id, tokens));
  const bool writes_last = tokens > 0 && page_size_.offset_of(sequence.length) != 0;
  const PageId last = writes_last ? sequence.pages.back() : kNoPage;
  const bool sequences_share_last = writes_last && users(last) > 1;
  const int32_t available = available_pages();
  if (needed > available)
    return fail(ErrorCode::kOutOfMemory,
                cat("the KV cache has ", pool_.free_pages(), " of ", pool_.total_pages(), " pages free and ", prefix_.idle_pages(),
                    " more to take from the prefix cache; ", tokens, " more tokens need ", needed, " pages of ", page_size_.tokens(), " tokens"));

  // A page that only the prefix cache has as well is copied if there is room for that, and else forgotten and written in place.
  const bool forget_last = writes_last && !sequences_share_last && prefix_.knows(last) && needed == available;
  for (const int32_t seen = first_page_seen(sequence.length); sequence.first < seen; ++sequence.first) release_page(sequence.pages[static_cast<size_t>(sequence.first)]);
  std::optional<PageCopy> copy;
  if (writes_last && !forget_last && pool_.references(last) > 1) copy = unshare_last_page(sequence);
  for (int32_t i = 0; i < new_pages; ++i) sequence.pages.push_back(take_page());
  if (forget_last) forget_page(last);  // now that its children, idle all of them, were taken
  sequence.length = length;
  return copy;
}

inline Result<int32_t> PagedCache::pages_to_append(SequenceId id, int32_t tokens) const {
  TESSERA_ASSIGN(const size_t slot, slot_of(id));
  const Sequence& sequence = slots_[slot];
  const bool leaves_last = tokens > 0 && page_size_.offset_of(sequence.length) != 0 && users(sequence.pages.back()) > 1;
  return pages_for(sequence.length + tokens) - static_cast<int32_t>(sequence.pages.size()) + (leaves_last ? 1 : 0) - pages_let_go(sequence);
}

inline Result<int32_t> PagedCache::pages_to_run(SequenceId id, int32_t tokens, int32_t part) const {
  TESSERA_ASSIGN(const int32_t whole, pages_to_append(id, tokens));
  if (window_ == 0) return whole;
  const Sequence& sequence = slots_[*slot_of(id)];
  const auto held = std::span(sequence.pages).subspan(static_cast<size_t>(sequence.first));
  const auto own = static_cast<int32_t>(std::ranges::count_if(held, [&](PageId page) { return users(page) == 1; }));
  return std::min(whole, page_size_.pages_for_window(window_, part) - own);
}

// Back to the pool by the next append(): nobody else holds them.
inline int32_t PagedCache::pages_let_go(const Sequence& sequence) const {
  int32_t count = 0;
  for (int32_t i = sequence.first; i < first_page_seen(sequence.length); ++i) count += users(sequence.pages[static_cast<size_t>(i)]) == 1;
  return count;
}

inline Result<int32_t> PagedCache::truncate(SequenceId id, int32_t length) {
  TESSERA_ASSIGN(const size_t slot, slot_of(id));
  Sequence& sequence = slots_[slot];
  if (length < 0 || length > sequence.length)
    return fail(ErrorCode::kInvalidArgument, cat("truncate to ", length, " tokens; the sequence holds ", sequence.length));
  if (first_page_seen(length) < sequence.first) length = 0;
  drop_pages(sequence, pages_for(length));
  sequence.length = length;
  sequence.known = std::min(sequence.known, page_size_.page_of(length));
  sequence.published = std::min(sequence.published, page_size_.page_of(length));
  return length;
}

inline Result<int32_t> PagedCache::adopt(SequenceId id, std::span<const int32_t> ids) {
  TESSERA_ASSIGN(const size_t slot, slot_of(id));
  Sequence& sequence = slots_[slot];
  if (sequence.length != 0)
    return fail(ErrorCode::kInvalidArgument, cat("adopt into a sequence that holds ", sequence.length, " tokens; it must be empty"));
  const int32_t tokens = static_cast<int32_t>(std::min(ids.empty() ? 0 : ids.size() - 1, static_cast<size_t>(max_context_tokens_)));
  const int32_t wanted = page_size_.page_of(tokens);
  if (wanted == 0 || prefix_.pages() == 0) return 0;

  PageId parent = kNoPage;
  while (sequence.known < wanted) {
    const PageId page = prefix_.find(parent, tokens_of_page(ids, sequence.known));
    if (page == kNoPage) break;
    share_page(page);
    sequence.pages.push_back(page);
    ++sequence.known;
    parent = page;
  }
  sequence.published = sequence.known;
  sequence.length = sequence.known << page_size_.log2();
  ++counters_.lookups;
  counters_.tokens_looked_up += int64_t{wanted} << page_size_.log2();
  counters_.tokens_hit += sequence.length;
  return sequence.length;
}

inline Status PagedCache::publish(SequenceId id, std::span<const int32_t> ids) {
  TESSERA_ASSIGN(const size_t slot, slot_of(id));
  Sequence& sequence = slots_[slot];
  if (ids.size() != static_cast<size_t>(sequence.length))
    return fail(ErrorCode::kInvalidArgument, cat("publish of ", ids.size(), " tokens; the sequence holds ", sequence.length));
  const int32_t full = page_size_.page_of(sequence.length);
  if (sequence.published == full || prefix_.pages() == 0) return {};
  sequence.published = full;
  for (; sequence.known < full; ++sequence.known) {
    const size_t index = static_cast<size_t>(sequence.known);
    const PageId page = sequence.pages[index];
    const PageId parent = index == 0 ? kNoPage : sequence.pages[index - 1];
    const std::span<const int32_t> tokens = tokens_of_page(ids, sequence.known);
    const PageId first = prefix_.find(parent, tokens);
    if (first != kNoPage && first != page) break;
    if (first == page) continue;  // a fork that shares the page was here
    if (prefix_.knows(page))
      return fail(ErrorCode::kInvalidArgument, cat("publish of other tokens on page ", sequence.known, " than it was published with before"));
    prefix_.insert(page, parent, tokens);
    pool_.retain(page);
  }
  return {};
}

inline void PagedCache::clear_prefix_cache() {
  for (PageId page = 0; page < prefix_.pages(); ++page)
    if (prefix_.knows(page)) forget_page(page);
  for (Sequence& sequence : slots_) sequence.known = sequence.published = 0;
}

inline PagedCacheStatistics PagedCache::statistics() const {
  PrefixCacheStatistics prefix = counters_;
  prefix.known_pages = prefix_.known_pages();
  const int32_t cached = prefix_.idle_pages();
  return {sequences_, pool_.live_pages() - cached, shared_, cached, pool_.free_pages(), prefix};
}

inline Result<BlockTable> PagedCache::block_table(SequenceId id) const {
  TESSERA_ASSIGN(const size_t slot, slot_of(id));
  return BlockTable{slots_[slot].pages, slots_[slot].length, page_size_, slots_[slot].first};
}

inline Result<int32_t> PagedCache::length(SequenceId id) const {
  TESSERA_ASSIGN(const size_t slot, slot_of(id));
  return slots_[slot].length;
}

inline Result<size_t> PagedCache::slot_of(SequenceId id) const {
  const uint64_t bits = static_cast<uint64_t>(id);
  const size_t slot = static_cast<uint32_t>(bits);
  if (slot >= slots_.size() || !slots_[slot].alive || slots_[slot].generation != bits >> 32)
    return fail(ErrorCode::kInvalidArgument,
                cat("sequence ", slot, ":", bits >> 32, " is not in this KV cache; it was freed, or never created here"));
  return slot;
}

// A page for one sequence, of which nobody else knows. append() made sure that there is one, free or idle.
inline PageId PagedCache::take_page() {
  if (pool_.free_pages() == 0) {
    forget_page(prefix_.oldest_idle());
    ++counters_.evictions;
  }
  return *pool_.allocate();
}

// For one more sequence.
inline void PagedCache::share_page(PageId page) {
  pool_.retain(page);
  if (users(page) == 2) ++shared_;
  if (prefix_.knows(page)) prefix_.set_in_use(page);
}

// By one sequence.
inline void PagedCache::release_page(PageId page) {
  if (users(page) == 2) --shared_;
  pool_.release(page);
  if (prefix_.knows(page) && users(page) == 0) prefix_.set_idle(page);
}

// By the prefix cache.
inline void PagedCache::forget_page(PageId page) {
  prefix_.forget(page);
  pool_.release(page);
}

// From the back, so that the pool hands them out again in order of position, and the prefix cache evicts the end of a text before its beginning.
inline void PagedCache::drop_pages(Sequence& sequence, int32_t keep) {
  while (sequence.pages.size() > static_cast<size_t>(keep)) {
    if (sequence.pages.size() > static_cast<size_t>(sequence.first)) release_page(sequence.pages.back());
    sequence.pages.pop_back();
  }
  sequence.first = std::min(sequence.first, keep);
}

// The old page stays alive through its other owners; append() made sure that there is a page to take.
inline PageCopy PagedCache::unshare_last_page(Sequence& sequence) {
  const PageId shared = sequence.pages.back();
  sequence.pages.back() = take_page();
  release_page(shared);
  return {shared, sequence.pages.back(), page_size_.offset_of(sequence.length)};
}

}  // namespace tessera
