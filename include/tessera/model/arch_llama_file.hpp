// What a Llama model file must hold. Source: tensor and key names of the GGUF specification, architecture "llama".
#pragma once
#include "tessera/model/arch_file.hpp"

namespace tessera {

inline constexpr TensorRequirement kLlamaTensors[] = {
    // name                  layer  required  role                      rows               columns
    {"token_embd.weight",    false, true,     TensorRole::kMatrix,      Extent::kVocab,    Extent::kDim},
    {"output_norm.weight",   false, true,     TensorRole::kNorm,        Extent::kOne,      Extent::kDim},
    {"output.weight",        false, false,    TensorRole::kMatrix,      Extent::kVocab,    Extent::kDim},
    {"rope_freqs.weight",    false, false,    TensorRole::kRopeFactors, Extent::kOne,      Extent::kRotPairs},
    {"attn_norm.weight",     true,  true,     TensorRole::kNorm,        Extent::kOne,      Extent::kDim},
    {"attn_q.weight",        true,  true,     TensorRole::kMatrix,      Extent::kQuery,    Extent::kDim},
    {"attn_k.weight",        true,  true,     TensorRole::kMatrix,      Extent::kKeyValue, Extent::kDim},
    {"attn_v.weight",        true,  true,     TensorRole::kMatrix,      Extent::kKeyValue, Extent::kDim},
    {"attn_output.weight",   true,  true,     TensorRole::kMatrix,      Extent::kDim,      Extent::kQuery},
    {"ffn_norm.weight",      true,  true,     TensorRole::kNorm,        Extent::kOne,      Extent::kDim},
    {"ffn_gate.weight",      true,  true,     TensorRole::kMatrix,      Extent::kHidden,   Extent::kDim},
    {"ffn_up.weight",        true,  true,     TensorRole::kMatrix,      Extent::kHidden,   Extent::kDim},
    {"ffn_down.weight",      true,  true,     TensorRole::kMatrix,      Extent::kDim,      Extent::kHidden},
};

inline constexpr NeutralKey kLlamaNeutralKeys[] = {
    {"expert_count",             0.0, "a mixture of experts"},
    {"rope.scaling.factor",      1.0, "scaled rotary positions"},
    {"rope.scale_linear",        1.0, "linearly scaled rotary positions"},
    {"attention.sliding_window", 0.0, "sliding-window attention"},
    {"attention.clamp_kqv",      0.0, "clamped queries, keys and values"},
    {"attention.max_alibi_bias", 0.0, "ALiBi position biases"},
    {"attention.scale",          0.0, "an attention scale of its own"},
    {"embedding_scale",          1.0, "scaled embeddings"},
    {"residual_scale",           1.0, "scaled residuals"},
    {"logit_scale",              1.0, "scaled logits"},
};

inline constexpr std::string_view kLlamaOtherKeys[] = {
    "vocab_size", "expert_used_count", "rope.scaling.original_context_length", "rope.scaling.finetuned", "tensor_data_layout",
};

inline constexpr ArchitectureFile kLlamaFile{"llama", kLlamaTensors, kLlamaNeutralKeys, kLlamaOtherKeys};

}  // namespace tessera
