// Products of several tokens with quantized weights: x is made bytes by one node that all matmuls of it share, and that takes in the RMSNorm before
// them. The one token of decode is made bytes by the matmul's own kernel, in shared memory, if that holds them.
#pragma once
#include "tessera/device/op_settings.hpp"
#include "tessera/ops/matmul.hpp"
#include "tessera/ops/quantize.hpp"
#include "tessera/plan/passes/rewrite.hpp"

namespace tessera::passes {

namespace detail {
// Codes that a table gives meaning are no integers.
inline bool has_int8_products(const Graph& graph, const Tuning& tuning, const Node& node) {
  if (node.op != "matmul") return false;
  const Value& x = graph[node.input("x")];
  const WeightType type = graph[node.input("w")].weight.type();
  return is_quantized(type) && format_of(type).codebook == nullptr && (x.rows > 1 || ops::int8_gemv_shared_bytes(x.channels, tuning_for_shape(tuning, shape_of(graph, node))) <= tuning.shared_memory_bytes);
}

// The node that makes x bytes.
inline Node quantize_node(Graph& graph, ValueId x) {
  Value q = graph[x], scales = graph[x];
  q.role = scales.role = ValueRole::kActivation;
  q.residual = scales.residual = false;
  q.parent = scales.parent = kNoValue;
  q.name += " in bytes", scales.name += " scales";
  q.dtype = DType::kU32, scales.dtype = DType::kF32;
  q.grid = {q.rows, q.channels / 16}, scales.grid = {q.rows, q.channels / ops::kQuantizedGroup};
  const ValueId bytes = add_value(graph, std::move(q));
  return {"quantize", {{"x", x}}, {{"q", bytes}, {"scales", add_value(graph, std::move(scales))}}, {}};
}

// The norm that makes x, if only nodes with int8 products read it: else −1.
inline int foldable_norm(const Graph& graph, const Tuning& tuning, ValueId x) {
  const int norm = graph.producer(x);
  if (norm < 0 || graph.nodes[static_cast<size_t>(norm)].op != "rms_norm" || graph[x].role != ValueRole::kActivation) return -1;
  for (const int user : graph.consumers(x))
    if (!has_int8_products(graph, tuning, graph.nodes[static_cast<size_t>(user)])) return -1;
  return norm;
}
}  // namespace detail

inline void quantize_activations(Graph& graph, const Tuning& tuning) {
  std::map<ValueId, std::pair<ValueId, ValueId>> made;   // x → its bytes, their scales
  std::vector<Node> nodes;
  std::vector<int> folded;
  const Graph before = graph;
  for (Node node : before.nodes) {
    const ValueId x = node.input("x");
    if (detail::has_int8_products(before, tuning, node)) {
      node.attributes["int8"] = 1.0;
      if (before[x].rows > 1) {
        if (!made.contains(x)) {
          Node quantize = detail::quantize_node(graph, x);
          if (const int norm = tuning.fuse_norm_bytes ? detail::foldable_norm(before, tuning, x) : -1; norm >= 0) {
            const Node& rms_norm = before.nodes[static_cast<size_t>(norm)];
            quantize.inputs = {{"x", rms_norm.input("x")}, {"gamma", rms_norm.input("gamma")}};
            quantize.attributes["eps"] = rms_norm.attribute("eps");
            folded.push_back(norm);
          }
          made[x] = {quantize.output("q"), quantize.output("scales")};
          nodes.push_back(std::move(quantize));
        }
        std::erase_if(node.inputs, [](const auto& input) { return input.first == "x"; });
        set_role(node.inputs, "q", made[x].first);
        set_role(node.inputs, "q_scales", made[x].second);
      }
    }
    nodes.push_back(std::move(node));
  }
  std::erase_if(nodes, [&](const Node& node) {
    return node.op == "rms_norm" && std::any_of(folded.begin(), folded.end(), [&](int norm) { return before.nodes[static_cast<size_t>(norm)].output("y") == node.output("y"); });
  });
  graph.nodes = std::move(nodes);
}

}  // namespace tessera::passes
