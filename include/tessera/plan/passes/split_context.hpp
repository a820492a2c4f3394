// attention of few rows over a long context → workgroups that take a share of the keys each, and attention_combine: a GPU is not filled by one workgroup a kv head.
#pragma once
#include <utility>
#include <vector>

#include "tessera/device/tuning.hpp"
#include "tessera/ops/attention.hpp"
#include "tessera/plan/passes/rewrite.hpp"

namespace tessera::passes {

inline void split_context(Graph& graph, const Tuning& tuning) {
  std::vector<Node> nodes;
  for (Node node : std::exchange(graph.nodes, {})) {
    const ValueId y = node.op == "attention" ? node.output("y") : kNoValue;
    const int64_t rows = y == kNoValue ? 0 : graph[y].rows, heads = node.integer("heads"), splits = tuning.attention_splits_of(rows * node.integer("kv_heads"));
    if (y == kNoValue || rows > ops::kUntiledRows || splits == 1) {
      nodes.push_back(std::move(node));
      continue;
    }
    Value sums = graph[y], tops = graph[y];
    sums.name += " sums", tops.name += " tops";
    sums.rows = tops.rows = rows * splits;
    sums.grid = {sums.rows, graph[y].channels / 4}, tops.grid = {tops.rows, heads};   // floats, whatever intermediates are
    const ValueId part_sums = add_value(graph, std::move(sums)), part_tops = add_value(graph, std::move(tops));
    Node combine{"attention_combine", {{"part_sums", part_sums}, {"part_tops", part_tops}}, {{"y", y}}, {{"heads", static_cast<double>(heads)}, {"head_dim", node.attribute("head_dim")}, {"splits", static_cast<double>(splits)}}};
    std::erase_if(node.outputs, [](const auto& output) { return output.first == "y"; });
    node.outputs.insert(node.outputs.begin(), {{"part_sums", part_sums}, {"part_tops", part_tops}});
    node.attributes["splits"] = static_cast<double>(splits);
    nodes.push_back(std::move(node));
    nodes.push_back(std::move(combine));
  }
  graph.nodes = std::move(nodes);
}

}  // namespace tessera::passes
