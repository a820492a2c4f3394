// What the lowering of one kernel knows while it works: the names of the header, the functions in reach, and what has been used so far.
#pragma once
#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/codegen/access.hpp"
#include "tessera/codegen/dialect.hpp"
#include "tessera/codegen/kernel_source.hpp"
#include "tessera/codegen/variant.hpp"

namespace tessera::codegen {

enum class Role { kLocal, kConst, kArg, kParam, kShared, kTensor, kAbsent };

constexpr std::string_view name_of(Role role) {
  constexpr std::string_view kNames[] = {"variable", "const", "arg", "param", "shared array", "tensor", "declaration"};
  return kNames[static_cast<int>(role)];
}

struct Symbol {
  Role role = Role::kLocal;
  Type type;
  std::string text;  // how the target's text names it; a shared array has one name everywhere
  int line = 0;      // 0: predefined
  bool writable = false;
  int64_t extent = 0;                 // of an array; 0: not an array
  std::optional<int64_t> value = {};  // known while lowering
  const TensorAccess* tensor = nullptr;
};

// How tightly an expression's text holds together: kOperand stands beside an operator, kPostfix also before '.' or '['.
enum class Hold { kLoose, kOperand, kPostfix };

struct Expr {
  std::string text;
  Type type;
  Hold hold = Hold::kLoose;
  std::optional<int64_t> value = {};
  bool writable = false;
  const Symbol* symbol = nullptr;  // a bare name
  bool call = false;               // a call that may stand alone as a statement

  bool array() const { return symbol != nullptr && symbol->extent > 0; }
};

struct FnRef {
  const KernelSource* source = nullptr;
  const FnDecl* decl = nullptr;
};

// A function as called: its name in the target's text, its result and which arguments are passed on (GLSL reaches shared arrays as globals).
struct FnInstance {
  std::string name;
  Type result;
  std::vector<size_t> passed;
};

struct Lowering {
  const KernelVariant& variant;
  Spelling spelling;
  std::vector<std::unique_ptr<KernelSource>> sources = {};  // the kernel, then the library files it uses
  std::vector<std::unique_ptr<TensorAccess>> tensors = {};  // those of this variant, in header order
  std::map<std::string_view, Symbol> globals = {};
  std::map<std::string_view, FnRef> fns = {};

  std::set<std::string_view> helpers = {};  // rows of kHelpers, and extensions by name
  std::map<std::string, FnInstance> instances = {};
  std::set<std::string> open_fns = {};  // being lowered: a call of one is recursion
  std::string fn_text = {};             // callees first

  const KernelSource& source() const { return *sources.front(); }

  void need(std::string_view names) {
    while (!names.empty()) {
      const size_t space = names.find(' ');
      helpers.insert(names.substr(0, space));
      names = space == std::string_view::npos ? std::string_view() : names.substr(space + 1);
    }
  }
  void need(std::span<const std::string_view> lists) {
    for (const std::string_view names : lists) need(names);
  }
  std::string type_text(Type type) {
    if (type.kind == Kind::kCalc && spelling.words.half_calc) need("half");
    return spelling.type(type);
  }

  // Lowers the function for these arguments, once. Defined in fn.hpp.
  Result<FnInstance> instantiate(const FnRef& fn, const std::vector<Expr>& args, std::string_view file, int line);
};

// Whether the pattern calls a function of this name: a variable of the same name would hide it in the target's text.
inline bool calls(std::string_view pattern, std::string_view name) {
  for (size_t at = pattern.find(name); at != std::string_view::npos; at = pattern.find(name, at + 1)) {
    const bool starts = at == 0 || !(is_letter(pattern[at - 1]) || is_digit(pattern[at - 1]));
    if (starts && pattern.substr(at + name.size()).starts_with("(")) return true;
  }
  return false;
}

// float8, uvec3, mat4: vector types of a target, whether the dialect has them or not.
inline bool is_vector_type(std::string_view name) {
  constexpr std::string_view kStems[] = {"float", "int",   "uint", "half", "double", "char", "uchar", "short",  "ushort",
                                         "long",  "ulong", "vec",  "ivec", "uvec",   "bvec", "dvec",  "f16vec", "mat"};
  const size_t stem = name.find_last_not_of("0123456789") + 1;
  return stem < name.size() && std::find(std::begin(kStems), std::end(kStems), name.substr(0, stem)) != std::end(kStems);
}

// A type, a keyword, or a function that words are spelled with: a name that is one cannot be declared. ("lane" can: no target has such a function.)
inline bool is_taken(std::string_view name) {
  for (const Word& word : kWords)
    if (calls(word.opencl, name) || calls(word.glsl, name)) return true;
  const bool reserved = std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved);
  return reserved || name == "T" || is_vector_type(name) || type_row(name) != nullptr ||
         (name.starts_with("to_") && type_row(name.substr(3)) != nullptr);
}

// Why `name` cannot be declared; empty when it can.
inline std::string name_objection(std::string_view name) {
  if (is_taken(name)) return cat("'", name, "' is a word of the dialect or of a target language; choose another name");
  if (name.ends_with('_') || name.find("__") != std::string_view::npos)
    return cat("'", name, "': names with '__' or a '_' at the end are kept for generated text");
  return {};
}

}  // namespace tessera::codegen
