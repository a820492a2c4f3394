// Q, K and V projections of one input and one weight type → one matmul over their rows stacked (and their biases); q, k, v become ranges of
// its result.
#pragma once
#include "tessera/plan/passes/rewrite.hpp"

namespace tessera::passes {

namespace detail {
// The values that the nodes `run` take in `role`, one below the other.
inline ValueId stack_inputs(Graph& graph, const std::vector<int>& run, std::string_view role) {
  Value stacked = graph[graph.nodes[static_cast<size_t>(run[0])].input(role)];
  for (size_t i = 1; i < run.size(); ++i) {
    const Value& other = graph[graph.nodes[static_cast<size_t>(run[i])].input(role)];
    stacked.weight.sources.push_back(other.weight.sources.front());
    stacked.rows += other.rows;
    stacked.name += " + " + other.name;
  }
  return add_value(graph, std::move(stacked));
}

// Replaces the matmuls `run` (of one x and one weight type) by one, in the place of the last; marks the others dead.
inline void stack_run(Graph& graph, const std::vector<int>& run, std::vector<bool>& dead) {
  const ValueId stacked = stack_inputs(graph, run, "w");
  Value result = graph[graph.nodes[static_cast<size_t>(run[0])].output("y")];
  result.channels = graph[stacked].rows;
  result.name = graph[stacked].name;
  const ValueId y = add_value(graph, std::move(result));
  int64_t offset = 0;
  for (int n : run) {
    Value& range = graph[graph.nodes[static_cast<size_t>(n)].output("y")];
    range.parent = y;
    range.channel_offset = offset;
    offset += range.channels;
    dead[static_cast<size_t>(n)] = n != run.back();
  }
  Node& node = graph.nodes[static_cast<size_t>(run.back())];
  set_role(node.inputs, "w", stacked);
  if (node.input("bias") != kNoValue) set_role(node.inputs, "bias", stack_inputs(graph, run, "bias"));
  set_role(node.outputs, "y", y);
}
}  // namespace detail

inline void stack_matmuls(Graph& graph) {
  std::vector<bool> dead(graph.nodes.size(), false);
  for (size_t r = 0; r < graph.nodes.size(); ++r) {
    if (graph.nodes[r].op != "rope_kv") continue;
    std::vector<int> run;
    for (const char* role : {"q", "k", "v"}) {
      const int n = sole_use_matmul(graph, graph.nodes[r].input(role));
      const bool joins = n >= 0 && !run.empty() && same_operands(graph, graph.nodes[static_cast<size_t>(n)], graph.nodes[static_cast<size_t>(run[0])]);
      if (!joins) {
        if (run.size() > 1) detail::stack_run(graph, run, dead);
        run.clear();
      }
      if (n >= 0) run.push_back(n);
    }
    if (run.size() > 1) detail::stack_run(graph, run, dead);
  }
  remove_nodes(graph, dead);
}

}  // namespace tessera::passes
