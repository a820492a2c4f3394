// Words and symbols of a kernel file, each with its line, and the cursor that every parser of the dialect walks on.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"

namespace tessera::codegen {

enum class TokenKind : uint8_t { kName, kNumber, kSymbol, kEnd };

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string_view text;  // into the kernel file's text
  int line = 0;
};

// Tokens [begin, end) of one file. Indices, so that a parsed file may be moved.
struct TokenRange {
  size_t begin = 0;
  size_t end = 0;
  bool empty() const { return begin == end; }
};

inline Error error_at(std::string_view file, int line, std::string_view message) {
  return Error(ErrorCode::kCompile, cat(file, ":", line, ": ", message));
}

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
constexpr bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

class Tokenizer {
 public:
  Tokenizer(std::string_view file, std::string_view text) : file_(file), text_(text) {}

  // Comments and white space are left out. The last token is kEnd, on the last line.
  Result<std::vector<Token>> run() {
    std::vector<Token> tokens;
    while (true) {
      TESSERA_TRY(skip_space());
      if (at_ == text_.size()) break;
      const size_t length = token_length();
      if (length == 0) return fail(error_at(file_, line_, cat("the character '", escaped(text_.substr(at_, 1)), "' has no meaning here")));
      const char first = text_[at_];
      const TokenKind kind = is_letter(first) ? TokenKind::kName : number_starts() ? TokenKind::kNumber : TokenKind::kSymbol;
      tokens.push_back({kind, text_.substr(at_, length), line_});
      at_ += length;
    }
    tokens.push_back({TokenKind::kEnd, "end of file", line_});
    return tokens;
  }

 private:
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool number_starts() const { return is_digit(peek()) || (peek() == '.' && is_digit(peek(1))); }

  Status skip_space() {
    while (at_ < text_.size()) {
      if (is_space(peek())) {
        if (peek() == '\n') ++line_;
        ++at_;
      } else if (peek() == '/' && peek(1) == '/') {
        while (at_ < text_.size() && peek() != '\n') ++at_;
      } else if (peek() == '/' && peek(1) == '*') {
        TESSERA_TRY(skip_block_comment());
      } else {
        break;
      }
    }
    return {};
  }

  Status skip_block_comment() {
    const int opened = line_;
    for (at_ += 2; at_ < text_.size(); ++at_) {
      if (peek() == '\n') ++line_;
      if (peek() == '*' && peek(1) == '/') {
        at_ += 2;
        return {};
      }
    }
    return fail(error_at(file_, opened, "the comment is not closed"));
  }

  size_t token_length() const {
    size_t length = 0;
    if (is_letter(peek())) {
      while (is_letter(peek(length)) || is_digit(peek(length))) ++length;
      return length;
    }
    return number_starts() ? number_length() : symbol_length();
  }

  // Takes what looks like a number; what it means, and whether it is one, is the expression parser's business.
  size_t number_length() const {
    const bool hex = peek() == '0' && (peek(1) == 'x' || peek(1) == 'X');
    size_t length = 0;
    while (is_letter(peek(length)) || is_digit(peek(length)) || peek(length) == '.' ||
           (!hex && length > 0 && (peek(length) == '+' || peek(length) == '-') && (peek(length - 1) == 'e' || peek(length - 1) == 'E')))
      ++length;
    return length;
  }

  size_t symbol_length() const {
    constexpr std::string_view kSymbols[] = {
        "<<=", ">>=", "++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+", "-",
        "*",   "/",   "%",  "&",  "|",  "^",  "~",  "!",  "<",  ">",  "=",  "?",  ":",  "(",  ")",  "[",  "]",  "{",  "}",  ",",  ".", ";"};
    for (std::string_view symbol : kSymbols)
      if (text_.substr(at_).starts_with(symbol)) return symbol.size();
    return 0;
  }

  std::string_view file_;
  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
};

// Walks over tokens and keeps the first error. After an error it stands at the end, so that every parsing loop stops by itself.
class Cursor {
 public:
  Cursor(std::string_view file, const std::vector<Token>& tokens, TokenRange range)
      : file_(file), tokens_(&tokens), at_(range.begin), end_(range.end), last_line_(tokens[range.begin].line) {}

  const Token& peek(size_t ahead = 0) const { return at_ + ahead < end_ ? (*tokens_)[at_ + ahead] : end_token_; }
  bool done() const { return at_ >= end_ || peek().kind == TokenKind::kEnd; }
  bool at(std::string_view text) const { return !done() && peek().text == text; }
  size_t position() const { return at_; }
  int line() const { return done() ? last_line_ : peek().line; }
  std::string_view file() const { return file_; }

  Token take() {
    const Token token = peek();
    if (!done()) {
      last_line_ = token.line;
      ++at_;
    }
    return token;
  }
  bool accept(std::string_view text) {
    if (!at(text)) return false;
    take();
    return true;
  }
  // A missing ';' belongs to the line before the one where its absence is noticed.
  void expect(std::string_view text, std::string_view where) {
    if (!accept(text)) fail(last_line_, cat("expected '", text, "' ", where, ", found ", found()));
  }
  std::string_view expect_name(std::string_view what) {
    if (peek().kind == TokenKind::kName) return take().text;
    fail(last_line_, cat("expected ", what, ", found ", found()));
    return {};
  }

  // Steps over a group whose opening symbol was just taken, and over its closing one; gives what lies between.
  TokenRange skip_group(std::string_view open, std::string_view close) {
    const int opened = last_line_;
    const size_t begin = at_;
    for (int depth = 1; !done();) {
      if (at(open)) ++depth;
      if (at(close) && --depth == 0) {
        const size_t end = at_;
        take();
        return {begin, end};
      }
      take();
    }
    fail(opened, cat("this '", open, "' is not closed"));
    return {};
  }

  std::string found() const { return done() ? std::string("the end") : cat("'", peek().text, "'"); }
  void fail(int line, std::string_view message) {
    if (!error_) error_ = error_at(file_, line, message);
    at_ = end_;
  }
  void fail(Error error) {
    if (!error_) error_ = std::move(error);
    at_ = end_;
  }
  bool failed() const { return error_.has_value(); }
  Status status() const { return error_ ? Status(tessera::fail(*error_)) : Status(); }

 private:
  std::string_view file_;
  const std::vector<Token>* tokens_;
  size_t at_;
  size_t end_;
  int last_line_;  // of the token taken last
  Token end_token_;
  std::optional<Error> error_;
};

}  // namespace tessera::codegen
