// quantize: rows of activations as bytes, 32 neighbours to a scale, for the products of several tokens with quantized weights. Made by a pass
// (plan/passes/quantize_activations), not by an architecture.
#pragma once
#include <algorithm>
#include <cmath>

#include "tessera/ops/op.hpp"

namespace tessera::ops {

inline constexpr int64_t kQuantizedGroup = 32;   // channels that share a scale: what divides the columns of every quantized weight

// q: uint4 [tokens, channels / 16], four bytes a word; scales: float4 [tokens, channels / 32], what kernels/lib/quantize keeps of a group.
// node: x, and gamma where it is normed first, with eps.
inline Result<std::vector<KernelCall>> plan_quantize(const PlanContext& context, const Node& node) {
  const ValueId x = node.input("x"), gamma = node.input("gamma");
  const int64_t workgroup = context.tuning.row_workgroup;
  KernelCall call{.kernel = "quantize",
                  .consts = {{"SLICES", slices_of(context[x])}, {"NORM", gamma != kNoValue}, {"WG", workgroup}},
                  .slots = {{"x", x, 4}, {"q", node.output("q"), 4}, {"scales", node.output("scales"), 4}},
                  .args = {{"inv_channels", arg_bits(1.0f / static_cast<float>(context[x].channels))}, {"eps", arg_bits(static_cast<float>(node.attribute("eps")))}},
                  .workgroups = {context[x].rows, 1, 1}};
  if (gamma != kNoValue) call.slots.push_back({"gamma", gamma, 4});
  return std::vector{std::move(call)};
}

// What the bytes stand for: x rounded to whole multiples of its group's scale.
inline void quantize_reference(const float* x, float* y, int64_t tokens, int64_t channels) {
  for (int64_t g = 0; g < tokens * channels; g += kQuantizedGroup) {
    float top = 0.0f;
    for (int64_t c = g; c < g + kQuantizedGroup; ++c) top = std::max(top, std::abs(x[c]));
    const double scale = static_cast<double>(top) / 127.0;
    for (int64_t c = g; c < g + kQuantizedGroup; ++c) y[c] = scale == 0.0 ? 0.0f : static_cast<float>(std::nearbyint(static_cast<double>(x[c]) / scale) * scale);
  }
}

}  // namespace tessera::ops
