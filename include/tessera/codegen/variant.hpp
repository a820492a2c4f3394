// What selects one program out of a kernel template, and what lowering makes of it. Plain data.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tessera/device/word_choice.hpp"  // WordChoice, DotForm: part of a device's tuning
#include "tessera/tensor/layout.hpp"

namespace tessera {

enum class Target { kOpenCL, kGlsl };

// Everything that selects one program out of a kernel template. Two equal variants are the same program.
struct KernelVariant {
  std::string kernel;                     // stem of kernels/NAME.kernel
  std::map<std::string, int64_t> consts;  // every `const` of the header; bool as 0/1
  std::map<std::string, Layout> tensors;  // every tensor whose `if` condition holds
  WordChoice words;
  bool operator==(const KernelVariant&) const = default;
};

enum class ArgType { kInt, kUint, kFloat };

// Tensors in the order of the header, absent optional ones left out; the run-time parameter buffer, if the kernel has a `param`, is last
// and named "params".
struct KernelSlot {
  std::string tensor;
  Storage storage = Storage::kBuffer;
  bool written = false;
  bool operator==(const KernelSlot&) const = default;
};

struct KernelArg {
  std::string name;
  ArgType type = ArgType::kInt;  // each takes 4 bytes, in header order
  bool operator==(const KernelArg&) const = default;
};

struct LoweredKernel {
  std::string entry;  // the kernel's name; the function in OpenCL C, where GLSL's is always main
  std::string text;
  std::array<int, 3> workgroup{1, 1, 1};
  std::vector<KernelSlot> slots;
  std::vector<KernelArg> args;
};

}  // namespace tessera
