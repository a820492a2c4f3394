// SentencePiece's BPE (Kudo and Richardson, arXiv 1808.06226): the characters of a text, spaces written as U+2581, are the first symbols; of
// all neighbours whose union is a token, the pair with the highest score joins first, of equal ones the leftmost.
#include <algorithm>
#include <array>
#include <cmath>

#include "bpe.hpp"
#include "special_tokens.hpp"
#include "tessera/base/text.hpp"
#include "tessera/base/utf8.hpp"
#include "text_encoder.hpp"

namespace tessera {
namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";   // U+2581

// Bounds on what a hostile table costs. Trained pieces have 16 characters (SentencePiece's default), the longest in use about 100 bytes, and
// a vocabulary of 256,000 has 580,000 ways to make its pieces.
constexpr size_t kMaxPieceBytes = 512;
constexpr size_t kMaxMerges = 1'000'000;

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t found = std::min(text.find(from, at), text.size());
    out += text.substr(at, found - at);
    if (found < text.size()) out += to;
    at = found + from.size();
  }
  return out;
}

std::string with_symbols(std::string_view text) { return replace_all(text, " ", kSpaceSymbol); }

// The byte that "<0x0A>" names: exactly two hexadecimal digits; -1 otherwise.
int byte_named(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  int byte = 0;
  for (const char c : text.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9', upper = c >= 'A' && c <= 'F', lower = c >= 'a' && c <= 'f';
    if (!digit && !upper && !lower) return -1;
    byte = byte * 16 + (digit ? c - '0' : upper ? c - 'A' + 10 : c - 'a' + 10);
  }
  return byte;
}

Result<std::string> spell(std::string_view text, TokenType type) {
  if (type == kControl || type == kUnknown) return std::string(text);
  if (type != kByte) return replace_all(text, kSpaceSymbol, " ");
  const int byte = byte_named(text);
  if (byte < 0) return fail(ErrorCode::kMalformed, "a byte token, but its text is none of <0x00> to <0xFF>");
  return std::string(1, static_cast<char>(byte));
}

class SentencePieceEncoder final : public TextEncoder {
 public:
  static Result<std::unique_ptr<TextEncoder>> make(const TokenizerTables& tables, const Vocabulary& words) {
    auto encoder = std::make_unique<SentencePieceEncoder>();
    encoder->add_space_ = tables.add_space_prefix;
    encoder->unknown_ = static_cast<int32_t>(tables.unknown);
    TESSERA_TRY(encoder->read_bytes(tables));
    TESSERA_TRY(encoder->read_user_defined(tables, words));
    TESSERA_TRY(encoder->read_pieces(tables, words));
    return encoder;
  }

  void append(std::string_view text, bool continues, std::vector<int32_t>& ids) const override;
  bool is_lossless() const override { return lossless_; }
  bool adds_space(int32_t id) const override { return add_space_ && id != byte_ids_[' ']; }

 private:
  Status read_bytes(const TokenizerTables& tables);
  Status read_user_defined(const TokenizerTables& tables, const Vocabulary& words);
  Status read_pieces(const TokenizerTables& tables, const Vocabulary& words);
  void append_unknown(std::string_view character, bool& after_unknown, std::vector<int32_t>& symbols) const;

  bool add_space_ = true;
  bool lossless_ = false;
  int32_t unknown_ = -1;
  std::array<int32_t, 256> byte_ids_ = {};              // -1 where there is no byte token
  std::unordered_map<char32_t, int32_t> characters_;    // pieces of one character
  std::string user_defined_text_;
  SpecialTokens user_defined_;                          // views into user_defined_text_
  BpeTable merges_;
};

Status SentencePieceEncoder::read_bytes(const TokenizerTables& tables) {
  byte_ids_.fill(-1);
  for (size_t i = 0; i < tables.tokens.size(); ++i) {
    if (type_of(tables, i) != kByte) continue;
    int32_t& id = byte_ids_[static_cast<size_t>(byte_named(tables.tokens[i]))];   // spell() has refused other texts
    if (id >= 0) return fail(ErrorCode::kMalformed, cat(entry_name("tokens", i, tables.tokens[i]), " is the same byte as token ", id));
    id = static_cast<int32_t>(i);
  }
  lossless_ = std::find(byte_ids_.begin(), byte_ids_.end(), -1) == byte_ids_.end();
  return {};
}

// Some converters write spaces in them as they are, some as U+2581.
Status SentencePieceEncoder::read_user_defined(const TokenizerTables& tables, const Vocabulary& words) {
  std::vector<std::pair<size_t, int32_t>> ends;
  for (size_t i = 0; i < tables.tokens.size(); ++i) {
    if (type_of(tables, i) != kUserDefined || words.control[i] || tables.tokens[i].empty()) continue;
    user_defined_text_ += with_symbols(tables.tokens[i]);
    ends.emplace_back(user_defined_text_.size(), static_cast<int32_t>(i));
  }
  std::vector<SpecialToken> found;
  size_t begin = 0;
  for (const auto& [end, id] : ends) {
    found.push_back({std::string_view(user_defined_text_).substr(begin, end - begin), id, false});
    begin = end;
  }
  user_defined_ = SpecialTokens(std::move(found));
  return {};
}

// Rank of each token: how many different scores are higher.
Result<std::vector<uint32_t>> ranks_of(const TokenizerTables& tables) {
  const size_t size = tables.tokens.size();
  if (tables.scores.size() != size)
    return fail(ErrorCode::kMalformed, cat("tokenizer.ggml.scores has ", tables.scores.size(), " entries for ", size, " tokens, and a tokenizer ",
                                           "of model 'llama' needs them: convert the model again"));
  std::vector<float> scores = tables.scores;
  for (size_t i = 0; i < size; ++i) {
    if (std::isnan(scores[i])) return fail(ErrorCode::kMalformed, cat("tokenizer.ggml.scores[", i, "] is no number"));
  }
  std::ranges::sort(scores, std::ranges::greater());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  std::vector<uint32_t> ranks(size);
  for (size_t i = 0; i < size; ++i)
    ranks[i] = static_cast<uint32_t>(std::ranges::lower_bound(scores, tables.scores[i], std::ranges::greater()) - scores.begin());
  return ranks;
}

// Every cut of a piece in two pieces is a merge, ranked by the piece's score: then merging by rank is merging by score. Control tokens take no
// part, so typed text cannot become one; bytes and user-defined tokens take none because SentencePiece keeps them whole.
Status SentencePieceEncoder::read_pieces(const TokenizerTables& tables, const Vocabulary& words) {
  TESSERA_ASSIGN(IdsByText pieces, index_of_texts(tables));
  TESSERA_ASSIGN(const std::vector<uint32_t> ranks, ranks_of(tables));
  const auto is_piece = [&](size_t i) {
    const TokenType type = type_of(tables, i);
    return (type == kNormal || type == kUndefined || type == kUnused) && !words.control[i];
  };
  std::erase_if(pieces, [&](const auto& piece) { return !is_piece(static_cast<size_t>(piece.second)); });
  std::vector<BpeMerge> found;
  std::vector<bool> unused(tables.tokens.size());
  for (size_t i = 0; i < tables.tokens.size(); ++i) {
    const std::string_view text = tables.tokens[i];
    if (!is_piece(i) || text.empty()) continue;
    if (text.size() > kMaxPieceBytes)
      return fail(ErrorCode::kLimit, cat(entry_name("tokens", i, text), " is a piece of ", text.size(), " bytes; at most ", kMaxPieceBytes, " are read"));
    const Utf8Char first = first_utf8(text);
    unused[i] = type_of(tables, i) == kUnused;
    if (first.bytes == text.size() && first.status == Utf8Status::kValid && !unused[i]) characters_[first.code] = static_cast<int32_t>(i);
    for (size_t cut = first.bytes; cut < text.size(); cut += first_utf8(text.substr(cut)).bytes) {
      const auto left = pieces.find(text.substr(0, cut));
      const auto right = left == pieces.end() ? pieces.end() : pieces.find(text.substr(cut));
      if (right != pieces.end()) found.push_back({left->second, right->second, static_cast<int32_t>(i), ranks[i]});
    }
    if (found.size() > kMaxMerges)
      return fail(ErrorCode::kLimit, cat("tokenizer.ggml.tokens can be put together in more than ", kMaxMerges, " ways, which is more than are read"));
  }
  merges_ = BpeTable(std::move(found), tables.tokens.size(), std::ranges::find(unused, true) == unused.end() ? std::vector<bool>() : std::move(unused));
  return {};
}

// What has no byte tokens either becomes the unknown token, one for several in a row.
void SentencePieceEncoder::append_unknown(std::string_view character, bool& after_unknown, std::vector<int32_t>& symbols) const {
  const auto byte_id = [this](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  if (std::ranges::all_of(character, [&](char c) { return byte_id(c) >= 0; })) {
    for (const char c : character) symbols.push_back(byte_id(c));
    after_unknown = false;
    return;
  }
  if (unknown_ >= 0 && !after_unknown) symbols.push_back(unknown_);
  after_unknown = true;
}

void SentencePieceEncoder::append(std::string_view text, bool continues, std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  std::string replaced;
  if (!lossless_ && !is_utf8(text)) text = replaced = replace_invalid_utf8(text);
  std::string spaced(add_space_ && !continues ? kSpaceSymbol : "");
  spaced += with_symbols(text);
  BpeMerger merger(merges_);
  std::vector<int32_t> symbols;
  bool after_unknown = false;
  for (std::string_view rest = spaced; !rest.empty();) {
    const SpecialToken* whole = user_defined_.match(rest, 0);
    const Utf8Char c = first_utf8(rest);
    const auto known = whole || c.status != Utf8Status::kValid ? characters_.end() : characters_.find(c.code);
    const size_t length = whole ? whole->text.size() : c.bytes;
    if (whole || known != characters_.end()) {
      symbols.push_back(whole ? whole->id : known->second);
      after_unknown = false;
    } else {
      append_unknown(rest.substr(0, length), after_unknown, symbols);
    }
    rest.remove_prefix(length);
    if (symbols.size() + 8 < BpeMerger::kMaxSymbols && !rest.empty()) continue;
    merger.append(symbols, ids);
    symbols.clear();
  }
}

}  // namespace

const TokenizerKind kSentencePiece = {"llama", "SentencePiece with scores", spell, false, SentencePieceEncoder::make};

}  // namespace tessera
