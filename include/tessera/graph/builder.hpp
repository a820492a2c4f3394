// Builds a Graph; keeps the first error, so that a model file reads as a list of calls without checks between them.
#pragma once
#include <string>
#include <utility>

#include "tessera/base/status.hpp"
#include "tessera/graph/graph.hpp"

namespace tessera {

class GraphBuilder {
 public:
  ValueId activation(std::string name, int64_t rows, int64_t channels) {
    Value value;
    value.name = std::move(name);
    value.rows = rows;
    value.channels = channels;
    return add(std::move(value));
  }
  // See Value::residual.
  ValueId residual(std::string name, int64_t rows, int64_t channels) {
    const ValueId id = activation(std::move(name), rows, channels);
    graph_[id].residual = true;
    return id;
  }
  ValueId output(std::string name, int64_t rows, int64_t channels) {
    const ValueId id = activation(std::move(name), rows, channels);
    graph_[id].role = ValueRole::kOutput;
    return id;
  }
  ValueId weight(WeightSource source) {
    Value value;
    value.name = source.name;
    value.role = source.rows == 1 && !source.bias ? ValueRole::kVector : ValueRole::kWeight;
    value.rows = source.padded_rows();
    value.channels = source.columns;
    value.weight.sources = {std::move(source)};
    return add(std::move(value));
  }
  ValueId state(std::string name, DType dtype, int lanes, std::vector<int64_t> grid) { return grid_value(std::move(name), ValueRole::kState, dtype, lanes, std::move(grid)); }
  ValueId input(std::string name, DType dtype, int lanes, std::vector<int64_t> grid) { return grid_value(std::move(name), ValueRole::kInput, dtype, lanes, std::move(grid)); }

  void node(Node node) { graph_.nodes.push_back(std::move(node)); }
  const Value& operator[](ValueId id) const { return graph_[id]; }
  Graph& graph() { return graph_; }

  // Remembers `error` unless one came before; build() gives it.
  void error(ErrorCode code, std::string message) {
    if (status_) status_ = fail(code, std::move(message));
  }
  // kInvalidArgument unless `holds`.
  void require(bool holds, const std::string& message) {
    if (!holds) error(ErrorCode::kInvalidArgument, message);
  }
  Result<Graph> build() && {
    TESSERA_TRY(std::move(status_));
    return std::move(graph_);
  }

 private:
  ValueId add(Value value) {
    graph_.values.push_back(std::move(value));
    return static_cast<ValueId>(graph_.values.size() - 1);
  }
  ValueId grid_value(std::string name, ValueRole role, DType dtype, int lanes, std::vector<int64_t> grid) {
    Value value;
    value.name = std::move(name);
    value.role = role;
    value.dtype = dtype;
    value.lanes = lanes;
    value.grid = std::move(grid);
    return add(std::move(value));
  }

  Graph graph_;
  Status status_;
};

}  // namespace tessera
