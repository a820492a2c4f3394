// add: y = a + b.   gated_silu: y = silu(gate) · up.   Both on [tokens, channels].
#pragma once
#include <cmath>

#include "tessera/ops/op.hpp"

namespace tessera::ops {

inline ValueId add(GraphBuilder& g, ValueId a, ValueId b) {
  g.require(g[a].rows == g[b].rows && g[a].channels == g[b].channels, cat("add: ", g[a].name, " and ", g[b].name, " differ in shape"));
  const ValueId y = g.residual("sum", g[a].rows, g[a].channels);
  g.node({"add", {{"a", a}, {"b", b}}, {{"y", y}}, {}});
  return y;
}

inline ValueId gated_silu(GraphBuilder& g, ValueId gate, ValueId up) {
  g.require(g[gate].rows == g[up].rows && g[gate].channels == g[up].channels, cat("gated_silu: ", g[gate].name, " and ", g[up].name, " differ in shape"));
  const ValueId y = g.activation("gated", g[up].rows, g[up].channels);
  g.node({"gated_silu", {{"gate", gate}, {"up", up}}, {{"y", y}}, {}});
  return y;
}

// Both kernels: every input and the output are [token, slice], one lane a texel.
inline Result<std::vector<KernelCall>> plan_elementwise(const PlanContext& context, const Node& node) {
  const ValueId y = node.output("y");
  const int64_t slices = slices_of(context[y]), workgroup = context.tuning.item_workgroup;
  KernelCall call{.kernel = node.op, .consts = {{"SLICES", slices}, {"WG", workgroup}}, .slots = {}, .args = {}, .workgroups = {ceil_div(context[y].rows * slices, workgroup), 1, 1}};
  for (const auto& [role, value] : node.inputs) call.slots.push_back({role, value, 4});
  call.slots.push_back({"y", y, 4});
  return std::vector{std::move(call)};
}

inline void add_reference(const float* a, const float* b, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = a[i] + b[i];
}

inline void gated_silu_reference(const float* gate, const float* up, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const double g = static_cast<double>(gate[i]);
    y[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * static_cast<double>(up[i]));
  }
}

}  // namespace tessera::ops
