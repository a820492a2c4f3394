// Hand-written scanners: a regular expression engine on a person's text is a stack overflow waiting for a long word.
#include "tessera/model/pre_tokenizer.hpp"

#include <array>
#include <string>

#include "tessera/base/text.hpp"
#include "tessera/base/utf8.hpp"
#include "unicode.hpp"

namespace tessera {
namespace {

enum class Kind { kEnd, kNewline, kSpace, kLetter, kNumber, kOther };   // kNewline: \r and \n, which are spaces too

struct Char {
  Kind kind = Kind::kEnd;
  size_t bytes = 0;
};

bool is_space(Kind kind) { return kind == Kind::kSpace || kind == Kind::kNewline; }

Kind kind_at(const Utf8Char& c) {
  if (c.status != Utf8Status::kValid) return Kind::kOther;
  if (c.code == '\n' || c.code == '\r') return Kind::kNewline;
  constexpr Kind kKinds[] = {Kind::kSpace, Kind::kLetter, Kind::kNumber, Kind::kOther};   // in CharKind's order
  return kKinds[static_cast<size_t>(kind_of(c.code))];
}

Char char_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const Utf8Char c = first_utf8(text.substr(at));
  return {kind_at(c), c.bytes};
}

// End of the run of `kind` that goes on at `at`.
size_t run_end(std::string_view text, size_t at, Kind kind) {
  for (Char c = char_at(text, at); c.kind == kind; c = char_at(text, at)) at += c.bytes;
  return at;
}

// A run of white space, as three of the patterns below look at it.
struct SpaceRun {
  size_t last = 0;       // where its last character begins
  size_t end = 0;
  size_t newlines = 0;   // end of its last newline; 0: it has none
  Kind next = Kind::kEnd;
};

SpaceRun space_run(std::string_view text) {
  SpaceRun run;
  Char c = char_at(text, 0);
  for (; is_space(c.kind); c = char_at(text, run.end)) {
    run.last = run.end;
    run.end += c.bytes;
    if (c.kind == Kind::kNewline) run.newlines = run.end;
  }
  run.next = c.kind;
  return run;
}

// \s+(?!\S)|\s+ : the whole run at the end of the text; otherwise all but its last character, which goes with the next word.
size_t spaces(const SpaceRun& run, bool text_ends) { return text_ends || run.last == 0 ? run.end : run.last; }

// GPT-2 (Radford et al. 2019, encoder.py): 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// With numbers apart, as Hugging Face's Sequence[Digits(individual_digits), ByteLevel] cuts: first every numeric character becomes a piece of its
// own, then the pattern cuts each piece between them as a text of its own.
template <bool kNumbersApart>
size_t gpt2_word(std::string_view rest) {
  const Char first = char_at(rest, 0);
  if (kNumbersApart && first.kind == Kind::kNumber) return first.bytes;
  for (const std::string_view form : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (rest.starts_with(form)) return form.size();
  }
  if (!is_space(first.kind)) return run_end(rest, 0, first.kind);
  const auto ends_text = [](Kind kind) { return kind == Kind::kEnd || (kNumbersApart && kind == Kind::kNumber); };
  const Kind second = char_at(rest, first.bytes).kind;
  if (rest[0] == ' ' && !is_space(second) && !ends_text(second)) return run_end(rest, 1, second);
  const SpaceRun run = space_run(rest);
  return spaces(run, ends_text(run.next));
}

// The length of (?i:'s|'t|'re|'ve|'m|'ll|'d) at the beginning of `rest`; 0: none. U+017F, the long s, is an s where case does not count.
size_t contraction(std::string_view rest) {
  if (!rest.starts_with('\'')) return 0;
  if (rest.substr(1).starts_with("\xC5\xBF")) return 3;
  const auto lower = [rest](size_t i) { return i < rest.size() && rest[i] >= 'A' && rest[i] <= 'Z' ? static_cast<char>(rest[i] + 32) : i < rest.size() ? rest[i] : '\0'; };
  const char a = lower(1), b = lower(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  return (b == 'e' && (a == 'r' || a == 'v')) || (a == 'l' && b == 'l') ? 3 : 0;
}

// Llama 3 (tokenizer.json of Meta-Llama-3-8B; the pattern is that of OpenAI's cl100k_base) with kDigits = 3, Qwen2 (tokenizer.json of Qwen2-0.5B) with 1:
// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,kDigits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
template <int kDigits>
size_t cl100k_word(std::string_view rest) {
  if (const size_t length = contraction(rest)) return length;
  const Char first = char_at(rest, 0);
  if (first.kind == Kind::kLetter) return run_end(rest, 0, Kind::kLetter);
  if (first.kind == Kind::kNumber) {
    size_t end = first.bytes;
    for (int n = 1; n < kDigits; ++n) {
      const Char c = char_at(rest, end);
      if (c.kind == Kind::kNumber) end += c.bytes;
    }
    return end;
  }
  const Kind second = char_at(rest, first.bytes).kind;
  if (first.kind != Kind::kNewline && second == Kind::kLetter) return run_end(rest, first.bytes, Kind::kLetter);
  if (first.kind == Kind::kOther || (rest[0] == ' ' && second == Kind::kOther))
    return run_end(rest, run_end(rest, first.bytes, Kind::kOther), Kind::kNewline);
  const SpaceRun run = space_run(rest);
  return run.newlines > 0 ? run.newlines : spaces(run, run.next == Kind::kEnd);
}

constexpr PreTokenizer gpt2(std::string_view name, bool nfc = false) { return {name, gpt2_word<false>, nfc}; }
constexpr PreTokenizer smollm(std::string_view name, bool nfc = false) { return {name, gpt2_word<true>, nfc}; }
constexpr PreTokenizer llama3(std::string_view name) { return {name, cl100k_word<3>, false, true, true}; }
constexpr PreTokenizer cl100k(std::string_view name) { return {name, cl100k_word<3>}; }
constexpr PreTokenizer qwen2(std::string_view name, bool nfc = true) { return {name, cl100k_word<1>, nfc}; }

// Which name means which pattern is a convention of the converters, written down in llama.cpp (src/llama-vocab.cpp). Normalization is as in
// Hugging Face's definitions of these tokenizers (Qwen2, GPT-NeoX for mpt and olmo, Cohere for command-r); files carry no trace of it.
constexpr std::array kPreTokenizers = {
    gpt2("gpt-2"), gpt2("phi-2"), gpt2("jais"), gpt2("gigachat"), gpt2("a.x-4.0"), gpt2("mellum"), gpt2("exaone4"), gpt2("trillion"),
    gpt2("granite-docling"), gpt2("mpt", true), gpt2("olmo", true),
    smollm("smollm"), smollm("starcoder"), smollm("refact"), smollm("codeshell"), smollm("exaone"), smollm("minerva-7b"), smollm("command-r", true),
    llama3("llama-bpe"), llama3("llama3"), llama3("llama-v3"), llama3("falcon3"), llama3("falcon-h1"), llama3("pixtral"), llama3("midm-2.0"),
    llama3("lfm2"), cl100k("dbrx"), cl100k("smaug-bpe"), cl100k("glm4"), cl100k("chatglm-bpe"),
    qwen2("qwen2"), qwen2("deepseek-r1-qwen"), qwen2("kormo"), qwen2("megrez"), qwen2("stablelm2", false), qwen2("hunyuan", false),
};

// No name, or "default", is what a converter writes that did not know the model. Any guess would cut some words otherwise than in training and
// answers would be worse without a sign of it, so there is none.
constexpr std::string_view kHowToName =
    ". A converter that did not know the model writes this; name its pre-tokenizer with 'gguf-new-metadata --pre-tokenizer NAME old.gguf new.gguf' "
    "(of the Python package gguf) or convert the model again";

}  // namespace

std::span<const PreTokenizer> pre_tokenizers() { return kPreTokenizers; }

Result<const PreTokenizer*> find_pre_tokenizer(std::string_view name) {
  std::string known;
  for (const PreTokenizer& row : kPreTokenizers) {
    if (row.name == name) return &row;
    known += known.empty() ? "" : ", ";
    known += row.name;
  }
  const bool unnamed = name.empty() || name == "default";
  const std::string found = name.empty() ? "missing" : cat("'", escaped(name), "'");
  return fail(ErrorCode::kUnsupported, cat("tokenizer.ggml.pre is ", found, "; known pre-tokenizers: ", known, unnamed ? kHowToName : ""));
}

}  // namespace tessera
