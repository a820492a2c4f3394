// Which sampling a device can do by itself, and what its kernels read then (ops/sample.hpp).
#pragma once
#include <algorithm>
#include <cstdint>

#include "tessera/engine/sampler_options.hpp"
#include "tessera/ops/sample.hpp"

namespace tessera {

// Kernels compute in floats: quotients by a temperature outside this range, and sums with biases above this one, could leave them.
inline constexpr float kLeastDeviceTemperature = 1e-6f, kMostDeviceTemperature = 1e6f, kMostDeviceBias = 1e30f;

// Whether sample.kernel draws what sample() does with these options, which validate() has passed. What it cannot: typical_p, penalties over more than
// kRecentTokens tokens, more than kMaxDeviceBiases biases, extreme temperatures and biases.
inline bool device_can_sample(const SamplerOptions& options) {
  const bool window_fits = !options.penalizes() || (options.repeat_last_n >= 1 && options.repeat_last_n <= kRecentTokens);
  const bool biases_fit = static_cast<int64_t>(options.logit_bias.size()) <= kMaxDeviceBiases &&
                          std::all_of(options.logit_bias.begin(), options.logit_bias.end(), [](const LogitBias& entry) { return entry.bias <= kMostDeviceBias; });
  const bool temperature_fits = options.temperature == 0 || (options.temperature >= kLeastDeviceTemperature && options.temperature <= kMostDeviceTemperature);
  return window_fits && biases_fit && temperature_fits && (options.typical_p == 1 || options.temperature == 0);
}

inline SamplerWords sampler_words(const SamplerOptions& options, bool wants_log_probability = false) {
  const bool penalizes = options.penalizes();
  return {.temperature = options.temperature,
          .top_k = static_cast<uint32_t>(options.top_k),
          .top_p = options.top_p,
          .min_p = options.min_p,
          .repetition_penalty = penalizes ? options.repetition_penalty : 1,
          .presence_penalty = penalizes ? options.presence_penalty : 0,
          .frequency_penalty = penalizes ? options.frequency_penalty : 0,
          .window = penalizes ? static_cast<uint32_t>(options.repeat_last_n) : 0,
          .seed_low = static_cast<uint32_t>(options.seed),
          .seed_high = static_cast<uint32_t>(options.seed >> 32),
          .attempt = options.attempt,
          .bias_count = static_cast<uint32_t>(options.logit_bias.size()),
          .flags = wants_log_probability ? kWantsLogProbability : 0};
}

}  // namespace tessera
