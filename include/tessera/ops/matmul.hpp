// matmul: y[t, :] = W x[t, :] + b over quantized or plain weights. One token plans as GEMV (decode), several as GEMM (prefill).
// What passes may fold in (plan/passes): `gamma` (the RMSNorm before it, one token only), `residual`, and gated weights (SwiGLU). Marked `int8`, x is
// rounded to bytes, by the kernel (one token) or before it (several: `q` and `q_scales` stand for x), and the products are of integers.
#pragma once
#include <cmath>

#include "tessera/ops/op.hpp"

namespace tessera::ops {

// x: [tokens, columns], w: [rows, columns], bias: one column of w's rows, or none → [tokens, rows].
inline ValueId matmul(GraphBuilder& g, ValueId x, ValueId w, ValueId bias = kNoValue) {
  g.require(g[x].channels == g[w].channels, cat("matmul ", g[w].name, ": ", g[x].channels, " channels times ", g[w].channels, " columns"));
  const ValueId y = g.activation(g[w].name, g[x].rows, g[w].rows);
  Node node{"matmul", {{"x", x}, {"w", w}}, {{"y", y}}, {}};
  if (bias != kNoValue) {
    g.require(g[bias].weight.bias() && g[bias].rows == g[w].rows, cat("matmul ", g[w].name, ": a bias of ", g[bias].rows, " rows for ", g[w].rows));
    node.inputs.emplace_back("bias", bias);
  }
  g.node(std::move(node));
  return y;
}

// The same into a given value (an output of the graph).
inline void matmul_into(GraphBuilder& g, ValueId x, ValueId w, ValueId y) {
  g.require(g[x].channels == g[w].channels && g[y].channels == g[w].rows, cat("matmul ", g[w].name, ": shapes differ"));
  g.node({"matmul", {{"x", x}, {"w", w}}, {{"y", y}}, {}});
}

// The consts of kernels/lib/dequant.
inline std::map<std::string, int64_t> weight_consts(const WeightDesc& desc) {
  // Planes of plain floats are the same kernel text but for the binding, which is part of the variant by its layout.
  const WeightFormat& format = format_of(desc.type());
  const bool quantized = is_quantized(desc.type());
  return {{"BITS", quantized ? format.low_bits() : 32},
          {"HIGH", quantized ? format.high_bits() : 0},
          {"GROUP", quantized ? format.group : 4},
          {"SUPER", format.two_levels() ? format.block / format.group : 0},
          {"ZERO", format.zero_point},
          {"HAS_MIN", format.has_min},
          {"CODEBOOK", format.codebook != nullptr},
          {"FOURS", quantized ? 8 / format.low_bits() : 1}};
}

// Dots of four that a 16-bit sum of two products holds, x in −127 … 127.
inline int64_t dots_in_pairs(const WeightFormat& format) { return format.bits == 8 ? 1 : 32767 / (2 * 127 * ((1 << format.bits) - 1)); }

// Of the shared arrays of kernels/gemv_int8, at most: the bytes of x, what is kept of each 32, the norm's sums, the lanes' shares of gate and up.
inline int64_t int8_gemv_shared_bytes(int64_t columns, const Tuning& tuning) {
  const int64_t shares = tuning.gemv_lanes == 0 ? 0 : 2 * tuning.vector_width * 4;
  return columns + columns / 32 * 16 + tuning.gemv_workgroup * (4 + shares);
}

inline void add_weight_slots(KernelCall& call, ValueId w, const WeightPlacement& placement, int part) {
  for (const PlaneLayout& plane : placement.parts[static_cast<size_t>(part)].planes)
    call.slots.push_back({std::string(name_of(plane.plane)), w, plane.layout.lanes, plane.plane, part});
}

inline Result<std::vector<KernelCall>> plan_matmul(const PlanContext& context, const Node& node) {
  const ValueId w = node.input("w"), y = node.output("y"), gamma = node.input("gamma"), bias = node.input("bias"), residual = node.input("residual");
  const WeightDesc& desc = context[w].weight;
  const WeightPlacement& placement = context.placement(w);
  const Tuning& tuning = context.tuning;
  const int64_t tokens = context[y].rows;
  const bool decode = tokens == 1, int8 = node.integer("int8") != 0;
  const int64_t parts = desc.interleaved ? 2 : 1;
  if (bias != kNoValue && context.placement(bias).parts.size() != 1) return fail(ErrorCode::kLimit, cat("bias ", context[bias].name, ": the device holds no buffer of ", context[bias].rows, " values"));
  const int64_t workgroup = decode ? tuning.gemv_workgroup : tuning.gemm_workgroup;
  std::vector<KernelCall> calls;
  for (size_t part = 0; part < placement.parts.size(); ++part) {
    const int64_t blocks = placement.parts[part].blocks / parts;
    KernelCall call{.kernel = cat(decode ? "gemv" : "gemm", int8 ? "_int8" : ""), .consts = weight_consts(desc), .slots = {}, .args = {}, .workgroups = {}};
    call.consts.insert({{"SLICES", padded_columns(desc) / 4}, {"BLOCKS", blocks}, {"WG", workgroup}, {"BIAS", bias != kNoValue}, {"RESIDUAL", residual != kNoValue}, {"GATED", desc.interleaved}, {"PARTS", parts}});
    if (int8) call.consts.insert({"PAIRS", dots_in_pairs(format_of(desc.type()))});
    for (const char* role : {"x", "gamma", "q", "q_scales"})
      if (node.input(role) != kNoValue) call.slots.push_back({role, node.input(role), 4});
    call.args["out_block"] = arg_bits(placement.parts[part].first_block / parts);
    if (decode) {
      const int64_t per = tuning.gemv_blocks_of(blocks), split = tuning.gemv_split_of(blocks, padded_columns(desc) / call.consts.at("GROUP")), rows = workgroup / split;
      call.consts.insert({{"PER", per}, {"SPLIT", split}, {"ROWS", rows}, {"NORM", gamma != kNoValue}});
      call.args["inv_channels"] = arg_bits(1.0f / static_cast<float>(desc.columns()));
      call.args["eps"] = arg_bits(static_cast<float>(node.attribute("eps")));
      call.workgroups = {ceil_div(blocks, rows * per), 1, 1};
    } else {
      call.consts.insert({{"TM", tuning.gemm_tokens}});
      call.workgroups = {ceil_div(blocks, workgroup), ceil_div(tokens, tuning.gemm_tokens), 1};
    }
    add_weight_slots(call, w, placement, static_cast<int>(part));
    if (bias != kNoValue) call.slots.push_back({"bias", bias, placement.width, Plane::kFloats});
    if (residual != kNoValue) call.slots.push_back({"residual", residual, placement.width});
    call.slots.push_back({"y", y, placement.width});
    calls.push_back(std::move(call));
  }
  return calls;
}

// w: dequantized [rows, columns]; gamma, residual may be null. Sums in double.
inline void matmul_reference(const float* x, const float* w, float* y, int64_t tokens, int64_t rows, int64_t columns) {
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0.0;
      for (int64_t k = 0; k < columns; ++k) sum += static_cast<double>(w[r * columns + k]) * static_cast<double>(x[t * columns + k]);
      y[t * rows + r] = static_cast<float>(sum);
    }
}

}  // namespace tessera::ops
