// Help with names that were mistyped, and lines that are wider than the terminal.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace chat {

// The names that are nearly `word`, the nearest first: a third of its letters may be wrong, or three and more are part of one.
std::vector<std::string> nearest(std::string_view word, const std::vector<std::string>& names);
// " (did you mean X?)", or nothing.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& names);

// `text` with line breaks in place of spaces where a line would exceed `columns` characters; lines that go on are indented by `indent`.
// Words wider than a line stay whole.
std::string wrapped(std::string_view text, size_t columns, size_t indent = 0);

}  // namespace chat
