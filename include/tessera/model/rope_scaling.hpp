// How a model's positions turn the pairs of a head, with the scalings that stretch a context beyond the one it was trained for.
// Linear (position interpolation): Chen et al., arXiv 2306.15595. YaRN: Peng et al., arXiv 2309.00071, equations as numbered there; its boundaries
// are rounded outwards to whole pairs, as the model files that use it expect.
#pragma once
#include <algorithm>
#include <cmath>
#include <numbers>

#include "tessera/model/model_file.hpp"
#include "tessera/ops/rope_kv.hpp"

namespace tessera {

// How much of pair `pair`'s own frequency YaRN keeps: 1 for pairs that turn more than beta_fast times in the trained context, 0 for those that turn
// less than beta_slow times, a line between (eq. 18). base > 1.
inline double yarn_kept(const ModelConfig& config, int pair) {
  const RopeScaling& scaling = config.rope_scaling;
  const auto boundary = [&](double turns) {   // the pair that turns so often
    return config.n_rot * std::log(scaling.trained_context / (2.0 * std::numbers::pi * turns)) / (2.0 * std::log(static_cast<double>(config.rope_base)));
  };
  const double low = std::max(0.0, std::floor(boundary(static_cast<double>(scaling.beta_fast))));
  const double high = std::min(config.n_rot - 1.0, std::ceil(boundary(static_cast<double>(scaling.beta_slow))));
  return 1.0 - std::clamp((pair - low) / std::max(0.001, high - low), 0.0, 1.0);   // where both fall on one pair: a step
}

inline ops::Rotation rotation_of(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  const double factor = static_cast<double>(scaling.factor);
  ops::Rotation rotation;
  for (int pair = 0; pair < config.n_rot / 2; ++pair) {
    const double divisor = config.rope_factors.empty() ? 1.0 : static_cast<double>(config.rope_factors[static_cast<size_t>(pair)]);
    const double own = std::pow(static_cast<double>(config.rope_base), -2.0 * pair / config.n_rot) / divisor;
    const double kept = scaling.type == RopeScalingType::kYarn ? yarn_kept(config, pair) : 0.0;
    rotation.frequencies.push_back(scaling.type == RopeScalingType::kNone ? own : own * (kept + (1.0 - kept) / factor));
  }
  // Stretched positions flatten attention; longer queries and keys undo that (eq. 22, its square root on each).
  const double sharpened = scaling.type == RopeScalingType::kYarn ? 1.0 + 0.1 * std::log(std::max(1.0, factor)) : 1.0;
  rotation.magnitude = sharpened * static_cast<double>(scaling.attention_factor);
  return rotation;
}

}  // namespace tessera
