#include "tessera/model/tokenizer.hpp"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <utility>

#include "bpe.hpp"
#include "byte_text.hpp"
#include "special_tokens.hpp"
#include "tessera/base/text.hpp"
#include "tessera/base/utf8.hpp"
#include "tessera/model/pre_tokenizer.hpp"

namespace tessera {
namespace {

// Types of tokens in a GGUF file.
enum TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kLastType = 6 };

constexpr size_t kMaxTokenBytes = 64 << 10;
constexpr size_t kMaxSpecialBytes = 1 << 10;   // bounds the work of recognising them at every place of a text
constexpr size_t kMaxWordBytes = 1u << 30;     // BpeMerger counts symbols in 32 bits; longer words are cut

constexpr std::string_view kEndNames[] = {"<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<|end|>", "</s>"};

bool is_end_name(std::string_view text) { return std::find(std::begin(kEndNames), std::end(kEndNames), text) != std::end(kEndNames); }

using IdsByText = std::unordered_map<std::string_view, int32_t>;

std::string entry(std::string_view array, size_t index, std::string_view text) {
  return cat("tokenizer.ggml.", array, "[", index, "] '", escaped(text), "'");
}

// Half-open places of a text where control tokens are recognised, in order.
struct Range {
  size_t begin = 0;
  size_t end = 0;
};

}  // namespace

struct Tokenizer::State {
  std::string bytes;                  // what the tokens spell, one after another
  std::vector<uint32_t> begin;        // [vocab_size + 1] into `bytes`
  std::vector<bool> control;
  std::vector<int32_t> end_ids;       // few, sorted
  const PreTokenizer* pre = nullptr;
  ByteIds byte_ids = {};
  bool lossless = false;
  BpeTable merges;
  SpecialTokens specials;             // views into `bytes`

  Status check_tables(const TokenizerTables& tables) const;
  Status read_tokens(const TokenizerTables& tables);
  Status read_special(const TokenizerTables& tables);
  Result<IdsByText> index(const TokenizerTables& tables) const;
  Status read_bytes(const TokenizerTables& tables);
  Status read_merges(const TokenizerTables& tables);

  size_t size() const { return begin.size() - 1; }
  bool has(int32_t id) const { return id >= 0 && static_cast<size_t>(id) < size(); }
  std::string_view text_of(size_t id) const { return std::string_view(bytes).substr(begin[id], begin[id + 1] - begin[id]); }
  std::vector<int32_t> encode(std::string_view text, std::span<const Range> scaffold) const;
  void encode_words(std::string_view text, BpeMerger& merger, std::vector<int32_t>& ids) const;
};

Status Tokenizer::State::check_tables(const TokenizerTables& tables) const {
  const size_t size = tables.tokens.size();
  if (size == 0) return fail(ErrorCode::kMalformed, "tokenizer.ggml.tokens is missing or empty");
  if (size > INT32_MAX) return fail(ErrorCode::kLimit, cat("tokenizer.ggml.tokens has ", size, " entries; at most ", INT32_MAX, " are read"));
  if (!tables.types.empty() && tables.types.size() != size)
    return fail(ErrorCode::kMalformed, cat("tokenizer.ggml.token_type has ", tables.types.size(), " entries for ", size, " tokens"));
  for (size_t i = 0; i < tables.types.size(); ++i) {
    if (tables.types[i] < 0 || tables.types[i] > kLastType)
      return fail(ErrorCode::kMalformed, cat("tokenizer.ggml.token_type[", i, "] is ", tables.types[i], "; types are 0 to ", kLastType));
  }
  const std::pair<const char*, int64_t> ids[] = {
      {"bos", tables.bos}, {"eos", tables.eos}, {"eot", tables.eot}, {"unknown", tables.unknown}, {"padding", tables.padding}};
  for (const auto& [name, id] : ids) {
    if (id < -1 || id >= static_cast<int64_t>(size))
      return fail(ErrorCode::kMalformed, cat("tokenizer.ggml.", name, "_token_id is ", id, "; the vocabulary has ", size, " tokens"));
  }
  return {};
}

// Empty tokens are allowed, as in Hugging Face's tokenizers: no merge can make one, and it spells nothing.
Status Tokenizer::State::read_tokens(const TokenizerTables& tables) {
  const size_t size = tables.tokens.size();
  begin.reserve(size + 1);
  control.resize(size);
  size_t total = 0;
  for (const std::string& token : tables.tokens) total += token.size();
  if (total > UINT32_MAX) return fail(ErrorCode::kLimit, cat("tokenizer.ggml.tokens holds ", total, " bytes; at most ", UINT32_MAX, " are read"));
  bytes.reserve(total);
  begin.push_back(0);
  for (size_t i = 0; i < size; ++i) {
    const std::string& text = tables.tokens[i];
    const int32_t type = tables.types.empty() ? kNormal : tables.types[i];
    if (text.size() > kMaxTokenBytes)
      return fail(ErrorCode::kLimit, cat(entry("tokens", i, text), " is ", text.size(), " bytes long; at most ", kMaxTokenBytes, " are read"));
    const bool as_written = type == kControl || type == kUserDefined || type == kUnknown;
    std::optional<std::string> spelled = as_written ? std::nullopt : bytes_of_table_text(text);
    bytes += spelled ? *spelled : text;   // a text outside the byte alphabet stands for itself, as in Hugging Face's ByteLevel decoder
    begin.push_back(static_cast<uint32_t>(bytes.size()));
    control[i] = type == kControl || type == kUnknown;
  }
  return {};
}

Status Tokenizer::State::read_special(const TokenizerTables& tables) {
  std::vector<SpecialToken> found;
  for (size_t i = 0; i < size(); ++i) {
    const bool user_defined = !tables.types.empty() && tables.types[i] == kUserDefined;
    const int64_t id = static_cast<int64_t>(i);
    // Some files call their end-of-turn token user-defined. Whoever could type it would end the turn, so it counts as control.
    if (user_defined && (is_end_name(text_of(i)) || id == tables.bos || id == tables.eos || id == tables.eot)) control[i] = true;
    if (id == tables.eos || id == tables.eot || (control[i] && is_end_name(text_of(i)))) end_ids.push_back(static_cast<int32_t>(i));
    if ((!control[i] && !user_defined) || text_of(i).empty()) continue;
    if (text_of(i).size() > kMaxSpecialBytes)
      return fail(ErrorCode::kLimit, cat(entry("tokens", i, text_of(i)), " is a special token of ", text_of(i).size(), " bytes; at most ",
                                         kMaxSpecialBytes, " are read"));
    found.push_back({text_of(i), static_cast<int32_t>(i), control[i]});
  }
  specials = SpecialTokens(std::move(found));
  return {};
}

// Two ids with one text would make the vocabulary's meaning depend on the order of reading; no converter writes that.
Result<IdsByText> Tokenizer::State::index(const TokenizerTables& tables) const {
  IdsByText ids;
  ids.reserve(size());
  for (size_t i = 0; i < size(); ++i) {
    const std::string& text = tables.tokens[i];
    if (text.empty()) continue;
    const auto [place, added] = ids.emplace(text, static_cast<int32_t>(i));
    if (!added) return fail(ErrorCode::kMalformed, cat(entry("tokens", i, text), " is the same text as token ", place->second));
  }
  return ids;
}

// Vocabularies trained on text alone lack bytes that UTF-8 does not use and control characters nobody writes; that costs those bytes only.
// Without printable ASCII a table is no byte-level one.
Status Tokenizer::State::read_bytes(const TokenizerTables& tables) {
  byte_ids.fill(-1);
  for (size_t i = 0; i < size(); ++i) {
    if (control[i] || text_of(i).size() != 1 || !bytes_of_table_text(tables.tokens[i])) continue;
    byte_ids[static_cast<unsigned char>(text_of(i)[0])] = static_cast<int32_t>(i);
  }
  for (int byte = 0x20; byte < 0x7F; ++byte) {
    if (byte_ids[static_cast<size_t>(byte)] < 0)
      return fail(ErrorCode::kMalformed, cat("tokenizer.ggml.tokens has no token for the byte ", byte, " ('", static_cast<char>(byte),
                                             "'), which byte-level BPE needs"));
  }
  lossless = std::find(byte_ids.begin(), byte_ids.end(), -1) == byte_ids.end();
  return {};
}

// As Hugging Face's tokenizers read them: exactly two pieces, both and their union in the vocabulary. A merge into a control token is left
// out: with it, typed text could become that token.
Status Tokenizer::State::read_merges(const TokenizerTables& tables) {
  if (tables.merges.size() >= UINT32_MAX) return fail(ErrorCode::kLimit, cat("tokenizer.ggml.merges has ", tables.merges.size(), " entries"));
  TESSERA_ASSIGN(const IdsByText ids, index(tables));
  std::vector<BpeMerge> found;
  found.reserve(tables.merges.size());
  std::string joined;
  for (size_t i = 0; i < tables.merges.size(); ++i) {
    const std::string_view text = tables.merges[i];
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
      return fail(ErrorCode::kMalformed, cat(entry("merges", i, text), " is not two pieces with one space between them"));
    joined.assign(text.substr(0, space)).append(text.substr(space + 1));
    int32_t parts[3] = {};
    const std::string_view texts[3] = {text.substr(0, space), text.substr(space + 1), joined};
    for (int k = 0; k < 3; ++k) {
      const auto place = ids.find(texts[k]);
      if (place == ids.end())
        return fail(ErrorCode::kMalformed, cat(entry("merges", i, text), ": '", escaped(texts[k]), "' is not in the vocabulary"));
      parts[k] = place->second;
    }
    if (!control[static_cast<size_t>(parts[2])]) found.push_back({parts[0], parts[1], parts[2], static_cast<uint32_t>(i)});
  }
  merges = BpeTable(std::move(found), size());
  return {};
}

// Special tokens are taken out first, leftmost and longest, and what lies between them is cut into words: each stretch is a text of its own.
std::vector<int32_t> Tokenizer::State::encode(std::string_view text, std::span<const Range> scaffold) const {
  std::vector<int32_t> ids;
  BpeMerger merger(merges, byte_ids);
  size_t stretch = 0;
  size_t range = 0;
  for (size_t at = 0; at < text.size();) {
    while (range < scaffold.size() && scaffold[range].end <= at) ++range;
    const bool in_scaffold = range < scaffold.size() && scaffold[range].begin <= at;
    const SpecialToken* special = specials.match(text.substr(at), in_scaffold ? scaffold[range].end - at : 0);
    if (special == nullptr) {
      ++at;
      continue;
    }
    encode_words(text.substr(stretch, at - stretch), merger, ids);
    ids.push_back(special->id);
    at += special->text.size();
    stretch = at;
  }
  encode_words(text.substr(stretch), merger, ids);
  return ids;
}

void Tokenizer::State::encode_words(std::string_view text, BpeMerger& merger, std::vector<int32_t>& ids) const {
  std::string replaced;
  if (!lossless && !is_utf8(text)) text = replaced = replace_invalid_utf8(text);
  while (!text.empty()) {
    const size_t length = std::min(pre->word_end(text), kMaxWordBytes);
    merger.append(text.substr(0, length), ids);
    text.remove_prefix(length);
  }
}

Result<Tokenizer> Tokenizer::create(const TokenizerTables& tables) {
  if (tables.model != "gpt2")
    return fail(ErrorCode::kUnsupported, cat("tokenizer.ggml.model is '", escaped(tables.model), "'; known tokenizers: gpt2 (byte-level BPE)"));
  auto state = std::make_unique<State>();
  TESSERA_ASSIGN(state->pre, find_pre_tokenizer(tables.pre));
  TESSERA_TRY(state->check_tables(tables));
  TESSERA_TRY(state->read_tokens(tables));
  TESSERA_TRY(state->read_special(tables));
  TESSERA_TRY(state->read_bytes(tables));
  TESSERA_TRY(state->read_merges(tables));
  return Tokenizer(std::move(state));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  const Range whole = {0, text.size()};
  return state_->encode(text, {&whole, parse_special ? 1u : 0u});
}

std::vector<int32_t> Tokenizer::encode(std::span<const PromptSegment> prompt) const {
  std::string text;
  std::vector<Range> scaffold;
  for (const PromptSegment& segment : prompt) {
    if (segment.scaffold) scaffold.push_back({text.size(), text.size() + segment.text.size()});
    text += segment.text;
  }
  return state_->encode(text, scaffold);
}

bool Tokenizer::is_lossless() const { return state_->lossless; }

std::string_view Tokenizer::piece(int32_t id, bool with_control) const {
  if (!state_->has(id) || (is_control(id) && !with_control)) return {};
  return state_->text_of(static_cast<size_t>(id));
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool with_control) const {
  std::string text;
  for (const int32_t id : ids) text += piece(id, with_control);
  return text;
}

bool Tokenizer::is_control(int32_t id) const { return state_->has(id) && state_->control[static_cast<size_t>(id)]; }

bool Tokenizer::ends_text(int32_t id) const { return std::binary_search(state_->end_ids.begin(), state_->end_ids.end(), id); }

int32_t Tokenizer::id_of(std::string_view token_text) const {
  int32_t found = -1;
  for (size_t i = 0; i < state_->size(); ++i) {
    if (state_->text_of(i) != token_text) continue;
    if (state_->control[i]) return static_cast<int32_t>(i);
    if (found < 0) found = static_cast<int32_t>(i);
  }
  return found;
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(state_->size()); }

Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}

}  // namespace tessera
