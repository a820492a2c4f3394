// take_row: the one row of a chunk whose logits are asked for.
#pragma once
#include "tessera/ops/op.hpp"

namespace tessera::ops {

// x: [tokens, channels], rows: StepRow [tokens] → [1, channels], the row that the first row of logits is of.
inline ValueId take_row(GraphBuilder& g, ValueId x, ValueId rows) {
  const ValueId y = g[x].residual ? g.residual("last row", 1, g[x].channels) : g.activation("last row", 1, g[x].channels);
  g.node({"take_row", {{"x", x}, {"rows", rows}}, {{"y", y}}, {}});
  return y;
}

inline Result<std::vector<KernelCall>> plan_take_row(const PlanContext& context, const Node& node) {
  const int64_t slices = slices_of(context[node.input("x")]), workgroup = context.tuning.item_workgroup;
  KernelCall call{.kernel = "take_row", .consts = {{"SLICES", slices}, {"WG", workgroup}}, .slots = {{"x", node.input("x"), 4}, {"rows", node.input("rows"), 4}, {"y", node.output("y"), 4}}, .args = {}, .workgroups = {ceil_div(slices, workgroup), 1, 1}};
  return std::vector{std::move(call)};
}

}  // namespace tessera::ops
