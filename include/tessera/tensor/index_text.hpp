// An integer index expression as kernel text. Has the arithmetic of int64_t, so that one address formula (layout.hpp) can be evaluated
// with numbers on the host and printed into a kernel. Constants fold; multiplication by 1, addition of 0 and division by 1 vanish;
// division and remainder by a power of two become shift and mask (indices are never negative).
#pragma once
#include <bit>
#include <cstdint>
#include <optional>
#include <string>

namespace tessera {

class IndexText {
 public:
  IndexText(int64_t value) : text_(std::to_string(value)), value_(value), atom_(true) {}
  // `text` is any expression of type int; pass atom = true for a name or a literal, which needs no parentheses.
  explicit IndexText(std::string text, bool atom = false) : text_(std::move(text)), atom_(atom) {}

  const std::string& text() const { return text_; }
  std::optional<int64_t> value() const { return value_; }

  friend IndexText operator+(const IndexText& a, const IndexText& b) {
    if (a.value_ && b.value_) return *a.value_ + *b.value_;
    if (a.value_ == 0) return b;
    if (b.value_ == 0) return a;
    return IndexText(a.operand() + " + " + b.operand());
  }
  friend IndexText operator*(const IndexText& a, const IndexText& b) {
    if (a.value_ && b.value_) return *a.value_ * *b.value_;
    if (a.value_ == 0 || b.value_ == 0) return 0;
    if (a.value_ == 1) return b;
    if (b.value_ == 1) return a;
    return IndexText(a.operand() + " * " + b.operand());
  }
  friend IndexText operator/(const IndexText& a, int64_t b) {
    if (a.value_) return *a.value_ / b;
    if (b == 1) return a;
    if (is_power_of_two(b)) return IndexText(a.operand() + " >> " + std::to_string(shift_of(b)));
    return IndexText(a.operand() + " / " + std::to_string(b));
  }
  friend IndexText operator%(const IndexText& a, int64_t b) {
    if (a.value_) return *a.value_ % b;
    if (b == 1) return 0;
    if (is_power_of_two(b)) return IndexText(a.operand() + " & " + std::to_string(b - 1));
    return IndexText(a.operand() + " % " + std::to_string(b));
  }

 private:
  static bool is_power_of_two(int64_t v) { return std::has_single_bit(static_cast<uint64_t>(v)); }
  static int shift_of(int64_t v) { return std::countr_zero(static_cast<uint64_t>(v)); }
  std::string operand() const { return atom_ ? text_ : "(" + text_ + ")"; }

  std::string text_;
  std::optional<int64_t> value_;
  bool atom_ = false;
};

}  // namespace tessera
