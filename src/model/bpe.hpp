// Pair merging: which neighbours join, in which order (Sennrich et al., arXiv 1508.07909). What the first symbols are, bytes or characters, is
// the caller's business.
#pragma once
#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tessera {

// Joins `left` and `right` into the token `result`; a lower rank joins first, of equal ranks the leftmost.
struct BpeMerge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t result = 0;
  uint32_t rank = 0;
};

// Merges looked up by pair: rows by left id, each sorted by right id. 16 bytes a merge and 4 a token.
class BpeTable {
 public:
  BpeTable() = default;
  // Ids are below `vocab_size`. Of merges with one pair the last rank counts, as in Hugging Face's tokenizers. `unused`, if not empty, marks
  // tokens that are never given: they may be made on the way to others, and fall apart again when they are what is left.
  BpeTable(std::vector<BpeMerge> merges, size_t vocab_size, std::vector<bool> unused = {});
  const BpeMerge* find(int32_t left, int32_t right) const;  // nullptr: they do not merge
  bool is_unused(int32_t id) const { return !unused_.empty() && unused_[static_cast<size_t>(id)]; }

 private:
  std::vector<BpeMerge> merges_;
  std::vector<uint32_t> row_;  // [vocab_size + 1] where each left id's merges begin
  std::vector<bool> unused_;
};

// Scratch memory for merging one word after another: O(n log n) in the symbols of a word.
class BpeMerger {
 public:
  explicit BpeMerger(const BpeTable& table) : table_(table) {}
  // Appends what becomes of `symbols` (ids below vocab_size, at most kMaxSymbols). An id that no merge names stands between its neighbours.
  void append(std::span<const int32_t> symbols, std::vector<int32_t>& ids);

  static constexpr size_t kMaxSymbols = 1u << 30;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Symbol {
    int32_t id;
    uint32_t prev;
    uint32_t next;
    uint32_t rank;     // of the merge with `next`; kNone: they do not merge, or this symbol has become part of its left neighbour
    int32_t merged;    // what that merge gives
  };
  void load(std::span<const int32_t> symbols);
  void queue_pair(uint32_t left);
  void join(uint32_t left);
  void give(int32_t id, std::vector<int32_t>& ids);

  const BpeTable& table_;
  std::vector<Symbol> symbols_;
  std::vector<uint64_t> heap_;  // rank << 32 | left symbol: lowest rank first, leftmost first
  std::unordered_map<int32_t, std::pair<int32_t, int32_t>> parts_;  // of unused tokens: the pair seen last, as in SentencePiece
  std::vector<int32_t> apart_;  // tokens still to be given, last first
};

}  // namespace tessera
