// rope_kv of one row → the attention that follows rotates q and k and writes the row's key and value itself: one launch and one round trip of q less.
// Of several rows attention may need the keys of others; pages of bytes are left to rope_kv, whose lanes find a head's scale.
#pragma once
#include "tessera/plan/passes/rewrite.hpp"

namespace tessera::passes {

inline void fold_rope(Graph& graph) {
  std::vector<bool> dead(graph.nodes.size(), false);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node rope = graph.nodes[n];
    if (rope.op != "rope_kv" || rope.output("k_scales") != kNoValue || graph[rope.output("q_out")].rows != 1) continue;
    const std::vector<int> users = graph.consumers(rope.output("q_out"));
    if (users.size() != 1 || graph.nodes[static_cast<size_t>(users[0])].op != "attention") continue;
    Node& attention = graph.nodes[static_cast<size_t>(users[0])];
    for (const char* role : {"q", "k", "v", "angles"}) set_role(attention.inputs, role, rope.input(role));
    set_role(attention.outputs, "k_out", rope.output("k_pages"));
    set_role(attention.outputs, "v_out", rope.output("v_pages"));
    dead[n] = true;
  }
  remove_nodes(graph, dead);
}

}  // namespace tessera::passes
