// Byte-pair merging: which neighbours join, in which order (Sennrich et al., arXiv 1508.07909; over bytes as in GPT-2).
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tessera {

// Joins `left` and `right` into the token `result`; a lower rank joins first.
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
  // Ids are below `vocab_size`. Of merges with one pair the last rank counts, as in Hugging Face's tokenizers.
  BpeTable(std::vector<BpeMerge> merges, size_t vocab_size);
  const BpeMerge* find(int32_t left, int32_t right) const;  // nullptr: they do not merge

 private:
  std::vector<BpeMerge> merges_;
  std::vector<uint32_t> row_;  // [vocab_size + 1] where each left id's merges begin
};

// Token id of every byte; -1 where the vocabulary has none.
using ByteIds = std::array<int32_t, 256>;

// Scratch memory for merging one word after another: O(n log n) in the bytes of a word.
class BpeMerger {
 public:
  BpeMerger(const BpeTable& table, const ByteIds& byte_ids) : table_(table), byte_ids_(byte_ids) {}
  // Appends the ids of `word` (below 4 GiB). Bytes without a token are left out and their neighbours may then merge, as in Hugging Face's
  // tokenizers where there is no unknown token.
  void append(std::string_view word, std::vector<int32_t>& ids);

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Symbol {
    int32_t id;
    uint32_t prev;
    uint32_t next;
    uint32_t rank;     // of the merge with `next`; kNone: they do not merge, or this symbol has become part of its left neighbour
    int32_t merged;    // what that merge gives
  };
  void load(std::string_view word);
  void queue_pair(uint32_t left);
  void join(uint32_t left);

  const BpeTable& table_;
  const ByteIds& byte_ids_;
  std::vector<Symbol> symbols_;
  std::vector<uint64_t> heap_;  // rank << 32 | left symbol: lowest rank first, leftmost first
};

}  // namespace tessera
