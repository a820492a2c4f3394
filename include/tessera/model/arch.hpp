// What an architecture is: the tensors it needs from a model file with their shapes, the settings it can only run at their neutral value,
// and the function that builds its step graph. One file an architecture (arch_NAME.hpp); arch_table.hpp lists them.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "tessera/model/step_graph.hpp"

namespace tessera {

// A side of a tensor, in terms of the configuration.
enum class Extent : uint8_t {
  kOne,
  kDim,       // dim
  kHidden,    // hidden_dim
  kQuery,     // n_heads · head_dim
  kKeyValue,  // n_kv_heads · head_dim
  kVocab,     // vocab_size
  kRotPairs,  // n_rot / 2
};

constexpr int64_t extent_of(Extent extent, const ModelConfig& config) {
  switch (extent) {
    case Extent::kOne: return 1;
    case Extent::kDim: return config.dim;
    case Extent::kHidden: return config.hidden_dim;
    case Extent::kQuery: return int64_t{config.n_heads} * config.head_dim;
    case Extent::kKeyValue: return int64_t{config.n_kv_heads} * config.head_dim;
    case Extent::kVocab: return config.vocab_size;
    case Extent::kRotPairs: return config.n_rot / 2;
  }
  return 0;
}

// What a tensor is for decides which types it may have.
enum class TensorRole : uint8_t {
  kMatrix,       // any type of tensor/quant.hpp
  kNorm,         // F32 or F16
  kBias,         // F32 or F16
  kRopeFactors,  // F32, every value positive and finite
};

struct TensorRequirement {
  std::string_view name;  // per layer: what follows "blk.N."
  bool per_layer;
  bool required;
  TensorRole role;
  Extent rows;
  Extent columns;  // the fastest dimension in the file
};

// A key (after "ARCH.") that changes the mathematics unless it is absent or has this value.
struct NeutralKey {
  std::string_view key;
  double neutral;
  std::string_view meaning;
};

struct Architecture {
  std::string_view name;  // general.architecture
  std::span<const TensorRequirement> tensors;
  std::span<const NeutralKey> neutral_keys;
  std::span<const std::string_view> other_keys;  // known and without effect here, so not worth a warning
  Result<Graph> (*build)(const StepRequest& request);
  bool has_window = false;  // attention.sliding_window is that of every layer
};

}  // namespace tessera
