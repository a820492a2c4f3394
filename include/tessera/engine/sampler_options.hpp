// What an app chooses about sampling: one struct, its ranges checked in one place.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/base/text.hpp"

namespace tessera {

struct LogitBias {
  int32_t id = 0;   // 0 ≤ id < vocab_size
  float bias = 0;   // added to the token's logit; −Inf: never drawn
};

// Each field at its default is a step left out. The order of the steps is that of sampler.hpp, whatever the order here.
struct SamplerOptions {
  float temperature = 0;         // finite, ≥ 0; 0 = greedy: the greatest logit, the lowest id among equals
  int32_t top_k = 0;             // ≥ 0; only the k greatest can be drawn (the lowest ids among equals); 0, or more than there are: all
  float top_p = 1;               // (0, 1]; only the likeliest that together have at least this probability; 1: all
  float min_p = 0;               // [0, 1]; only those at least this probable, relative to the likeliest; 0: all
  float typical_p = 1;           // (0, 1]; only those whose surprise is nearest to the expected one, with together this probability; 1: all
  float repetition_penalty = 1;  // [0.01, 100]; logits of recent tokens: positive ones are divided by it, negative ones multiplied; 1: off
  float presence_penalty = 0;    // [−100, 100]; subtracted from the logit of a recent token
  float frequency_penalty = 0;   // [−100, 100]; the same for each time that it occurs
  int32_t repeat_last_n = 64;    // ≥ −1; recent = this many tokens at the end of the conversation, its prompt included; −1: all of it
  std::vector<LogitBias> logit_bias{};
  uint64_t seed = 0;             // with the token's position it names the draw
  uint32_t attempt = 0;          // another number: other, independent draws of the same seed (an answer made again)

  // kInvalidArgument names the option, its value and its range.
  Status validate(int64_t vocab_size = std::numeric_limits<int32_t>::max()) const;

  bool penalizes() const { return (repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0) && repeat_last_n != 0; }
  // The token with the greatest logit as the model gave it: the device chooses it and no logit visits the host.
  bool plain_greedy() const { return temperature == 0 && !penalizes() && logit_bias.empty(); }
};

inline Status SamplerOptions::validate(int64_t vocab_size) const {
  constexpr float kMost = std::numeric_limits<float>::max(), kAboveZero = std::numeric_limits<float>::denorm_min();
  const struct {
    std::string_view name;
    float value, lowest, highest;
    std::string_view range;
  } rows[] = {{"temperature", temperature, 0, kMost, "a finite number, 0 (greedy) or more"},
              {"top_p", top_p, kAboveZero, 1, "above 0 and at most 1 (off)"},
              {"min_p", min_p, 0, 1, "0 (off) to 1"},
              {"typical_p", typical_p, kAboveZero, 1, "above 0 and at most 1 (off)"},
              {"repetition_penalty", repetition_penalty, 0.01f, 100, "0.01 to 100; 1 is off"},
              {"presence_penalty", presence_penalty, -100, 100, "-100 to 100; 0 is off"},
              {"frequency_penalty", frequency_penalty, -100, 100, "-100 to 100; 0 is off"}};
  for (const auto& row : rows)
    if (!(row.value >= row.lowest) || !(row.value <= row.highest))  // written so that NaN fails
      return fail(ErrorCode::kInvalidArgument, cat(row.name, " is ", row.value, "; it must be ", row.range));
  if (top_k < 0) return fail(ErrorCode::kInvalidArgument, cat("top_k is ", top_k, "; it must be 0 (off) or more"));
  if (repeat_last_n < -1)
    return fail(ErrorCode::kInvalidArgument, cat("repeat_last_n is ", repeat_last_n, "; it must be 0 or more tokens, or -1 (the whole conversation)"));
  for (const LogitBias& entry : logit_bias) {
    if (entry.id < 0 || entry.id >= vocab_size)
      return fail(ErrorCode::kInvalidArgument, cat("logit_bias names token ", entry.id, "; ids are 0 to ", vocab_size - 1));
    if (!(entry.bias < std::numeric_limits<float>::infinity()))
      return fail(ErrorCode::kInvalidArgument, cat("logit_bias of token ", entry.id, " is ", entry.bias, "; it must be a finite number, or -inf (never)"));
  }
  return {};
}

}  // namespace tessera
