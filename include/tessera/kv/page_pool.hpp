// Reference-counted pages of the KV cache. Pure host logic: a page is a number; its bytes live in the device tensors of the engine.
#pragma once
#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"

namespace tessera {

using PageId = int32_t;

// Not thread safe; the scheduler owns it. Every operation is O(1), and none allocates memory after construction.
//
// Who allocates or retains a page releases it exactly once. To retain or release a page that is free or not of this pool is a programming
// error, never a matter of input: debug builds stop there with a message; release builds leave the pool as it is, so that one mistake
// cannot hand a page to two owners.
class PagePool {
 public:
  explicit PagePool(int32_t pages);           // pages >= 0
  Result<PageId> allocate();                  // reference count 1; kOutOfMemory states the pool's size when none is free
  void retain(PageId page);
  void release(PageId page);                  // back to the free list at count 0
  int32_t references(PageId page) const;      // 0: free
  int32_t free_pages() const { return static_cast<int32_t>(free_.size()); }
  int32_t total_pages() const { return static_cast<int32_t>(references_.size()); }
  int32_t live_pages() const { return total_pages() - free_pages(); }
  int32_t shared_pages() const { return shared_; }  // pages with two references or more

 private:
  bool is_live(PageId page) const { return page >= 0 && page < total_pages() && references_[static_cast<size_t>(page)] > 0; }

  std::vector<int32_t> references_;
  std::vector<PageId> free_;          // stack: the page freed last is used next, still warm in caches
  int32_t shared_ = 0;
};

inline PagePool::PagePool(int32_t pages) {
  assert(pages >= 0 && "a page pool of negative size");
  references_.resize(static_cast<size_t>(std::max(pages, 0)), 0);
  free_.reserve(references_.size());
  for (PageId page = total_pages() - 1; page >= 0; --page) free_.push_back(page);
}

inline Result<PageId> PagePool::allocate() {
  if (free_.empty()) return fail(ErrorCode::kOutOfMemory, cat("all ", total_pages(), " pages of the KV cache are in use"));
  const PageId page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

inline void PagePool::retain(PageId page) {
  assert(is_live(page) && "retained a page that is free or not of this pool");
  if (!is_live(page)) return;
  if (++references_[static_cast<size_t>(page)] == 2) ++shared_;
}

inline void PagePool::release(PageId page) {
  assert(is_live(page) && "released a page that is free or not of this pool");
  if (!is_live(page)) return;
  const int32_t left = --references_[static_cast<size_t>(page)];
  if (left == 1) --shared_;
  if (left == 0) free_.push_back(page);
}

inline int32_t PagePool::references(PageId page) const {
  assert(page >= 0 && page < total_pages() && "asked for a page that is not of this pool");
  return is_live(page) ? references_[static_cast<size_t>(page)] : 0;
}

}  // namespace tessera
