// The few fixed shapes that step graphs and plans are made for.
#pragma once
#include <compare>
#include <cstdint>

namespace tessera {

// Which logits a step gives.
enum class LogitRows : uint8_t { kNone, kLast, kAll };

// A shorter run of tokens uses the next larger shape with an active count.
struct StepShape {
  int64_t tokens = 1;             // 1: decode (GEMV); more: a prefill chunk (GEMM)
  LogitRows logits = LogitRows::kLast;  // kLast also gives the id of the greatest
  auto operator<=>(const StepShape&) const = default;
};

}  // namespace tessera
