// Jinja text cut into tokens, whitespace control applied (Jinja 3.1 with trim_blocks and lstrip_blocks, as transformers sets them).
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"

namespace tessera {

enum class JinjaKind { kText, kOpenBlock, kCloseBlock, kOpenPrint, kClosePrint, kName, kString, kNumber, kSign, kEnd };

struct JinjaToken {
  JinjaKind kind = JinjaKind::kEnd;
  std::string text;   // strings: without quotes, escapes resolved
  size_t at = 0;      // byte of the source, for messages
};

// Newlines as \n, one at the very end taken away: what Jinja does before anything else.
std::string jinja_source(std::string_view text);

// `source` from jinja_source. The last token is kEnd. kUnsupported: an unclosed tag or string, an escape that is not followed.
Result<std::vector<JinjaToken>> jinja_tokens(std::string_view source);

// The error for a construct at byte `at` of the source; says line:column and the way out.
Error jinja_error(std::string_view source, size_t at, std::string_view what);

// Python's str.strip: also the four separators U+001C … U+001F, which are no White_Space.
std::string_view python_strip(std::string_view text);

}  // namespace tessera
