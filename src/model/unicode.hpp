// Properties of code points, from utf8proc's tables.
#pragma once
#include <string>
#include <string_view>

namespace tessera {

enum class CharKind { kSpace, kLetter, kNumber, kOther };   // \s, \p{L}, \p{N}, and what is none of them

CharKind kind_of(char32_t code);

// Normalization form C (Unicode standard annex 15), in O(n log n) for any text; ill-formed bytes stay and stand between their neighbours.
std::string to_nfc(std::string_view text);

}  // namespace tessera
