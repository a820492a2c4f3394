// What every decoder architecture's graph shares: the inputs of a step, the KV pages, the output head.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "tessera/graph/step_shape.hpp"
#include "tessera/model/model_file.hpp"
#include "tessera/ops/op_table.hpp"

namespace tessera {

// A step graph to be built: which shape, over which model, with how much context.
struct StepRequest {
  const ModelConfig* config = nullptr;
  const std::vector<WeightRef>* weights = nullptr;
  StepShape shape;
  int64_t pages = 0;             // KV pages that exist
  int64_t page_tokens = 16;
  DType kv_type = DType::kF32;   // f16: half the bytes; i8: a quarter, and a scale a token and kv head
  int64_t context_pages = 0;     // entries of a block table

  // Null when the file has no such tensor.
  const WeightRef* find(const std::string& name) const {
    for (const WeightRef& ref : *weights)
      if (ref.name == name) return &ref;
    return nullptr;
  }
};

// How the rows of a matrix are arranged: see WeightSource.
struct RowGroups {
  int64_t rows = 0;
  int64_t split = 0;
};

// The weight `name` as a value; an error of the builder when the file has none.
inline ValueId weight(GraphBuilder& g, const StepRequest& request, const std::string& name, RowGroups groups = {}) {
  if (const WeightRef* ref = request.find(name)) return g.weight({ref->stored_name(), ref->type, ref->rows, ref->columns, groups.rows, groups.split});
  g.error(ErrorCode::kNotFound, cat("the model has no tensor '", name, "'"));
  return g.weight({name, WeightType::kF32, 1, 1});
}

// x · NAME.weight, plus NAME.bias where the file has one.
inline ValueId linear(GraphBuilder& g, const StepRequest& request, ValueId x, const std::string& name, RowGroups groups = {}) {
  const WeightRef* bias = request.find(name + ".bias");
  return ops::matmul(g, x, weight(g, request, name + ".weight", groups),
                     bias == nullptr ? kNoValue : g.weight({bias->stored_name(), bias->type, bias->columns, 1, groups.rows, groups.split, true}));
}

// Which dimensions of a head rotate together, by the order of the rows of Q and K in the file.
enum class RotaryPairs : uint8_t {
  kNeighbours,  // (2i, 2i + 1)
  kHalves,      // (i, i + n_rot / 2), brought to neighbours when the weights are uploaded: Q · K does not depend on the order
};

// The rows of Q and K, head by head.
inline RowGroups rotary_heads(const ModelConfig& config, RotaryPairs pairs) { return {config.head_dim, pairs == RotaryPairs::kHalves ? config.n_rot : 0}; }

// Names under which the engine finds what it writes and reads.
inline constexpr const char* kRowsInput = "rows";
inline constexpr const char* kBlockTablesInput = "block_tables";
inline constexpr const char* kAnglesInput = "angles";
inline constexpr const char* kSamplersInput = "samplers";
inline constexpr const char* kBiasesInput = "biases";
inline constexpr const char* kRecentInput = "recent";
inline constexpr const char* kSampledInput = "sampled";
inline constexpr const char* kLogitsOutput = "logits";
inline constexpr int64_t kMaxRows = 512;   // of a step
inline constexpr int64_t kMaxSampledRows = 32;
// Places on the device for what it has to know of a sequence: more than a step runs, so that a sequence usually finds its own again.
inline constexpr int32_t kSlots = 16;

struct StepInputs {
  ValueId rows = kNoValue;          // StepRow [token]
  ValueId block_tables = kNoValue;  // int [slots · pages of the context]
  ValueId angles = kNoValue;        // float4 [position, slice]
};

inline StepInputs step_inputs(GraphBuilder& g, const StepRequest& request) {
  const int64_t positions = request.context_pages * request.page_tokens;
  return {g.input(kRowsInput, DType::kI32, 4, {kMaxRows}), g.input(kBlockTablesInput, DType::kI32, 1, {kSlots * request.context_pages}),
          g.input(kAnglesInput, DType::kF32, 4, {positions, ceil_div(request.config->head_dim, 4)})};
}

inline ops::KvPages kv_pages(GraphBuilder& g, const StepRequest& request, const StepInputs& in, int layer) {
  const ModelConfig& c = *request.config;
  const std::vector<int64_t> grid{request.pages, c.n_kv_heads, request.page_tokens, ceil_div(c.head_dim, 4)};
  ops::KvPages kv{g.state(cat("k.", layer), request.kv_type, 4, grid), g.state(cat("v.", layer), request.kv_type, 4, grid), in.rows, in.block_tables, request.context_pages};
  if (request.kv_type == DType::kI8) {
    const std::vector<int64_t> heads{request.pages, c.n_kv_heads, request.page_tokens};
    kv.k_scales = g.state(cat("k_scales.", layer), DType::kF32, 1, heads);
    kv.v_scales = g.state(cat("v_scales.", layer), DType::kF32, 1, heads);
  }
  return kv;
}

// x: [tokens, dim] → logits as the shape asks for them (none, of one row, of all rows), and the token that each of these chooses, with which its row of the
// step goes on.
inline void output_head(GraphBuilder& g, const StepRequest& request, const StepInputs& in, ValueId x, ValueId norm, ValueId weight) {
  if (request.shape.logits == LogitRows::kNone) return;
  const bool last = request.shape.logits == LogitRows::kLast;
  if (last && request.shape.tokens > 1) x = ops::take_row(g, x, in.rows);
  const ValueId logits = g.output(kLogitsOutput, last ? 1 : request.shape.tokens, g[weight].rows);
  ops::matmul_into(g, ops::rms_norm(g, x, norm, request.config->norm_eps), weight, logits);
  const ValueId samplers = g.input(kSamplersInput, DType::kU32, 4, {kSlots, 4}), biases = g.input(kBiasesInput, DType::kU32, 2, {kSlots, kMaxDeviceBiases});
  const ValueId recent = g.input(kRecentInput, DType::kI32, 1, {kSlots, kRecentTokens}), sampled = g.input(kSampledInput, DType::kU32, 2, {kMaxSampledRows, kStepsAtOnce});
  ops::adjust_logits(g, logits, in.rows, samplers, biases, recent);
  ops::sample(g, logits, samplers, in.rows, recent, sampled);
}

}  // namespace tessera
