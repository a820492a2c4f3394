// Where the tokens of one sequence lie: position → page → row of the device tensor. The kernels do the same arithmetic.
#pragma once
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"
#include "tessera/kv/page_pool.hpp"

namespace tessera {

// Tokens in one page: a power of two, so that kernels find page and offset by shift and mask. Positions and counts are >= 0.
class PageSize {
 public:
  PageSize() = default;  // 16 tokens
  static Result<PageSize> of(int32_t tokens) {
    if (tokens < 1 || !std::has_single_bit(static_cast<uint32_t>(tokens)))
      return fail(ErrorCode::kInvalidArgument, cat("page size of ", tokens, " tokens; it must be a power of two, at least 1"));
    PageSize size;
    size.log2_ = std::countr_zero(static_cast<uint32_t>(tokens));
    return size;
  }

  int32_t tokens() const { return int32_t{1} << log2_; }
  int32_t log2() const { return log2_; }
  int32_t page_of(int32_t position) const { return position >> log2_; }                // index into the block table
  int32_t offset_of(int32_t position) const { return position & (tokens() - 1); }     // token within that page
  int32_t pages_for(int32_t count) const { return page_of(count) + (offset_of(count) == 0 ? 0 : 1); }
  // That a sequence ever holds whose tokens see `window`, if it gets at most `part` tokens at once: those, and the page within which the window begins.
  int32_t pages_for_window(int32_t window, int32_t part) const { return pages_for(window + part) + 1; }

 private:
  int log2_ = 4;
};

// A view of one sequence's pages, in order of position; valid until that sequence changes.
struct BlockTable {
  std::span<const PageId> pages;  // page_size.pages_for(length) of them
  int32_t length = 0;             // tokens
  PageSize page_size;
  int32_t first = 0;              // pages before this one lie behind the window and hold others' tokens now

  // Row of the token at `position` (0 ≤ position < length) in a device tensor of [total pages · page size] token rows.
  int32_t row(int32_t position) const {
    assert(position >= 0 && position < length && "a position outside of the sequence");
    return (pages[static_cast<size_t>(page_size.page_of(position))] << page_size.log2()) + page_size.offset_of(position);
  }
};

}  // namespace tessera
