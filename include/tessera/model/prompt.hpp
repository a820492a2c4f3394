// What a chat template makes and a tokenizer reads: text that knows whether it may hold control tokens.
#pragma once
#include <string>

namespace tessera {

struct PromptSegment {
  std::string text;
  bool scaffold = false;  // true: control tokens are recognised; false: a person's or model's text, which never becomes one

  bool operator==(const PromptSegment&) const = default;
};

}  // namespace tessera
