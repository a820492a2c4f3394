// Expressions of a kernel body: parsed, typed and spelled for the target in one walk. Expressions have no side effects; statements do.
#pragma once
#include <charconv>
#include <locale>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/codegen/typing.hpp"

namespace tessera::codegen {

class ExpressionLowering {
 public:
  ExpressionLowering(Lowering& lowering, const KernelSource& source, TokenRange range, bool in_kernel)
      : lowering_(lowering), source_(source), cursor_(source.walk(range)), in_kernel_(in_kernel), scopes_(1) {}

  // The value of a constant expression that is all there is between the range's ends; nullopt after an error.
  std::optional<int64_t> constant(std::string_view what) {
    const int line = cursor_.line();
    const Expr expr = expression();
    if (!cursor_.done()) cursor_.fail(cursor_.line(), cat("unexpected ", cursor_.found(), " after ", what));
    if (!cursor_.failed() && !expr.value) cursor_.fail(line, cat(what, " must be known while lowering: numbers, consts and W, nothing else"));
    return cursor_.failed() ? std::nullopt : expr.value;
  }
  Status status() const { return cursor_.status(); }

 protected:
  Expr expression() {
    if (++depth_ > kMaxDepth) cursor_.fail(cursor_.line(), "the expression is nested too deeply");
    Expr expr = ternary();
    --depth_;
    return expr;
  }

  // An expression whose value goes into something of type `wanted`.
  Expr value_for(Type wanted, std::string_view what) {
    const int line = cursor_.line();
    Expr expr = expression();
    if (!cursor_.failed() && (expr.array() || !assignable(wanted, expr.type))) cursor_.fail(line, mismatch(what, wanted, expr));
    return expr;
  }

  Expr condition(std::string_view what) {
    const int line = cursor_.line();
    Expr expr = expression();
    if (!cursor_.failed() && expr.type != Type{Kind::kBool, 1})
      cursor_.fail(line, cat("the condition of '", what, "' is a comparison, not ", describe(expr)));
    return expr;
  }

  std::optional<Type> type_named(std::string_view name) const {
    if (name == "T") return generic_;
    const TypeRow* row = type_row(name);
    return row != nullptr && row->type.kind != Kind::kVoid ? std::optional(row->type) : std::nullopt;
  }

  const Symbol* find(std::string_view name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      if (const auto found = scope->find(name); found != scope->end()) return &found->second;
    const auto global = lowering_.globals.find(name);
    return global == lowering_.globals.end() ? nullptr : &global->second;
  }

  static std::string mismatch(std::string_view what, Type wanted, const Expr& expr) {
    const bool castable = !expr.array() && wanted.scalar() && wanted.numeric() && expr.type.scalar() && expr.type.numeric();
    return cat(what, " is ", name_of(wanted), ", the value ", describe(expr),
               castable ? cat("; nothing converts by itself: write ", name_of(wanted), "(…)") : std::string());
  }

  // What may follow `name.`: read and write are statements of the caller's business when written.
  std::vector<IndexText> coordinates(const TensorAccess& tensor, int line) {
    std::vector<IndexText> coords;
    size_t given = 0;
    if (!cursor_.at(")")) {
      do {
        const Expr coord = value_for({Kind::kInt, 1}, cat("coordinate ", ++given, " of '", tensor.decl().name, "'"));
        coords.push_back(coord.value ? IndexText(*coord.value) : IndexText(coord.text, coord.hold != Hold::kLoose));
      } while (cursor_.accept(","));
    }
    cursor_.expect(")", "after the coordinates");
    if (!cursor_.failed() && given != tensor.axes()) {
      std::string axes;
      for (std::string_view axis : tensor.decl().axes) axes += (axes.empty() ? "" : ", ") + std::string(axis);
      cursor_.fail(line, cat("'", tensor.decl().name, "' has ", tensor.axes(), tensor.axes() == 1 ? " axis [" : " axes [", axes, "], ", given,
                             " coordinates were given"));
    }
    return coords;
  }

  Lowering& lowering_;
  const KernelSource& source_;
  Cursor cursor_;
  bool in_kernel_;
  std::optional<Type> generic_;  // what T is in this function
  std::vector<std::map<std::string_view, Symbol>> scopes_;

 private:
  static constexpr int kMaxDepth = 200;

  Expr ternary() {
    const int line = cursor_.line();
    Expr test = binary(1);
    if (!cursor_.accept("?")) return test;
    if (test.type != Type{Kind::kBool, 1}) cursor_.fail(line, cat("the condition before '?' is a comparison, not ", describe(test)));
    const Expr yes = expression();
    cursor_.expect(":", "between the two values of '?'");
    const Expr no = expression();
    const bool same = !yes.array() && !no.array() && (assignable(yes.type, no.type) || assignable(no.type, yes.type));
    if (!cursor_.failed() && !same) cursor_.fail(line, cat("the two values of '?' are ", describe(yes), " and ", describe(no)));
    Expr out{cat(test.text, " ? ", yes.text, " : ", no.text), assignable(yes.type, no.type) ? yes.type : no.type, Hold::kLoose};
    if (test.value) out.value = *test.value != 0 ? yes.value : no.value;
    return out;
  }

  Expr binary(int lowest) {
    Expr left = unary();
    while (const OpRow* op = cursor_.done() ? nullptr : binary_op(cursor_.peek().text)) {
      if (op->precedence < lowest) break;
      const int line = cursor_.line();
      cursor_.take();
      left = joined(*op, left, binary(op->precedence + 1), line);
    }
    return left;
  }

  Expr joined(const OpRow& op, const Expr& a, const Expr& b, int line) {
    const std::optional<Type> type = a.array() || b.array() ? std::nullopt : result_type(op.kind, a.type, b.type);
    if (!cursor_.failed() && !type) {
      const bool floats = a.type.numeric() && b.type.numeric() && a.type.kind != b.type.kind;
      cursor_.fail(line, cat("'", op.text, "' does not take ", describe(a), " and ", describe(b), floats ? "; nothing converts by itself" : ""));
    }
    Expr out{cat(a.text, " ", op.text, " ", b.text), type.value_or(Type{}), Hold::kLoose};
    // A known side decides && and || even where the other has no value (static if (N != 0 && K / N > 1)).
    if (op.kind == OpClass::kLogic && a.value && (*a.value != 0) == (op.text == "||")) out.value = *a.value != 0 ? 1 : 0;
    if (a.value && b.value && out.type.kind != Kind::kUint) out.value = fold(op.text, *a.value, *b.value);
    return out;
  }

  Expr unary() {
    for (std::string_view op : {"-", "!", "~"}) {
      const int line = cursor_.line();
      if (!cursor_.accept(op)) continue;
      if (++depth_ > kMaxDepth) cursor_.fail(line, "the expression is nested too deeply");
      Expr inner = unary();
      --depth_;
      const bool fits = op == "!" ? inner.type == Type{Kind::kBool, 1} : op == "~" ? inner.type.integral() : inner.type.numeric();
      if (!cursor_.failed() && (inner.array() || !fits)) cursor_.fail(line, cat("'", op, "' does not take ", describe(inner)));
      // "--" would be another operator.
      Expr out{std::string(op) + (inner.text.starts_with(op) ? "(" + inner.text + ")" : inner.text), inner.type, Hold::kLoose};
      if (inner.value && inner.type.kind != Kind::kUint)
        out.value = op == "-" ? -*inner.value : op == "!" ? int64_t{*inner.value == 0} : ~*inner.value;
      return out;
    }
    return postfix(primary());
  }

  Expr postfix(Expr base) {
    while (!cursor_.failed()) {
      const int line = cursor_.line();
      if (cursor_.accept("[")) {
        base = element(base, line);
      } else if (cursor_.accept(".")) {
        base = member(base, cursor_.expect_name("a member"), line);
      } else {
        break;
      }
    }
    return base;
  }

  Expr element(const Expr& base, int line) {
    if (!base.array())
      cursor_.fail(line, cat("only arrays are indexed; ",
                             base.type.lanes == kWide ? "lane(v, i) gives a component of floatw" : "the components of a vector are .x .y .z .w"));
    const Expr index = expression();
    cursor_.expect("]", "after the index");
    if (cursor_.failed()) return base;
    if (!index.type.integral() || !index.type.scalar()) cursor_.fail(line, cat("an index is int, not ", describe(index)));
    if (index.value && (*index.value < 0 || *index.value >= base.symbol->extent))
      cursor_.fail(line, cat("index ", *index.value, " is outside the array of ", base.symbol->extent));
    return {cat(base.text, "[", index.text, "]"), base.type, Hold::kPostfix, {}, base.symbol->writable, nullptr};
  }

  Expr member(const Expr& base, std::string_view name, int line) {
    if (cursor_.failed()) return base;
    const Symbol* symbol = base.symbol;
    if (symbol != nullptr && symbol->role == Role::kTensor) return tensor_read(*symbol->tensor, name, line);
    if (symbol != nullptr && symbol->role == Role::kShared && name == "length")
      return {std::to_string(symbol->extent), {Kind::kInt, 1}, Hold::kPostfix, symbol->extent};
    if (base.array()) {
      cursor_.fail(line, cat("an array has no '.", name, "'"));
      return base;
    }
    return swizzle(base, name, line);
  }

  Expr swizzle(const Expr& base, std::string_view name, int line) {
    const std::string_view letters = std::string_view("xyzw").substr(0, base.type.lanes == kWide ? 0 : static_cast<size_t>(base.type.lanes));
    const bool fits = base.type.lanes != 1 && name.find_first_not_of(letters) == std::string_view::npos && name.size() != 3 && name.size() <= 4;
    if (!fits)
      cursor_.fail(line, cat(name_of(base.type), " has no component '.", name, "'", base.type.lanes == kWide ? "; lane(v, i) gives one" : ""));
    const std::string text = base.hold == Hold::kPostfix ? base.text : "(" + base.text + ")";
    return {cat(text, ".", name), {base.type.kind, static_cast<int>(name.size())}, Hold::kPostfix, {}, base.writable && name.size() == 1};
  }

  Expr tensor_read(const TensorAccess& tensor, std::string_view method, int line) {
    const std::string_view name = tensor.decl().name;
    if (method == "write" || method == "prefetch") {
      cursor_.fail(line, cat("'", name, ".", method, "' is a statement of its own"));
    } else if (method != "read") {
      cursor_.fail(line, cat("a tensor has no '.", method, "': it has .read(…), .read<TYPE>(…), .write(value, …) and .prefetch(…)"));
    } else if (tensor.decl().written && !tensor.decl().in_place) {
      cursor_.fail(line, cat("'", name, "' is 'out': it is written, not read"));
    }
    const Type wanted{cursor_.accept("<") ? read_kind(tensor, line) : tensor.texel().kind, tensor.texel().lanes};
    cursor_.expect("(", "before the coordinates");
    const std::vector<IndexText> coords = coordinates(tensor, line);
    if (cursor_.failed()) return {};
    const AccessText access = tensor.read(coords);
    lowering_.need(access.needs);
    const bool narrows = wanted.kind == Kind::kCalc && lowering_.spelling.words.half_calc;
    if (narrows) lowering_.need("half");
    return {narrows ? lowering_.spelling.convert(wanted, access.text) : access.text, wanted, Hold::kOperand};
  }

  // After `read<`.
  Kind read_kind(const TensorAccess& tensor, int line) {
    const std::string_view name = cursor_.expect_name("a type after 'read<'");
    cursor_.expect(">", "after the type of a read");
    const std::optional<Type> type = type_named(name);
    const bool floats = tensor.texel().kind == Kind::kFloat && type && type->scalar() && (type->kind == Kind::kFloat || type->kind == Kind::kCalc);
    const bool plain = type && *type == tensor.texel().element();
    const bool has_calc = tensor.texel().lanes != kWide || !type || type->kind != Kind::kCalc;
    if (!cursor_.failed() && !((floats || plain) && has_calc))
      cursor_.fail(line, cat("'", tensor.decl().name, "' has texels of ", tensor.decl().texel, "; it cannot be read as '", name, "'"));
    return type ? type->kind : Kind::kVoid;
  }

  Expr primary() {
    const Token token = cursor_.take();
    if (token.kind == TokenKind::kNumber) return number(token);
    if (token.text == "(" && token.kind == TokenKind::kSymbol) {
      Expr inner = expression();
      cursor_.expect(")", "to close this expression");
      inner.text = "(" + inner.text + ")";
      inner.hold = Hold::kPostfix;
      inner.writable = false;
      return inner;
    }
    if (token.kind != TokenKind::kName) {
      cursor_.fail(token.line != 0 ? token.line : cursor_.line(),
                   token.text.empty() ? "the expression ends too early" : cat("unexpected '", token.text, "' in an expression"));
      return {};
    }
    if (token.text == "true" || token.text == "false") return {std::string(token.text), {Kind::kBool, 1}, Hold::kPostfix, token.text == "true"};
    return cursor_.at("(") ? call(token) : name(token);
  }

  Expr number(const Token& token) {
    std::string_view text = token.text;
    const bool hex = text.starts_with("0x") || text.starts_with("0X");
    const bool floating = !hex && text.find_first_of(".eE") != std::string_view::npos;
    const bool suffix = floating ? text.ends_with('f') : text.ends_with('u');
    if (suffix) text.remove_suffix(1);
    if (floating) {
      // By a stream: the C++ library of Android's NDK has no from_chars for floats.
      std::istringstream in{std::string(text)};
      in.imbue(std::locale::classic());
      float value = 0.0f;
      if (!(in >> value) || in.peek() != std::char_traits<char>::eof()) cursor_.fail(token.line, cat("'", token.text, "' is not a number"));
      if (!suffix) cursor_.fail(token.line, cat("'", token.text, "' would be a double in OpenCL C: write ", token.text, "f"));
      return {std::string(token.text), {Kind::kFloat, 1}, Hold::kPostfix};
    }
    if (hex) text.remove_prefix(2);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, hex ? 16 : 10);
    const bool octal = !hex && text.size() > 1 && text[0] == '0';
    if (error != std::errc() || end != text.data() + text.size() || octal || value > UINT32_MAX) {
      cursor_.fail(token.line, cat("'", token.text, "' is not a number of 32 bits"));
    } else if (!suffix && value > INT32_MAX) {
      cursor_.fail(token.line, cat("'", token.text, "' does not fit an int: write ", token.text, "u"));
    }
    if (suffix) return {std::string(token.text), {Kind::kUint, 1}, Hold::kPostfix};
    return {std::string(token.text), {Kind::kInt, 1}, Hold::kPostfix, static_cast<int64_t>(value)};
  }

  Expr name(const Token& token) {
    const Symbol* symbol = find(token.text);
    if (symbol == nullptr) {
      cursor_.fail(token.line, cat("'", token.text, "' is not declared"));
      return {};
    }
    if (symbol->role == Role::kAbsent)
      cursor_.fail(token.line, cat("'", token.text, "' is not there in this variant (the condition on line ", symbol->line,
                                   " is false): use it inside a static if only"));
    // Locals of a function are found before globals, so a global found here is the kernel's own.
    const bool kernels_own = symbol->role != Role::kLocal && symbol->role != Role::kConst;
    if (!in_kernel_ && kernels_own && lowering_.globals.contains(token.text) && symbol == &lowering_.globals.at(token.text))
      cursor_.fail(token.line, symbol->role == Role::kTensor
                                   ? cat("tensor '", token.text, "' is read and written in the kernel's body only")
                                   : cat("a function does not see the ", name_of(symbol->role), " '", token.text, "': pass it"));
    const bool whole = cursor_.at(".") || (cursor_.at("[") && symbol->extent > 0);
    if (symbol->role == Role::kTensor && !whole) cursor_.fail(token.line, cat("'", token.text, "' is a tensor: read it with .read(…)"));
    return {symbol->text, symbol->type, Hold::kPostfix, symbol->value, symbol->writable, symbol};
  }

  Expr call(const Token& token) {
    cursor_.take();
    std::vector<Expr> args;
    if (!cursor_.at(")")) {
      do args.push_back(expression());
      while (cursor_.accept(","));
    }
    cursor_.expect(")", "after the arguments");
    if (cursor_.failed()) return {};
    const std::optional<Type> type = type_named(token.text);
    if (type) return construction(token, *type, args);
    if (token.text.starts_with("to_"))
      if (const std::optional<Type> to = type_named(token.text.substr(3))) return conversion(token, *to, args);
    if (const auto fn = lowering_.fns.find(token.text); fn != lowering_.fns.end()) return fn_call(token, fn->second, args);
    return word_call(token, args);
  }

  static std::string joined_text(const std::vector<Expr>& args) {
    std::string out;
    for (const Expr& arg : args) out += (out.empty() ? "" : ", ") + arg.text;
    return out;
  }

  static std::string described(const std::vector<Expr>& args) {
    std::string out;
    for (const Expr& arg : args) out += (out.empty() ? "" : ", ") + describe(arg);
    return args.empty() ? "nothing" : out;
  }

  // float(x) converts a scalar; float4(x) and float4(a, b, c, d) build a vector of scalars of its own kind.
  Expr construction(const Token& token, Type type, const std::vector<Expr>& args) {
    bool fits = args.size() == 1 || (type.lanes > 1 && args.size() == static_cast<size_t>(type.lanes));
    fits = fits && type.kind != Kind::kPairs && type.kind != Kind::kBool;
    for (const Expr& arg : args) {
      const bool cast = type.scalar() && arg.type.scalar() && (arg.type.numeric() || (arg.type.kind == Kind::kBool && type.kind == Kind::kInt));
      fits = fits && !arg.array() && (cast || (!type.scalar() && assignable(type.element(), arg.type)));
    }
    if (!fits)
      cursor_.fail(
          token.line,
          cat(token.text, "(…) does not take ", described(args),
              type.scalar() ? "" : cat(": it takes scalars of type ", name_of(type.element()), "; to_", token.text, "(…) converts a vector")));
    const std::string name = lowering_.type_text(type);
    Expr out{type.scalar() ? lowering_.spelling.convert(type, joined_text(args)) : lowering_.spelling.construct(type, joined_text(args)), type,
             lowering_.spelling.target == Target::kGlsl ? Hold::kPostfix : Hold::kOperand};
    if (type.kind == Kind::kInt && args.size() == 1) out.value = args[0].value;
    return out;
  }

  Expr conversion(const Token& token, Type to, const std::vector<Expr>& args) {
    const bool fits =
        args.size() == 1 && !args[0].array() && !to.scalar() && to.numeric() && args[0].type.numeric() && args[0].type.lanes == to.lanes;
    if (!fits) cursor_.fail(token.line, cat(token.text, "(…) does not take ", described(args), ": it converts a vector of as many lanes"));
    if (cursor_.failed()) return {};
    lowering_.type_text(to);
    return {lowering_.spelling.convert(to, args[0].text), to, Hold::kPostfix};
  }

  Expr fn_call(const Token& token, const FnRef& fn, const std::vector<Expr>& args) {
    Result<FnInstance> instance = lowering_.instantiate(fn, args, source_.file, token.line);
    if (!instance) {
      cursor_.fail(std::move(instance).error());
      return {};
    }
    std::string passed;
    for (size_t index : instance->passed) passed += (passed.empty() ? "" : ", ") + args[index].text;
    return {cat(instance->name, "(", passed, ")"), instance->result, Hold::kPostfix, {}, false, nullptr, true};
  }

  Expr word_call(const Token& token, const std::vector<Expr>& args) {
    bool known = false;
    for (const Word& word : kWords) {
      if (word.name != token.text) continue;
      known = true;
      const std::optional<Type> type = word_result(word.signature, args);
      if (!type) continue;
      lowering_.need(word.needs);
      std::vector<std::string> texts;
      for (const Expr& arg : args) texts.push_back(arg.text);
      const std::string text = lowering_.spelling.fill(lowering_.spelling.choose(word.opencl, word.glsl), texts);
      return {text, *type, text.starts_with("(") ? Hold::kOperand : Hold::kPostfix, {}, false, nullptr, type->kind == Kind::kVoid};
    }
    cursor_.fail(token.line, known ? cat("'", token.text, "' does not take ", described(args))
                                   : cat("'", token.text, "' is not a function or a word of the dialect"));
    return {};
  }

  int depth_ = 0;
};

}  // namespace tessera::codegen
