// Shared by the fusion passes: small questions about a graph and the removal of nodes.
#pragma once
#include <vector>

#include "tessera/graph/graph.hpp"

namespace tessera::passes {

// The matmul node that makes `value`, if nothing but one node reads it: then its result can be made differently. Else -1.
inline int sole_use_matmul(const Graph& graph, ValueId value) {
  const int producer = graph.producer(value);
  if (producer < 0 || graph.nodes[static_cast<size_t>(producer)].op != "matmul") return -1;
  return graph.consumers(value).size() == 1 && graph[value].role == ValueRole::kActivation ? producer : -1;
}

// Two matmuls of one x, with weights of one type, and with biases of one type or none: they can become one.
inline bool same_operands(const Graph& graph, const Node& a, const Node& b) {
  const ValueId bias_a = a.input("bias"), bias_b = b.input("bias");
  const auto type_of = [&](ValueId weight) { return graph[weight].weight.type(); };
  const bool biases = bias_a == kNoValue ? bias_b == kNoValue : bias_b != kNoValue && type_of(bias_a) == type_of(bias_b);
  return biases && a.input("x") == b.input("x") && type_of(a.input("w")) == type_of(b.input("w"));
}

inline void set_role(std::vector<std::pair<std::string, ValueId>>& list, std::string_view role, ValueId value) {
  for (auto& [name, id] : list)
    if (name == role) {
      id = value;
      return;
    }
  list.emplace_back(std::string(role), value);
}

// Removes the nodes whose flag is set, keeping the order of the others.
inline void remove_nodes(Graph& graph, const std::vector<bool>& dead) {
  std::vector<Node> kept;
  for (size_t n = 0; n < graph.nodes.size(); ++n)
    if (!dead[n]) kept.push_back(std::move(graph.nodes[n]));
  graph.nodes = std::move(kept);
}

inline ValueId add_value(Graph& graph, Value value) {
  graph.values.push_back(std::move(value));
  return static_cast<ValueId>(graph.values.size() - 1);
}

}  // namespace tessera::passes
