// take_row: the one row of a chunk whose logits are asked for.   argmax: the id of the greatest logit.
#pragma once
#include <cmath>

#include "tessera/ops/op.hpp"

namespace tessera::ops {

// x: [tokens, channels] → [1, channels], row `last_row` of the run-time parameters.
inline ValueId take_row(GraphBuilder& g, ValueId x) {
  const ValueId y = g[x].residual ? g.residual("last row", 1, g[x].channels) : g.activation("last row", 1, g[x].channels);
  g.node({"take_row", {{"x", x}}, {{"y", y}}, {}});
  return y;
}

inline Result<std::vector<KernelCall>> plan_take_row(const PlanContext& context, const Node& node) {
  const int64_t slices = slices_of(context[node.input("x")]), workgroup = context.tuning.item_workgroup;
  KernelCall call{.kernel = "take_row", .consts = {{"SLICES", slices}, {"WG", workgroup}}, .slots = {{"x", node.input("x"), 4}, {"y", node.output("y"), 4}}, .args = {}, .workgroups = {ceil_div(slices, workgroup), 1, 1}};
  return std::vector{std::move(call)};
}

// x: [1, channels] → id: int [1]; −1 on a numeric fault.
inline void argmax(GraphBuilder& g, ValueId x, ValueId id) { g.node({"argmax", {{"x", x}}, {{"id", id}}, {}}); }

inline Result<std::vector<KernelCall>> plan_argmax(const PlanContext& context, const Node& node) {
  const ValueId x = node.input("x");
  KernelCall call{.kernel = "argmax", .consts = {{"CHANNELS", context[x].channels}, {"WG", context.tuning.row_workgroup}},
                  .slots = {{"x", x, 4}, {"id", node.output("id"), 1}}, .args = {}, .workgroups = {1, 1, 1}};
  return std::vector{std::move(call)};
}

inline int32_t argmax_reference(const float* x, int64_t channels) {
  int64_t best = 0;
  for (int64_t i = 0; i < channels; ++i) {
    if (std::isnan(x[i])) return -1;
    if (x[i] > x[best]) best = i;
  }
  return std::isfinite(x[best]) ? static_cast<int32_t>(best) : -1;
}

}  // namespace tessera::ops
