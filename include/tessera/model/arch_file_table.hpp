// The architectures whose files can be loaded. A new one: a file of requirements beside arch_llama_file.hpp, and its name here.
#pragma once
#include <array>

#include "tessera/model/arch_llama_file.hpp"

namespace tessera {

inline constexpr std::array<const ArchitectureFile*, 1> kArchitectureFiles{&kLlamaFile};

// Null when this build does not know the architecture.
constexpr const ArchitectureFile* find_architecture_file(std::string_view name) {
  for (const ArchitectureFile* file : kArchitectureFiles)
    if (file->name == name) return file;
  return nullptr;
}

}  // namespace tessera
