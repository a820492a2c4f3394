// Tuning as data: how kernels are shaped on a device. Rows are merged from the general to the special (default → family → device name);
// every row says why it is there. No kernel, op or plan asks for a vendor: it asks for these numbers.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/device/word_choice.hpp"
#include "tessera/device/device_info.hpp"
#include "tessera/device/gpu_family.hpp"
#include "tessera/tensor/storage.hpp"

namespace tessera {

struct Tuning {
  int vector_width = 4;        // W: rows of a weight block, lanes of floatw
  int gemv_workgroup = 64;     // lanes; each owns a block of W rows
  int gemv_blocks = 1;         // blocks a lane walks one after the other
  int gemm_workgroup = 64;
  int gemm_tokens = 4;         // tokens a lane accumulates at once
  int row_workgroup = 64;      // lanes that share one row: RMSNorm, argmax
  int item_workgroup = 64;     // lanes of kernels whose items are small and independent: embedding, RoPE, element-wise
  int attention_workgroup = 64;  // lanes of attention, a query head of a token each
  bool fuse_norm = true;       // decode: RMSNorm inside the GEMV that follows
  Storage weight_storage = Storage::kBuffer;
  Storage activation_storage = Storage::kBuffer;
  WordChoice words;            // vector_width is copied in
};

// Members left out keep what the rows before them said.
struct TuningRow {
  std::string_view why;
  std::optional<GpuFamily> family;
  std::string_view name_contains;   // part of DeviceInfo::name, lower case; empty: any
  std::optional<int> vector_width, gemv_workgroup, gemv_blocks, gemm_workgroup, gemm_tokens, row_workgroup, item_workgroup, attention_workgroup;
  std::optional<Storage> weight_storage, activation_storage;
};

inline const std::vector<TuningRow>& tuning_rows() {
  static const std::vector<TuningRow> rows = {
      {.why = "CPU drivers run a workgroup as a loop on one core: one lane with explicit wide vectors keeps every load contiguous and needs no barrier",
       .family = GpuFamily::kCpu,
       .name_contains = {},
       .vector_width = 8,
       .gemv_workgroup = 1,
       .gemv_blocks = 4,
       .gemm_workgroup = 1,
       .gemm_tokens = 8,
       .row_workgroup = 1,
       .item_workgroup = {},
       .attention_workgroup = 1,
       .weight_storage = {},
       .activation_storage = {}},
      {.why = "weights through the texture cache: the one cache on Adreno that a streaming read does not have to share with activations (ML Drift, section 3.1)",
       .family = GpuFamily::kAdreno6xx,
       .name_contains = {},
       .vector_width = {},
       .gemv_workgroup = {},
       .gemv_blocks = {},
       .gemm_workgroup = {},
       .gemm_tokens = {},
       .row_workgroup = {},
       .item_workgroup = {},
       .attention_workgroup = {},
       .weight_storage = Storage::kImage2D,
       .activation_storage = {}},
  };
  return rows;
}

inline bool matches(const TuningRow& row, const DeviceInfo& info) {
  if (row.family && *row.family != family_of(info)) return false;
  return detail::lower_case(info.name).find(row.name_contains) != std::string::npos;
}

inline Tuning tuning_for(const DeviceInfo& info) {
  Tuning tuning;
  const auto merge = [](auto& member, const auto& value) {
    if (value) member = *value;
  };
  for (const TuningRow& row : tuning_rows()) {
    if (!matches(row, info)) continue;
    merge(tuning.vector_width, row.vector_width);
    merge(tuning.gemv_workgroup, row.gemv_workgroup);
    merge(tuning.gemv_blocks, row.gemv_blocks);
    merge(tuning.gemm_workgroup, row.gemm_workgroup);
    merge(tuning.gemm_tokens, row.gemm_tokens);
    merge(tuning.row_workgroup, row.row_workgroup);
    merge(tuning.item_workgroup, row.item_workgroup);
    merge(tuning.attention_workgroup, row.attention_workgroup);
    merge(tuning.weight_storage, row.weight_storage);
    merge(tuning.activation_storage, row.activation_storage);
  }
  if (info.max_image_width == 0) tuning.weight_storage = tuning.activation_storage = Storage::kBuffer;
  tuning.words.vector_width = tuning.vector_width;
  return tuning;
}

}  // namespace tessera
