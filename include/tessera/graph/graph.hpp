// What a model computes, as data: values and the nodes between them, in execution order. Knows no device, storage or kernel.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tessera/tensor/dtype.hpp"
#include "tessera/tensor/weight_layout.hpp"

namespace tessera {

using ValueId = int32_t;
inline constexpr ValueId kNoValue = -1;

enum class ValueRole : uint8_t {
  kActivation,  // [rows, channels], lives within one step; f32, or f16 where the device's tuning says so
  kWeight,      // a matrix of the model file, or a bias
  kVector,      // one row of f32: norm gains
  kState,       // outlives steps: KV pages
  kInput,       // written by the host before a step: token ids, block table, tables of angles
  kOutput,      // [rows, channels], f32, read by the host after a step
};

struct Value {
  std::string name;
  ValueRole role = ValueRole::kActivation;
  DType dtype = DType::kF32;    // kState, kInput; kActivation with a grid
  bool residual = false;        // kActivation that every layer adds to: f32 whatever the tuning, for a rounding here stays in all that follows
  int64_t rows = 0;
  int64_t channels = 0;
  WeightDesc weight;            // kWeight, kVector
  std::vector<int64_t> grid;    // kState, kInput: texel extents; kActivation that is not of channels: [rows, texels of 4]
  int lanes = 4;                // kState, kInput
  // A range of another value's channels: the same memory, channels [offset, offset + channels) of `parent`.
  ValueId parent = kNoValue;
  int64_t channel_offset = 0;
};

struct Node {
  std::string op;                                           // a name in ops/op_table.hpp
  std::vector<std::pair<std::string, ValueId>> inputs;      // by role: {"x", 3}
  std::vector<std::pair<std::string, ValueId>> outputs;
  std::map<std::string, double> attributes;                 // integers and floats; integers are exact

  ValueId input(std::string_view role) const { return find(inputs, role); }     // kNoValue: absent
  ValueId output(std::string_view role) const { return find(outputs, role); }
  double attribute(const std::string& key, double otherwise = 0.0) const {
    const auto it = attributes.find(key);
    return it == attributes.end() ? otherwise : it->second;
  }
  int64_t integer(const std::string& key, int64_t otherwise = 0) const { return static_cast<int64_t>(attribute(key, static_cast<double>(otherwise))); }

 private:
  static ValueId find(const std::vector<std::pair<std::string, ValueId>>& list, std::string_view role) {
    for (const auto& [name, value] : list)
      if (name == role) return value;
    return kNoValue;
  }
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;

  const Value& operator[](ValueId id) const { return values[static_cast<size_t>(id)]; }
  Value& operator[](ValueId id) { return values[static_cast<size_t>(id)]; }
  // The value whose memory `id` is (itself, unless it is a range of another).
  ValueId owner(ValueId id) const { return (*this)[id].parent == kNoValue ? id : (*this)[id].parent; }

  // The node that writes `id`, or -1; the nodes that read it.
  int producer(ValueId id) const {
    for (size_t n = 0; n < nodes.size(); ++n)
      for (const auto& [role, value] : nodes[n].outputs)
        if (value == id) return static_cast<int>(n);
    return -1;
  }
  std::vector<int> consumers(ValueId id) const {
    std::vector<int> found;
    for (size_t n = 0; n < nodes.size(); ++n)
      for (const auto& [role, value] : nodes[n].inputs)
        if (value == id) found.push_back(static_cast<int>(n));
    return found;
  }
};

}  // namespace tessera
