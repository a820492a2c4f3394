// A kernel file as parsed: the declarations of its header, and where the bodies lie among its tokens. No types, no variant: those come with lowering.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/codegen/token.hpp"

namespace tessera::codegen {

struct TensorDecl {
  std::string_view name;
  std::string_view texel;  // float4, uint4, …
  bool written = false;
  std::vector<std::string_view> axes;
  TokenRange condition;  // empty: always there
  int line = 0;
  bool in_place = false;  // inout: what is written is read as well
};

// `const int NAME;` `arg float name;` `param int name;`
struct ScalarDecl {
  std::string_view name;
  std::string_view type;
  int line = 0;
};

struct SharedDecl {
  std::string_view name;
  std::string_view type;
  TokenRange extent;
  TokenRange condition;
  int line = 0;
};

struct FnParam {
  enum class Form { kValue, kConstArray, kSharedArray };
  Form form = Form::kValue;
  bool constant = false;
  std::string_view type;
  std::string_view name;
  TokenRange extent;  // of a const array; a shared array brings its own
};

struct FnDecl {
  std::string_view name;
  std::string_view result;
  std::vector<FnParam> params;
  TokenRange body;
  int line = 0;
};

struct KernelDecl {
  std::string_view name;
  std::array<TokenRange, 3> workgroup;
  TokenRange body;
  int line = 0;
};

struct KernelSource {
  std::string file;  // "rms_norm.kernel", as errors and #line say it
  std::vector<Token> tokens;
  std::vector<ScalarDecl> uses;  // name: "lib/reduce"
  std::vector<TensorDecl> tensors;
  std::vector<ScalarDecl> consts;
  std::vector<ScalarDecl> args;
  std::vector<ScalarDecl> params;
  std::vector<SharedDecl> shared;
  std::vector<FnDecl> fns;
  std::optional<KernelDecl> kernel;  // a library file has none

  Cursor walk(TokenRange range) const { return Cursor(file, tokens, range); }
};

class KernelSourceParser {
 public:
  explicit KernelSourceParser(KernelSource& source) : source_(source), cursor_(source.walk({0, source.tokens.size()})) {}

  Status run() {
    while (!cursor_.done()) {
      const int line = cursor_.line();
      const std::string_view word = cursor_.take().text;
      if (source_.kernel) {
        cursor_.fail(line, "nothing may follow the kernel");
      } else if (!declaration(word, line)) {
        cursor_.fail(line, cat("a declaration starts with use, tensor, const, arg, param, shared, fn or kernel, not '", word, "'"));
      }
    }
    return cursor_.status();
  }

 private:
  struct Row {
    std::string_view word;
    void (KernelSourceParser::*parse)(int line);
  };

  bool declaration(std::string_view word, int line) {
    static constexpr Row kRows[] = {{"use", &KernelSourceParser::use},        {"tensor", &KernelSourceParser::tensor},
                                    {"const", &KernelSourceParser::constant}, {"arg", &KernelSourceParser::arg},
                                    {"param", &KernelSourceParser::param},    {"shared", &KernelSourceParser::shared},
                                    {"fn", &KernelSourceParser::fn},          {"kernel", &KernelSourceParser::kernel}};
    for (const Row& row : kRows)
      if (row.word == word) {
        (this->*row.parse)(line);
        return true;
      }
    return false;
  }

  void use(int line) {
    const Token folder = cursor_.peek();
    cursor_.expect_name("lib/NAME");
    cursor_.expect("/", "in lib/NAME");
    const std::string_view name = cursor_.expect_name("a file name");
    end_declaration();
    // The three tokens lie side by side in the text, so one view covers them.
    if (!cursor_.failed())
      source_.uses.push_back({{folder.text.data(), static_cast<size_t>(name.data() + name.size() - folder.text.data())}, {}, line});
  }

  void tensor(int line) {
    TensorDecl decl;
    decl.line = line;
    const std::string_view direction = cursor_.expect_name("in, out or inout");
    if (direction != "in" && direction != "out" && direction != "inout") cursor_.fail(line, cat("a tensor is 'in', 'out' or 'inout', not '", direction, "'"));
    decl.in_place = direction == "inout";
    decl.written = direction != "in";
    decl.texel = cursor_.expect_name("the type of a texel");
    decl.name = cursor_.expect_name("the tensor's name");
    cursor_.expect("[", "before the tensor's axes");
    do decl.axes.push_back(cursor_.expect_name("the name of an axis"));
    while (cursor_.accept(","));
    cursor_.expect("]", "after the tensor's axes");
    decl.condition = condition();
    end_declaration();
    source_.tensors.push_back(std::move(decl));
  }

  void constant(int line) { scalar(source_.consts, {"int", "bool"}, line); }
  void arg(int line) { scalar(source_.args, {"int", "uint", "float"}, line); }
  void param(int line) { scalar(source_.params, {"int"}, line); }

  void scalar(std::vector<ScalarDecl>& list, std::initializer_list<std::string_view> types, int line) {
    const std::string_view type = cursor_.expect_name("a type");
    bool known = cursor_.failed();
    for (std::string_view allowed : types) known = known || type == allowed;
    if (!known) cursor_.fail(line, cat("the type '", type, "' is not allowed here"));
    const std::string_view name = cursor_.expect_name("a name");
    end_declaration();
    list.push_back({name, type, line});
  }

  void shared(int line) {
    SharedDecl decl;
    decl.line = line;
    decl.type = cursor_.expect_name("a type");
    decl.name = cursor_.expect_name("a name");
    cursor_.expect("[", "before the size of a shared array");
    decl.extent = cursor_.skip_group("[", "]");
    decl.condition = condition();
    end_declaration();
    source_.shared.push_back(decl);
  }

  void fn(int line) {
    FnDecl decl;
    decl.line = line;
    decl.result = cursor_.expect_name("the type of the result");
    decl.name = cursor_.expect_name("the function's name");
    cursor_.expect("(", "before the parameters");
    if (!cursor_.accept(")")) {
      do decl.params.push_back(fn_param());
      while (cursor_.accept(","));
      cursor_.expect(")", "after the parameters");
    }
    cursor_.expect("{", "before the function's body");
    decl.body = cursor_.skip_group("{", "}");
    source_.fns.push_back(std::move(decl));
  }

  FnParam fn_param() {
    FnParam param;
    param.constant = cursor_.accept("const");
    const bool shared = !param.constant && cursor_.accept("shared");
    param.type = cursor_.expect_name("the type of a parameter");
    param.name = cursor_.expect_name("the name of a parameter");
    if (shared) {
      param.form = FnParam::Form::kSharedArray;
      cursor_.expect("[", "after a shared parameter");
      cursor_.expect("]", "after a shared parameter: it has the size of what it is given");
    } else if (cursor_.at("[")) {
      if (!param.constant) cursor_.fail(cursor_.line(), "an array parameter is const: a function may read it, not write it");
      cursor_.accept("[");
      param.form = FnParam::Form::kConstArray;
      param.extent = cursor_.skip_group("[", "]");
    }
    return param;
  }

  void kernel(int line) {
    KernelDecl decl;
    decl.line = line;
    decl.name = cursor_.expect_name("the kernel's name");
    cursor_.expect("(", "before the workgroup");
    const TokenRange inside = cursor_.skip_group("(", ")");
    cursor_.expect("{", "before the kernel's body");
    decl.body = cursor_.skip_group("{", "}");
    if (!split_workgroup(inside, decl)) cursor_.fail(line, "the workgroup takes three sizes: kernel NAME(X, Y, Z)");
    source_.kernel = decl;
  }

  bool split_workgroup(TokenRange inside, KernelDecl& decl) {
    size_t part = 0;
    size_t begin = inside.begin;
    int depth = 0;
    for (size_t i = inside.begin; i <= inside.end && !cursor_.failed(); ++i) {
      const std::string_view text = i < inside.end ? source_.tokens[i].text : ",";
      depth += text == "(" ? 1 : text == ")" ? -1 : 0;
      if (text != "," || depth != 0) continue;
      if (part == 3 || begin == i) return false;
      decl.workgroup[part++] = {begin, i};
      begin = i + 1;
    }
    return part == 3;
  }

  TokenRange condition() {
    if (!cursor_.accept("if")) return {};
    const size_t begin = cursor_.position();
    // A condition ends with its line: a forgotten ';' is then reported there.
    for (const int line = cursor_.line(); !cursor_.done() && cursor_.line() == line && !cursor_.at(";");) cursor_.take();
    const TokenRange range{begin, cursor_.position()};
    if (range.empty()) cursor_.fail(cursor_.line(), "'if' takes a condition over constants");
    return range;
  }

  void end_declaration() { cursor_.expect(";", "after the declaration"); }

  KernelSource& source_;
  Cursor cursor_;
};

// `file` names the file in errors. The source keeps views into `text`.
inline Result<KernelSource> parse_kernel_source(std::string file, std::string_view text) {
  KernelSource source;
  source.file = std::move(file);
  TESSERA_ASSIGN(source.tokens, Tokenizer(source.file, text).run());
  TESSERA_TRY(KernelSourceParser(source).run());
  return source;
}

}  // namespace tessera::codegen
