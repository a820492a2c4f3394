// The qwen2 architecture (Qwen team, arXiv 2407.10671): llama's graph with biases on Q, K and V, and rotary pairs made of a head's halves.
#pragma once
#include "tessera/model/arch_llama.hpp"

namespace tessera {

inline constexpr TensorRequirement kQwen2Tensors[] = {
    // name                  layer  required  role                      rows               columns
    {"token_embd.weight",    false, true,     TensorRole::kMatrix,      Extent::kVocab,    Extent::kDim},
    {"output_norm.weight",   false, true,     TensorRole::kNorm,        Extent::kOne,      Extent::kDim},
    {"output.weight",        false, false,    TensorRole::kMatrix,      Extent::kVocab,    Extent::kDim},
    {"attn_norm.weight",     true,  true,     TensorRole::kNorm,        Extent::kOne,      Extent::kDim},
    {"attn_q.weight",        true,  true,     TensorRole::kMatrix,      Extent::kQuery,    Extent::kDim},
    {"attn_k.weight",        true,  true,     TensorRole::kMatrix,      Extent::kKeyValue, Extent::kDim},
    {"attn_v.weight",        true,  true,     TensorRole::kMatrix,      Extent::kKeyValue, Extent::kDim},
    {"attn_q.bias",          true,  true,     TensorRole::kBias,        Extent::kOne,      Extent::kQuery},
    {"attn_k.bias",          true,  true,     TensorRole::kBias,        Extent::kOne,      Extent::kKeyValue},
    {"attn_v.bias",          true,  true,     TensorRole::kBias,        Extent::kOne,      Extent::kKeyValue},
    {"attn_output.weight",   true,  true,     TensorRole::kMatrix,      Extent::kDim,      Extent::kQuery},
    {"ffn_norm.weight",      true,  true,     TensorRole::kNorm,        Extent::kOne,      Extent::kDim},
    {"ffn_gate.weight",      true,  true,     TensorRole::kMatrix,      Extent::kHidden,   Extent::kDim},
    {"ffn_up.weight",        true,  true,     TensorRole::kMatrix,      Extent::kHidden,   Extent::kDim},
    {"ffn_down.weight",      true,  true,     TensorRole::kMatrix,      Extent::kDim,      Extent::kHidden},
};

inline Result<Graph> build_qwen2(const StepRequest& request) { return build_llama_with(request, RotaryPairs::kHalves); }

inline constexpr Architecture kQwen2{"qwen2", kQwen2Tensors, kLlamaNeutralKeys, kLlamaOtherKeys, build_qwen2};

}  // namespace tessera
