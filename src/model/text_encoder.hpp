// How one kind of vocabulary turns a stretch of text into ids. A stretch is what lies between special tokens.
#pragma once
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/model/model_file.hpp"
#include "vocabulary.hpp"

namespace tessera {

class TextEncoder {
 public:
  virtual ~TextEncoder() = default;
  // Appends the ids of `text`, any bytes. `continues`: it goes on behind text, not behind a control token or nothing. O(n log n), no recursion.
  virtual void append(std::string_view text, bool continues, std::vector<int32_t>& ids) const = 0;
  // Whether every byte has a token.
  virtual bool is_lossless() const = 0;
  // Whether the space that token `id` begins with was put there by append() if it is the first of a text.
  virtual bool adds_space(int32_t id) const = 0;
};

// One row a value of tokenizer.ggml.model.
struct TokenizerKind {
  std::string_view model;
  std::string_view description;
  SpellToken spell;
  bool words_in_raw_text;   // user-defined tokens are taken out with the control tokens, before the encoder sees the text
  // `words` outlives the encoder. Errors as Tokenizer::create.
  Result<std::unique_ptr<TextEncoder>> (*make)(const TokenizerTables& tables, const Vocabulary& words);
};

extern const TokenizerKind kByteLevelBpe;    // "gpt2"
extern const TokenizerKind kSentencePiece;   // "llama"

}  // namespace tessera
