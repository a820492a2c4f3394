// Statements: the body of a kernel or of a function, checked and spelled for the target, every statement on the line it has in the kernel file.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tessera/codegen/expression.hpp"

namespace tessera::codegen {

// Puts pieces of text on the lines they have in the kernel file; the text begins with a #line that says which.
class LineWriter {
 public:
  explicit LineWriter(std::string_view file) : file_(file) {}

  void put(int line, std::string_view piece) {
    const bool first = text_.empty();
    if (first) text_ = cat("#line ", line, " \"", file_, "\"\n");
    const bool fresh = first || line > line_;
    for (line_ = first ? line : line_; line_ < line; ++line_) text_ += '\n';
    text_ += fresh ? std::string(static_cast<size_t>(2 * depth_), ' ') : " ";
    text_ += piece;
  }
  void open(int line, std::string_view piece) {
    put(line, piece);
    ++depth_;
  }
  void close(int line, std::string_view piece) {
    --depth_;
    put(line, piece);
  }
  void dedent() { --depth_; }
  std::string take() { return text_.empty() ? std::string() : text_ + "\n"; }

 private:
  std::string_view file_;
  std::string text_;
  int line_ = 0;
  int depth_ = 1;
};

inline constexpr std::pair<std::string_view, bool> kAssignments[] = {{"=", false}, {"+=", true},  {"-=", true}, {"*=", true},
                                                                     {"/=", true}, {"%=", true},  {"&=", true}, {"|=", true},
                                                                     {"^=", true}, {"<<=", true}, {">>=", true}};

class BodyLowering : public ExpressionLowering {
 public:
  // `result`: what return gives; void in a kernel. `generic`: what T is.
  BodyLowering(Lowering& lowering, const KernelSource& source, TokenRange body, bool in_kernel, Type result = {}, std::optional<Type> generic = {})
      : ExpressionLowering(lowering, source, body, in_kernel), result_(result), out_(source.file) {
    generic_ = generic;
  }

  void declare(std::string_view name, Symbol symbol, int line) {
    symbol.line = line;
    const std::string objection = name_objection(name);
    if (!objection.empty()) cursor_.fail(line, objection);
    if (lowering_.fns.contains(name)) cursor_.fail(line, cat("'", name, "' is a function; choose another name"));
    const auto global = lowering_.globals.find(name);
    const bool hides = global != lowering_.globals.end() && (in_kernel_ || global->second.role == Role::kConst);
    if (hides) cursor_.fail(line, cat("'", name, "' is already a ", name_of(global->second.role), " of the kernel"));
    const auto [at, added] = scopes_.back().try_emplace(name, std::move(symbol));
    if (!added) cursor_.fail(line, cat("'", name, "' is already declared on line ", at->second.line));
  }

  // The statements of the body, without its braces.
  Result<std::string> run() {
    while (!cursor_.done()) statement();
    TESSERA_TRY(cursor_.status());
    return out_.take();
  }

 private:
  static constexpr int kMaxNesting = 100;

  void statement() {
    if (++nesting_ > kMaxNesting) cursor_.fail(cursor_.line(), "statements are nested too deeply");
    const int line = cursor_.line();
    if (cursor_.at("{")) {
      cursor_.take();
      block(line, "{");
    } else if (cursor_.accept("static")) {
      static_if();
    } else if (cursor_.accept("if")) {
      if_statement(line);
    } else if (cursor_.accept("while")) {
      cursor_.expect("(", "after while");
      const Expr test = condition("while");
      cursor_.expect(")", "after the condition");
      body_of(line, cat("while (", test.text, ")"));
    } else if (cursor_.at("for") || cursor_.at("unroll") || cursor_.at("rolled")) {
      for_statement(line);
    } else {
      const std::string text = simple_statement();
      cursor_.expect(";", "after the statement");
      if (!cursor_.failed()) out_.put(line, text);
    }
    --nesting_;
  }

  // After '{'.
  void block(int line, std::string_view opening) {
    out_.open(line, opening);
    scopes_.emplace_back();
    while (!cursor_.done() && !cursor_.at("}")) statement();
    scopes_.pop_back();
    const int end = cursor_.line();
    cursor_.expect("}", "to close the block");
    if (!cursor_.failed()) out_.close(end, "}");
  }

  // What a condition or a loop governs: a block, or one statement.
  void body_of(int line, const std::string& head) {
    if (cursor_.failed()) return;
    if (cursor_.accept("{")) return block(line, head + " {");
    if (cursor_.at("static")) return cursor_.fail(cursor_.line(), "a static if governed by another statement needs braces around it");
    out_.open(line, head);
    scopes_.emplace_back();
    statement();
    scopes_.pop_back();
    out_.dedent();
  }

  void if_statement(int line) {
    for (std::string_view head = "if ("; !cursor_.failed(); head = "else if (") {
      cursor_.expect("(", "after if");
      const Expr test = condition("if");
      cursor_.expect(")", "after the condition");
      body_of(line, cat(head, test.text, ")"));
      line = cursor_.line();
      if (!cursor_.accept("else")) return;
      if (!cursor_.accept("if")) return body_of(line, "else");
    }
  }

  // Leaves the chosen branch in place of the statement: its declarations are seen by what follows.
  void static_if() {
    bool taken = false;
    while (!cursor_.failed()) {
      cursor_.expect("if", "after static");
      cursor_.expect("(", "after static if");
      const int line = cursor_.line();
      const Expr test = condition("static if");
      if (!cursor_.failed() && !test.value)
        cursor_.fail(line, "the condition of 'static if' must be known while lowering: numbers, consts and W, nothing else");
      cursor_.expect(")", "after the condition");
      static_branch(!taken && test.value == 1);
      taken = taken || test.value == 1;
      if (!cursor_.accept("else")) return;
      if (cursor_.accept("static")) continue;
      return static_branch(!taken);
    }
  }

  void static_branch(bool chosen) {
    cursor_.expect("{", "before a branch of static if");
    if (!chosen) {
      cursor_.skip_group("{", "}");
      return;
    }
    while (!cursor_.done() && !cursor_.at("}")) statement();
    cursor_.expect("}", "to close the branch of static if");
  }

  void for_statement(int line) {
    std::string head;
    for (const auto& [word, opencl, glsl] : kLoopHints)
      if (cursor_.accept(word)) {
        head = lowering_.spelling.choose(opencl, glsl);
        lowering_.need("control_flow");
        break;
      }
    cursor_.expect("for", "after unroll or rolled");
    cursor_.expect("(", "after for");
    scopes_.emplace_back();
    const std::string first = cursor_.at(";") ? std::string() : simple_statement(false);
    cursor_.expect(";", "after the start of the loop");
    const std::string test = cursor_.at(";") ? std::string() : condition("for").text;
    cursor_.expect(";", "after the condition of the loop");
    const std::string step = cursor_.at(")") ? std::string() : change();
    cursor_.expect(")", "after the step of the loop");
    body_of(line, cat(head, "for (", first, first.empty() ? "; " : " ", test, "; ", step, ")"));
    scopes_.pop_back();
  }

  struct LoopHint {
    std::string_view word, opencl, glsl;
  };
  static constexpr LoopHint kLoopHints[] = {{"unroll", "_Pragma(\"unroll\") ", "[[unroll]] "},
                                            {"rolled", "_Pragma(\"nounroll\") ", "[[dont_unroll]] "}};

  // One statement up to its ';', which the caller takes. `free`: not in the head of a loop.
  std::string simple_statement(bool free = true) {
    if (free && cursor_.accept("return")) return return_statement();
    for (std::string_view jump : {"break", "continue"})
      if (free && cursor_.accept(jump)) return std::string(jump) + ";";
    const bool constant = cursor_.accept("const");
    const bool declares = cursor_.peek().kind == TokenKind::kName && cursor_.peek(1).kind == TokenKind::kName;
    if (constant || (declares && type_named(cursor_.peek().text))) return declaration(constant);
    if (declares) cursor_.fail(cursor_.line(), cat("'", cursor_.peek().text, "' is not a type"));
    return free && is_tensor_statement() ? tensor_statement() : change() + ";";
  }

  std::string return_statement() {
    if (result_.kind == Kind::kVoid) return "return;";
    return "return " + value_for(result_, "the result").text + ";";
  }

  std::string declaration(bool constant) {
    const int line = cursor_.line();
    const std::string_view name = cursor_.expect_name("a type");
    const std::optional<Type> type = type_named(name);
    if (!type) {
      cursor_.fail(line, cat("'", name, "' is not a type"));
      return {};
    }
    std::string out = (constant ? "const " : "") + lowering_.type_text(*type);
    std::string_view separator = " ";
    do {
      out += std::string(separator) + declarator(*type, constant);
      separator = ", ";
    } while (cursor_.accept(","));
    return out + ";";
  }

  std::string declarator(Type type, bool constant) {
    const int line = cursor_.line();
    const std::string_view name = cursor_.expect_name("the name of a variable");
    Symbol symbol{Role::kLocal, type, std::string(name), line, !constant, 0, {}, nullptr};
    std::string out(name);
    if (cursor_.accept("[")) {
      symbol.extent = extent();
      cursor_.expect("]", "after the size of the array");
      out += cat("[", symbol.extent, "]");
      if (cursor_.at("=")) cursor_.fail(line, "an array has no initial value: write its elements");
    } else if (cursor_.accept("=")) {
      const Expr value = value_for(type, cat("'", name, "'"));
      if (constant) symbol.value = value.value;
      out += " = " + value.text;
    }
    if (constant && (symbol.extent > 0 || out.size() == name.size())) cursor_.fail(line, cat("const '", name, "' needs a value"));
    if (!cursor_.failed()) declare(name, std::move(symbol), line);
    return out;
  }

  int64_t extent() {
    const int line = cursor_.line();
    const Expr size = expression();
    if (cursor_.failed()) return 0;
    if (!size.value || *size.value < 1)
      cursor_.fail(line, size.value ? cat("an array of ", *size.value, " elements") : "the size of an array must be known while lowering");
    return size.value.value_or(0);
  }

  // An assignment, x++, x-- or a call.
  std::string change() {
    const int line = cursor_.line();
    const Expr target = expression();
    if (cursor_.failed()) return {};
    for (std::string_view step : {"++", "--"})
      if (cursor_.accept(step)) {
        check_writable(target, line);
        if (!target.type.integral() || !target.type.scalar()) cursor_.fail(line, cat("'", step, "' does not take ", describe(target)));
        return target.text + std::string(step);
      }
    for (const auto& [text, combines] : kAssignments)
      if (cursor_.accept(text)) return assignment(target, text, combines, line);
    if (!target.call) cursor_.fail(line, "a statement is an assignment, x++, x--, or a call that does something");
    return target.text;
  }

  std::string assignment(const Expr& target, std::string_view op, bool combines, int line) {
    check_writable(target, line);
    if (!combines) return target.text + " = " + value_for(target.type, cat("'", target.text, "'")).text;
    const Expr value = expression();
    const std::string_view plain = op.substr(0, op.size() - 1);
    const std::optional<Type> type = value.array() ? std::nullopt : result_type(binary_op(plain)->kind, target.type, value.type);
    if (!cursor_.failed() && (!type || !assignable(target.type, *type)))
      cursor_.fail(line, cat("'", op, "' does not take ", describe(target), " and ", describe(value), "; nothing converts by itself"));
    return cat(target.text, " ", op, " ", value.text);
  }

  void check_writable(const Expr& target, int line) {
    if (!target.writable || target.array()) cursor_.fail(line, cat("'", target.text, "' cannot be assigned to"));
  }

  // NAME.write or NAME.prefetch of a tensor.
  bool is_tensor_statement() const {
    const Symbol* symbol = cursor_.peek().kind == TokenKind::kName ? find(cursor_.peek().text) : nullptr;
    return symbol != nullptr && symbol->role == Role::kTensor && cursor_.peek(1).text == "." && (cursor_.peek(2).text == "write" || cursor_.peek(2).text == "prefetch");
  }

  std::string tensor_statement() {
    const int line = cursor_.line();
    const std::string_view name = cursor_.take().text;
    cursor_.take();
    const bool writes = cursor_.take().text == "write";
    const TensorAccess& tensor = *find(name)->tensor;
    if (!in_kernel_) cursor_.fail(line, cat("tensor '", name, "' is read and written in the kernel's body only"));
    if (!writes) {
      if (tensor.decl().written && !tensor.decl().in_place) cursor_.fail(line, cat("'", name, "' is 'out': it is written, not read"));
      cursor_.expect("(", "after prefetch");
      const std::vector<IndexText> coords = coordinates(tensor, line);
      if (cursor_.failed()) return {};
      const AccessText access = tensor.prefetch(coords);
      lowering_.need(access.needs);
      return access.text;
    }
    if (!tensor.decl().written) cursor_.fail(line, cat("'", name, "' is 'in': it is read, not written"));
    cursor_.expect("(", "after write");
    const Expr value = value_for(tensor.texel(), cat("what '", name, "' holds"));
    cursor_.expect(",", "between the value and the coordinates");
    const std::vector<IndexText> coords = coordinates(tensor, line);
    if (cursor_.failed()) return {};
    const AccessText access = tensor.write(value.text, coords);
    lowering_.need(access.needs);
    return access.text;
  }

  Type result_;
  LineWriter out_;
  int nesting_ = 0;
};

}  // namespace tessera::codegen
