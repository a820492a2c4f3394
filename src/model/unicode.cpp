#include "unicode.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "tessera/base/utf8.hpp"

namespace tessera {
namespace {

using Code = utf8proc_int32_t;

// The White_Space property of Unicode, which is what \s means in the engines that trained these vocabularies.
bool is_white_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

auto combining_class(Code code) { return utf8proc_get_property(code)->combining_class; }

void append_decomposed(char32_t code, std::vector<Code>& codes) {
  Code parts[4] = {};   // no canonical decomposition is longer
  int boundary = 0;
  const auto count = utf8proc_decompose_char(static_cast<Code>(code), parts, std::size(parts), UTF8PROC_DECOMPOSE, &boundary);
  if (count > 0 && count <= static_cast<utf8proc_ssize_t>(std::size(parts))) codes.insert(codes.end(), parts, parts + count);
  else codes.push_back(static_cast<Code>(code));
}

// The canonical order of marks. utf8proc's own ordering takes quadratic time where thousands of marks stand on one letter.
void order_marks(std::vector<Code>& codes) {
  for (auto begin = codes.begin(); begin != codes.end();) {
    const auto is_starter = [](Code code) { return combining_class(code) == 0; };
    const auto marks = std::find_if_not(begin, codes.end(), is_starter);
    const auto end = std::find_if(marks, codes.end(), is_starter);
    std::stable_sort(marks, end, [](Code a, Code b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

void append_composed(std::vector<Code>& codes, std::string& out) {
  order_marks(codes);
  const auto count = utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()), static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    utf8proc_uint8_t bytes[4] = {};
    const auto length = utf8proc_encode_char(codes[static_cast<size_t>(i)], bytes);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
  }
  codes.clear();
}

// Below U+0300 no character combines with another, so most text is not taken apart at all.
bool may_change(std::string_view text) {
  return std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) >= 0xCC; });
}

}  // namespace

CharKind kind_of(char32_t code) {
  if (is_white_space(code)) return CharKind::kSpace;
  switch (utf8proc_category(static_cast<Code>(code))) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT: case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO:
      return CharKind::kLetter;
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_NO:
      return CharKind::kNumber;
    default:
      return CharKind::kOther;
  }
}

std::string to_nfc(std::string_view text) {
  if (!may_change(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  std::vector<Code> codes;
  while (!text.empty()) {
    const Utf8Char c = first_utf8(text);
    if (c.status == Utf8Status::kValid) {
      append_decomposed(c.code, codes);
    } else {
      append_composed(codes, out);
      out += text.substr(0, c.bytes);
    }
    text.remove_prefix(c.bytes);
  }
  append_composed(codes, out);
  return out;
}

}  // namespace tessera
