// Functions of the dialect: lowered once for each set of types and shared arrays that they are called with.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "tessera/codegen/body.hpp"

namespace tessera::codegen {

// One function for given arguments: what T is, which array each shared parameter stands for.
class FnLowering {
 public:
  FnLowering(Lowering& lowering, const FnRef& fn) : lowering_(lowering), source_(*fn.source), decl_(*fn.decl), symbols_(decl_.params.size()) {}

  // The call is judged where it stands: `file`, `line`.
  Status bind(const std::vector<Expr>& args, std::string_view file, int line) {
    const auto wrong = [&](const std::string& message) { return fail(error_at(file, line, cat("'", decl_.name, "'", message))); };
    if (args.size() != symbols_.size())
      return wrong(cat(" takes ", symbols_.size(), symbols_.size() == 1 ? " argument, " : " arguments, ", args.size(), " were given"));
    for (const bool arrays : {true, false})  // arrays say what T is before plain values are compared with it
      for (size_t i = 0; i < args.size(); ++i)
        if (args[i].array() == arrays) {
          TESSERA_ASSIGN(const std::string objection, bind_one(decl_.params[i], args[i], symbols_[i]));
          if (!objection.empty()) return wrong(cat(": ", decl_.params[i].name, objection));
        }
    if (const std::optional<Type> result = type_named(decl_.result)) {
      instance_.result = *result;
      return {};
    }
    return fail(error_at(source_.file, decl_.line, cat("'", decl_.result, "' is not a type that is known here")));
  }

  // Names the instance: equal names are the same text.
  std::string name() const {
    std::string out(decl_.name);
    if (generic_) out += "_" + name_of(*generic_);
    for (const std::string& array : arrays_) out += "_" + array;
    return out + (generic_ && arrays_.empty() ? "_" : "");
  }

  Result<FnInstance> lower() {
    instance_.name = name();
    BodyLowering body(lowering_, source_, decl_.body, false, instance_.result, generic_);
    std::string params;
    for (size_t i = 0; i < symbols_.size(); ++i) {
      const std::string text = param_text(decl_.params[i], symbols_[i]);
      if (!text.empty()) instance_.passed.push_back(i);
      params += (params.empty() || text.empty() ? "" : ", ") + text;
      body.declare(decl_.params[i].name, symbols_[i], decl_.line);
    }
    const std::string result = lowering_.type_text(instance_.result);
    TESSERA_ASSIGN(const std::string text, body.run());
    // CPU drivers leave larger functions as calls, and pass their arrays through memory.
    const std::string_view inlined = lowering_.spelling.choose("__attribute__((always_inline)) ", "");
    lowering_.fn_text += cat(inlined, result, " ", instance_.name, "(", params, ") {\n", text, "}\n");
    return instance_;
  }

 private:
  std::optional<Type> type_named(std::string_view name) const {
    const TypeRow* row = type_row(name);
    return name == "T" ? generic_ : row != nullptr ? std::optional(row->type) : std::nullopt;
  }

  // What the parameter stands for, or why the argument does not fit.
  Result<std::string> bind_one(const FnParam& param, const Expr& arg, Symbol& symbol) {
    using Form = FnParam::Form;
    if (param.type == "T" && !generic_) generic_ = arg.type;
    const std::optional<Type> type = type_named(param.type);
    if (!type || type->kind == Kind::kVoid) return cat(" has the unknown type '", param.type, "'");
    symbol = {Role::kLocal, *type, std::string(param.name), decl_.line, param.form == Form::kValue && !param.constant, 0, {}, nullptr};
    if (param.form == Form::kValue)
      return !arg.array() && assignable(*type, arg.type) ? "" : cat(" is ", name_of(*type), ", the value ", describe(arg));
    if (!arg.array() || arg.type != *type) return cat(" is an array of ", name_of(*type), ", the value ", describe(arg));
    const bool shared = arg.symbol->role == Role::kShared;
    if (shared != (param.form == Form::kSharedArray)) return shared ? " is not a shared array, the value is" : " is a shared array, the value is not";
    return shared ? bind_shared(*arg.symbol, symbol) : bind_array(param, *arg.symbol, symbol);
  }

  Result<std::string> bind_shared(const Symbol& array, Symbol& symbol) {
    for (const std::string& other : arrays_)
      if (other == array.text) return " is a shared array that was given already";
    arrays_.push_back(array.text);
    symbol = array;
    return "";
  }

  Result<std::string> bind_array(const FnParam& param, const Symbol& array, Symbol& symbol) {
    ExpressionLowering expression(lowering_, source_, param.extent, false);
    const std::optional<int64_t> extent = expression.constant("the size of an array");
    TESSERA_TRY(expression.status());
    symbol.extent = *extent;
    return array.extent == *extent ? "" : cat(" has ", *extent, " elements, the value ", array.extent);
  }

  // GLSL reaches a shared array as the global it is: empty.
  std::string param_text(const FnParam& param, const Symbol& symbol) {
    const std::string type = lowering_.type_text(symbol.type);
    const bool opencl = lowering_.spelling.target == Target::kOpenCL;
    if (param.form == FnParam::Form::kValue) return cat(param.constant ? "const " : "", type, " ", symbol.text);
    if (param.form == FnParam::Form::kSharedArray) return opencl ? cat("__local ", type, "* ", symbol.text) : std::string();
    return opencl ? cat("const ", type, "* ", symbol.text) : cat("const ", type, " ", symbol.text, "[", symbol.extent, "]");
  }

  Lowering& lowering_;
  const KernelSource& source_;
  const FnDecl& decl_;
  std::vector<Symbol> symbols_;  // one a parameter
  std::optional<Type> generic_;
  std::vector<std::string> arrays_;
  FnInstance instance_;
};

inline Result<FnInstance> Lowering::instantiate(const FnRef& fn, const std::vector<Expr>& args, std::string_view file, int line) {
  FnLowering call(*this, fn);
  TESSERA_TRY(call.bind(args, file, line));
  const std::string name = call.name();
  if (const auto known = instances.find(name); known != instances.end()) return known->second;
  if (!open_fns.insert(name).second) return fail(error_at(file, line, cat("'", fn.decl->name, "' calls itself: the targets have no recursion")));
  TESSERA_ASSIGN(FnInstance instance, call.lower());
  instances.emplace(name, instance);
  return instance;
}

}  // namespace tessera::codegen
