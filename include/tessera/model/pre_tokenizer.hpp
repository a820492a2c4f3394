// Pre-tokenizers: how text is cut into words before byte-pair merging. A word never merges with its neighbour.
#pragma once
#include <cstddef>
#include <span>
#include <string_view>

#include "tessera/base/status.hpp"

namespace tessera {

// One row a name. `word_end` gives the length in bytes, ≥ 1, of the word that `rest` (not empty) begins with; called again behind that
// word it cuts the whole text, in time linear in the text. Bytes that are not UTF-8 are cut like punctuation.
struct PreTokenizer {
  std::string_view name;                      // value of tokenizer.ggml.pre
  size_t (*word_end)(std::string_view rest);
  bool nfc = false;            // text is brought to normalization form C first
  bool whole_words = false;    // a word that is a token becomes it, whatever the merges say ("ignore_merges")
  bool add_bos = false;        // the text begins with BOS where the file does not say whether it does
};

std::span<const PreTokenizer> pre_tokenizers();

// kUnsupported names the unknown pre-tokenizer, lists the known ones and says how a file without one is put right.
Result<const PreTokenizer*> find_pre_tokenizer(std::string_view name);

}  // namespace tessera
