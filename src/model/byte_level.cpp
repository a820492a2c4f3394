// Byte-level BPE as in GPT-2: text is cut into words, the bytes of a word are the first symbols, and listed merges join them.
#include <algorithm>
#include <array>
#include <numeric>

#include "bpe.hpp"
#include "byte_text.hpp"
#include "tessera/base/text.hpp"
#include "tessera/base/utf8.hpp"
#include "tessera/model/pre_tokenizer.hpp"
#include "text_encoder.hpp"
#include "unicode.hpp"

namespace tessera {
namespace {

Result<std::string> spell(std::string_view text, TokenType type) {
  const bool as_written = type == kControl || type == kUserDefined || type == kUnknown;
  std::optional<std::string> bytes = as_written ? std::nullopt : bytes_of_table_text(text);
  return bytes ? std::move(*bytes) : std::string(text);   // a text outside the byte alphabet stands for itself, as in Hugging Face's decoder
}

class ByteLevelEncoder final : public TextEncoder {
 public:
  static Result<std::unique_ptr<TextEncoder>> make(const TokenizerTables& tables, const Vocabulary& words) {
    auto encoder = std::make_unique<ByteLevelEncoder>(words);
    TESSERA_ASSIGN(encoder->pre_, find_pre_tokenizer(tables.pre));
    TESSERA_TRY(encoder->read_bytes(tables));
    TESSERA_TRY(encoder->read_merges(tables));
    if (encoder->pre_->whole_words) encoder->sort_words(tables);
    return encoder;
  }
  explicit ByteLevelEncoder(const Vocabulary& words) : words_(words) {}

  void append(std::string_view text, bool continues, std::vector<int32_t>& ids) const override;
  bool is_lossless() const override { return lossless_; }
  bool adds_space(int32_t) const override { return false; }

 private:
  Status read_bytes(const TokenizerTables& tables);
  Status read_merges(const TokenizerTables& tables);
  void sort_words(const TokenizerTables& tables);
  int32_t whole_word(std::string_view word) const;

  const Vocabulary& words_;
  const PreTokenizer* pre_ = nullptr;
  std::array<int32_t, 256> byte_ids_ = {};   // -1 where the vocabulary has none
  bool lossless_ = false;
  BpeTable merges_;
  std::vector<int32_t> sorted_;   // by text, if whole words are looked up: those that typed text may become
};

// Vocabularies trained on text alone lack bytes that UTF-8 does not use and control characters nobody writes; that costs those bytes only.
// Without printable ASCII a table is no byte-level one.
Status ByteLevelEncoder::read_bytes(const TokenizerTables& tables) {
  byte_ids_.fill(-1);
  for (size_t i = 0; i < words_.size(); ++i) {
    if (words_.control[i] || words_.text_of(i).size() != 1 || !bytes_of_table_text(tables.tokens[i])) continue;
    byte_ids_[static_cast<unsigned char>(words_.text_of(i)[0])] = static_cast<int32_t>(i);
  }
  for (int byte = 0x20; byte < 0x7F; ++byte) {
    if (byte_ids_[static_cast<size_t>(byte)] < 0)
      return fail(ErrorCode::kMalformed, cat("tokenizer.ggml.tokens has no token for the byte ", byte, " ('", static_cast<char>(byte),
                                             "'), which byte-level BPE needs"));
  }
  lossless_ = std::find(byte_ids_.begin(), byte_ids_.end(), -1) == byte_ids_.end();
  return {};
}

// As Hugging Face's tokenizers read them: exactly two pieces, both and their union in the vocabulary. A merge into a control token is left
// out: with it, typed text could become that token.
Status ByteLevelEncoder::read_merges(const TokenizerTables& tables) {
  if (tables.merges.size() >= UINT32_MAX) return fail(ErrorCode::kLimit, cat("tokenizer.ggml.merges has ", tables.merges.size(), " entries"));
  TESSERA_ASSIGN(const IdsByText ids, index_of_texts(tables));
  std::vector<BpeMerge> found;
  found.reserve(tables.merges.size());
  std::string joined;
  for (size_t i = 0; i < tables.merges.size(); ++i) {
    const std::string_view text = tables.merges[i];
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
      return fail(ErrorCode::kMalformed, cat(entry_name("merges", i, text), " is not two pieces with one space between them"));
    joined.assign(text.substr(0, space)).append(text.substr(space + 1));
    int32_t parts[3] = {};
    const std::string_view texts[3] = {text.substr(0, space), text.substr(space + 1), joined};
    for (int k = 0; k < 3; ++k) {
      const auto place = ids.find(texts[k]);
      if (place == ids.end())
        return fail(ErrorCode::kMalformed, cat(entry_name("merges", i, text), ": '", escaped(texts[k]), "' is not in the vocabulary"));
      parts[k] = place->second;
    }
    if (!words_.control[static_cast<size_t>(parts[2])]) found.push_back({parts[0], parts[1], parts[2], static_cast<uint32_t>(i)});
  }
  merges_ = BpeTable(std::move(found), words_.size());
  return {};
}

void ByteLevelEncoder::sort_words(const TokenizerTables& tables) {
  for (size_t i = 0; i < words_.size(); ++i) {
    const bool typed = !words_.control[i] && type_of(tables, i) != kUserDefined && !words_.text_of(i).empty();
    if (typed && bytes_of_table_text(tables.tokens[i])) sorted_.push_back(static_cast<int32_t>(i));
  }
  std::ranges::sort(sorted_, {}, [this](int32_t id) { return words_.text_of(static_cast<size_t>(id)); });
}

int32_t ByteLevelEncoder::whole_word(std::string_view word) const {
  const auto text = [this](int32_t id) { return words_.text_of(static_cast<size_t>(id)); };
  const auto place = std::ranges::lower_bound(sorted_, word, {}, text);
  return place != sorted_.end() && text(*place) == word ? *place : -1;
}

// Bytes without a token are left out and their neighbours may then merge, as in Hugging Face's tokenizers where there is no unknown token.
void ByteLevelEncoder::append(std::string_view text, bool, std::vector<int32_t>& ids) const {
  std::string replaced, composed;
  if (!lossless_ && !is_utf8(text)) text = replaced = replace_invalid_utf8(text);
  if (pre_->nfc) text = composed = to_nfc(text);
  BpeMerger merger(merges_);
  std::vector<int32_t> symbols;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, std::min(pre_->word_end(text), BpeMerger::kMaxSymbols));
    text.remove_prefix(word.size());
    if (const int32_t id = whole_word(word); id >= 0) {
      ids.push_back(id);
      continue;
    }
    symbols.clear();
    for (const char c : word) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
      if (id >= 0) symbols.push_back(id);
    }
    merger.append(symbols, ids);
  }
}

}  // namespace

const TokenizerKind kByteLevelBpe = {"gpt2", "byte-level BPE", spell, true, ByteLevelEncoder::make};

}  // namespace tessera
