// What op_bench runs: a graph for every op of ops/op_table.hpp, in the shapes of SmolLM2-135M. An op without a row does not compile.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "tessera/model/step_graph.hpp"
#include "tessera/ops/op_table.hpp"

namespace tessera::bench {

inline constexpr ops::AttentionShape kHeads{9, 3, 64, 16};
inline constexpr int64_t kDim = 576, kHidden = 1536, kVocab = 49152, kPages = 256, kContext = kPages * 16;

// One case: `rows` × `columns` of a weight of `type` (where the op has one), `tokens` of a step, behind `position` others.
struct OpCase {
  int64_t rows = 0;
  int64_t columns = 0;
  WeightType type = WeightType::kF32;
  bool gated = false;
  int64_t tokens = 1;
  int64_t position = 0;
  bool long_context = false;   // see StepShape
};

// A graph of one op, with the engine's inputs by their names.
struct OpGraph {
  GraphBuilder g;
  const OpCase& of;

  ValueId x(const char* name, int64_t channels) { return g.activation(name, of.tokens, channels); }
  ValueId weight(const char* name) { return g.weight({name, of.type, of.gated ? of.rows / 2 : of.rows, of.columns}); }
  ValueId rows() { return g.input(kRowsInput, DType::kI32, 4, {kMaxRows}); }
  ValueId samplers() { return g.input(kSamplersInput, DType::kU32, 4, {kSlots, 4}); }
  ValueId recent() { return g.input(kRecentInput, DType::kI32, 1, {kSlots, kRecentTokens}); }
  ops::KvPages kv() {
    const std::vector<int64_t> grid{kPages, kHeads.kv_heads, kHeads.page, kHeads.slices()};
    return {g.state("k", DType::kF16, 4, grid), g.state("v", DType::kF16, 4, grid), rows(), g.input(kBlockTablesInput, DType::kI32, 1, {kSlots * kPages}), kPages};
  }
  void result(ValueId y) { g.graph()[y].role = ValueRole::kOutput; }
};

// `weights`: whether the type and storage of a weight matter; `kernel`: of the plan, only this kernel's dispatches (empty: all).
struct OpRow {
  std::string_view op;
  bool weights;
  std::string_view kernel;
  void (*build)(OpGraph& graph);
};

inline void build_matmul(OpGraph& c) {
  const ValueId x = c.x("x", c.of.columns);
  if (c.of.gated) return c.result(ops::gated_silu(c.g, ops::matmul(c.g, x, c.weight("gate")), ops::matmul(c.g, x, c.weight("up"))));
  c.result(ops::matmul(c.g, x, c.weight("w")));
}

inline constexpr std::array kOpRows{
    OpRow{"embed", true, "", [](OpGraph& c) { c.result(ops::embed(c.g, c.rows(), c.weight("table"), c.of.tokens)); }},
    OpRow{"rms_norm", false, "", [](OpGraph& c) { c.result(ops::rms_norm(c.g, c.x("x", kDim), c.g.weight({"gamma", WeightType::kF32, 1, kDim}), 1e-5f)); }},
    OpRow{"quantize", false, "quantize", build_matmul},   // made by a pass, for a product that wants bytes
    OpRow{"matmul", true, "", build_matmul},
    OpRow{"rope_kv", false, "", [](OpGraph& c) {
            const ValueId angles = c.g.input(kAnglesInput, DType::kF32, 4, {kContext, kHeads.slices()});
            c.result(ops::rope_kv(c.g, c.x("q", kDim), c.x("k", kHeads.kv_heads * 64), c.x("v", kHeads.kv_heads * 64), angles, c.kv(), kHeads));
          }},
    OpRow{"attention", false, "", [](OpGraph& c) { c.result(ops::attention(c.g, c.x("q", kDim), c.kv(), kHeads)); }},
    OpRow{"attention_combine", false, "attention_combine", [](OpGraph& c) { c.result(ops::attention(c.g, c.x("q", kDim), c.kv(), kHeads)); }},
    OpRow{"pack_heads", false, "", [](OpGraph& c) {   // heads of 62 channels: of 64 there is nothing to pack
            constexpr ops::AttentionShape kOdd{9, 3, 62, 16};
            c.result(ops::pack_heads(c.g, c.x("x", kOdd.heads * kOdd.padded_dim()), kOdd));
          }},
    OpRow{"gated_silu", false, "", [](OpGraph& c) { c.result(ops::gated_silu(c.g, c.x("gate", kHidden), c.x("up", kHidden))); }},
    OpRow{"add", false, "", [](OpGraph& c) { c.result(ops::add(c.g, c.x("a", kDim), c.x("b", kDim))); }},
    OpRow{"take_row", false, "", [](OpGraph& c) { c.result(ops::take_row(c.g, c.x("x", kDim), c.rows())); }},
    OpRow{"adjust_logits", false, "", [](OpGraph& c) {
            ops::adjust_logits(c.g, c.g.output(kLogitsOutput, 1, kVocab), c.rows(), c.samplers(), c.g.input(kBiasesInput, DType::kU32, 2, {kSlots, kMaxDeviceBiases}), c.recent());
          }},
    OpRow{"sample", false, "", [](OpGraph& c) {
            ops::sample(c.g, c.g.output(kLogitsOutput, 1, kVocab), c.samplers(), c.rows(), c.recent(), c.g.input(kSampledInput, DType::kU32, 2, {kMaxSampledRows, kStepsAtOnce}));
          }},
};

static_assert(std::ranges::all_of(kOps, [](const Op& op) { return std::ranges::count(kOpRows, op.name, &OpRow::op) == 1; }), "every op of ops/op_table.hpp has a row in kOpRows");
static_assert(kOpRows.size() == kOps.size(), "kOpRows has no row of an op that is gone");

}  // namespace tessera::bench
