// Lowering: one kernel file + one variant → source text for one target. Pure text work, no driver; equal input gives equal text, byte for byte.
// The dialect on one page: kernels/README.md. The data types alone: codegen/variant.hpp.
#pragma once
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/codegen/assemble.hpp"
#include "tessera/codegen/kernel_library.hpp"
#include "tessera/codegen/variant.hpp"

namespace tessera {

// `params` names the words of the run-time parameter buffer: a `param int NAME` reads params[index of NAME].
// Errors are kCompile (kUnsupported where a layout asks for a storage or element that kernels do not reach), name FILE.kernel:LINE and say what is
// wrong there. Cost: below a millisecond a kernel.
inline Result<LoweredKernel> lower(const KernelLibrary& library, const KernelVariant& variant, Target target,
                                   const std::vector<std::string>& params) {
  codegen::Lowering lowering{.variant = variant, .spelling = {target, variant.words}};
  TESSERA_TRY(codegen::load_sources(lowering, library));
  TESSERA_TRY(codegen::HeaderLowering(lowering, params).run());
  return codegen::KernelAssembly(lowering, params).run();
}

// The tensors that a kernel writes, by name.
inline Result<std::set<std::string>> written_tensors(const KernelLibrary& library, const std::string& kernel) {
  const KernelVariant variant{.kernel = kernel, .consts = {}, .tensors = {}, .words = {}};
  codegen::Lowering lowering{.variant = variant, .spelling = {Target::kOpenCL, {}}};
  TESSERA_TRY(codegen::load_sources(lowering, library));
  std::set<std::string> written;
  for (const auto& source : lowering.sources)
    for (const codegen::TensorDecl& tensor : source->tensors)
      if (tensor.written) written.emplace(tensor.name);
  return written;
}

}  // namespace tessera
