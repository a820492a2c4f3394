// The settings that belong to one op alone, so that a tuning row may give them for one shape. The others decide layouts, fusions or which plan is run, and are
// searched in whole steps (bench/tune/device_stage.cpp), but for what is no choice of speed alone: the types of activations and int8 products trade precision,
// and forms of dots and widths of vectors are facts of a device's instructions.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tessera/base/bytes.hpp"
#include "tessera/device/tuning.hpp"

namespace tessera {

struct OpSetting {
  std::string_view name;
  int Tuning::*value;
  std::optional<int> TuningRow::*row;
  std::vector<int> values;   // ascending: what a search tries, and all that a file of rows may say
  bool lanes = false;        // of a workgroup: no more than the device allows
};

// A new setting of an op is a line here. Which kernels it matters to is not said: a search sees whether the plan changes.
inline const std::vector<OpSetting>& op_settings() {
  static const std::vector<OpSetting> settings = {
      {"gemv_workgroup", &Tuning::gemv_workgroup, &TuningRow::gemv_workgroup, {1, 2, 4, 8, 16, 32, 64, 128, 256}, true},
      {"gemv_lanes", &Tuning::gemv_lanes, &TuningRow::gemv_lanes, {0, 512, 1024, 2048, 4096, 8192, 16384}},
      {"gemv_unit_groups", &Tuning::gemv_unit_groups, &TuningRow::gemv_unit_groups, {0, 1, 2, 4, 8, 16, 32}},
      {"gemv_blocks", &Tuning::gemv_blocks, &TuningRow::gemv_blocks, {1, 2, 4, 8}},   // where gemv_unit_groups is 0
      {"gemm_workgroup", &Tuning::gemm_workgroup, &TuningRow::gemm_workgroup, {1, 2, 4, 8, 16, 32, 64, 128, 256}, true},
      {"gemm_tokens", &Tuning::gemm_tokens, &TuningRow::gemm_tokens, {1, 2, 4, 6, 8, 12, 16}},
      {"gemm_gated_tokens", &Tuning::gemm_gated_tokens, &TuningRow::gemm_gated_tokens, {0, 1, 2, 4, 6, 8, 12, 16}},
      {"row_workgroup", &Tuning::row_workgroup, &TuningRow::row_workgroup, {1, 2, 4, 8, 16, 32, 64, 128, 256}, true},
      {"item_workgroup", &Tuning::item_workgroup, &TuningRow::item_workgroup, {1, 2, 4, 8, 16, 32, 64, 128, 256}, true},
      {"attention_workgroup", &Tuning::attention_workgroup, &TuningRow::attention_workgroup, {1, 2, 4, 8, 16, 32, 64, 128, 256}, true},
      {"attention_tile_workgroup", &Tuning::attention_tile_workgroup, &TuningRow::attention_tile_workgroup, {0, 1, 2, 4, 8, 16, 32, 64, 128, 256}, true},
      {"attention_vectors", &Tuning::attention_vectors, &TuningRow::attention_vectors, {1, 2, 3, 4, 6, 8, 12, 16}},
      {"attention_block", &Tuning::attention_block, &TuningRow::attention_block, {1, 2, 3, 4, 6, 8}},
      {"attention_keys", &Tuning::attention_keys, &TuningRow::attention_keys, {4, 8, 16, 32, 64}},
      {"attention_tiles_held", &Tuning::attention_tiles_held, &TuningRow::attention_tiles_held, {1, 2, 4}},
      {"attention_row_keys", &Tuning::attention_row_keys, &TuningRow::attention_row_keys, {16, 32, 64, 128, 256, 512, 1024}},
      {"attention_row_block", &Tuning::attention_row_block, &TuningRow::attention_row_block, {1, 2, 4, 8}},
  };
  return settings;
}

inline bool matches(const OpShape& wanted, const OpShape& shape) {
  return wanted.op == shape.op && wanted.long_context == shape.long_context && (wanted.rows == 0 || wanted.rows == shape.rows) && (wanted.columns == 0 || wanted.columns == shape.columns) && (wanted.tokens == 0 || wanted.tokens == shape.tokens);
}

// What one op is planned with. Of rows for the same shape the last wins.
inline Tuning tuning_for_shape(const Tuning& tuning, const OpShape& shape) {
  Tuning one = tuning;
  one.shape_rows.clear();
  for (const TuningRow& row : tuning.shape_rows) {
    if (!matches(*row.shape, shape)) continue;
    for (const OpSetting& setting : op_settings())
      if (row.*setting.row) one.*setting.value = *(row.*setting.row);
  }
  return one;
}

// Rows that an activation of `rows` is given: whole tiles of every GEMM that may read or write it.
inline int64_t padded_rows(const Tuning& tuning, int64_t rows) {
  int64_t padded = rows;
  const auto hold = [&](int tokens) { padded = tokens == 0 ? padded : std::max(padded, round_up(rows, tokens)); };
  hold(tuning.gemm_tokens);
  hold(tuning.gemm_gated_tokens);
  for (const TuningRow& row : tuning.shape_rows) {
    hold(row.gemm_tokens.value_or(0));
    hold(row.gemm_gated_tokens.value_or(0));
  }
  return padded;
}

}  // namespace tessera
