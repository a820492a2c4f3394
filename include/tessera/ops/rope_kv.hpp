// rope_kv: rotates q and k by their positions and writes k and v into the KV pages.
// Pairs are neighbours (2i, 2i + 1): the order in which GGUF files of the llama architecture store the rows of Q and K; files that pair the
// halves of a head are brought to it when their weights are uploaded (WeightSource::split_rows).
#pragma once
#include <cmath>
#include <vector>

#include "tessera/ops/attention.hpp"
#include "tessera/ops/op.hpp"

namespace tessera::ops {

// q: [tokens, heads · padded_dim], k, v: [tokens, kv_heads · padded_dim], angles: float4 [position, slice] → q rotated.
inline ValueId rope_kv(GraphBuilder& g, ValueId q, ValueId k, ValueId v, ValueId angles, const KvPages& kv, const AttentionShape& shape) {
  g.require(g[k].channels == shape.kv_heads * shape.padded_dim() && g[v].channels == g[k].channels, cat("rope_kv: k has ", g[k].channels, " channels, v ", g[v].channels));
  const ValueId y = g.activation("rotated q", g[q].rows, g[q].channels);
  Node node{"rope_kv", {{"q", q}, {"k", k}, {"v", v}, {"angles", angles}, {"rows", kv.rows}, {"block_tables", kv.block_tables}}, {{"q_out", y}, {"k_pages", kv.k}, {"v_pages", kv.v}},
            {{"heads", static_cast<double>(shape.heads)}, {"kv_heads", static_cast<double>(shape.kv_heads)}, {"head_dim", static_cast<double>(shape.head_dim)}, {"page", static_cast<double>(shape.page)}, {"table_pages", static_cast<double>(kv.table_pages)}}};
  if (kv.k_scales != kNoValue) node.outputs.insert(node.outputs.end(), {{"k_scales", kv.k_scales}, {"v_scales", kv.v_scales}});
  g.node(std::move(node));
  return y;
}

inline Result<std::vector<KernelCall>> plan_rope_kv(const PlanContext& context, const Node& node) {
  const int64_t heads = node.integer("heads"), kv_heads = node.integer("kv_heads"), d4 = ceil_div(node.integer("head_dim"), 4), workgroup = context.tuning.item_workgroup;
  const bool scaled = node.output("k_scales") != kNoValue;
  const int64_t kv_lanes = scaled ? 1 : d4, rows = context[node.output("q_out")].rows;
  const auto first_slice = [&](std::string_view role) { return context[node.input(role)].channel_offset / 4; };
  KernelCall call{.kernel = "rope_kv",
                  .consts = {{"HEADS", heads}, {"KV_HEADS", kv_heads}, {"D4", d4}, {"PAGE", node.integer("page")}, {"KV_LANES", kv_lanes}, {"SCALED", scaled}, {"WG", workgroup}, {"Q_SLICE", first_slice("q")}, {"K_SLICE", first_slice("k")}, {"V_SLICE", first_slice("v")}},
                  .slots = {},
                  .args = {{"table_pages", arg_bits(node.integer("table_pages"))}},
                  .workgroups = {ceil_div(rows * (heads * d4 + 2 * kv_heads * kv_lanes), workgroup), 1, 1}};
  const int64_t slices = rows * (heads + 2 * kv_heads) * d4;
  call.bytes = slices * (16 + 16 + 4 * byte_size(context[node.output("k_pages")].dtype));   // a slice in, its angles, a slice out
  for (const auto* values : {&node.inputs, &node.outputs})
    for (const auto& [role, value] : *values) call.slots.push_back({role, value, context[value].lanes});
  return std::vector{std::move(call)};
}

// How positions turn the pairs of a head: by position · frequency radians; queries and keys also grow by `magnitude`.
struct Rotation {
  std::vector<double> frequencies;   // one a rotating pair, from the first pair on
  double magnitude = 1.0;
};

// The host's table of angles: for each position and pair magnitude · (cos, sin) of position · frequency; (1, 0) for pairs that do not rotate.
// `head_dim` is padded to whole slices. Result: [positions, head_dim] floats, pairs in order, ready as float4 texels.
inline std::vector<float> rope_angles(int64_t positions, int64_t head_dim, const Rotation& rotation, int64_t first = 0) {
  std::vector<float> table(static_cast<size_t>(positions * head_dim));
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const bool rotates = i < static_cast<int64_t>(rotation.frequencies.size());
    const double frequency = rotates ? rotation.frequencies[static_cast<size_t>(i)] : 0.0, magnitude = rotates ? rotation.magnitude : 1.0;
    for (int64_t p = 0; p < positions; ++p) {
      const double angle = static_cast<double>(first + p) * frequency;
      table[static_cast<size_t>(p * head_dim + 2 * i)] = static_cast<float>(magnitude * std::cos(angle));
      table[static_cast<size_t>(p * head_dim + 2 * i + 1)] = static_cast<float>(magnitude * std::sin(angle));
    }
  }
  return table;
}

// Rotates one head in place: angles is one row of the table.
inline void rope_reference(float* head, const float* angles, int64_t head_dim) {
  for (int64_t i = 0; i < head_dim; i += 2) {
    const double c = static_cast<double>(angles[i]), s = static_cast<double>(angles[i + 1]);
    const double a = static_cast<double>(head[i]), b = static_cast<double>(head[i + 1]);
    head[i] = static_cast<float>(a * c - b * s);
    head[i + 1] = static_cast<float>(a * s + b * c);
  }
}

}  // namespace tessera::ops
