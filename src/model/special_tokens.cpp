#include "special_tokens.hpp"

#include <algorithm>

namespace tessera {

SpecialTokens::SpecialTokens(std::vector<SpecialToken> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(), [](const SpecialToken& a, const SpecialToken& b) { return a.text < b.text; });
  for (const SpecialToken& token : tokens_) first_bytes_[static_cast<unsigned char>(token.text[0])] = true;
}

const SpecialToken* SpecialTokens::match(std::string_view text, size_t control_bytes) const {
  if (!first_bytes_[static_cast<unsigned char>(text[0])]) return nullptr;
  const SpecialToken* longest = nullptr;
  auto begin = tokens_.begin();
  auto end = tokens_.end();
  // [begin, end) are the tokens that start with the first `length` bytes of the text; the one that is no longer than that sorts first.
  for (size_t length = 1; length <= text.size(); ++length) {
    const auto byte_less = [length](const SpecialToken& token, unsigned char byte) {
      return token.text.size() < length || static_cast<unsigned char>(token.text[length - 1]) < byte;
    };
    const auto byte = static_cast<unsigned char>(text[length - 1]);
    begin = std::lower_bound(begin, end, byte, byte_less);
    end = std::partition_point(begin, end, [&](const SpecialToken& token) { return static_cast<unsigned char>(token.text[length - 1]) == byte; });
    if (begin == end) break;
    if (begin->text.size() == length && (!begin->control || length <= control_bytes)) longest = &*begin;
  }
  return longest;
}

}  // namespace tessera
