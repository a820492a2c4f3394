// add(x, W h) → the matmul adds x in its epilogue.
#pragma once
#include "tessera/plan/passes/rewrite.hpp"

namespace tessera::passes {

inline void fold_residual(Graph& graph) {
  std::vector<bool> dead(graph.nodes.size(), false);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    if (graph.nodes[n].op != "add") continue;
    const ValueId a = graph.nodes[n].input("a"), b = graph.nodes[n].input("b");
    const int from_b = sole_use_matmul(graph, b), from_a = sole_use_matmul(graph, a);
    const int matmul = from_b >= 0 ? from_b : from_a;
    if (matmul < 0 || graph.nodes[static_cast<size_t>(matmul)].input("residual") != kNoValue) continue;
    Node fused = graph.nodes[static_cast<size_t>(matmul)];
    set_role(fused.inputs, "residual", from_b >= 0 ? a : b);
    set_role(fused.outputs, "y", graph.nodes[n].output("y"));
    graph.nodes[n] = std::move(fused);  // at the add's place: the residual is ready there
    dead[static_cast<size_t>(matmul)] = true;
  }
  remove_nodes(graph, dead);
}

}  // namespace tessera::passes
