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
};

std::span<const PreTokenizer> pre_tokenizers();

// kUnsupported names the unknown pre-tokenizer and lists the known ones.
Result<const PreTokenizer*> find_pre_tokenizer(std::string_view name);

}  // namespace tessera
