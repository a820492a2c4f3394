#include "words.hpp"

#include <algorithm>
#include <cctype>
#include <numeric>

#include "tessera/base/text.hpp"

namespace chat {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// Insertions, deletions, substitutions and exchanged neighbours (Damerau and Levenshtein, restricted form), row by row.
size_t edits(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), now(b.size() + 1);
  std::iota(last.begin(), last.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) now[j] = std::min(now[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, now);
  }
  return last[b.size()];
}

size_t characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

std::vector<std::string> nearest(std::string_view word, const std::vector<std::string>& names) {
  const std::string wanted = lower(word.substr(0, 256));
  std::vector<std::pair<size_t, std::string>> close;
  for (const std::string& name : names) {
    const std::string known = lower(name);
    const size_t wrong = edits(wanted, known);
    if (wanted.size() >= 3 && known.find(wanted) != std::string::npos) {
      close.emplace_back(0, name);
    } else if (wrong <= std::max<size_t>(1, std::max(wanted.size(), known.size()) / 3)) {
      close.emplace_back(wrong, name);
    }
  }
  std::stable_sort(close.begin(), close.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> out;
  for (auto& [wrong, name] : close) out.push_back(std::move(name));
  return out;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& names) {
  const std::vector<std::string> close = nearest(word, names);
  return close.empty() ? std::string() : tessera::cat(" (did you mean ", close.front(), "?)");
}

std::string wrapped(std::string_view text, size_t columns, size_t indent) {
  std::string out;
  size_t used = 0;
  while (!text.empty()) {
    const size_t spaces = std::min(text.find_first_not_of(' '), text.size());
    const std::string_view gap = text.substr(0, spaces);
    text.remove_prefix(spaces);
    const std::string_view word = text.substr(0, text.find_first_of(" \n"));
    text.remove_prefix(word.size());
    if (used > indent && used + spaces + characters(word) > columns) {
      out += "\n" + std::string(indent, ' ');
      used = indent;
    } else {
      out += gap;
      used += spaces;
    }
    out += word;
    used += characters(word);
    if (text.starts_with('\n')) {
      out += '\n';
      used = 0;
      text.remove_prefix(1);
    }
  }
  return out;
}

}  // namespace chat
