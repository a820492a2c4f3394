// The type rules of the dialect: what operators and words take and give. Strict where a target is: nothing converts by itself but int to uint.
#pragma once
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tessera/codegen/lowering.hpp"

namespace tessera::codegen {

enum class OpClass { kLogic, kBits, kEquality, kOrder, kShift, kSum, kProduct, kRemainder };

struct OpRow {
  std::string_view text;
  int precedence;  // as in C and in GLSL
  OpClass kind;
};

inline constexpr OpRow kBinaryOps[] = {{"||", 1, OpClass::kLogic},    {"&&", 2, OpClass::kLogic},   {"|", 3, OpClass::kBits},
                                       {"^", 4, OpClass::kBits},      {"&", 5, OpClass::kBits},     {"==", 6, OpClass::kEquality},
                                       {"!=", 6, OpClass::kEquality}, {"<", 7, OpClass::kOrder},    {">", 7, OpClass::kOrder},
                                       {"<=", 7, OpClass::kOrder},    {">=", 7, OpClass::kOrder},   {"<<", 8, OpClass::kShift},
                                       {">>", 8, OpClass::kShift},    {"+", 9, OpClass::kSum},      {"-", 9, OpClass::kSum},
                                       {"*", 10, OpClass::kProduct},  {"/", 10, OpClass::kProduct}, {"%", 10, OpClass::kRemainder}};

inline const OpRow* binary_op(std::string_view text) {
  for (const OpRow& row : kBinaryOps)
    if (row.text == text) return &row;
  return nullptr;
}

inline std::string name_of(Type type) { return std::string(type_row(type).name); }

inline std::string describe(const Expr& expr) { return (expr.array() ? "an array of " : "") + name_of(expr.type); }

// A value of type `from` may stand where `to` is wanted: the same type, or int for uint (both targets convert that).
inline bool assignable(Type to, Type from) { return to == from || (to == Type{Kind::kUint, 1} && from == Type{Kind::kInt, 1}); }

// The type of `a op b`; nullopt where the dialect, or one of the targets, has none.
inline std::optional<Type> result_type(OpClass op, Type a, Type b) {
  const Type boolean{Kind::kBool, 1};
  const bool mixed_ints = a.integral() && b.integral() && a.scalar() && b.scalar();
  const Kind kind = a.kind == b.kind ? a.kind : Kind::kUint;
  switch (op) {
    case OpClass::kLogic: return a == boolean && b == boolean ? std::optional(boolean) : std::nullopt;
    case OpClass::kEquality:
    case OpClass::kOrder:
      if (!a.scalar() || !b.scalar() || (op == OpClass::kOrder && a == boolean)) return std::nullopt;
      return a == b || mixed_ints ? std::optional(boolean) : std::nullopt;
    case OpClass::kShift: return a.integral() && b.integral() && (b.scalar() || a.lanes == b.lanes) ? std::optional(a) : std::nullopt;
    default: break;
  }
  const bool wants_integers = op == OpClass::kBits || op == OpClass::kRemainder;
  if (!a.numeric() || !b.numeric() || (wants_integers && !(a.integral() && b.integral()))) return std::nullopt;
  if (a.kind != b.kind && !mixed_ints) return std::nullopt;
  if (a.lanes == b.lanes || b.scalar()) return Type{kind, a.lanes};
  return a.scalar() ? std::optional(Type{kind, b.lanes}) : std::nullopt;
}

// `a op b` on known integers; nullopt where it has no value (division by zero, overflow).
inline std::optional<int64_t> fold(std::string_view op, int64_t a, int64_t b) {
  int64_t out = 0;
  if (op == "+") return __builtin_add_overflow(a, b, &out) ? std::nullopt : std::optional(out);
  if (op == "-") return __builtin_sub_overflow(a, b, &out) ? std::nullopt : std::optional(out);
  if (op == "*") return __builtin_mul_overflow(a, b, &out) ? std::nullopt : std::optional(out);
  if (op == "/" || op == "%") {
    if (b == 0 || (a == std::numeric_limits<int64_t>::min() && b == -1)) return std::nullopt;
    return op == "/" ? a / b : a % b;
  }
  if (op == "<<" || op == ">>") {
    if (a < 0 || b < 0 || b > 31 || a > std::numeric_limits<int32_t>::max()) return std::nullopt;
    return op == "<<" ? a << b : a >> b;
  }
  if (op == "&") return a & b;
  if (op == "|") return a | b;
  if (op == "^") return a ^ b;
  const std::pair<std::string_view, bool> kTruths[] = {
      {"==", a == b}, {"!=", a != b}, {"<", a < b}, {">", a > b}, {"<=", a <= b}, {">=", a >= b}, {"&&", a != 0 && b != 0}, {"||", a != 0 || b != 0}};
  for (const auto& [text, truth] : kTruths)
    if (text == op) return truth ? 1 : 0;
  return std::nullopt;
}

// Whether `arg` may stand for a parameter of a signature (the letters: dialect.hpp); `bound` is the type that the letters stand for.
inline bool fits_parameter(std::string_view wanted, const Expr& arg, std::optional<Type>& bound) {
  if (arg.array()) return false;
  if (wanted == "D") return arg.text == "0" || arg.text == "1" || arg.text == "2";
  if (const TypeRow* row = type_row(wanted)) return assignable(row->type, arg.type);
  if (wanted == "e") return arg.type == bound->element();
  const bool floats = arg.type.kind == Kind::kFloat || arg.type.kind == Kind::kCalc;
  const bool allowed = wanted == "F" ? floats : wanted == "V" ? floats && arg.type.lanes > 1 : arg.type.numeric();
  if (!allowed) return false;
  if (!bound) bound = arg.type;
  return arg.type == *bound || (wanted == "n" && arg.type == bound->element());
}

// The result of a word with this signature for these arguments; nullopt where they do not fit (the letters: dialect.hpp).
inline std::optional<Type> word_result(std::string_view signature, const std::vector<Expr>& args) {
  const size_t open = signature.find('(');
  const std::string_view result = signature.substr(0, open);
  std::string_view rest = signature.substr(open + 1, signature.size() - open - 2);
  std::optional<Type> bound;
  for (const Expr& arg : args) {
    if (rest.empty()) return std::nullopt;
    const size_t comma = rest.find(',');
    if (!fits_parameter(rest.substr(0, comma), arg, bound)) return std::nullopt;
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
  }
  if (!rest.empty()) return std::nullopt;
  if (result == "E") return bound->element();
  return result == "F" || result == "N" ? bound : std::optional(type_row(result)->type);
}

}  // namespace tessera::codegen
