// The tokens of a vocabulary: what each spells and which kind it is.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/model/model_file.hpp"

namespace tessera {

// Types of tokens in a GGUF file.
enum TokenType : int32_t { kUndefined = 0, kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6, kLastType = kByte };

inline TokenType type_of(const TokenizerTables& tables, size_t id) {
  return tables.types.empty() ? kNormal : static_cast<TokenType>(tables.types[id]);
}

struct Vocabulary {
  std::string bytes;                  // what the tokens spell, one after another
  std::vector<uint32_t> begin;        // [size + 1] into `bytes`
  std::vector<bool> control;          // never made from a person's text

  size_t size() const { return begin.size() - 1; }
  bool has(int32_t id) const { return id >= 0 && static_cast<size_t>(id) < size(); }
  std::string_view text_of(size_t id) const { return std::string_view(bytes).substr(begin[id], begin[id + 1] - begin[id]); }
};

// What a table entry spells; an error says what is wrong with it.
using SpellToken = Result<std::string> (*)(std::string_view text, TokenType type);

// kMalformed and kLimit name the bad entry.
Result<Vocabulary> read_vocabulary(const TokenizerTables& tables, SpellToken spell);

// Ids by the text in the table; empty texts are left out. kMalformed names a text that two tokens have.
using IdsByText = std::unordered_map<std::string_view, int32_t>;
Result<IdsByText> index_of_texts(const TokenizerTables& tables);

// "tokenizer.ggml.tokens[7] 'text'", for messages.
std::string entry_name(std::string_view array, size_t index, std::string_view text);

}  // namespace tessera
