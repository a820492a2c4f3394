// The few fixed shapes that step graphs and plans are made for.
#pragma once
#include <compare>
#include <cstdint>

namespace tessera {

// Which logits a step gives.
enum class LogitRows : uint8_t {
  kNone,
  kLast,  // of one row: the last of a prompt
  kAll,   // of every row: a decode step of several sequences, or evaluation
};

// One row of a step as the kernels read it (int4): a chunk of a prompt has rows of one sequence, a decode step one row of each of several.
struct StepRow {
  int32_t id = 0;            // the token
  int32_t position = 0;      // in its sequence
  int32_t slot = 0;          // whose block table is read: a place on the device that the host gives to a sequence
  int32_t logits_of = -1;    // of row r: the row that the r-th row of logits is of; −1: there are no such logits
};

// A shorter run of tokens uses the next larger shape with an active count.
struct StepShape {
  int64_t tokens = 1;             // 1: GEMV; more: GEMM
  LogitRows logits = LogitRows::kLast;
  bool long_context = false;      // of few tokens: workgroups share the context, and a further dispatch a layer puts together what they found
  auto operator<=>(const StepShape&) const = default;
};

}  // namespace tessera
