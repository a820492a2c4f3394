#include "jinja_lexer.hpp"

#include <algorithm>

#include "tessera/base/text.hpp"
#include "tessera/base/utf8.hpp"

namespace tessera {
namespace {

bool is_ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_python_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  Result<std::vector<JinjaToken>> run() {
    while (at_ < source_.size()) {
      const size_t open = next_tag();
      add_text(open);
      if (open == source_.size()) break;
      TESSERA_TRY(read_tag(open));
    }
    add(JinjaKind::kEnd, "", source_.size());
    return std::move(tokens_);
  }

 private:
  void add(JinjaKind kind, std::string text, size_t at) { tokens_.push_back({kind, std::move(text), at}); }
  bool sees(std::string_view text) const { return source_.substr(at_).starts_with(text); }
  tl::unexpected<Error> cannot(size_t at, std::string_view what) const { return fail(jinja_error(source_, at, what)); }

  size_t next_tag() const {
    for (size_t i = at_; i + 1 < source_.size(); ++i) {
      if (source_[i] == '{' && (source_[i + 1] == '%' || source_[i + 1] == '{' || source_[i + 1] == '#')) return i;
    }
    return source_.size();
  }

  // The text before the tag at `open`, less what the tag takes away from it.
  void add_text(size_t open) {
    const bool line_starts = at_ == 0 || source_[at_ - 1] == '\n';
    std::string_view text = source_.substr(at_, open - at_);
    const std::string_view tag = source_.substr(open, 3);
    if (tag.ends_with('-')) {
      while (!text.empty() && is_ascii_space(text.back())) text.remove_suffix(1);
    } else if (!tag.empty() && !tag.ends_with('+') && tag[1] != '{') {
      const size_t line = text.rfind('\n') + 1;  // 0: no newline
      const bool blank = std::all_of(text.begin() + static_cast<std::ptrdiff_t>(line), text.end(), is_ascii_space);
      if (blank && (line > 0 || line_starts)) text = text.substr(0, line);
    }
    if (!text.empty()) add(JinjaKind::kText, std::string(text), at_);
  }

  Status read_tag(size_t open) {
    const char type = source_[open + 1];
    at_ = open + 2;
    if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) ++at_;
    if (type == '#') return skip_comment(open);
    const bool block = type == '%';
    add(block ? JinjaKind::kOpenBlock : JinjaKind::kOpenPrint, std::string(source_.substr(open, 2)), open);
    while (at_ < source_.size()) {
      const size_t start = at_;
      if (close_tag(block ? "%}" : "}}", block)) {
        add(block ? JinjaKind::kCloseBlock : JinjaKind::kClosePrint, block ? "%}" : "}}", start);
        return {};
      }
      TESSERA_TRY(read_token());
    }
    return cannot(open, "the tag that is never closed");
  }

  Status skip_comment(size_t open) {
    for (; at_ < source_.size(); ++at_) {
      if (close_tag("#}", true)) return {};
    }
    return cannot(open, "the comment that is never closed");
  }

  // Moves behind the closing mark, and behind the white space that it takes away: all for "-%}", a newline for the plain end of a block.
  bool close_tag(std::string_view mark, bool block) {
    const char sign = source_[at_];
    const bool is_signed = sign == '-' || (sign == '+' && block);
    if (!source_.substr(at_ + (is_signed ? 1 : 0)).starts_with(mark)) return false;
    at_ += mark.size() + (is_signed ? 1 : 0);
    if (sign == '-') {
      while (at_ < source_.size() && is_ascii_space(source_[at_])) ++at_;
    } else if (block && sign != '+' && sees("\n")) {
      ++at_;
    }
    return true;
  }

  Status read_token() {
    const char c = source_[at_];
    const size_t start = at_;
    if (is_ascii_space(c)) {
      ++at_;
    } else if (c == '\'' || c == '"') {
      return read_string();
    } else if (is_name_start(c)) {
      while (at_ < source_.size() && (is_name_start(source_[at_]) || is_digit(source_[at_]))) ++at_;
      add(JinjaKind::kName, std::string(source_.substr(start, at_ - start)), start);
    } else if (is_digit(c)) {
      while (at_ < source_.size() && is_digit(source_[at_])) ++at_;
      add(JinjaKind::kNumber, std::string(source_.substr(start, at_ - start)), start);
    } else {
      at_ += sees("==") || sees("!=") ? 2 : 1;
      add(JinjaKind::kSign, std::string(source_.substr(start, at_ - start)), start);
    }
    return {};
  }

  Status read_string() {
    constexpr std::string_view kEscapes = "n\nt\tr\r\\\\''\"\"";  // pairs: letter, meaning
    const size_t start = at_;
    const char quote = source_[at_++];
    std::string text;
    for (; at_ < source_.size() && source_[at_] != quote; ++at_) {
      if (source_[at_] != '\\') {
        text += source_[at_];
        continue;
      }
      ++at_;
      size_t i = 0;
      while (i < kEscapes.size() && !(at_ < source_.size() && kEscapes[i] == source_[at_])) i += 2;
      if (i >= kEscapes.size()) return cannot(at_ - 1, cat("the escape '", escaped(source_.substr(at_ - 1, 2)), "'"));
      text += kEscapes[i + 1];
    }
    if (at_ >= source_.size()) return cannot(start, "the string that is never closed");
    ++at_;
    add(JinjaKind::kString, std::move(text), start);
    return {};
  }

  std::string_view source_;
  size_t at_ = 0;
  std::vector<JinjaToken> tokens_;
};

}  // namespace

std::string jinja_source(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    out += text[i] == '\r' ? '\n' : text[i];
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

Result<std::vector<JinjaToken>> jinja_tokens(std::string_view source) { return Lexer(source).run(); }

Error jinja_error(std::string_view source, size_t at, std::string_view what) {
  const std::string_view before = source.substr(0, at);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t column = at - (before.rfind('\n') + 1) + 1;
  return Error(ErrorCode::kUnsupported,
               cat("chat template ", line, ":", column, ": cannot follow ", what, "; --chat-template chatml uses a built-in one"));
}

std::string_view python_strip(std::string_view text) {
  size_t begin = text.size();
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = first_utf8(text.substr(at));
    if (!is_python_space(c.code)) {
      begin = std::min(begin, at);
      end = at + c.bytes;
    }
    at += c.bytes;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

}  // namespace tessera
