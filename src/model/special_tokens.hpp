// Tokens that are recognised in raw text, before words are cut.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tessera {

struct SpecialToken {
  std::string_view text;    // not empty
  int32_t id = -1;
  bool control = false;
};

// Longest match at one place, in time proportional to the text that matches some token's beginning.
class SpecialTokens {
 public:
  SpecialTokens() = default;
  explicit SpecialTokens(std::vector<SpecialToken> tokens);
  // The longest token that `text` (not empty) begins with; control tokens only within its first `control_bytes` bytes. nullptr: none.
  const SpecialToken* match(std::string_view text, size_t control_bytes) const;

 private:
  std::vector<SpecialToken> tokens_;          // sorted by text
  std::array<bool, 256> first_bytes_ = {};    // which bytes begin a token: most text is passed over by this alone
};

}  // namespace tessera
