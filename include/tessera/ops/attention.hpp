// attention: y[t, h] = Σ_j softmax_j(q[t, h] · K[j, kv(h)] / sqrt(head_dim)) V[j, kv(h)], j ≤ position of t and in its window, K and V in pages.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "tessera/ops/op.hpp"

namespace tessera::ops {

struct AttentionShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t page = 16;      // tokens of a page
  int64_t window = 0;     // tokens that a token sees, itself among them; 0: all before it

  int64_t slices() const { return ceil_div(head_dim, 4); }
  int64_t padded_dim() const { return slices() * 4; }   // a head's channels in activations; the padding is zero
};

// KV pages of one layer, float4 [page, kv_head, offset, slice], and where each row of the step finds those of its sequence. Pages of i8 have scales.
struct KvPages {
  ValueId k = kNoValue;
  ValueId v = kNoValue;
  ValueId rows = kNoValue;          // StepRow [token]
  ValueId block_tables = kNoValue;  // int [slots · table_pages]: the pages of each slot's sequence
  int64_t table_pages = 0;          // of the longest context
  ValueId k_scales = kNoValue;      // float [page, kv_head, offset]
  ValueId v_scales = kNoValue;
};

// q: [tokens, heads · padded_dim] → the same shape.
inline ValueId attention(GraphBuilder& g, ValueId q, const KvPages& kv, const AttentionShape& shape) {
  g.require(g[q].channels == shape.heads * shape.padded_dim() && shape.heads % shape.kv_heads == 0, cat("attention: ", g[q].channels, " channels for ", shape.heads, " heads of ", shape.head_dim));
  const ValueId y = g.activation("attention", g[q].rows, g[q].channels);
  Node node{"attention", {{"q", q}, {"k_pages", kv.k}, {"v_pages", kv.v}, {"rows", kv.rows}, {"block_tables", kv.block_tables}}, {{"y", y}},
            {{"heads", static_cast<double>(shape.heads)}, {"kv_heads", static_cast<double>(shape.kv_heads)}, {"head_dim", static_cast<double>(shape.head_dim)}, {"page", static_cast<double>(shape.page)}, {"table_pages", static_cast<double>(kv.table_pages)}, {"window", static_cast<double>(shape.window)}}};
  if (kv.k_scales != kNoValue) node.inputs.insert(node.inputs.end(), {{"k_scales", kv.k_scales}, {"v_scales", kv.v_scales}});
  g.node(std::move(node));
  return y;
}

// Rows of a step up to which each goes through K and V by itself; of more, a chunk of a prompt, many rows share what is read.
inline constexpr int64_t kUntiledRows = 8;

// The greatest divisor of `of` that `allowed` holds for; 1 always is.
template <class Predicate>
int64_t greatest_divisor(int64_t of, Predicate&& allowed) {
  int64_t best = 1;
  for (int64_t d = 2; d <= of; ++d)
    if (of % d == 0 && allowed(d)) best = d;
  return best;
}

// How attention, of one row a workgroup, cuts its work.
struct AttentionCut {
  int64_t width = 4;    // W
  int64_t heads = 1;    // query heads of one kv head
  int64_t blocks = 1;   // of W channels of a head
  int64_t at_once = 1;  // keys that a lane multiplies at once
  int64_t block = 1;    // blocks of a value that a lane sums at once
  int64_t parts = 1;    // lanes that share the keys of a block
  int64_t keys = 16;
  // Of the kernel's shared arrays.
  int64_t shared_bytes() const { return 4 * (heads * (width * blocks * (1 + parts) + 2 * keys + width + 2) + 2 * width * blocks); }
};

inline AttentionCut attention_cut(const PlanContext& context, int64_t group, int64_t padded_dim) {
  const Tuning& t = context.tuning;
  AttentionCut cut;
  cut.width = greatest_divisor(t.attention_width != 0 ? t.attention_width : t.vector_width, [&](int64_t width) { return width <= 4 || padded_dim % width == 0; });
  cut.blocks = padded_dim / cut.width;
  const auto fits = [&](AttentionCut changed) { return changed.shared_bytes() <= context.tuning.shared_memory_bytes; };
  const auto with = [&](int64_t AttentionCut::*member, int64_t value) {
    AttentionCut changed = cut;
    changed.*member = value;
    return changed;
  };
  const int64_t sums = 4 * t.attention_block;   // of W, that a lane keeps
  cut.heads = greatest_divisor(group, [&](int64_t heads) { return heads <= sums && fits(with(&AttentionCut::heads, heads)); });
  cut.at_once = greatest_divisor(cut.width, [&](int64_t keys) { return keys <= t.attention_row_block && keys * cut.heads <= sums; });
  cut.block = greatest_divisor(cut.blocks, [&](int64_t block) { return block * cut.heads <= sums; });
  while (cut.blocks / cut.block * cut.parts * 2 <= t.attention_workgroup && fits(with(&AttentionCut::parts, cut.parts * 2))) cut.parts *= 2;
  while (cut.keys * 2 <= t.attention_row_keys && fits(with(&AttentionCut::keys, cut.keys * 2))) cut.keys *= 2;
  return cut;
}

// How attention_tiled cuts its work.
struct AttentionTile {
  int64_t heads = 1;    // query heads of one kv head
  int64_t blocks = 1;   // of W tokens
  int64_t keys = 4;
  int64_t block = 1;    // vectors that a lane takes at once
  bool own_sums = false;   // of an item each, which lanes keep to themselves
  int64_t vectors() const { return heads * blocks; }
  // Of the kernel's shared arrays.
  int64_t shared_bytes(int64_t padded_dim, int64_t width) const { return 4 * (width * (vectors() * ((own_sums ? 1 : 2) * padded_dim + keys + 3) + blocks) + keys * padded_dim); }
};

inline int64_t tile_workgroup(const Tuning& t) { return t.attention_tile_workgroup > 0 ? t.attention_tile_workgroup : t.attention_workgroup; }

// As many vectors as the tuning wants and shared memory holds, heads of a group first, then tokens: K and V are read once for all of them. Then as many keys.
inline AttentionTile attention_tile(const PlanContext& context, int64_t group, int64_t padded_dim) {
  const Tuning& t = context.tuning;
  constexpr int64_t kMostTokens = 32;   // a chunk may have no more
  const auto tile_of = [&](int64_t heads, int64_t blocks, int64_t keys) {
    AttentionTile tile{heads, blocks, keys};
    tile.block = greatest_divisor(tile.vectors(), [&](int64_t block) { return block <= t.attention_block; });
    tile.own_sums = tile.vectors() / tile.block * padded_dim / 4 <= tile_workgroup(t);
    return tile;
  };
  const auto fits = [&](int64_t heads, int64_t blocks, int64_t keys) { return tile_of(heads, blocks, keys).shared_bytes(padded_dim, t.vector_width) * t.attention_tiles_held <= t.shared_memory_bytes; };
  int64_t keys = 4, blocks = 1;
  const int64_t heads = greatest_divisor(group, [&](int64_t some) { return some <= t.attention_vectors && fits(some, 1, keys); });
  while (heads * (blocks + 1) <= t.attention_vectors && (blocks + 1) * t.vector_width <= kMostTokens && fits(heads, blocks + 1, keys)) ++blocks;
  while (keys + 4 <= t.attention_keys && fits(heads, blocks, keys + 4)) keys += 4;
  return tile_of(heads, blocks, keys);
}

inline Result<std::vector<KernelCall>> plan_attention(const PlanContext& context, const Node& node) {
  const int64_t heads = node.integer("heads"), head_dim = node.integer("head_dim"), group = heads / node.integer("kv_heads"), padded_dim = round_up(head_dim, 4);
  const int64_t rows = context[node.input("q")].rows;
  KernelCall call{.kernel = "attention",
                  .consts = {{"GROUP", group}, {"PAGE", node.integer("page")}, {"SCALED", node.input("k_scales") != kNoValue}, {"WG", context.tuning.attention_workgroup}},
                  .slots = {},
                  .args = {{"scale", arg_bits(1.0f / std::sqrt(static_cast<float>(head_dim)))}, {"table_pages", arg_bits(node.integer("table_pages"))}, {"window", arg_bits(node.integer("window") == 0 ? int64_t{INT32_MAX} : node.integer("window"))}},
                  .bytes = 0};
  int lanes = 4;
  int64_t shared_bytes = 0;
  if (rows <= kUntiledRows) {
    const AttentionCut cut = attention_cut(context, group, padded_dim);
    const bool rope = node.input("angles") != kNoValue;
    const int64_t splits = node.integer("splits", 1);
    const auto first_block = [&](std::string_view role) { return rope ? context[node.input(role)].channel_offset / cut.width : 0; };
    call.consts.insert({{"ROPE", rope}, {"HALVES", rope && context[node.input("k_pages")].dtype == DType::kF16}, {"SPLITS", splits}, {"Q_BLOCK", first_block("q")}, {"K_BLOCK", first_block("k")}, {"V_BLOCK", first_block("v")}});
    call.consts.insert({{"TILE_HEADS", cut.heads}, {"BLOCKS", cut.blocks}, {"AT_ONCE", cut.at_once}, {"BLOCK", cut.block}, {"PARTS", cut.parts}, {"KEYS", cut.keys}});
    constexpr int64_t kLineBytes = 64;
    call.consts["LINE"] = std::max<int64_t>(1, kLineBytes / (cut.width * byte_size(context[node.input("k_pages")].dtype)));
    call.workgroups = {rows, heads / cut.heads, splits};
    call.vector_width = lanes = static_cast<int>(cut.width);
    shared_bytes = cut.shared_bytes();
  } else {
    const AttentionTile tile = attention_tile(context, group, padded_dim);
    call.kernel = "attention_tiled";
    call.consts["WG"] = tile_workgroup(context.tuning);
    call.consts.insert({{"D4", padded_dim / 4}, {"TILE_HEADS", tile.heads}, {"TILE_BLOCKS", tile.blocks}, {"VECTORS", tile.vectors()}, {"KEYS", tile.keys}, {"BLOCK", tile.block}, {"OWN_SUMS", tile.own_sums}});
    call.workgroups = {ceil_div(rows, tile.blocks * context.tuning.vector_width), heads / tile.heads, 1};
    shared_bytes = tile.shared_bytes(padded_dim, context.tuning.vector_width);
  }
  if (shared_bytes > context.tuning.shared_memory_bytes)
    return fail(ErrorCode::kLimit, cat("attention over heads of ", head_dim, " needs ", shared_bytes, " bytes of shared memory; the device has ", context.tuning.shared_memory_bytes));
  constexpr std::string_view kOwnTexels[] = {"rows", "block_tables", "k_scales", "v_scales", "part_tops"};   // the others have W lanes
  for (const auto* values : {&node.inputs, &node.outputs})
    for (const auto& [role, value] : *values) call.slots.push_back({role, value, std::ranges::find(kOwnTexels, role) == std::end(kOwnTexels) ? lanes : context[value].lanes});
  return std::vector{std::move(call)};
}

// attention_combine: y from what attention found in each of its shares of a long context (plan/passes/split_context.hpp).
inline Result<std::vector<KernelCall>> plan_attention_combine(const PlanContext& context, const Node& node) {
  const int64_t heads = node.integer("heads"), d4 = ceil_div(node.integer("head_dim"), 4), workgroup = context.tuning.item_workgroup;
  KernelCall call{.kernel = "attention_combine",
                  .consts = {{"HEADS", heads}, {"D4", d4}, {"SPLITS", node.integer("splits")}, {"WG", workgroup}},
                  .slots = {{"part_sums", node.input("part_sums"), 4}, {"part_tops", node.input("part_tops"), 4}, {"y", node.output("y"), 4}},
                  .args = {},
                  .workgroups = {ceil_div(context[node.output("y")].rows * heads * d4, workgroup), 1, 1}};
  return std::vector{std::move(call)};
}

// q, y: [tokens, heads, head_dim]; k, v: flat [position + tokens, kv_heads, head_dim].
inline void attention_reference(const float* q, const float* k, const float* v, float* y, int64_t tokens, int64_t position, const AttentionShape& s) {
  const auto at = [&](const float* base, int64_t j, int64_t kv, int64_t d) { return static_cast<double>(base[(j * s.kv_heads + kv) * s.head_dim + d]); };
  std::vector<double> weights;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t kv = h / (s.heads / s.kv_heads), row = (t * s.heads + h) * s.head_dim;
      const int64_t first = s.window == 0 ? 0 : std::max<int64_t>(0, position + t + 1 - s.window);
      weights.assign(static_cast<size_t>(position + t + 1 - first), 0.0);
      double top = -1e300, total = 0.0;
      for (size_t j = 0; j < weights.size(); ++j) {
        for (int64_t d = 0; d < s.head_dim; ++d) weights[j] += static_cast<double>(q[row + d]) * at(k, first + static_cast<int64_t>(j), kv, d);
        top = std::max(top, weights[j] /= std::sqrt(static_cast<double>(s.head_dim)));
      }
      for (double& w : weights) total += w = std::exp(w - top);
      for (int64_t d = 0; d < s.head_dim; ++d) {
        double sum = 0.0;
        for (size_t j = 0; j < weights.size(); ++j) sum += weights[j] * at(v, first + static_cast<int64_t>(j), kv, d);
        y[row + d] = static_cast<float>(sum / total);
      }
    }
}

}  // namespace tessera::ops
