// rms_norm before one-token matmuls → the matmuls take gamma and norm x themselves: one launch and one round trip of x less.
// Only for one token: a GEMM lane reads each x once per block of rows and would norm it again and again.
#pragma once
#include "tessera/plan/passes/rewrite.hpp"

namespace tessera::passes {

inline void fold_norm(Graph& graph) {
  std::vector<bool> dead(graph.nodes.size(), false);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node norm = graph.nodes[n];
    if (norm.op != "rms_norm" || graph[norm.input("x")].rows != 1) continue;
    const std::vector<int> users = graph.consumers(norm.output("y"));
    bool foldable = !users.empty() && graph[norm.output("y")].role == ValueRole::kActivation;
    for (int user : users) foldable = foldable && graph.nodes[static_cast<size_t>(user)].op == "matmul" && graph.nodes[static_cast<size_t>(user)].input("x") == norm.output("y");
    if (!foldable) continue;
    for (int user : users) {
      Node& matmul = graph.nodes[static_cast<size_t>(user)];
      set_role(matmul.inputs, "x", norm.input("x"));
      set_role(matmul.inputs, "gamma", norm.input("gamma"));
      matmul.attributes["eps"] = norm.attribute("eps");
    }
    dead[n] = true;
  }
  remove_nodes(graph, dead);
}

}  // namespace tessera::passes
