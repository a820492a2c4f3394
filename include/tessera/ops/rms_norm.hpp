// rms_norm: y[t, c] = x[t, c] · gamma[c] / sqrt(mean_c(x[t, :]²) + eps).
#pragma once
#include <cmath>

#include "tessera/ops/op.hpp"

namespace tessera::ops {

// x: [tokens, channels], gamma: [channels] → [tokens, channels].
inline ValueId rms_norm(GraphBuilder& g, ValueId x, ValueId gamma, float eps) {
  g.require(g[x].channels == g[gamma].channels, cat("rms_norm ", g[gamma].name, ": ", g[x].channels, " channels, ", g[gamma].channels, " gains"));
  const ValueId y = g.activation(g[gamma].name, g[x].rows, g[x].channels);
  g.node({"rms_norm", {{"x", x}, {"gamma", gamma}}, {{"y", y}}, {{"eps", eps}}});
  return y;
}

inline Result<std::vector<KernelCall>> plan_rms_norm(const PlanContext& context, const Node& node) {
  const ValueId x = node.input("x");
  const int64_t workgroup = context.tuning.row_workgroup;
  KernelCall call{.kernel = "rms_norm",
                  .consts = {{"SLICES", slices_of(context[x])}, {"WG", workgroup}},
                  .slots = {{"x", x, 4}, {"gamma", node.input("gamma"), 4}, {"y", node.output("y"), 4}},
                  .args = {{"inv_channels", arg_bits(1.0f / static_cast<float>(context[x].channels))}, {"eps", arg_bits(static_cast<float>(node.attribute("eps")))}},
                  .workgroups = {context[x].rows, 1, 1}};
  return std::vector{std::move(call)};
}

inline void rms_norm_reference(const float* x, const float* gamma, float* y, int64_t tokens, int64_t channels, float eps) {
  for (int64_t t = 0; t < tokens; ++t, x += channels, y += channels) {
    double squares = 0.0;
    for (int64_t c = 0; c < channels; ++c) squares += static_cast<double>(x[c]) * static_cast<double>(x[c]);
    const double norm = 1.0 / std::sqrt(squares / static_cast<double>(channels) + static_cast<double>(eps));
    for (int64_t c = 0; c < channels; ++c) y[c] = static_cast<float>(static_cast<double>(x[c]) * norm * static_cast<double>(gamma[c]));
  }
}

}  // namespace tessera::ops
