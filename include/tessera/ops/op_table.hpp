// The ops, all of them.
#pragma once
#include <array>

#include "tessera/ops/attention.hpp"
#include "tessera/ops/elementwise.hpp"
#include "tessera/ops/embed.hpp"
#include "tessera/ops/matmul.hpp"
#include "tessera/ops/op.hpp"
#include "tessera/ops/output.hpp"
#include "tessera/ops/pack_heads.hpp"
#include "tessera/ops/quantize.hpp"
#include "tessera/ops/rms_norm.hpp"
#include "tessera/ops/rope_kv.hpp"
#include "tessera/ops/sample.hpp"

namespace tessera {

inline constexpr std::array<Op, 13> kOps{{
    {"embed", ops::plan_embed},
    {"rms_norm", ops::plan_rms_norm},
    {"quantize", ops::plan_quantize},
    {"matmul", ops::plan_matmul},
    {"rope_kv", ops::plan_rope_kv},
    {"attention", ops::plan_attention},
    {"attention_combine", ops::plan_attention_combine},
    {"pack_heads", ops::plan_pack_heads},
    {"gated_silu", ops::plan_elementwise},
    {"add", ops::plan_elementwise},
    {"take_row", ops::plan_take_row},
    {"adjust_logits", ops::plan_adjust_logits},
    {"sample", ops::plan_sample},
}};

inline const Op* find_op(std::string_view name) {
  for (const Op& op : kOps)
    if (op.name == name) return &op;
  return nullptr;
}

}  // namespace tessera
