// Kernel files written inside a test, and short ways to lower them.
#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tessera/codegen/lower.hpp"

namespace tessera::test {

class KernelTexts : public KernelLibrary {
 public:
  KernelTexts(std::initializer_list<std::pair<const std::string, std::string>> files) : files_(files) {}
  Result<std::string_view> text(std::string_view name) const override {
    const auto found = files_.find(std::string(name));
    if (found == files_.end()) return fail(ErrorCode::kNotFound, cat("there is no kernel file '", name, "'"));
    return std::string_view(found->second);
  }

 private:
  std::map<std::string, std::string> files_;
};

inline Layout layout_of(Storage storage, DType element, int lanes, std::vector<int64_t> grid) {
  Layout layout;
  layout.storage = storage;
  layout.element = element;
  layout.lanes = lanes;
  layout.grid = std::move(grid);
  return layout;
}

inline Layout buffer_of(DType element, int lanes, std::vector<int64_t> grid) { return layout_of(Storage::kBuffer, element, lanes, std::move(grid)); }

// What stands between the first #line of the kernel itself and its last brace: the body as lowered.
inline std::string body_of(const LoweredKernel& kernel) {
  const size_t start = kernel.text.find("#line", std::min(kernel.text.find("void " + kernel.entry + "("), kernel.text.find("void main(")));
  const size_t begin = kernel.text.find('\n', start) + 1;
  return kernel.text.substr(begin, kernel.text.rfind('}') - begin);
}

}  // namespace tessera::test
