// The llama architecture: pre-norm transformer with RoPE, grouped-query attention and a SwiGLU feed-forward
// (Touvron et al., arXiv 2302.13971; grouped queries: Ainslie et al., arXiv 2305.13245). Names of keys and tensors: the GGUF specification.
#pragma once
#include <string>

#include "tessera/model/arch.hpp"
#include "tessera/ops/op_table.hpp"

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
    {"attn_q.bias",          true,  false,    TensorRole::kBias,        Extent::kOne,      Extent::kQuery},
    {"attn_k.bias",          true,  false,    TensorRole::kBias,        Extent::kOne,      Extent::kKeyValue},
    {"attn_v.bias",          true,  false,    TensorRole::kBias,        Extent::kOne,      Extent::kKeyValue},
    {"attn_output.bias",     true,  false,    TensorRole::kBias,        Extent::kOne,      Extent::kDim},
    {"ffn_gate.bias",        true,  false,    TensorRole::kBias,        Extent::kOne,      Extent::kHidden},
    {"ffn_up.bias",          true,  false,    TensorRole::kBias,        Extent::kOne,      Extent::kHidden},
    {"ffn_down.bias",        true,  false,    TensorRole::kBias,        Extent::kOne,      Extent::kDim},
};

inline constexpr NeutralKey kLlamaNeutralKeys[] = {
    {"expert_count",             0.0, "a mixture of experts"},
    {"attention.clamp_kqv",      0.0, "clamped queries, keys and values"},
    {"attention.max_alibi_bias", 0.0, "ALiBi position biases"},
    {"attention.scale",          0.0, "an attention scale of its own"},
    {"embedding_scale",          1.0, "scaled embeddings"},
    {"residual_scale",           1.0, "scaled residuals"},
    {"logit_scale",              1.0, "scaled logits"},
};

inline constexpr std::string_view kLlamaOtherKeys[] = {
    "vocab_size", "expert_used_count", "tensor_data_layout", "attention.sliding_window",
};

inline Result<Graph> build_llama_with(const StepRequest& request, RotaryPairs pairs) {
  using namespace ops;
  const ModelConfig& c = *request.config;
  const int64_t tokens = request.shape.tokens;
  GraphBuilder g;
  const StepInputs in = step_inputs(g, request);
  const AttentionShape shape{c.n_heads, c.n_kv_heads, c.head_dim, request.page_tokens, c.window};
  const RowGroups heads{c.head_dim}, rotary = rotary_heads(c, pairs);
  const auto w = [&](const std::string& name) { return weight(g, request, name); };
  const auto project = [&](ValueId x, const std::string& name, RowGroups groups = {}) { return linear(g, request, x, name, groups); };

  const ValueId table = w("token_embd.weight");
  ValueId x = embed(g, in.rows, table, tokens);                             // [tokens, dim]
  for (int layer = 0; layer < c.n_layers; ++layer) {
    const std::string blk = cat("blk.", layer, ".");
    const KvPages kv = kv_pages(g, request, in, layer);
    const ValueId h = rms_norm(g, x, w(blk + "attn_norm.weight"), c.norm_eps);
    const ValueId q = project(h, blk + "attn_q", rotary);                   // [tokens, n_heads · head_dim]
    const ValueId k = project(h, blk + "attn_k", rotary);                   // [tokens, n_kv_heads · head_dim]
    const ValueId v = project(h, blk + "attn_v", heads);
    const ValueId attended = pack_heads(g, attention(g, rope_kv(g, q, k, v, in.angles, kv, shape), kv, shape), shape);
    x = add(g, x, project(attended, blk + "attn_output"));                  // [tokens, dim]
    const ValueId f = rms_norm(g, x, w(blk + "ffn_norm.weight"), c.norm_eps);
    const ValueId gated = gated_silu(g, project(f, blk + "ffn_gate"), project(f, blk + "ffn_up"));  // [tokens, hidden_dim]
    x = add(g, x, project(gated, blk + "ffn_down"));                        // [tokens, dim]
  }
  output_head(g, request, in, x, w("output_norm.weight"), c.tied_output ? table : w("output.weight"));
  return std::move(g).build();
}

inline Result<Graph> build_llama(const StepRequest& request) { return build_llama_with(request, RotaryPairs::kNeighbours); }

inline constexpr Architecture kLlama{"llama", kLlamaTensors, kLlamaNeutralKeys, kLlamaOtherKeys, build_llama, true};

}  // namespace tessera
