// A whole step against the ops' plain host references put together, for head sizes that no golden file has: even but not multiples of 4,
// odd widths, one KV head. Random weights; the same tokens once as a prompt and once token by token.
#include "../unit/gguf_builder.hpp"
#include "model_fixture.hpp"
#include "tessera/model/rope_scaling.hpp"
#include "tessera/ops/op_table.hpp"

namespace tessera::test {
namespace {

using Matrix = std::vector<float>;

Matrix dequantized(const ModelFile& file, const std::string& name) {
  const WeightRef ref = *file.weight(name);
  Matrix values(static_cast<size_t>(ref.rows * ref.columns));
  for (int64_t r = 0; r < ref.rows; ++r) dequantize_row(ref.type, ref.bytes.data() + r * row_bytes(ref.type, ref.columns), ref.columns, values.data() + r * ref.columns);
  return values;
}

// Logits of every position, [tokens, vocab].
Matrix reference_logits(const ModelFile& file, const std::vector<int32_t>& ids) {
  const ModelConfig& c = file.config();
  const int64_t t = static_cast<int64_t>(ids.size());
  const ops::AttentionShape shape{c.n_heads, c.n_kv_heads, c.head_dim};
  const auto matmul = [&](const Matrix& x, const std::string& name, int64_t rows, int64_t columns) {
    Matrix y(static_cast<size_t>(t * rows));
    ops::matmul_reference(x.data(), dequantized(file, name).data(), y.data(), t, rows, columns);
    return y;
  };
  const auto norm = [&](const Matrix& x, const std::string& name) {
    Matrix y(x.size());
    ops::rms_norm_reference(x.data(), dequantized(file, name).data(), y.data(), t, c.dim, c.norm_eps);
    return y;
  };
  const auto rotate = [&](Matrix& x, int64_t heads) {
    const Matrix angles = ops::rope_angles(t, c.head_dim, rotation_of(c));
    for (int64_t i = 0; i < t * heads; ++i) ops::rope_reference(x.data() + i * c.head_dim, angles.data() + i / heads * c.head_dim, c.head_dim);
  };
  const auto add_to = [](Matrix& x, const Matrix& y) { ops::add_reference(x.data(), y.data(), x.data(), static_cast<int64_t>(x.size())); };

  Matrix x(static_cast<size_t>(t * c.dim));
  ops::embed_reference(ids.data(), dequantized(file, "token_embd.weight").data(), x.data(), t, c.dim);
  for (int layer = 0; layer < c.n_layers; ++layer) {
    const std::string blk = cat("blk.", layer, ".");
    const Matrix h = norm(x, blk + "attn_norm.weight");
    Matrix q = matmul(h, blk + "attn_q.weight", c.n_heads * c.head_dim, c.dim), k = matmul(h, blk + "attn_k.weight", c.n_kv_heads * c.head_dim, c.dim);
    const Matrix v = matmul(h, blk + "attn_v.weight", c.n_kv_heads * c.head_dim, c.dim);
    rotate(q, c.n_heads);
    rotate(k, c.n_kv_heads);
    Matrix attended(q.size());
    ops::attention_reference(q.data(), k.data(), v.data(), attended.data(), t, 0, shape);
    add_to(x, matmul(attended, blk + "attn_output.weight", c.dim, c.n_heads * c.head_dim));
    const Matrix f = norm(x, blk + "ffn_norm.weight");
    const Matrix gate = matmul(f, blk + "ffn_gate.weight", c.hidden_dim, c.dim), up = matmul(f, blk + "ffn_up.weight", c.hidden_dim, c.dim);
    Matrix gated(gate.size());
    ops::gated_silu_reference(gate.data(), up.data(), gated.data(), static_cast<int64_t>(gate.size()));
    add_to(x, matmul(gated, blk + "ffn_down.weight", c.dim, c.hidden_dim));
  }
  return matmul(norm(x, "output_norm.weight"), c.tied_output ? "token_embd.weight" : "output.weight", c.vocab_size, c.dim);
}

struct Case {
  const char* name;
  LlamaShape shape;
  WeightType type;
  int repeat = 1;   // neighbouring layers with the same weights
};

class ReferenceModel : public testing::TestWithParam<Case> {};

TEST_P(ReferenceModel, EqualsTheReferencesPutTogether) {
  const auto& device = shared_device();
  TESSERA_NEEDS_DEVICE(device);
  GgufBuilder file = tiny_llama({.shape = GetParam().shape, .type = GetParam().type, .tokenizer = false});
  repeat_layers(file, GetParam().repeat);
  const TemporaryFolder folder;
  const auto model = Model::load(folder.file("model.gguf", file.bytes()), *device, {.context_tokens = 64, .precision = Precision::kFloat, .all_logits = true});
  ASSERT_TRUE(model) << model.error().message();
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 37; ++i) ids.push_back(i * 7919 % GetParam().shape.vocab);

  const Matrix expected = reference_logits(model->runtime()->file(), ids);
  // The prompt at once, and the last row again token by token. f32 against double sums through two layers: 2e-4 of the spread, as conform_test.
  const double allowed = 2e-4 * standard_deviation(expected);
  EXPECT_LE(max_difference(all_logits(*model, ids), expected), allowed);
  Sequence sequence(model->runtime());
  Matrix last;
  for (const int32_t id : ids)
    ASSERT_TRUE(sequence.append(std::span(&id, 1), nullptr, [&](std::span<const float> row) -> Status {
      last.assign(row.begin(), row.end());
      return {};
    }));
  EXPECT_LE(max_difference(last, std::span(expected).last(last.size())), allowed);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ReferenceModel,
                         testing::Values(Case{"head_6_one_kv_head", {.dim = 21, .hidden = 27, .heads = 3, .kv_heads = 1, .head_dim = 6, .vocab = 101}, WeightType::kF32},
                                         Case{"head_10_untied", {.dim = 40, .hidden = 33, .heads = 4, .kv_heads = 2, .head_dim = 10, .vocab = 67, .tied = false}, WeightType::kF16},
                                         Case{"head_2", {.dim = 32, .hidden = 64, .heads = 16, .kv_heads = 4, .head_dim = 2, .vocab = 50}, WeightType::kQ8_0},
                                         Case{"repeated_layers", {.layers = 4}, WeightType::kQ4_1, 2}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace tessera::test
