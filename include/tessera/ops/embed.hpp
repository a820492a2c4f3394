// embed: y[t, :] = table[id of row t, :].
#pragma once
#include "tessera/ops/matmul.hpp"

namespace tessera::ops {

// rows: StepRow [tokens]; table: [vocab, dim] → [tokens, dim].
inline ValueId embed(GraphBuilder& g, ValueId rows, ValueId table, int64_t tokens) {
  const ValueId y = g.residual("embedding", tokens, g[table].channels);
  g.node({"embed", {{"rows", rows}, {"w", table}}, {{"y", y}}, {}});
  return y;
}

inline Result<std::vector<KernelCall>> plan_embed(const PlanContext& context, const Node& node) {
  const ValueId y = node.output("y"), table = node.input("w");
  const WeightDesc& desc = context[table].weight;
  const WeightPlacement& placement = context.placement(table);
  const int64_t slices = slices_of(context[y]), workgroup = context.tuning.item_workgroup;
  std::vector<KernelCall> calls;
  for (size_t part = 0; part < placement.parts.size(); ++part) {
    KernelCall call{.kernel = "embed", .consts = weight_consts(desc), .slots = {{"rows", node.input("rows"), 4}}, .args = {}, .workgroups = {}};
    call.consts.insert({{"SLICES", slices}, {"ROWS", desc.rows()}, {"BLOCKS", placement.parts[part].blocks}, {"WG", workgroup}});
    add_weight_slots(call, table, placement, static_cast<int>(part));
    call.slots.push_back({"y", y, 4});
    call.args["first_block"] = arg_bits(placement.parts[part].first_block);
    call.workgroups = {ceil_div(context[y].rows * slices, workgroup), 1, 1};
    call.bytes = context[y].rows * (row_bytes(desc.type(), desc.columns()) + slices * 16);   // the rows looked up, not the table
    calls.push_back(std::move(call));
  }
  return calls;
}

// table: dequantized [vocab, dim]; y: [tokens, dim].
inline void embed_reference(const int32_t* ids, const float* table, float* y, int64_t tokens, int64_t dim) {
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < dim; ++c) y[t * dim + c] = table[ids[t] * dim + c];
}

}  // namespace tessera::ops
