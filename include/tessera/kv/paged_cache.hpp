// The paged KV cache as bookkeeping: which pages hold the tokens of which sequence. Forks share pages and copy on write.
// Pure host logic: the engine keeps the device tensors and does the page copies that append() asks for.
// Source of the idea: PagedAttention (Kwon et al., SOSP 2023, arXiv 2309.06180), section 4.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"
#include "tessera/kv/block_table.hpp"
#include "tessera/kv/page_pool.hpp"

namespace tessera {

struct PagedCacheOptions {
  int32_t pages = 0;               // in the pool, for all sequences together; >= 1
  int32_t page_size = 16;          // tokens; a power of two; pages · page_size must fit an int32 (kernels index rows with one)
  int32_t max_context_tokens = 0;  // of one sequence; >= 1; may exceed what the pool holds
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
  int32_t live_pages;    // pages in use; a shared page counts once
  int32_t shared_pages;  // pages in use by two sequences or more
  int32_t free_pages;
};

// Not thread safe; the scheduler owns it. A sequence id that is not alive in this cache is kInvalidArgument everywhere.
// Cost: append and truncate O(pages gained or lost), fork and free O(pages of the sequence), the rest O(1) amortised. Host memory for all
// pages a sequence can have is taken in create() and fork(), where a freed sequence left none: append and truncate never allocate.
class PagedCache {
 public:
  // kInvalidArgument names the option that is out of range.
  static Result<PagedCache> make(const PagedCacheOptions& options);

  SequenceId create();                        // empty, holds no page
  Result<SequenceId> fork(SequenceId id);     // equal to `id` now, independent from here on; takes no page
  Status free(SequenceId id);

  // Makes room for `tokens` >= 0 more. At most the last page can be both partly filled and shared; it is then replaced by a fresh one,
  // and the device must do the returned copy before it writes any token of this or a later append.
  // kContextFull: the sequence would exceed max_context_tokens. kOutOfMemory: the pool has too few free pages. On error nothing changed.
  Result<std::optional<PageCopy>> append(SequenceId id, int32_t tokens);
  // Forgets the tokens from position `length` on (0 ≤ length ≤ the present length) and releases the pages that held only them.
  Status truncate(SequenceId id, int32_t length);

  Result<BlockTable> block_table(SequenceId id) const;
  Result<int32_t> length(SequenceId id) const;  // tokens
  int32_t pages_for(int32_t tokens) const { return page_size_.pages_for(tokens); }
  PageSize page_size() const { return page_size_; }
  int32_t max_context_tokens() const { return max_context_tokens_; }
  PagedCacheStatistics statistics() const { return {sequences_, pool_.live_pages(), pool_.shared_pages(), pool_.free_pages()}; }
  const PagePool& pool() const { return pool_; }

 private:
  struct Sequence {
    std::vector<PageId> pages;
    int32_t length = 0;
    uint32_t generation = 1;  // of the slot: counts the sequences that lived in it
    bool alive = false;
  };

  PagedCache(int32_t pages, PageSize page_size, int32_t max_context_tokens)
      : pool_(pages), page_size_(page_size), max_context_tokens_(max_context_tokens) {}
  Result<size_t> slot_of(SequenceId id) const;
  void drop_pages(Sequence& sequence, int32_t keep);
  PageCopy unshare_last_page(Sequence& sequence);

  PagePool pool_;
  PageSize page_size_;
  int32_t max_context_tokens_;
  int32_t sequences_ = 0;            // alive
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
  return PagedCache(options.pages, page_size, options.max_context_tokens);
}

inline SequenceId PagedCache::create() {
  if (free_slots_.empty()) {
    // The pages of one sequence are distinct, hence never more than the pool has.
    slots_.emplace_back().pages.reserve(static_cast<size_t>(std::min(pages_for(max_context_tokens_), pool_.total_pages())));
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
  for (const PageId page : child.pages) pool_.retain(page);
  return child_id;
}

inline Status PagedCache::free(SequenceId id) {
  TESSERA_ASSIGN(const size_t slot, slot_of(id));
  Sequence& sequence = slots_[slot];
  drop_pages(sequence, 0);
  sequence.length = 0;
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
  const bool unshare = tokens > 0 && page_size_.offset_of(sequence.length) != 0 && pool_.references(sequence.pages.back()) > 1;
  const int32_t needed = new_pages + (unshare ? 1 : 0);
  if (needed > pool_.free_pages())
    return fail(ErrorCode::kOutOfMemory, cat("the KV cache has ", pool_.free_pages(), " of ", pool_.total_pages(), " pages free; ", tokens,
                                             " more tokens need ", needed, " pages of ", page_size_.tokens(), " tokens"));

  std::optional<PageCopy> copy;
  if (unshare) copy = unshare_last_page(sequence);
  for (int32_t i = 0; i < new_pages; ++i) sequence.pages.push_back(*pool_.allocate());
  sequence.length = length;
  return copy;
}

inline Status PagedCache::truncate(SequenceId id, int32_t length) {
  TESSERA_ASSIGN(const size_t slot, slot_of(id));
  Sequence& sequence = slots_[slot];
  if (length < 0 || length > sequence.length)
    return fail(ErrorCode::kInvalidArgument, cat("truncate to ", length, " tokens; the sequence holds ", sequence.length));
  drop_pages(sequence, pages_for(length));
  sequence.length = length;
  return {};
}

inline Result<BlockTable> PagedCache::block_table(SequenceId id) const {
  TESSERA_ASSIGN(const size_t slot, slot_of(id));
  return BlockTable{slots_[slot].pages, slots_[slot].length, page_size_};
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

// From the back, so that the pool hands them out again in order of position.
inline void PagedCache::drop_pages(Sequence& sequence, int32_t keep) {
  while (sequence.pages.size() > static_cast<size_t>(keep)) {
    pool_.release(sequence.pages.back());
    sequence.pages.pop_back();
  }
}

// The pool has a free page: append() looked. The old page stays alive through its other owners.
inline PageCopy PagedCache::unshare_last_page(Sequence& sequence) {
  const PageId shared = sequence.pages.back();
  sequence.pages.back() = *pool_.allocate();
  pool_.release(shared);
  return {shared, sequence.pages.back(), page_size_.offset_of(sequence.length)};
}

}  // namespace tessera
