#include "tessera/model/tokenizer.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "special_tokens.hpp"
#include "tessera/base/text.hpp"
#include "text_encoder.hpp"
#include "vocabulary.hpp"

namespace tessera {
namespace {

constexpr size_t kMaxSpecialBytes = 1 << 10;   // bounds the work of recognising them at every place of a text

constexpr std::string_view kEndNames[] = {"<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<|end|>", "</s>"};

bool is_end_name(std::string_view text) { return std::find(std::begin(kEndNames), std::end(kEndNames), text) != std::end(kEndNames); }

constexpr std::array kKinds = {&kByteLevelBpe, &kSentencePiece};

Result<const TokenizerKind*> find_kind(std::string_view model) {
  std::string known;
  for (const TokenizerKind* kind : kKinds) {
    if (kind->model == model) return kind;
    known += cat(known.empty() ? "" : ", ", kind->model, " (", kind->description, ")");
  }
  return fail(ErrorCode::kUnsupported, cat("tokenizer.ggml.model is '", escaped(model), "'; known tokenizers: ", known));
}

// Half-open places of a text where control tokens are recognised, in order.
struct Range {
  size_t begin = 0;
  size_t end = 0;
};

}  // namespace

struct Tokenizer::State {
  Vocabulary words;
  std::vector<int32_t> end_ids;       // few, sorted
  int32_t bos = -1;                   // -1: none is to be put in front
  SpecialTokens specials;             // views into `words`
  std::unique_ptr<TextEncoder> encoder;

  Status read_special(const TokenizerTables& tables, bool words_in_raw_text);
  std::vector<int32_t> encode(std::string_view text, std::span<const Range> scaffold, bool continues) const;
};

Status Tokenizer::State::read_special(const TokenizerTables& tables, bool words_in_raw_text) {
  std::vector<SpecialToken> found;
  for (size_t i = 0; i < words.size(); ++i) {
    const bool user_defined = type_of(tables, i) == kUserDefined;
    const int64_t id = static_cast<int64_t>(i);
    const std::string_view text = words.text_of(i);
    // Some files call their end-of-turn token user-defined. Whoever could type it would end the turn, so it counts as control.
    if (user_defined && (is_end_name(text) || id == tables.bos || id == tables.eos || id == tables.eot)) words.control[i] = true;
    const bool control = words.control[i];
    if (id == tables.eos || id == tables.eot || (control && is_end_name(text))) end_ids.push_back(static_cast<int32_t>(i));
    if ((!control && !user_defined) || text.empty()) continue;
    if (text.size() > kMaxSpecialBytes)
      return fail(ErrorCode::kLimit, cat(entry_name("tokens", i, text), " is a special token of ", text.size(), " bytes; at most ", kMaxSpecialBytes, " are read"));
    if (control || words_in_raw_text) found.push_back({text, static_cast<int32_t>(i), control});
  }
  specials = SpecialTokens(std::move(found));
  return {};
}

// Special tokens are taken out first, leftmost and longest; each stretch between them is a text of its own.
std::vector<int32_t> Tokenizer::State::encode(std::string_view text, std::span<const Range> scaffold, bool continues) const {
  std::vector<int32_t> ids;
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
    encoder->append(text.substr(stretch, at - stretch), continues && stretch == 0, ids);
    ids.push_back(special->id);
    at += special->text.size();
    stretch = at;
  }
  encoder->append(text.substr(stretch), continues && stretch == 0, ids);
  return ids;
}

Result<Tokenizer> Tokenizer::create(const TokenizerTables& tables) {
  TESSERA_ASSIGN(const TokenizerKind* kind, find_kind(tables.model));
  auto state = std::make_unique<State>();
  TESSERA_ASSIGN(state->words, read_vocabulary(tables, kind->spell));
  TESSERA_TRY(state->read_special(tables, kind->words_in_raw_text));
  TESSERA_ASSIGN(state->encoder, kind->make(tables, state->words));
  if (tables.add_bos) state->bos = static_cast<int32_t>(tables.bos);
  return Tokenizer(std::move(state));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  const Range whole = {0, text.size()};
  return state_->encode(text, {&whole, parse_special ? 1u : 0u}, false);
}

std::vector<int32_t> Tokenizer::encode(std::span<const PromptSegment> prompt, bool continues) const {
  std::string text;
  std::vector<Range> scaffold;
  for (const PromptSegment& segment : prompt) {
    const size_t begin = text.size();
    text += segment.text;
    if (!segment.scaffold || segment.text.empty()) continue;
    if (!scaffold.empty() && scaffold.back().end == begin) scaffold.back().end = text.size();
    else scaffold.push_back({begin, text.size()});
  }
  return state_->encode(text, scaffold, continues);
}

void Tokenizer::add_bos(std::vector<int32_t>& ids) const {
  if (state_->bos >= 0 && (ids.empty() || ids.front() != state_->bos)) ids.insert(ids.begin(), state_->bos);
}

bool Tokenizer::is_lossless() const { return state_->encoder->is_lossless(); }

std::string_view Tokenizer::piece(int32_t id, bool with_control) const {
  if (!state_->words.has(id) || (is_control(id) && !with_control)) return {};
  return state_->words.text_of(static_cast<size_t>(id));
}

std::string_view TokenDecoder::push(int32_t id) {
  const Tokenizer::State& state = *tokenizer_.state_;
  std::string_view text = tokenizer_.piece(id, with_control_);
  if (at_start_ && text.starts_with(' ') && !tokenizer_.is_control(id) && state.encoder->adds_space(id)) {
    text.remove_prefix(1);
    at_start_ = false;
  }
  if (!text.empty()) at_start_ = false;
  return text;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool with_control) const {
  std::string text;
  TokenDecoder decoder(*this, with_control);
  for (const int32_t id : ids) text += decoder.push(id);
  return text;
}

bool Tokenizer::is_control(int32_t id) const { return state_->words.has(id) && state_->words.control[static_cast<size_t>(id)]; }

bool Tokenizer::ends_text(int32_t id) const { return std::binary_search(state_->end_ids.begin(), state_->end_ids.end(), id); }

int32_t Tokenizer::id_of(std::string_view token_text) const {
  int32_t found = -1;
  for (size_t i = 0; i < state_->words.size(); ++i) {
    if (state_->words.text_of(i) != token_text) continue;
    if (state_->words.control[i]) return static_cast<int32_t>(i);
    if (found < 0) found = static_cast<int32_t>(i);
  }
  return found;
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(state_->words.size()); }

Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}

}  // namespace tessera
