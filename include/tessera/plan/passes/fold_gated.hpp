// gated_silu(W₁x, W₂x) → one matmul whose weight blocks take turns: x is read once and gate and up never reach memory.
#pragma once
#include "tessera/plan/passes/rewrite.hpp"

namespace tessera::passes {

inline void fold_gated(Graph& graph) {
  std::vector<bool> dead(graph.nodes.size(), false);
  for (Node& node : graph.nodes) {
    if (node.op != "gated_silu") continue;
    const int gate = sole_use_matmul(graph, node.input("gate")), up = sole_use_matmul(graph, node.input("up"));
    if (gate < 0 || up < 0) continue;
    const Node& g = graph.nodes[static_cast<size_t>(gate)];
    const Node& u = graph.nodes[static_cast<size_t>(up)];
    const Value& gate_weight = graph[g.input("w")];
    const Value& up_weight = graph[u.input("w")];
    if (g.input("x") != u.input("x") || gate_weight.weight.type() != up_weight.weight.type()) continue;
    Value both = gate_weight;
    both.name = gate_weight.name + " | " + up_weight.name;
    both.weight.sources.push_back(up_weight.weight.sources.front());
    both.weight.interleaved = true;
    const ValueId x = g.input("x");
    dead[static_cast<size_t>(gate)] = dead[static_cast<size_t>(up)] = true;
    node = Node{"matmul", {{"x", x}, {"w", add_value(graph, std::move(both))}}, node.outputs, {}};
  }
  remove_nodes(graph, dead);
}

}  // namespace tessera::passes
