// gated_silu(W₁x, W₂x) → one matmul whose weight blocks take turns: x is read once and gate and up never reach memory.
#pragma once
#include "tessera/plan/passes/rewrite.hpp"

namespace tessera::passes {

namespace detail {
inline ValueId interleave(Graph& graph, ValueId gate, ValueId up) {
  Value both = graph[gate];
  both.name += " | " + graph[up].name;
  both.weight.sources.push_back(graph[up].weight.sources.front());
  both.weight.interleaved = true;
  return add_value(graph, std::move(both));
}
}  // namespace detail

inline void fold_gated(Graph& graph) {
  std::vector<bool> dead(graph.nodes.size(), false);
  for (Node& node : graph.nodes) {
    if (node.op != "gated_silu") continue;
    const int gate = sole_use_matmul(graph, node.input("gate")), up = sole_use_matmul(graph, node.input("up"));
    if (gate < 0 || up < 0) continue;
    const Node& g = graph.nodes[static_cast<size_t>(gate)];
    const Node& u = graph.nodes[static_cast<size_t>(up)];
    if (!same_operands(graph, g, u)) continue;
    Node folded{"matmul", {{"x", g.input("x")}, {"w", detail::interleave(graph, g.input("w"), u.input("w"))}}, node.outputs, {}};
    if (g.input("bias") != kNoValue) set_role(folded.inputs, "bias", detail::interleave(graph, g.input("bias"), u.input("bias")));
    dead[static_cast<size_t>(gate)] = dead[static_cast<size_t>(up)] = true;
    node = std::move(folded);
  }
  remove_nodes(graph, dead);
}

}  // namespace tessera::passes
