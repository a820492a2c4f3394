// Tuning as data: how kernels are shaped on a device. Rows are merged from the general to the special (default → family → device name);
// every row says why it is there. No kernel, op or plan asks for a vendor: it asks for these numbers.
#pragma once
#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/bytes.hpp"
#include "tessera/base/text.hpp"
#include "tessera/device/device_info.hpp"
#include "tessera/device/gpu_family.hpp"
#include "tessera/device/word_choice.hpp"
#include "tessera/tensor/dtype.hpp"
#include "tessera/tensor/storage.hpp"

namespace tessera {

// An op over its sizes: what a row may be for alone. In a row 0 stands for any.
struct OpShape {
  std::string op;        // a name of ops/op_table.hpp
  int64_t rows = 0;      // of its weight
  int64_t columns = 0;   // of its weight; of an op without one the channels, the most that it reads or writes
  int64_t tokens = 0;    // rows of activations: 1 in decode
  bool long_context = false;   // what workgroups share (plan/passes/split_context.hpp): of these ops never any
  bool operator==(const OpShape&) const = default;

  // "matmul 3072x576, 1 token"
  std::string label() const { return cat(op, " ", rows != 0 ? cat(rows, "x") : "", columns, ", ", tokens, tokens == 1 ? " token" : " tokens", long_context ? ", long context" : ""); }
};

struct TuningRow;

struct Tuning {
  int vector_width = 4;        // W: rows of a weight block, lanes of floatw
  int gemv_workgroup = 64;     // lanes; each owns a block of W rows, or shares one with others
  int gemv_lanes = 4096;       // that keep the device busy: where a matrix has fewer blocks, lanes share each block's columns. 0: they never do
  int gemv_blocks = 1;         // blocks a lane walks one after the other
  int gemv_unit_groups = 0;    // where not 0, as many blocks as leave this many workgroups for each compute unit of the device
  int gemm_workgroup = 64;
  int gemm_tokens = 4;         // tokens a lane accumulates at once
  int gemm_gated_tokens = 0;   // the same of gated weights, which keep two sums a token; 0: as many
  int row_workgroup = 64;      // lanes that share one row: RMSNorm, sampling
  int item_workgroup = 64;     // lanes of kernels whose items are small and independent: embedding, RoPE, element-wise
  int attention_workgroup = 64;  // lanes of attention; they share a row, or a tile of rows, with query heads of one kv head
  int attention_tile_workgroup = 0;   // the same, where many rows share a tile; 0: as many
  int attention_vectors = 6;   // vectors of W tokens, a query head each, that a tile of attention has at most, where as many fit
  int attention_block = 2;     // of these, what a lane multiplies with 4 numbers of K or V at once: 4 sums each
  int attention_keys = 16;     // of a tile of attention at most; a multiple of 4
  int attention_tiles_held = 1;  // tiles of attention that shared memory is to hold at once, of a workgroup each
  int attention_width = 0;     // W of attention of one row; 0: vector_width
  int attention_row_keys = 256;  // of attention of one row: how many scores there are before values are read; a multiple of 16
  int attention_row_block = 4;   // of these, what a lane multiplies with the queries at once
  int attention_groups = 64;     // workgroups that keep the device busy: behind a long context as many share the keys of few rows and kv heads. 0: never
  int attention_long = 512;      // tokens from which a context is long
  bool int8_activations = false;  // products of quantized weights: x rounded to bytes, in groups of 32, and packed dots
  bool fuse_norm = true;       // decode: RMSNorm inside the GEMV that follows
  bool fuse_norm_bytes = true; // prefill: RMSNorm inside the kernel that makes bytes of x
  StorageChoice weight_storage;
  StorageChoice activation_storage;
  DType activation_type = DType::kF32;  // or kF16; where no row speaks, f16 on devices that compute in it. What layers add to is f32 always.
  int weight_interleave = 1;   // blocks of W rows whose texels take turns in buffers, for lanes that read neighbours: of a GEMV's workgroup
  int weight_parts = 1;        // objects a matrix is cut into at least, by rows: reads of several textures go through several caches
  WordChoice words;            // vector_width is copied in
  int compute_units = 1;       // copied from the device, as is the next
  int64_t shared_memory_bytes = 16384;   // the least that both APIs promise
  std::vector<TuningRow> shape_rows;     // for one op's shape each, merged where that is planned (device/op_settings.hpp)
  bool operator==(const Tuning&) const = default;

  // Blocks that each lane of a GEMV over `blocks` walks.
  int64_t gemv_blocks_of(int64_t blocks) const {
    const int64_t lanes = int64_t{gemv_workgroup} * gemv_unit_groups * compute_units;
    return lanes == 0 ? gemv_blocks : std::max<int64_t>(1, ceil_div(blocks, lanes));
  }

  // Lanes of a GEMV's workgroup that share the columns, `groups` of them, of a block. Four neighbours keep reading neighbouring blocks: 64 bytes of 4-bit rows.
  int64_t gemv_split_of(int64_t blocks, int64_t groups) const {
    constexpr int64_t kNeighbours = 4;
    int64_t split = 1;
    while (blocks * split < gemv_lanes && split * 2 <= groups && gemv_workgroup % (split * 2 * kNeighbours) == 0) split *= 2;
    return split;
  }

  // Workgroups that share the keys of one, where attention over a long context has only `groups`.
  int64_t attention_splits_of(int64_t groups) const {
    constexpr int64_t kMost = 16;   // of what one lane puts together
    int64_t splits = 1;
    while (groups * splits < attention_groups && splits < kMost) splits *= 2;
    return splits;
  }
};

// Members left out keep what the rows before them said.
struct TuningRow {
  std::string_view why;                  // with a source, or "assumed: …"
  std::optional<Api> api{};
  std::optional<GpuFamily> family{};
  std::string_view model{};              // part of what the driver calls the device, lower case; empty: any
  int native_vector_width = 0;           // the device's at least
  std::optional<OpShape> shape{};        // for this alone; sets nothing but op_settings()
  std::optional<int> vector_width{}, gemv_workgroup{}, gemv_lanes{}, gemv_blocks{}, gemv_unit_groups{}, gemm_workgroup{}, gemm_tokens{}, gemm_gated_tokens{}, row_workgroup{},
      item_workgroup{}, attention_workgroup{}, attention_tile_workgroup{}, attention_vectors{}, attention_block{}, attention_keys{}, attention_tiles_held{}, attention_width{}, attention_row_keys{}, attention_row_block{}, attention_groups{}, attention_long{};
  std::optional<bool> fuse_norm{}, fuse_norm_bytes{};
  std::optional<bool> subgroups{};       // reductions by subgroup operations; taken where the device reports them
  std::optional<Storage> weight_storage{}, activation_storage{};
  std::optional<DType> activation_type{};
  std::optional<int> weight_interleave{}, weight_parts{};
  std::optional<bool> int8_activations{};
  std::optional<DotForm> dot{};          // forms that need instructions: taken, int8_activations with them, where the device has those

  bool operator==(const TuningRow&) const = default;

  // "adreno-7xx 740"
  std::string label() const { return cat(family ? name_of(*family) : "any", api ? " " : "", api ? name_of(*api) : "", model.empty() ? "" : " ", model, native_vector_width > 0 ? cat(" vectors of ", native_vector_width) : "", shape ? cat(", ", shape->label()) : ""); }
};

// visit(name, tuning's member, row's member) for everything a row can say: one list for merging and for printing.
template <class TheTuning, class TheRow, class Visitor>
void visit_settings(TheTuning& tuning, TheRow& row, Visitor&& visit) {
  visit("vector_width", tuning.vector_width, row.vector_width);
  visit("gemv_workgroup", tuning.gemv_workgroup, row.gemv_workgroup);
  visit("gemv_lanes", tuning.gemv_lanes, row.gemv_lanes);
  visit("gemv_blocks", tuning.gemv_blocks, row.gemv_blocks);
  visit("gemv_unit_groups", tuning.gemv_unit_groups, row.gemv_unit_groups);
  visit("gemm_workgroup", tuning.gemm_workgroup, row.gemm_workgroup);
  visit("gemm_tokens", tuning.gemm_tokens, row.gemm_tokens);
  visit("gemm_gated_tokens", tuning.gemm_gated_tokens, row.gemm_gated_tokens);
  visit("row_workgroup", tuning.row_workgroup, row.row_workgroup);
  visit("item_workgroup", tuning.item_workgroup, row.item_workgroup);
  visit("attention_workgroup", tuning.attention_workgroup, row.attention_workgroup);
  visit("attention_tile_workgroup", tuning.attention_tile_workgroup, row.attention_tile_workgroup);
  visit("attention_vectors", tuning.attention_vectors, row.attention_vectors);
  visit("attention_block", tuning.attention_block, row.attention_block);
  visit("attention_keys", tuning.attention_keys, row.attention_keys);
  visit("attention_tiles_held", tuning.attention_tiles_held, row.attention_tiles_held);
  visit("attention_width", tuning.attention_width, row.attention_width);
  visit("attention_row_keys", tuning.attention_row_keys, row.attention_row_keys);
  visit("attention_row_block", tuning.attention_row_block, row.attention_row_block);
  visit("attention_groups", tuning.attention_groups, row.attention_groups);
  visit("attention_long", tuning.attention_long, row.attention_long);
  visit("int8_activations", tuning.int8_activations, row.int8_activations);
  visit("dot", tuning.words.dot, row.dot);
  visit("fuse_norm", tuning.fuse_norm, row.fuse_norm);
  visit("fuse_norm_bytes", tuning.fuse_norm_bytes, row.fuse_norm_bytes);
  visit("subgroups", tuning.words.subgroups, row.subgroups);
  visit("weights in", tuning.weight_storage, row.weight_storage);
  visit("activations in", tuning.activation_storage, row.activation_storage);
  visit("activations as", tuning.activation_type, row.activation_type);
  visit("weight_interleave", tuning.weight_interleave, row.weight_interleave);
  visit("weight_parts", tuning.weight_parts, row.weight_parts);
}

// Row by row, from the general to the special. "Profiles" are the device reports in tests/data/devices.
inline const std::vector<TuningRow>& tuning_rows() {
  static const std::vector<TuningRow> rows = {
      {.why = "OpenCL's CPU drivers run a workgroup as a loop on one core: one lane with explicit wide vectors keeps every load contiguous and needs no barrier; a few "
              "workgroups a core: each makes the bytes of x anew. Measured (PoCL 3.1, AVX2): int8 products decode 1.9 and prefill 1.7 times as fast as float ones; "
              "attention's 12 sums of 8 are what its 16 registers hold, and tiles of 48 queries of 64 channels with 32 keys what the first cache does: 7 times as fast as row by row; "
              "of twice as many queries, as the tuner found on PoCL and Intel's driver, attention is another 5 to 8 % faster",
       .api = Api::kOpenCL,
       .family = GpuFamily::kCpu,
       .vector_width = 8,
       .gemv_workgroup = 1,
       .gemv_lanes = 0,
       .gemv_unit_groups = 4,
       .gemm_workgroup = 1,
       .gemm_tokens = 8,
       .row_workgroup = 1,
       .attention_workgroup = 1,
       .attention_vectors = 12,
       .attention_block = 3,
       .attention_keys = 32,
       .attention_row_keys = 64,
       .attention_groups = 8,
       .int8_activations = true,
       .dot = DotForm::kPairs},
      {.why = "vectors of 512 bits: attention of one row, whose time goes into products and conversions of halves, has half as many. Measured (Zen 5, 3 × 4,096 keys in the cache): "
              "PoCL 3.1 90 → 67 µs, Intel 2026.2 72 → 50",
       .api = Api::kOpenCL,
       .family = GpuFamily::kCpu,
       .native_vector_width = 16,
       .attention_width = 16},
      {.why = "Vulkan's CPU driver (lavapipe) runs a subgroup as the lanes of one vector and a workgroup on one core: workgroups of one or two subgroups of 8. "
              "Measured (Mesa 22.3): it loads from storage buffers element by element in a loop over lanes, from texel buffers whole texels: GEMM 10 times, GEMV 2 to 4 times "
              "as fast; a separate norm keeps its gain, a buffer, out of the GEMV's loop; eight blocks that take turns, one a lane: GEMV 2 to 9 % faster; reads of "
              "shared arrays are loops over lanes, too: the more sums a lane of attention has for each, the better, and the more queries share them (12 vectors: 5 %)",
       .api = Api::kVulkan,
       .family = GpuFamily::kCpu,
       .gemv_workgroup = 16,
       .gemv_lanes = 0,
       .gemm_workgroup = 16,
       .gemm_tokens = 8,
       .row_workgroup = 8,
       .item_workgroup = 16,
       .attention_workgroup = 8,
       .attention_vectors = 12,
       .attention_block = 6,
       .attention_keys = 32,
       .attention_groups = 8,
       .fuse_norm = false,
       .subgroups = true,
       .weight_storage = Storage::kImageBuffer,
       .activation_storage = Storage::kImageBuffer,
       .weight_interleave = 8},
      {.why = "weights through the texture cache, which a streaming read does not share with activations (ML Drift, arXiv 2505.00232, section 3.1); "
              "reductions by subgroups, which Adreno has natively. By Mesa's compiler (bench/mobile, A630): the norm inside a float GEMV takes all 48 registers and spills 20 to 132 "
              "values, 19 registers without; GEMM of 8 tokens a lane 83 instructions for 32 products, of 4 tokens 101; attention with few sums a lane, small tiles and "
              "workgroups of 128, of 256 over a chunk: shared memory then holds half of the waves a core can have, a quarter or less before. It is to hold two tiles of a chunk: "
              "with heads of 128 channels 12 keys each instead of 16, where four queries share them; fewer queries would read keys and values again",
       .family = GpuFamily::kAdreno6xx,
       .gemm_tokens = 8,
       .gemm_gated_tokens = 4,
       .attention_workgroup = 128,
       .attention_tile_workgroup = 256,
       .attention_vectors = 4,
       .attention_block = 1,
       .attention_tiles_held = 2,
       .attention_row_keys = 64,
       .attention_row_block = 1,
       .fuse_norm = false,
       .subgroups = true,
       .weight_storage = Storage::kImage2D},
      {.why = "packed dots, unsigned by signed, are one instruction from A650 on: Mesa's compiler makes 202 to 341 instructions of a GEMM tile with them, 1,249 to 1,474 without. "
              "More tokens a lane leave fewer than a quarter of the waves: 48 registers; the norm where bytes are made takes 32 to 48 as well, 12 without",
       .family = GpuFamily::kAdreno6xx,
       .model = "650",
       .gemm_tokens = 4,
       .gemm_gated_tokens = 2,
       .fuse_norm_bytes = false,
       .int8_activations = true,
       .dot = DotForm::kSignedUnsigned},
      {.why = "packed dots as on 650; 8 tokens a lane save a tenth of GEMM's instructions and halve the waves; the norm fits inside the GEMV, with half of the waves",
       .family = GpuFamily::kAdreno6xx,
       .model = "660",
       .gemm_tokens = 4,
       .gemm_gated_tokens = 4,
       .fuse_norm = true,
       .int8_activations = true,
       .dot = DotForm::kSignedUnsigned},
      {.why = "textures and subgroups as on 6xx; packed dots, unsigned by signed: Mesa's compiler makes 190 instructions of a GEMM tile with them, 1,240 without; assumed: a whole row (norm, sampling) is walked by two waves of 128, the larger subgroup of every 7xx profile; attention as on 6xx",
       .family = GpuFamily::kAdreno7xx,
       .row_workgroup = 256,
       .attention_workgroup = 128,
       .attention_tile_workgroup = 256,
       .attention_vectors = 4,
       .attention_block = 1,
       .attention_tiles_held = 2,
       .attention_row_keys = 64,
       .attention_row_block = 1,
       .subgroups = true,
       .weight_storage = Storage::kImage2D,
       .int8_activations = true,
       .dot = DotForm::kSignedUnsigned},
      {.why = "buffers: LiteRT, ML Drift's public code, leaves quantized weights there on this model, on 750 and on 8xx, and puts them in textures on the other 7xx; "
              "blocks take turns, so that runs of 16 lanes read neighbours (64 would pad the matrices of small models by a tenth), as llama.cpp's transposed weights for Adreno do",
       .family = GpuFamily::kAdreno7xx,
       .model = "740",
       .weight_storage = Storage::kBuffer,
       .weight_interleave = 16},
      {.why = "buffers: as on 740",
       .family = GpuFamily::kAdreno7xx,
       .model = "750",
       .weight_storage = Storage::kBuffer,
       .weight_interleave = 16},
      {.why = "buffers: as on 740; packed dots as on 7xx; assumed: a row is walked by four waves of 64, the one subgroup size of the 8xx profiles",
       .family = GpuFamily::kAdreno8xx,
       .row_workgroup = 256,
       .subgroups = true,
       .weight_storage = Storage::kBuffer,
       .weight_interleave = 16,
       .int8_activations = true,
       .dot = DotForm::kSignedUnsigned},
      {.why = "assumed: workgroups of 32, four warps of 8 (G52, G76) or eight of 4, so that a matrix of few rows spreads over the cores; "
              "its profiles report no subgroups; a weight is read once and in order, which buffers serve as well as textures, with neighbours for the 8 lanes of a warp. "
              "By Mesa's compiler (bench/mobile, G52), which has 64 registers a lane: the norm inside a GEMV nearly doubles its loads (34 load/store cycles against 18) and spills 50 values of a gated one; "
              "two tokens a lane are what a gated GEMM holds (four spill 89); attention with few sums a lane does not spill (92), and loads a third as long",
       .family = GpuFamily::kMaliBifrost,
       .gemv_workgroup = 32,
       .gemm_workgroup = 32,
       .gemm_gated_tokens = 2,
       .attention_workgroup = 32,
       .attention_block = 1,
       .attention_row_block = 1,
       .fuse_norm = false,
       .weight_storage = Storage::kBuffer,
       .weight_interleave = 8},
      {.why = "assumed: workgroups of two warps (the profiles' only subgroup is 16 lanes), as on Bifrost; buffers as on Bifrost, for warps of 16; "
              "no reductions by subgroups: Mesa's compiler emulates them, at three times the instructions; packed dots of signed bytes: 190 instructions of a GEMM tile, "
              "779 and spills without (G610). Norm, gated GEMM and attention as on Bifrost, by the same compiler (29 load/store cycles against 15; 59 and 92 spills)",
       .family = GpuFamily::kMaliValhall,
       .gemv_workgroup = 32,
       .gemm_workgroup = 32,
       .gemm_gated_tokens = 2,
       .row_workgroup = 128,
       .attention_workgroup = 32,
       .attention_block = 1,
       .attention_row_block = 1,
       .fuse_norm = false,
       .subgroups = false,
       .weight_storage = Storage::kBuffer,
       .weight_interleave = 16,
       .int8_activations = true,
       .dot = DotForm::kSignedSigned},
  };
  return rows;
}

inline bool matches(const TuningRow& row, const DeviceInfo& info) {
  return (!row.api || *row.api == info.api) && (!row.family || *row.family == family_of(info)) && info.native_vector_width >= row.native_vector_width && detail::lower_case(cat(info.name, " ", info.api_version)).find(row.model) != std::string::npos;
}

// The rows that apply, in the order they are merged. None: the device gets the neutral row, the defaults of Tuning.
inline std::vector<const TuningRow*> rows_for(const DeviceInfo& info) {
  std::vector<const TuningRow*> rows;
  for (const TuningRow& row : tuning_rows())
    if (matches(row, info)) rows.push_back(&row);
  return rows;
}

// `tuned`: rows found on the device itself, which go before those shipped (device/tuned_rows.hpp).
inline Tuning tuning_for(const DeviceInfo& info, const std::vector<TuningRow>& tuned = {}) {
  Tuning tuning;
  if (info.fp16_arithmetic) tuning.activation_type = DType::kF16;
  std::vector<const TuningRow*> rows = rows_for(info);
  for (const TuningRow& row : tuned) rows.push_back(&row);
  for (const TuningRow* row : rows) {
    if (row->shape) {
      tuning.shape_rows.push_back(*row);
      continue;
    }
    visit_settings(tuning, *row, [](std::string_view, auto& member, const auto& value) {
      if (value) member = *value;
    });
  }
  tuning.words.subgroups = tuning.words.subgroups && info.subgroup_max > 0;
  tuning.words.vector_width = tuning.vector_width;
  const bool packed = tuning.words.dot == DotForm::kSignedSigned || tuning.words.dot == DotForm::kSignedUnsigned;
  if (packed && !info.packed_dots) tuning.words.dot = DotForm::kPlain, tuning.int8_activations = false;
  if (tuning.words.dot == DotForm::kPairs && tuning.vector_width != 8) tuning.words.dot = DotForm::kPlain;
  tuning.compute_units = info.compute_units;
  if (info.shared_memory_bytes > 0) tuning.shared_memory_bytes = info.shared_memory_bytes;
  return tuning;
}

}  // namespace tessera
