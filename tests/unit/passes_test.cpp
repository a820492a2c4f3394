// Each fusion as text, before and after, and the graphs that it must leave alone.
#include <gtest/gtest.h>

#include <string>

#include "tessera/ops/op_table.hpp"
#include "tessera/plan/passes/fold_gated.hpp"
#include "tessera/plan/passes/fold_norm.hpp"
#include "tessera/plan/passes/fold_residual.hpp"
#include "tessera/plan/passes/fold_rope.hpp"
#include "tessera/plan/passes/quantize_activations.hpp"
#include "tessera/plan/passes/remove_unused.hpp"
#include "tessera/plan/passes/split_context.hpp"
#include "tessera/plan/passes/stack_matmuls.hpp"

namespace tessera {
namespace {

// "y = matmul(x=x, w=a + b)", a node a line; "q @0 of a + b" is a range of another value's channels.
std::string value_text(const Graph& graph, ValueId id) {
  const Value& value = graph[id];
  return value.parent == kNoValue ? value.name : value.name + "@" + std::to_string(value.channel_offset) + " of [" + graph[value.parent].name + "]";
}
std::string text_of(const Graph& graph) {
  std::string text;
  for (const Node& node : graph.nodes) {
    for (size_t i = 0; i < node.outputs.size(); ++i) text += (i == 0 ? "" : ", ") + value_text(graph, node.outputs[i].second);
    text += " = " + node.op + "(";
    for (size_t i = 0; i < node.inputs.size(); ++i) text += (i == 0 ? "" : ", ") + node.inputs[i].first + "=" + value_text(graph, node.inputs[i].second);
    text += ")\n";
  }
  return text;
}

class Passes : public testing::Test {
 protected:
  ValueId activation(const char* name, int64_t channels = 32, int64_t rows = 1) { return g.activation(name, rows, channels); }
  ValueId weight(const char* name, int64_t rows = 32, WeightType type = WeightType::kQ4_0) { return g.weight({name, type, rows, 32}); }
  ValueId gain(const char* name) { return g.weight({name, WeightType::kF32, 1, 32}); }
  ValueId named(ValueId id, const char* name) {
    g.graph()[id].name = name;
    return id;
  }
  ValueId matmul(ValueId x, ValueId w, const char* name) { return named(ops::matmul(g, x, w), name); }
  ValueId add(ValueId a, ValueId b, const char* name) { return named(ops::add(g, a, b), name); }
  ValueId bias(const char* name, int64_t rows = 32, WeightType type = WeightType::kF32) { return g.weight({.name = name, .type = type, .rows = rows, .columns = 1, .bias = true}); }
  ValueId biased(ValueId x, ValueId w, ValueId b, const char* name) { return named(ops::matmul(g, x, w, b), name); }
  std::string text() { return text_of(g.graph()); }
  // The pass changes nothing.
  template <class Pass>
  void expect_untouched(Pass&& pass) {
    const std::string before = text();
    pass(g.graph());
    EXPECT_EQ(text(), before);
  }

  GraphBuilder g;
};

// ---- remove_unused -----------------------------------------------------------------------------------------------------------------

TEST_F(Passes, RemoveUnusedKeepsWhatLeadsToResults) {
  const ValueId x = activation("x"), h = matmul(x, weight("a"), "h"), y = matmul(h, weight("b"), "y");
  matmul(h, weight("c"), "unused");
  g.graph()[y].role = ValueRole::kOutput;
  ops::sample(g, matmul(x, weight("d"), "z"), g.input("samplers", DType::kU32, 4, {1, 4}), g.input("rows", DType::kI32, 4, {1}), g.input("recent", DType::kI32, 1, {1, 256}), g.input("ids", DType::kU32, 2, {1, 8}));
  passes::remove_unused(g.graph());
  EXPECT_EQ(text(), "h = matmul(x=x, w=a)\ny = matmul(x=h, w=b)\nz = matmul(x=x, w=d)\nids, rows, recent = sample(logits=z, samplers=samplers, rows=rows)\n");
}

TEST_F(Passes, RemoveUnusedKeepsWritesOfState) {
  const ops::AttentionShape shape{2, 2, 16, 16};
  const ops::KvPages kv{g.state("kp", DType::kF32, 4, {1, 2, 16, 4}), g.state("vp", DType::kF32, 4, {1, 2, 16, 4}), g.input("rows", DType::kI32, 4, {8}), g.input("tables", DType::kI32, 1, {1}), 1};
  const ValueId x = activation("x");
  const ValueId q = ops::rope_kv(g, matmul(x, weight("wq"), "q"), matmul(x, weight("wk"), "k"), matmul(x, weight("wv"), "v"), g.input("angles", DType::kF32, 4, {16, 4}), kv, shape);
  ops::attention(g, q, kv, shape);  // nobody reads it: the last layer of a chunk without logits
  passes::remove_unused(g.graph());
  ASSERT_EQ(g.graph().nodes.size(), 4u);
  EXPECT_EQ(g.graph().nodes.back().op, "rope_kv");
}

// ---- fold_rope, split_context ------------------------------------------------------------------------------------------------------

// rope_kv and attention over `rows` rows of two query heads and one kv head of 16 channels.
class AttentionPasses : public Passes {
 protected:
  ValueId attend(int64_t rows, DType type = DType::kF32) {
    const ops::AttentionShape shape{2, 1, 16, 16};
    ops::KvPages kv{g.state("kp", type, 4, {1, 1, 16, 4}), g.state("vp", type, 4, {1, 1, 16, 4}), g.input("rows", DType::kI32, 4, {8}), g.input("tables", DType::kI32, 1, {1}), 1};
    if (type == DType::kI8) kv.k_scales = g.state("ks", DType::kF32, 1, {1, 1, 16}), kv.v_scales = g.state("vs", DType::kF32, 1, {1, 1, 16});
    turned = named(ops::rope_kv(g, activation("q", 32, rows), activation("k", 16, rows), activation("v", 16, rows), g.input("angles", DType::kF32, 4, {16, 4}), kv, shape), "turned");
    return named(ops::attention(g, turned, kv, shape), "y");
  }
  ValueId turned = kNoValue;
};

TEST_F(AttentionPasses, FoldRopeGivesItToTheAttentionOfOneRow) {
  attend(1);
  passes::fold_rope(g.graph());
  EXPECT_EQ(text(), "y, kp, vp = attention(q=q, k_pages=kp, v_pages=vp, rows=rows, block_tables=tables, k=k, v=v, angles=angles)\n");
}
TEST_F(AttentionPasses, FoldRopeLeavesSeveralRowsAlone) {
  attend(2);
  expect_untouched(passes::fold_rope);
}
TEST_F(AttentionPasses, FoldRopeLeavesPagesOfBytesAlone) {
  attend(1, DType::kI8);
  expect_untouched(passes::fold_rope);
}
TEST_F(AttentionPasses, FoldRopeNeedsSoleUse) {
  attend(1);
  add(turned, activation("x"), "also");
  expect_untouched(passes::fold_rope);
}

TEST_F(AttentionPasses, SplitContextMakesTheSharesOfAKvHeadAndPutsThemTogether) {
  const ValueId y = attend(1);
  Tuning tuning;
  tuning.attention_groups = 3;
  passes::fold_rope(g.graph());
  passes::split_context(g.graph(), tuning);
  EXPECT_EQ(text(), "y sums, y tops, kp, vp = attention(q=q, k_pages=kp, v_pages=vp, rows=rows, block_tables=tables, k=k, v=v, angles=angles)\ny = attention_combine(part_sums=y sums, part_tops=y tops)\n");
  EXPECT_EQ(g.graph().nodes[0].integer("splits"), 4);
  EXPECT_EQ(g.graph().nodes[1].output("y"), y);
  const Value& sums = g.graph()[g.graph().nodes[1].input("part_sums")];
  EXPECT_EQ(sums.grid, (std::vector<int64_t>{4, 32 / 4}));
  EXPECT_EQ(sums.dtype, DType::kF32);
}
TEST_F(AttentionPasses, SplitContextLeavesEnoughRowsAndChunksAlone) {
  attend(8);
  Tuning tuning;
  tuning.attention_groups = 8;
  expect_untouched([&](Graph& graph) { passes::split_context(graph, tuning); });
  attend(32);
  tuning.attention_groups = 64;
  g.graph().nodes.erase(g.graph().nodes.begin(), g.graph().nodes.begin() + 2);
  expect_untouched([&](Graph& graph) { passes::split_context(graph, tuning); });
}

// ---- fold_gated --------------------------------------------------------------------------------------------------------------------

TEST_F(Passes, FoldGatedMakesOneMatmul) {
  const ValueId x = activation("x");
  named(ops::gated_silu(g, matmul(x, weight("gate"), "a"), matmul(x, weight("up"), "b")), "y");
  passes::fold_gated(g.graph());
  EXPECT_EQ(text(), "y = matmul(x=x, w=gate | up)\n");
  const WeightDesc& desc = g.graph()[g.graph().nodes[0].input("w")].weight;
  EXPECT_TRUE(desc.interleaved);
  EXPECT_EQ(desc.key(), "gate|up");
}

TEST_F(Passes, FoldGatedFoldsBiases) {
  const ValueId x = activation("x");
  named(ops::gated_silu(g, biased(x, weight("gate"), bias("gb"), "a"), biased(x, weight("up"), bias("ub"), "b")), "y");
  passes::fold_gated(g.graph());
  EXPECT_EQ(text(), "y = matmul(x=x, w=gate | up, bias=gb | ub)\n");
  EXPECT_TRUE(g.graph()[g.graph().nodes[0].input("bias")].weight.interleaved);
}
TEST_F(Passes, FoldGatedNeedsBothBiasesOrNone) {
  const ValueId x = activation("x");
  ops::gated_silu(g, biased(x, weight("gate"), bias("gb"), "a"), matmul(x, weight("up"), "b"));
  expect_untouched(passes::fold_gated);
}
TEST_F(Passes, FoldGatedNeedsBiasesOfOneType) {
  const ValueId x = activation("x");
  ops::gated_silu(g, biased(x, weight("gate"), bias("gb"), "a"), biased(x, weight("up"), bias("ub", 32, WeightType::kF16), "b"));
  expect_untouched(passes::fold_gated);
}
TEST_F(Passes, FoldGatedNeedsOneInput) {
  ops::gated_silu(g, matmul(activation("x"), weight("gate"), "a"), matmul(activation("z"), weight("up"), "b"));
  expect_untouched(passes::fold_gated);
}
TEST_F(Passes, FoldGatedNeedsOneType) {
  const ValueId x = activation("x");
  ops::gated_silu(g, matmul(x, weight("gate"), "a"), matmul(x, weight("up", 32, WeightType::kQ8_0), "b"));
  expect_untouched(passes::fold_gated);
}
TEST_F(Passes, FoldGatedNeedsSoleUse) {
  const ValueId x = activation("x"), gate = matmul(x, weight("gate"), "a");
  ops::gated_silu(g, gate, matmul(x, weight("up"), "b"));
  add(gate, x, "also");
  expect_untouched(passes::fold_gated);
}
TEST_F(Passes, FoldGatedLeavesASquareAlone) {  // silu(g) · g: both inputs are one matmul
  const ValueId gate = matmul(activation("x"), weight("gate"), "a");
  ops::gated_silu(g, gate, gate);
  expect_untouched(passes::fold_gated);
}
TEST_F(Passes, FoldGatedLeavesOutputsAlone) {
  const ValueId x = activation("x"), gate = matmul(x, weight("gate"), "a");
  g.graph()[gate].role = ValueRole::kOutput;
  ops::gated_silu(g, gate, matmul(x, weight("up"), "b"));
  expect_untouched(passes::fold_gated);
}

// ---- stack_matmuls -----------------------------------------------------------------------------------------------------------------

class StackMatmuls : public Passes {
 protected:
  void rope(ValueId q, ValueId k, ValueId v) {
    const ops::KvPages kv{g.state("kp", DType::kF32, 4, {1, 1, 16, 4}), g.state("vp", DType::kF32, 4, {1, 1, 16, 4}), g.input("rows", DType::kI32, 4, {8}), g.input("tables", DType::kI32, 1, {1}), 1};
    named(ops::rope_kv(g, q, k, v, g.input("angles", DType::kF32, 4, {16, 4}), kv, {2, 1, 16, 16}), "turned");
  }
};

TEST_F(StackMatmuls, MakesRangesOfOneResult) {
  const ValueId x = activation("x"), q = matmul(x, weight("wq"), "q"), k = matmul(x, weight("wk", 16), "k"), v = matmul(x, weight("wv", 16), "v");
  rope(q, k, v);
  passes::stack_matmuls(g.graph());
  EXPECT_EQ(text(), "wq + wk + wv = matmul(x=x, w=wq + wk + wv)\n"
                    "turned, kp, vp = rope_kv(q=q@0 of [wq + wk + wv], k=k@32 of [wq + wk + wv], v=v@48 of [wq + wk + wv], angles=angles, rows=rows, block_tables=tables)\n");
  const Graph& graph = g.graph();
  EXPECT_EQ(graph[graph.nodes[0].output("y")].channels, 64);
  EXPECT_EQ(graph[graph.nodes[0].input("w")].weight.key(), "wq+wk+wv");
}

TEST_F(StackMatmuls, StacksBiases) {
  const ValueId x = activation("x"), q = biased(x, weight("wq"), bias("bq"), "q"), k = biased(x, weight("wk", 16), bias("bk", 16), "k");
  rope(q, k, biased(x, weight("wv", 16), bias("bv", 16), "v"));
  passes::stack_matmuls(g.graph());
  ASSERT_EQ(g.graph().nodes.size(), 2u);
  EXPECT_EQ(text().substr(0, text().find('\n')), "wq + wk + wv = matmul(x=x, w=wq + wk + wv, bias=bq + bk + bv)");
  EXPECT_EQ(g.graph()[g.graph().nodes[0].input("bias")].rows, 64);
}
TEST_F(StackMatmuls, StacksOnlyNeighboursThatBothHaveBiases) {
  const ValueId x = activation("x"), q = biased(x, weight("wq"), bias("bq"), "q"), k = biased(x, weight("wk", 16), bias("bk", 16), "k");
  rope(q, k, matmul(x, weight("wv", 16), "v"));
  passes::stack_matmuls(g.graph());
  EXPECT_EQ(text().substr(0, text().find('\n')), "wq + wk = matmul(x=x, w=wq + wk, bias=bq + bk)");
  EXPECT_EQ(g.graph().nodes.size(), 3u);
}

TEST_F(StackMatmuls, StacksQAndKWhenVIsOfAnotherType) {
  const ValueId x = activation("x");
  const ValueId q = matmul(x, weight("wq"), "q"), k = matmul(x, weight("wk", 16), "k"), v = matmul(x, weight("wv", 16, WeightType::kQ8_0), "v");
  rope(q, k, v);
  passes::stack_matmuls(g.graph());
  EXPECT_EQ(text(), "wq + wk = matmul(x=x, w=wq + wk)\nv = matmul(x=x, w=wv)\n"
                    "turned, kp, vp = rope_kv(q=q@0 of [wq + wk], k=k@32 of [wq + wk], v=v, angles=angles, rows=rows, block_tables=tables)\n");
}

TEST_F(StackMatmuls, NeedsNeighboursOfOneType) {  // q and v are alike, k between them is not
  const ValueId x = activation("x");
  rope(matmul(x, weight("wq"), "q"), matmul(x, weight("wk", 16, WeightType::kF16), "k"), matmul(x, weight("wv", 16), "v"));
  expect_untouched(passes::stack_matmuls);
}
TEST_F(StackMatmuls, NeedsOneInput) {
  rope(matmul(activation("x1"), weight("wq"), "q"), matmul(activation("x2"), weight("wk", 16), "k"), matmul(activation("x3"), weight("wv", 16), "v"));
  expect_untouched(passes::stack_matmuls);
}
TEST_F(StackMatmuls, NeedsSoleUse) {
  const ValueId x = activation("x"), q = matmul(x, weight("wq"), "q"), k = matmul(x, weight("wk", 16), "k"), v = matmul(x, weight("wv", 16), "v");
  rope(q, k, v);
  add(q, x, "1");
  add(k, activation("y", 16), "2");
  add(v, activation("z", 16), "3");
  expect_untouched(passes::stack_matmuls);
}

// ---- fold_norm ---------------------------------------------------------------------------------------------------------------------

TEST_F(Passes, FoldNormGoesIntoEveryMatmul) {
  const ValueId h = ops::rms_norm(g, activation("x"), gain("gamma"), 1e-6f);
  matmul(h, weight("a"), "ya");
  matmul(h, weight("b"), "yb");
  passes::fold_norm(g.graph());
  EXPECT_EQ(text(), "ya = matmul(x=x, w=a, gamma=gamma)\nyb = matmul(x=x, w=b, gamma=gamma)\n");
  for (const Node& node : g.graph().nodes) EXPECT_FLOAT_EQ(static_cast<float>(node.attribute("eps")), 1e-6f);
}
TEST_F(Passes, FoldsKeepTheBias) {
  const ValueId x = activation("x");
  add(x, biased(ops::rms_norm(g, x, gain("gamma"), 1e-6f), weight("a"), bias("b"), "m"), "y");
  passes::fold_norm(g.graph());
  passes::fold_residual(g.graph());
  EXPECT_EQ(text(), "y = matmul(x=x, w=a, bias=b, gamma=gamma, residual=x)\n");
}
TEST_F(Passes, FoldNormLeavesSeveralTokensAlone) {
  matmul(ops::rms_norm(g, activation("x", 32, 2), gain("gamma"), 1e-6f), weight("a"), "y");
  expect_untouched(passes::fold_norm);
}
TEST_F(Passes, FoldNormNeedsOnlyMatmuls) {
  const ValueId x = activation("x"), h = ops::rms_norm(g, x, gain("gamma"), 1e-6f);
  add(h, matmul(h, weight("a"), "y"), "sum");
  expect_untouched(passes::fold_norm);
}
TEST_F(Passes, FoldNormLeavesUnreadNormsAlone) {
  ops::rms_norm(g, activation("x"), gain("gamma"), 1e-6f);
  expect_untouched(passes::fold_norm);
}
TEST_F(Passes, FoldNormLeavesOutputsAlone) {
  const ValueId h = ops::rms_norm(g, activation("x"), gain("gamma"), 1e-6f);
  g.graph()[h].role = ValueRole::kOutput;
  matmul(h, weight("a"), "y");
  expect_untouched(passes::fold_norm);
}

// ---- fold_residual -----------------------------------------------------------------------------------------------------------------

TEST_F(Passes, FoldResidualTakesEitherSide) {
  const ValueId x = activation("x"), h = activation("h");
  add(x, matmul(h, weight("a"), "m"), "right");
  add(matmul(h, weight("b"), "n"), x, "left");
  passes::fold_residual(g.graph());
  EXPECT_EQ(text(), "right = matmul(x=h, w=a, residual=x)\nleft = matmul(x=h, w=b, residual=x)\n");
}
TEST_F(Passes, FoldResidualStaysWhereTheSumWas) {  // the other term is made after the matmul
  const ValueId x = activation("x"), m = matmul(x, weight("a"), "m"), late = named(ops::rms_norm(g, x, gain("gamma"), 1e-6f), "late");
  add(late, m, "y");
  passes::fold_residual(g.graph());
  EXPECT_EQ(text(), "late = rms_norm(x=x, gamma=gamma)\ny = matmul(x=x, w=a, residual=late)\n");
}
TEST_F(Passes, FoldResidualOfTwoMatmulsTakesOne) {
  const ValueId x = activation("x");
  const ValueId m = matmul(x, weight("a"), "m"), n = matmul(x, weight("b"), "n");
  add(m, n, "y");
  passes::fold_residual(g.graph());
  EXPECT_EQ(text(), "m = matmul(x=x, w=a)\ny = matmul(x=x, w=b, residual=m)\n");
}
TEST_F(Passes, FoldResidualOfAChainTakesOnlyOneTerm) {  // (x + m) + z: the first sum is a matmul with a residual already
  const ValueId x = activation("x");
  add(add(x, matmul(x, weight("a"), "m"), "s"), activation("z"), "y");
  passes::fold_residual(g.graph());
  EXPECT_EQ(text(), "s = matmul(x=x, w=a, residual=x)\ny = add(a=s, b=z)\n");
}
TEST_F(Passes, FoldResidualNeedsSoleUse) {
  const ValueId x = activation("x"), m = matmul(x, weight("a"), "m");
  add(x, m, "y");
  matmul(m, weight("b"), "z");
  expect_untouched(passes::fold_residual);
}
TEST_F(Passes, FoldResidualLeavesADoublingAlone) {  // m + m
  const ValueId m = matmul(activation("x"), weight("a"), "m");
  add(m, m, "y");
  expect_untouched(passes::fold_residual);
}

// ---- quantize_activations ----------------------------------------------------------------------------------------------------------

TEST_F(Passes, QuantizeActivationsMakesBytesOnceForAllThatReadThem) {
  const ValueId x = activation("x", 32, 8);
  matmul(x, weight("a"), "p");
  matmul(x, weight("b"), "q");
  passes::quantize_activations(g.graph(), {});
  EXPECT_EQ(text(), "x in bytes, x scales = quantize(x=x)\np = matmul(w=a, q=x in bytes, q_scales=x scales)\nq = matmul(w=b, q=x in bytes, q_scales=x scales)\n");
  EXPECT_EQ(g.graph().nodes[1].integer("int8"), 1);
}

TEST_F(Passes, QuantizeActivationsTakesInTheNorm) {
  const ValueId x = activation("x", 32, 8), n = named(ops::rms_norm(g, x, gain("g"), 0.5f), "n");
  matmul(n, weight("a"), "p");
  passes::quantize_activations(g.graph(), {});
  EXPECT_EQ(text(), "n in bytes, n scales = quantize(x=x, gamma=g)\np = matmul(w=a, q=n in bytes, q_scales=n scales)\n");
  EXPECT_EQ(g.graph().nodes[0].attribute("eps"), 0.5);
}

TEST_F(Passes, QuantizeActivationsLeavesTheNormWhereTheTuningSaysSo) {
  matmul(named(ops::rms_norm(g, activation("x", 32, 8), gain("g"), 0.5f), "n"), weight("a"), "p");
  Tuning tuning;
  tuning.fuse_norm_bytes = false;
  passes::quantize_activations(g.graph(), tuning);
  EXPECT_EQ(text(), "n = rms_norm(x=x, gamma=g)\nn in bytes, n scales = quantize(x=n)\np = matmul(w=a, q=n in bytes, q_scales=n scales)\n");
}

TEST_F(Passes, QuantizeActivationsLeavesOneTokenThatSharedMemoryDoesNotHold) {
  matmul(activation("x"), weight("a"), "p");
  matmul(activation("y", 32, 8), weight("a"), "q");
  Tuning tuning;
  tuning.shared_memory_bytes = 32 + 16 + 2 * (4 + 2 * 16) * tuning.gemv_workgroup - 1;
  passes::quantize_activations(g.graph(), tuning);
  EXPECT_EQ(g.graph().nodes[0].integer("int8"), 0);
  EXPECT_EQ(g.graph().nodes[2].integer("int8"), 1);
}

// F16 weights read floats, and so do codes that a table gives meaning.
TEST_F(Passes, QuantizeActivationsLeavesTheNormToOthersThatReadIt) {
  for (const WeightType type : {WeightType::kF16, WeightType::kIQ4_NL}) {
    g = GraphBuilder();
    const ValueId n = named(ops::rms_norm(g, activation("x", 32, 8), gain("g"), 0.5f), "n");
    matmul(n, weight("a"), "p");
    matmul(n, weight("b", 32, type), "q");
    passes::quantize_activations(g.graph(), {});
    EXPECT_EQ(text(), "n = rms_norm(x=x, gamma=g)\nn in bytes, n scales = quantize(x=n)\np = matmul(w=a, q=n in bytes, q_scales=n scales)\nq = matmul(x=n, w=b)\n");
  }
}

TEST_F(Passes, QuantizeActivationsLeavesOneTokenToItsKernel) {
  matmul(activation("x"), weight("a"), "p");
  const std::string before = text();
  passes::quantize_activations(g.graph(), {});
  EXPECT_EQ(text(), before);
  EXPECT_EQ(g.graph().nodes[0].integer("int8"), 1);
}

}  // namespace
}  // namespace tessera
