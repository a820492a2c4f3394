// What an op provides: a builder function that adds its node to a graph, a plan function that turns a node into kernel calls, and a plain
// host reference() of its mathematics. One file an op; ops/op_table.hpp lists them.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/device/device_info.hpp"
#include "tessera/device/tuning.hpp"
#include "tessera/graph/builder.hpp"
#include "tessera/graph/graph.hpp"
#include "tessera/tensor/weight_layout.hpp"

namespace tessera {

// One slot of a kernel: which value (and, of a weight, which plane of which part), seen as texels of `lanes` elements.
struct SlotUse {
  std::string slot;
  ValueId value = kNoValue;
  int lanes = 4;
  Plane plane = Plane::kWhole;
  int part = 0;
};

// One kernel launch as an op asks for it; the planner adds layouts and memory.
struct KernelCall {
  std::string kernel;                        // stem of kernels/NAME.kernel
  std::map<std::string, int64_t> consts;     // every `const` of the kernel
  std::vector<SlotUse> slots;                // every tensor that is present
  std::map<std::string, uint32_t> args;      // every `arg`, as bit patterns
  std::array<int64_t, 3> workgroups{1, 1, 1};
  std::optional<int> vector_width{};         // W, where it is not the tuning's: for tensors that do not come in blocks as wide
  // Bytes that a full step moves, for profiles; absent: all bound tensors, whole. 0: depends on the context, not known here.
  std::optional<int64_t> bytes{};
};

inline uint32_t arg_bits(float value) { return std::bit_cast<uint32_t>(value); }
inline uint32_t arg_bits(int64_t value) { return static_cast<uint32_t>(static_cast<int32_t>(value)); }

// What an op may ask while it plans.
struct PlanContext {
  const Graph& graph;
  const Tuning& tuning;
  const std::vector<WeightPlacement>& placements;   // by value id; empty for values that are not matrices

  const Value& operator[](ValueId id) const { return graph[id]; }
  const WeightPlacement& placement(ValueId id) const { return placements[static_cast<size_t>(id)]; }
};

// What a tuning row for one op's shape is looked up by.
inline OpShape shape_of(const Graph& graph, const Node& node) {
  OpShape shape{.op = node.op, .long_context = node.integer("splits", 1) > 1};
  int64_t channels = 0;
  for (const auto* values : {&node.inputs, &node.outputs})
    for (const auto& [role, id] : *values) {
      const Value& value = graph[id];
      if ((value.role != ValueRole::kActivation && value.role != ValueRole::kOutput) || value.channels <= channels) continue;
      channels = value.channels;
      shape.tokens = value.rows;
    }
  const ValueId w = node.input("w");
  shape.rows = w == kNoValue ? 0 : graph[w].weight.rows();
  shape.columns = w == kNoValue ? channels : graph[w].weight.columns();
  return shape;
}

struct Op {
  std::string_view name;
  Result<std::vector<KernelCall>> (*plan)(const PlanContext& context, const Node& node);
};

// Channels of activations are padded to whole texels of every width in use: slices of 4 and blocks of W (at most 16).
inline int64_t slices_of(const Value& value) { return ceil_div(value.channels, 4); }

}  // namespace tessera
