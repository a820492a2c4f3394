// Drops nodes whose results nobody asks for: a chunk without logits ends with the last layer's KV write.
#pragma once
#include "tessera/plan/passes/rewrite.hpp"

namespace tessera::passes {

inline void remove_unused(Graph& graph) {
  std::vector<bool> wanted(graph.values.size(), false), dead(graph.nodes.size(), true);
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    for (const auto& [role, value] : graph.nodes[n].outputs) {
      const ValueRole kind = graph[value].role;
      if (kind == ValueRole::kState || kind == ValueRole::kOutput || kind == ValueRole::kInput || wanted[static_cast<size_t>(value)]) dead[n] = false;
    }
    if (dead[n]) continue;
    for (const auto& [role, value] : graph.nodes[n].inputs) wanted[static_cast<size_t>(graph.owner(value))] = true;
  }
  remove_nodes(graph, dead);
}

}  // namespace tessera::passes
