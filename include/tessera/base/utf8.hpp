// UTF-8, one character at a time, from bytes that may be anything. Never reads past the end, never throws.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera {

enum class Utf8Status {
  kValid,
  kInvalid,     // no continuation can make these bytes a character
  kIncomplete,  // the text ends inside what may still become a character
};

struct Utf8Char {
  char32_t code = 0;   // U+FFFD unless kValid
  size_t bytes = 0;    // ≥ 1. When not kValid: the bytes that one U+FFFD stands for
  Utf8Status status = Utf8Status::kValid;
};

inline constexpr char32_t kReplacementCode = 0xFFFD;
inline constexpr std::string_view kReplacementText = "\xEF\xBF\xBD";

// The character that `text` (not empty) begins with. Ill-formed bytes are cut into maximal subparts, as the Unicode standard recommends
// (version 15, chapter 3.9, tables 3-7 and 3-8): what Python, Rust and browsers do.
inline Utf8Char first_utf8(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1, Utf8Status::kValid};
  if (lead < 0xC2 || lead > 0xF4) return {kReplacementCode, 1, Utf8Status::kInvalid};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range is what keeps out overlong forms (E0, F0), surrogates (ED) and codes above 10FFFF (F4).
  unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  char32_t code = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {kReplacementCode, i, Utf8Status::kIncomplete};
    if (byte(i) < low || byte(i) > high) return {kReplacementCode, i, Utf8Status::kInvalid};
    code = code << 6 | (byte(i) & 0x3Fu);
    low = 0x80;
    high = 0xBF;
  }
  return {code, length, Utf8Status::kValid};
}

inline bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char c = first_utf8(text);
    if (c.status != Utf8Status::kValid) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

// `text` with every ill-formed sequence replaced by U+FFFD: always valid UTF-8.
inline std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = first_utf8(text);
    out += c.status == Utf8Status::kValid ? text.substr(0, c.bytes) : kReplacementText;
    text.remove_prefix(c.bytes);
  }
  return out;
}

}  // namespace tessera
