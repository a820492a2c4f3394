#include "bpe.hpp"

#include <algorithm>
#include <functional>
#include <tuple>

namespace tessera {

BpeTable::BpeTable(std::vector<BpeMerge> merges, size_t vocab_size, std::vector<bool> unused)
    : merges_(std::move(merges)), row_(vocab_size + 1, 0), unused_(std::move(unused)) {
  const auto same_pair = [](const BpeMerge& a, const BpeMerge& b) { return a.left == b.left && a.right == b.right; };
  std::sort(merges_.begin(), merges_.end(), [](const BpeMerge& a, const BpeMerge& b) {
    return std::tuple(a.left, a.right, b.rank) < std::tuple(b.left, b.right, a.rank);
  });
  merges_.erase(std::unique(merges_.begin(), merges_.end(), same_pair), merges_.end());
  for (const BpeMerge& merge : merges_) ++row_[static_cast<size_t>(merge.left) + 1];
  for (size_t i = 1; i < row_.size(); ++i) row_[i] += row_[i - 1];
}

const BpeMerge* BpeTable::find(int32_t left, int32_t right) const {
  const BpeMerge* begin = merges_.data() + row_[static_cast<size_t>(left)];
  const BpeMerge* end = merges_.data() + row_[static_cast<size_t>(left) + 1];
  const BpeMerge* found = std::lower_bound(begin, end, right, [](const BpeMerge& merge, int32_t id) { return merge.right < id; });
  return found != end && found->right == right ? found : nullptr;
}

void BpeMerger::append(std::span<const int32_t> symbols, std::vector<int32_t>& ids) {
  load(symbols);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const uint64_t top = heap_.back();
    heap_.pop_back();
    const uint32_t left = static_cast<uint32_t>(top);
    if (symbols_[left].rank == top >> 32) join(left);  // otherwise the pair has changed since it was queued
  }
  for (uint32_t i = symbols_.empty() ? kNone : 0; i != kNone; i = symbols_[i].next) give(symbols_[i].id, ids);
}

void BpeMerger::load(std::span<const int32_t> symbols) {
  symbols_.clear();
  heap_.clear();
  parts_.clear();
  for (const int32_t id : symbols) {
    const uint32_t at = static_cast<uint32_t>(symbols_.size());
    symbols_.push_back({id, at == 0 ? kNone : at - 1, at + 1, kNone, -1});
  }
  if (symbols_.empty()) return;
  symbols_.back().next = kNone;
  for (uint32_t i = 0; i + 1 < symbols_.size(); ++i) queue_pair(i);
}

// Called whenever the symbol at `left` or its right neighbour is new.
void BpeMerger::queue_pair(uint32_t left) {
  Symbol& symbol = symbols_[left];
  const BpeMerge* merge = symbol.next == kNone ? nullptr : table_.find(symbol.id, symbols_[symbol.next].id);
  symbol.rank = merge == nullptr ? kNone : merge->rank;
  if (merge == nullptr) return;
  symbol.merged = merge->result;
  if (table_.is_unused(merge->result)) parts_[merge->result] = {merge->left, merge->right};
  heap_.push_back(static_cast<uint64_t>(merge->rank) << 32 | left);
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

void BpeMerger::join(uint32_t left) {
  Symbol& symbol = symbols_[left];
  Symbol& swallowed = symbols_[symbol.next];
  swallowed.rank = kNone;
  symbol.id = symbol.merged;
  symbol.next = swallowed.next;
  if (symbol.next != kNone) symbols_[symbol.next].prev = left;
  if (symbol.prev != kNone) queue_pair(symbol.prev);
  queue_pair(left);
}

// Parts are shorter than what they make, so this ends; a token may be as deep as it is long, so it does not recurse.
void BpeMerger::give(int32_t id, std::vector<int32_t>& ids) {
  if (!table_.is_unused(id)) {
    ids.push_back(id);
    return;
  }
  apart_.assign(1, id);
  while (!apart_.empty()) {
    const int32_t top = apart_.back();
    apart_.pop_back();
    const auto parts = table_.is_unused(top) ? parts_.find(top) : parts_.end();
    if (parts == parts_.end()) {
      ids.push_back(top);
      continue;
    }
    apart_.push_back(parts->second.second);
    apart_.push_back(parts->second.first);
  }
}

}  // namespace tessera
