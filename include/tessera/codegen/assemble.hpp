// The last step of lowering: the kernel's body, then everything that has to stand above it, in one text.
#pragma once
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/codegen/header.hpp"

namespace tessera::codegen {

class KernelAssembly {
 public:
  KernelAssembly(Lowering& lowering, const std::vector<std::string>& params)
      : lowering_(lowering),
        source_(lowering.source()),
        kernel_(*source_.kernel),
        params_(params),
        opencl_(lowering.spelling.target == Target::kOpenCL) {}

  Result<LoweredKernel> run() {
    LoweredKernel out;
    out.entry = std::string(kernel_.name);
    TESSERA_ASSIGN(out.workgroup, workgroup());
    for (const auto& tensor : lowering_.tensors) out.slots.push_back(tensor->slot());
    if (!source_.params.empty()) out.slots.push_back({"params", Storage::kBuffer, false});
    if (out.slots.empty() || source_.args.size() > kMaxArgs)
      return fail(error_at(source_.file, kernel_.line,
                           out.slots.empty() ? "the kernel has no tensor" : "args may take 128 bytes, 4 each (Vulkan's push constants)"));
    for (const ScalarDecl& arg : source_.args)
      out.args.push_back({std::string(arg.name), arg.type == "int" ? ArgType::kInt : arg.type == "uint" ? ArgType::kUint : ArgType::kFloat});
    TESSERA_ASSIGN(const std::string body, BodyLowering(lowering_, source_, kernel_.body, true).run());
    out.text = opencl_ ? opencl_text(out, body) : glsl_text(out, body);
    return out;
  }

 private:
  static constexpr size_t kMaxArgs = 32;

  Result<std::array<int, 3>> workgroup() {
    std::array<int, 3> sizes{};
    for (size_t i = 0; i < 3; ++i) {
      ExpressionLowering size(lowering_, source_, kernel_.workgroup[i], true);
      const std::optional<int64_t> value = size.constant("a workgroup size");
      TESSERA_TRY(size.status());
      if (*value < 1 || *value > UINT16_MAX) return fail(error_at(source_.file, kernel_.line, cat("a workgroup size cannot be ", *value)));
      sizes[i] = static_cast<int>(*value);
    }
    return sizes;
  }

  std::string opencl_text(const LoweredKernel& kernel, const std::string& body) {
    std::vector<std::string> parameters;
    for (const auto& tensor : lowering_.tensors) {
      const AccessText declaration = tensor->declaration(0);
      lowering_.need(declaration.needs);
      parameters.push_back(declaration.text);
    }
    if (!source_.params.empty()) parameters.emplace_back("__global const int* restrict params");
    for (const ScalarDecl& arg : source_.args) parameters.push_back(cat("const ", arg.type, " ", arg.name));
    std::string list;
    for (const std::string& parameter : parameters) list += (list.empty() ? "" : ", ") + parameter;
    const std::string arrays = shared("  __local ");  // first: what they need is an extension
    const auto [x, y, z] = kernel.workgroup;
    return cat(extensions("#pragma OPENCL EXTENSION ", " : enable\n"), consts(body), helpers(), lowering_.fn_text,
               "__kernel __attribute__((reqd_work_group_size(", x, ", ", y, ", ", z, ")))\nvoid ", kernel.entry, "(", list, ") {\n", arrays,
               param_loads(), body, "}\n");
  }

  std::string glsl_text(const LoweredKernel& kernel, const std::string& body) {
    const auto [x, y, z] = kernel.workgroup;
    const std::string globals = cat(glsl_tensors(), glsl_args(), shared("shared "));  // first: what they need is an extension
    return cat("#version 450\n#extension GL_GOOGLE_cpp_style_line_directive : require\n", extensions("#extension ", " : require\n"),
               "layout(local_size_x = ", x, ", local_size_y = ", y, ", local_size_z = ", z, ") in;\n", globals, consts(body), helpers(),
               lowering_.fn_text, "void main() {\n", param_loads(), body, "}\n");
  }

  std::string glsl_tensors() {
    std::string out;
    size_t binding = 0;
    for (const auto& tensor : lowering_.tensors) {
      const AccessText declaration = tensor->declaration(binding++);
      lowering_.need(declaration.needs);
      out += declaration.text + "\n";
    }
    if (!source_.params.empty())
      out += cat("layout(set = 0, binding = ", binding, ", std430) readonly restrict buffer params_block_ { int params[]; };\n");
    return out;
  }

  std::string glsl_args() const {
    std::string members;
    for (const ScalarDecl& arg : source_.args) members += cat(arg.type, " ", arg.name, "; ");
    return members.empty() ? members : cat("layout(push_constant) uniform args_block_ { ", members, "};\n");
  }

  std::string shared(std::string_view qualifier) {
    std::string out;
    for (const SharedDecl& decl : source_.shared)
      if (const Symbol& symbol = lowering_.globals.at(decl.name); symbol.role == Role::kShared)
        out += cat(qualifier, lowering_.type_text(symbol.type), " ", symbol.text, "[", symbol.extent, "];\n");
    return out;
  }

  std::string param_loads() const {
    std::string out;
    for (const ScalarDecl& param : source_.params)
      out += cat("  const int ", param.name, " = params[", std::find(params_.begin(), params_.end(), param.name) - params_.begin(), "];\n");
    return out;
  }

  static bool mentions(std::string_view text, std::string_view name) {
    const auto inside = [&](size_t at) { return at < text.size() && (is_letter(text[at]) || is_digit(text[at])); };
    for (size_t at = text.find(name); at != std::string_view::npos; at = text.find(name, at + 1))
      if ((at == 0 || !inside(at - 1)) && !inside(at + name.size())) return true;
    return false;
  }

  // Macros, so that array sizes and loop bounds fold in every compiler. What only the header and static if use is not in the text.
  std::string consts(const std::string& body) const {
    std::string out;
    for (const auto& source : lowering_.sources)
      for (const ScalarDecl& decl : source->consts) {
        if (!mentions(body, decl.name) && !mentions(lowering_.fn_text, decl.name)) continue;
        const int64_t value = *lowering_.globals.at(decl.name).value;
        const std::string number = decl.type == "bool" ? (value != 0 ? "true" : "false") : value < 0 ? cat("(", value, ")") : std::to_string(value);
        out += cat("#define ", decl.name, " ", number, "\n");
      }
    return out;
  }

  std::string helpers() const {
    std::string out;
    for (const Helper& helper : kHelpers)
      if (const std::string text = used(helper) ? lowering_.spelling.fill(lowering_.spelling.choose(helper.opencl, helper.glsl)) : ""; !text.empty())
        out += text + "\n";
    return out;
  }

  std::string extensions(std::string_view before, std::string_view after) const {
    std::vector<std::string_view> names;
    for (std::string_view need : lowering_.helpers)
      if (need.starts_with(lowering_.spelling.choose("cl_", "GL_"))) names.push_back(need);
    for (const Helper& helper : kHelpers) {
      std::string_view rest = used(helper) ? lowering_.spelling.choose(helper.opencl_extensions, helper.glsl_extensions) : std::string_view();
      while (!rest.empty()) {
        const size_t space = std::min(rest.find(' '), rest.size());
        if (std::find(names.begin(), names.end(), rest.substr(0, space)) == names.end()) names.push_back(rest.substr(0, space));
        rest.remove_prefix(std::min(space + 1, rest.size()));
      }
    }
    std::string out;
    for (std::string_view name : names) out += cat(before, name, after);
    return out;
  }

  bool used(const Helper& helper) const {
    const WordChoice& words = lowering_.spelling.words;
    return lowering_.helpers.contains(helper.name) && (!helper.form || *helper.form == words.dot);
  }

  Lowering& lowering_;
  const KernelSource& source_;
  const KernelDecl& kernel_;
  const std::vector<std::string>& params_;
  bool opencl_;
};

}  // namespace tessera::codegen
