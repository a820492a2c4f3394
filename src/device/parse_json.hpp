// JSON from outside: parsed without exceptions, and no deeper than reading it can bear.
#pragma once
#include <nlohmann/json.hpp>
#include <string_view>

#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"

namespace tessera {

// nlohmann's own recursion (copying, printing) follows the nesting of its input, so that depth is bounded while parsing.
inline constexpr int kMaxJsonDepth = 64;

// kMalformed; `what` begins its message.
inline Result<nlohmann::json> parse_json_object(std::string_view text, std::string_view what) {
  bool too_deep = false;
  const auto guard = [&too_deep](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep = too_deep || depth > kMaxJsonDepth;
    return !too_deep;
  };
  nlohmann::json parsed = nlohmann::json::parse(text, guard, /*allow_exceptions=*/false);
  if (too_deep) return fail(ErrorCode::kMalformed, cat(what, " is nested deeper than ", kMaxJsonDepth));
  if (parsed.is_discarded()) return fail(ErrorCode::kMalformed, cat(what, " does not parse"));
  if (!parsed.is_object()) return fail(ErrorCode::kMalformed, cat(what, " is not an object"));
  return parsed;
}

}  // namespace tessera
