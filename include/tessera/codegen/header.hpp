// The header of a kernel against a variant: which tensors and arrays there are, what every constant is, and that nothing is missing or left over.
// Tensors and consts of the library files that a kernel uses count as its own.
#pragma once
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/codegen/fn.hpp"
#include "tessera/codegen/kernel_library.hpp"

namespace tessera::codegen {

// Parses one file and, once each, the files it uses; puts their functions in reach.
inline Status load_source(Lowering& lowering, const KernelLibrary& library, std::string_view name) {
  for (const auto& source : lowering.sources)
    if (source->file == std::string(name) + ".kernel") return {};
  TESSERA_ASSIGN(const std::string_view text, library.text(name));
  TESSERA_ASSIGN(KernelSource parsed, parse_kernel_source(std::string(name) + ".kernel", text));
  lowering.sources.push_back(std::make_unique<KernelSource>(std::move(parsed)));
  const KernelSource& source = *lowering.sources.back();
  for (const FnDecl& fn : source.fns) {
    const std::string objection = name_objection(fn.name);
    if (!objection.empty()) return fail(error_at(source.file, fn.line, objection));
    const auto [at, added] = lowering.fns.try_emplace(fn.name, FnRef{&source, &fn});
    if (!added)
      return fail(error_at(source.file, fn.line,
                           cat("function '", fn.name, "' is already defined in ", at->second.source->file, ":", at->second.decl->line)));
  }
  for (const ScalarDecl& use : source.uses)
    if (Status status = load_source(lowering, library, use.name); !status) {
      if (status.error().code() != ErrorCode::kNotFound) return status;
      return fail(error_at(source.file, use.line, status.error().message()));
    }
  return {};
}

inline Status load_sources(Lowering& lowering, const KernelLibrary& library) {
  TESSERA_TRY(load_source(lowering, library, lowering.variant.kernel));
  const KernelSource& source = lowering.source();
  const int last = source.tokens.back().line;
  if (!source.kernel) return fail(error_at(source.file, last, "the file has no kernel"));
  if (source.kernel->name != lowering.variant.kernel)
    return fail(error_at(source.file, source.kernel->line, cat("the kernel is called '", source.kernel->name, "', its file '", source.file, "'")));
  return {};
}

class HeaderLowering {
 public:
  HeaderLowering(Lowering& lowering, const std::vector<std::string>& params) : lowering_(lowering), source_(&lowering.source()), params_(params) {}

  Status run() {
    TESSERA_TRY(words());
    TESSERA_TRY(consts());
    TESSERA_TRY(tensors());
    TESSERA_TRY(scalars(lowering_.source().args, Role::kArg));
    TESSERA_TRY(scalars(lowering_.source().params, Role::kParam));
    return shared();
  }

 private:
  Status words() {
    const int width = lowering_.spelling.words.vector_width;
    const bool fits = lowering_.spelling.target == Target::kGlsl ? width == 4 : width == 4 || width == 8 || width == 16;
    if (!fits) return fail(ErrorCode::kUnsupported, cat(source_->file, ": floatw cannot have ", width, " lanes here (OpenCL C: 4, 8 or 16; GLSL: 4)"));
    const DotForm dot = lowering_.spelling.words.dot;
    const bool spelled = dot == DotForm::kPlain || (dot == DotForm::kPairs ? lowering_.spelling.target == Target::kOpenCL && width == 8 : width == 4);
    if (!spelled) return fail(ErrorCode::kUnsupported, cat(source_->file, ": packed dots of ", width, " rows have no form '", name_of(dot), "' here"));
    const bool subgroups = lowering_.spelling.words.subgroups;
    lowering_.globals["W"] = {Role::kConst, {Kind::kInt, 1}, std::to_string(width), 0, false, 0, width, nullptr};
    lowering_.globals["SUBGROUPS"] = {Role::kConst, {Kind::kBool, 1}, subgroups ? "true" : "false", 0, false, 0, subgroups, nullptr};
    return {};
  }

  Status consts() {
    for (const auto& source : lowering_.sources) {
      source_ = source.get();
      for (const ScalarDecl& decl : source->consts) TESSERA_TRY(constant(decl));
    }
    source_ = &lowering_.source();
    for (const auto& given : lowering_.variant.consts) {
      const auto known = lowering_.globals.find(given.first);
      if (known == lowering_.globals.end() || known->second.role != Role::kConst || known->second.line == 0)
        return fail(ErrorCode::kCompile, cat(source_->file, ": the variant gives a value for '", given.first, "', which is not a const of this kernel"));
    }
    return {};
  }

  Status constant(const ScalarDecl& decl) {
    // Capitals keep the macro that a const becomes away from members (.x) and variables.
    if (decl.name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != std::string_view::npos)
      return wrong(decl.line, cat("const '", decl.name, "': consts are named in capitals"));
    const auto given = lowering_.variant.consts.find(std::string(decl.name));
    if (given == lowering_.variant.consts.end()) return wrong(decl.line, cat("the variant gives no value for const '", decl.name, "'"));
    const int64_t value = given->second;
    const bool boolean = decl.type == "bool";
    if (boolean ? value != 0 && value != 1 : value < INT32_MIN || value > INT32_MAX)
      return wrong(decl.line, cat("const ", decl.type, " '", decl.name, "' cannot be ", value));
    return add(decl.name, {Role::kConst, {boolean ? Kind::kBool : Kind::kInt, 1}, std::string(decl.name), decl.line, false, 0, value, nullptr});
  }

  Status tensors() {
    for (const auto& source : lowering_.sources) {
      source_ = source.get();
      for (const TensorDecl& decl : source->tensors) TESSERA_TRY(tensor(decl));
    }
    source_ = &lowering_.source();
    for (const auto& [name, layout] : lowering_.variant.tensors)
      if (!lowering_.globals.contains(name))
        return fail(ErrorCode::kCompile, cat(source_->file, ": the variant gives a layout for '", name, "', which is not a tensor of this kernel"));
    return {};
  }

  Status tensor(const TensorDecl& decl) {
    TESSERA_ASSIGN(const bool there, holds(decl.condition));
    const auto layout = lowering_.variant.tensors.find(std::string(decl.name));
    if (there && layout == lowering_.variant.tensors.end())
      return wrong(decl.line, cat("the variant gives no layout for tensor '", decl.name, "'"));
    if (!there && layout != lowering_.variant.tensors.end())
      return wrong(decl.line, cat("the variant gives a layout for tensor '", decl.name, "', whose condition is false"));
    Symbol symbol{there ? Role::kTensor : Role::kAbsent, {}, std::string(decl.name), decl.line, false, 0, {}, nullptr};
    if (there) {
      Result<TensorAccess> access = TensorAccess::bind(decl, layout->second, lowering_.spelling);
      if (!access) return fail(access.error().code(), error_at(source_->file, decl.line, access.error().message()).message());
      symbol.type = access->texel();
      symbol.tensor = lowering_.tensors.emplace_back(std::make_unique<TensorAccess>(std::move(*access))).get();
    }
    return add(decl.name, std::move(symbol));
  }

  Status scalars(const std::vector<ScalarDecl>& decls, Role role) {
    for (const ScalarDecl& decl : decls) {
      if (role == Role::kParam && std::find(params_.begin(), params_.end(), decl.name) == params_.end())
        return wrong(decl.line, cat("'", decl.name, "' is not a word of the run-time parameter buffer"));
      TESSERA_TRY(add(decl.name, {role, type_row(decl.type)->type, std::string(decl.name), decl.line, false, 0, {}, nullptr}));
    }
    return {};
  }

  Status shared() {
    for (const SharedDecl& decl : lowering_.source().shared) {
      TESSERA_ASSIGN(const bool there, holds(decl.condition));
      const TypeRow* row = type_row(decl.type);
      if (row == nullptr || row->type.kind == Kind::kVoid || row->type.kind == Kind::kBool)
        return wrong(decl.line, cat("a shared array cannot be of '", decl.type, "'"));
      Symbol symbol{Role::kAbsent, row->type, std::string(decl.name) + "_", decl.line, true, 0, {}, nullptr};
      if (there) {
        TESSERA_ASSIGN(symbol.extent, value_of(decl.extent, "the size of a shared array"));
        if (symbol.extent < 1) return wrong(decl.line, cat("shared array '", decl.name, "' would have ", symbol.extent, " elements"));
        symbol.role = Role::kShared;
      }
      TESSERA_TRY(add(decl.name, std::move(symbol)));
    }
    return {};
  }

  Result<bool> holds(TokenRange condition) {
    if (condition.empty()) return true;
    TESSERA_ASSIGN(const int64_t value, value_of(condition, "a condition of the header"));
    return value != 0;
  }

  Result<int64_t> value_of(TokenRange range, std::string_view what) {
    ExpressionLowering expression(lowering_, *source_, range, true);
    const std::optional<int64_t> value = expression.constant(what);
    TESSERA_TRY(expression.status());
    return *value;
  }

  Status add(std::string_view name, Symbol symbol) {
    const int line = symbol.line;
    const std::string objection = name_objection(name);
    if (!objection.empty()) return wrong(line, objection);
    if (lowering_.fns.contains(name)) return wrong(line, cat("'", name, "' is a function; choose another name"));
    const auto [at, added] = lowering_.globals.try_emplace(name, std::move(symbol));
    if (added) return {};
    return wrong(line, at->second.line == 0 ? cat("'", name, "' is predefined") : cat("'", name, "' is already declared on line ", at->second.line));
  }

  tl::unexpected<Error> wrong(int line, std::string_view message) const { return fail(error_at(source_->file, line, message)); }

  Lowering& lowering_;
  const KernelSource* source_;  // whose declarations are being read
  const std::vector<std::string>& params_;
};

}  // namespace tessera::codegen
