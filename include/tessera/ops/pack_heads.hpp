// pack_heads: drops the padding between heads, for the projection that follows attention. Nothing to do where head_dim is a multiple of 4.
#pragma once
#include "tessera/ops/attention.hpp"
#include "tessera/ops/op.hpp"

namespace tessera::ops {

// x: [tokens, heads · padded_dim] → [tokens, heads · head_dim]; x itself when those are equal.
inline ValueId pack_heads(GraphBuilder& g, ValueId x, const AttentionShape& shape) {
  if (shape.padded_dim() == shape.head_dim) return x;
  const ValueId y = g.activation("packed heads", g[x].rows, shape.heads * shape.head_dim);
  g.node({"pack_heads", {{"x", x}}, {{"y", y}}, {{"head_dim", static_cast<double>(shape.head_dim)}}});
  return y;
}

inline Result<std::vector<KernelCall>> plan_pack_heads(const PlanContext& context, const Node& node) {
  const Value& y = context[node.output("y")];
  const int64_t workgroup = context.tuning.item_workgroup, head_dim = node.integer("head_dim");
  KernelCall call{.kernel = "pack_heads",
                  .consts = {{"SLICES", slices_of(y)}, {"CHANNELS", y.channels}, {"HEAD_DIM", head_dim}, {"D4", ceil_div(head_dim, 4)}, {"WG", workgroup}},
                  .slots = {{"x", node.input("x"), 4}, {"y", node.output("y"), 4}},
                  .args = {},
                  .workgroups = {ceil_div(y.rows * slices_of(y), workgroup), 1, 1}};
  return std::vector{std::move(call)};
}

// x: [tokens, heads, padded_dim], y: [tokens, heads, head_dim].
inline void pack_heads_reference(const float* x, float* y, int64_t tokens, const AttentionShape& shape) {
  for (int64_t head = 0; head < tokens * shape.heads; ++head)
    for (int64_t d = 0; d < shape.head_dim; ++d) y[head * shape.head_dim + d] = x[head * shape.padded_dim() + d];
}

}  // namespace tessera::ops
