// Hand-written scanners: a regular expression engine on a person's text is a stack overflow waiting for a long word.
#include "tessera/model/pre_tokenizer.hpp"

#include <utf8proc.h>

#include <array>
#include <string>

#include "tessera/base/text.hpp"
#include "tessera/base/utf8.hpp"

namespace tessera {
namespace {

enum class Kind { kEnd, kSpace, kLetter, kNumber, kOther };

struct Char {
  Kind kind = Kind::kEnd;
  size_t bytes = 0;
};

// The White_Space property of Unicode, which is what \s means in the engines that trained these vocabularies.
bool is_white_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

Kind kind_of(char32_t code) {
  if (is_white_space(code)) return Kind::kSpace;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT: case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO:
      return Kind::kLetter;
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_NO:
      return Kind::kNumber;
    default:
      return Kind::kOther;
  }
}

Char char_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const Utf8Char c = first_utf8(text.substr(at));
  return {c.status == Utf8Status::kValid ? kind_of(c.code) : Kind::kOther, c.bytes};
}

// End of the run of `kind` that goes on at `at`.
size_t run_end(std::string_view text, size_t at, Kind kind) {
  for (Char c = char_at(text, at); c.kind == kind; c = char_at(text, at)) at += c.bytes;
  return at;
}

// 's|'t|'re|'ve|'m|'ll|'d, which win over a run of punctuation only at its start. 0: none.
size_t contraction(std::string_view text) {
  for (const std::string_view form : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (text.starts_with(form)) return form.size();
  }
  return 0;
}

// \s+(?!\S)|\s+ : the whole run at the end of a piece; otherwise all but its last character, which goes with the next word.
size_t space_run(std::string_view text) {
  size_t last = 0;
  size_t end = 0;
  Char c = char_at(text, 0);
  for (; c.kind == Kind::kSpace; c = char_at(text, end)) {
    last = end;
    end += c.bytes;
  }
  const bool piece_ends = c.kind == Kind::kEnd || c.kind == Kind::kNumber;  // a digit is cut off before the pattern is applied
  return piece_ends || last == 0 ? end : last;
}

// Hugging Face: Sequence[Digits(individual_digits), ByteLevel(use_regex, no prefix space)]. First every numeric character becomes a piece of
// its own, then GPT-2's pattern cuts the rest: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t smollm_word(std::string_view rest) {
  const Char first = char_at(rest, 0);
  if (first.kind == Kind::kNumber) return first.bytes;
  if (const size_t length = contraction(rest)) return length;
  if (first.kind != Kind::kSpace) return run_end(rest, 0, first.kind);
  const Kind second = char_at(rest, first.bytes).kind;
  if (rest[0] == ' ' && (second == Kind::kLetter || second == Kind::kOther)) return run_end(rest, 1, second);
  return space_run(rest);
}

constexpr std::array kPreTokenizers = {
    PreTokenizer{"smollm", smollm_word},
};

}  // namespace

std::span<const PreTokenizer> pre_tokenizers() { return kPreTokenizers; }

Result<const PreTokenizer*> find_pre_tokenizer(std::string_view name) {
  std::string known;
  for (const PreTokenizer& row : kPreTokenizers) {
    if (row.name == name) return &row;
    known += known.empty() ? "" : ", ";
    known += row.name;
  }
  return fail(ErrorCode::kUnsupported, cat("tokenizer.ggml.pre is '", escaped(name), "'; known pre-tokenizers: ", known));
}

}  // namespace tessera
