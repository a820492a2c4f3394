// Text ↔ token ids: byte-level BPE and SentencePiece's BPE. O(n log n) in the length of the text, no recursion, no exceptions on any bytes.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/model/model_file.hpp"
#include "tessera/model/prompt.hpp"

namespace tessera {

// Gives the ids that Hugging Face's tokenizers and SentencePiece give. All const calls may run at once. Holds about 40 bytes a token (twice
// that for SentencePiece); the tables are not kept.
class Tokenizer {
 public:
  // kUnsupported names the tokenizer model or pre-tokenizer and lists the known ones; kMalformed and kLimit name the bad table entry.
  static Result<Tokenizer> create(const TokenizerTables& tables);

  // Ids of `text`, nothing added in front. parse_special: text of control tokens becomes those tokens (scaffold of a chat template);
  // otherwise it is text like any other (what a user typed). User-defined tokens are plain words of the vocabulary and always recognised.
  // Vocabularies of SentencePiece that were trained so get a space in front of the text and behind each control token; decode() takes the
  // first of them away.
  // Any bytes are allowed; see is_lossless() for those that are not UTF-8.
  std::vector<int32_t> encode(std::string_view text, bool parse_special) const;

  // The segments as one text (words and merges cross their borders, as in the rendered prompt), control tokens only inside scaffold.
  // continues: the text goes on behind other text, so no space is put in front of it.
  std::vector<int32_t> encode(std::span<const PromptSegment> prompt, bool continues = false) const;

  // Puts BOS in front of the ids of a whole text, where the model was trained so and they do not begin with it already.
  void add_bos(std::vector<int32_t>& ids) const;

  // Whether every byte has a token: then decode(encode(text)) is `text` for any bytes, but for what the model's own normalization changes (NFC of
  // some byte-level vocabularies; U+2581 is SentencePiece's space). Otherwise (SmolLM2 lacks 21 bytes) each ill-formed UTF-8 sequence is read
  // as U+FFFD, and what has no token is left out or becomes the unknown token, if there is one.
  bool is_lossless() const;

  // Raw bytes of one token (may be part of a UTF-8 character); empty for ids out of range. Control tokens, the unknown one among them, give
  // their text only if asked.
  std::string_view piece(int32_t id, bool with_control = false) const;
  std::string decode(std::span<const int32_t> ids, bool with_control = false) const;

  bool is_control(int32_t id) const;
  bool ends_text(int32_t id) const;     // eos, eot and known end-of-turn tokens
  // The token whose bytes are `token_text`, control tokens first; -1: none. Looks at every token: for set-up, not per token.
  int32_t id_of(std::string_view token_text) const;
  int64_t vocab_size() const;

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

 private:
  friend class TokenDecoder;
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Text of tokens as they come: what push() gives, one after another, is decode() of all of them. The tokenizer must outlive it.
class TokenDecoder {
 public:
  explicit TokenDecoder(const Tokenizer& tokenizer, bool with_control = false) : tokenizer_(tokenizer), with_control_(with_control) {}
  std::string_view push(int32_t id);   // valid as long as the tokenizer

 private:
  const Tokenizer& tokenizer_;
  bool with_control_;
  bool at_start_ = true;
};

}  // namespace tessera
