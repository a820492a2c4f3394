// Loading a model: real converted files, and every relation of the configuration broken in turn.
#include "tessera/model/model_file.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "model_file_use.hpp"

namespace tessera {
namespace {

using test::exact;
using test::GgufBuilder;
using test::message_of;
using test::tiny_llama;
using test::use;

constexpr ErrorCode kMalformed = ErrorCode::kMalformed, kUnsupported = ErrorCode::kUnsupported;

struct Converted {
  const char* file;
  WeightType type;
  int layers, dim, hidden, heads, kv_heads, head_dim, vocab;
  float eps;
  bool tied;
  size_t factors, tokens, merges, weights;
  const char* pre;
};

// As another reader of these files (in Python) lists them.
const Converted kConverted[] = {
    {"llama-tied-gqa3.F32", WeightType::kF32, 3, 96, 160, 6, 2, 32, 576, 1e-5f, true, 0, 576, 315, 29, "smollm"},
    {"llama-tied-gqa3.F16", WeightType::kF16, 3, 96, 160, 6, 2, 32, 576, 1e-5f, true, 0, 576, 315, 29, "smollm"},
    {"llama-tied-gqa3.Q4_0", WeightType::kQ4_0, 3, 96, 160, 6, 2, 32, 576, 1e-5f, true, 0, 576, 315, 29, "smollm"},
    {"llama-tied-gqa3.Q4_1", WeightType::kQ4_1, 3, 96, 160, 6, 2, 32, 576, 1e-5f, true, 0, 576, 315, 29, "smollm"},
    {"llama-tied-gqa3.Q8_0", WeightType::kQ8_0, 3, 96, 160, 6, 2, 32, 576, 1e-5f, true, 0, 576, 315, 29, "smollm"},
    {"llama-untied-mqa80.F32", WeightType::kF32, 2, 96, 96, 2, 1, 80, 560, 1e-5f, false, 0, 560, 0, 21, "default"},
    {"llama-untied-mqa80.Q4_0", WeightType::kQ4_0, 2, 96, 96, 2, 1, 80, 560, 1e-5f, false, 0, 560, 0, 21, "default"},
    {"llama3-rope.Q4_0", WeightType::kQ4_0, 3, 64, 160, 4, 1, 32, 589, 2e-3f, true, 16, 589, 328, 30, "llama-bpe"},
};

TEST(ModelFile, ReadsConvertedModels) {
  for (const Converted& expected : kConverted) {
    const std::string path = std::string(TESSERA_SOURCE_DIR "/tests/model/conform/models/") + expected.file + ".gguf";
    const auto model = ModelFile::open(path);
    ASSERT_TRUE(model) << message_of(model);
    const ModelConfig& config = model->config();
    EXPECT_EQ(config.architecture, "llama");
    EXPECT_EQ((std::vector{config.n_layers, config.dim, config.hidden_dim, config.n_heads, config.n_kv_heads, config.head_dim, config.n_rot,
                           config.vocab_size}),
              (std::vector{expected.layers, expected.dim, expected.hidden, expected.heads, expected.kv_heads, expected.head_dim, expected.head_dim,
                           expected.vocab}))
        << expected.file;
    EXPECT_EQ(config.norm_eps, expected.eps);
    EXPECT_EQ(config.rope_base, 10000.0f);
    EXPECT_EQ(config.context_length, 1024);
    EXPECT_EQ(config.tied_output, expected.tied);
    EXPECT_EQ(config.rope_factors.size(), expected.factors);
    EXPECT_EQ(model->tokenizer().tokens.size(), expected.tokens);
    EXPECT_EQ(model->tokenizer().merges.size(), expected.merges);
    EXPECT_EQ(model->tokenizer().pre, expected.pre);
    EXPECT_EQ(model->weights().size(), expected.weights);
    EXPECT_EQ(model->weight("blk.1.attn_q.weight")->type, expected.type);
    EXPECT_EQ(model->weight("blk.1.attn_q.weight")->rows, expected.heads * expected.head_dim);
    EXPECT_EQ(model->weight("blk.1.ffn_down.weight")->columns, expected.hidden);
    EXPECT_EQ(model->weight("output_norm.weight")->rows, 1);
    EXPECT_EQ(model->file_bytes(), std::filesystem::file_size(path));
    EXPECT_TRUE(model->warnings().empty()) << model->warnings().front();
    EXPECT_TRUE(model->check_values()) << message_of(model->check_values());
    EXPECT_TRUE(model->unchanged()) << message_of(model->unchanged());
    use(*model);
  }
}

TEST(ModelFile, WeightsAreTheFilesBytes) {
  const auto bytes = exact(tiny_llama({.seed = 5}).bytes());
  const auto model = ModelFile::view(bytes, "tiny");
  ASSERT_TRUE(model) << message_of(model);
  const WeightRef last = model->weight("output_norm.weight").value();
  EXPECT_EQ(last.bytes.data() + last.bytes.size(), bytes.data() + bytes.size());
  for (size_t i = 1; i < model->weights().size(); ++i) EXPECT_LT(model->weights()[i - 1].bytes.data(), model->weights()[i].bytes.data());
  const auto absent = model->weight("output.weight");
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(absent.error().message(), "tiny: the model has no tensor 'output.weight'");
}

TEST(ModelFile, FindsLayersThatShareTheirWeights) {
  GgufBuilder file = tiny_llama({.shape = {.layers = 5}, .type = WeightType::kQ8_0});
  test::repeat_layers(file, 2);
  for (const char* name : {"blk.2.attn_v.weight", "blk.3.attn_v.weight"}) file.tensor_named(name).data = file.tensor_named("blk.0.attn_k.weight").data;
  file.tensor_named("blk.1.ffn_up.weight").data.back() ^= 1;     // past the first 4 KiB
  file.tensor_named("blk.3.ffn_norm.weight").data.front() ^= 1;
  const auto bytes = exact(file.bytes());
  const auto model = ModelFile::view(bytes, "tiny");
  ASSERT_TRUE(model) << message_of(model);
  ASSERT_GT(model->weight("blk.1.ffn_up.weight")->bytes.size(), 4096u);
  for (const WeightRef& weight : model->weights()) {
    std::string expected = weight.name;
    if (weight.name.starts_with("blk.1.") && weight.name != "blk.1.ffn_up.weight") expected[4] = '0';
    if (weight.name.starts_with("blk.3.") && weight.name != "blk.3.ffn_norm.weight") expected[4] = '2';
    EXPECT_EQ(weight.stored_name(), expected);   // blk.2.attn_v has the bytes of another tensor: that is no repeated layer
  }
}

TEST(ModelFile, TinyModelsOfEveryTypeLoad) {
  for (const WeightFormat& format : kWeightFormats) {
    for (const bool tied : {true, false}) {
      test::LlamaShape shape{.tied = tied, .rope_factors = true};
      if (format.block > 32) shape.dim = shape.hidden = format.block, shape.head_dim = format.block / shape.heads;
      const auto bytes = exact(tiny_llama({.shape = shape, .type = format.type}).bytes());
      const auto model = ModelFile::view(bytes, "tiny");
      ASSERT_TRUE(model) << format.name << ": " << message_of(model);
      EXPECT_TRUE(model->check_values()) << message_of(model->check_values());
      const WeightRef embedding = model->weight("token_embd.weight").value();
      double squares = 0.0;
      std::vector<float> row(static_cast<size_t>(embedding.columns));
      for (int64_t r = 0; r < embedding.rows; ++r) {
        dequantize_row(embedding.type, embedding.bytes.data() + r * row_bytes(embedding.type, embedding.columns), embedding.columns, row.data());
        for (const float value : row) squares += double{value} * value;
      }
      EXPECT_NEAR(std::sqrt(squares / static_cast<double>(embedding.rows)), 1.0, 0.1) << format.name;  // rows of norm 1, as the builder promises
    }
  }
}

TEST(ModelFile, DefaultsOfAbsentKeys) {
  GgufBuilder file = tiny_llama({.shape = {.kv_heads = 4}});
  for (const char* key : {"llama.attention.head_count_kv", "llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count",
                          "llama.rope.freq_base", "llama.vocab_size", "general.name", "tokenizer.ggml.token_type", "tokenizer.ggml.add_bos_token",
                          "tokenizer.chat_template", "tokenizer.ggml.bos_token_id"})
    file.erase(key);
  const auto bytes = exact(file.bytes());
  const auto model = ModelFile::view(bytes, "tiny");
  ASSERT_TRUE(model) << message_of(model);
  EXPECT_EQ(model->config().n_kv_heads, 4);
  EXPECT_EQ(model->config().head_dim, 16);
  EXPECT_EQ(model->config().n_rot, 16);
  EXPECT_EQ(model->config().rope_base, 10000.0f);
  EXPECT_EQ(model->config().vocab_size, 320);
  EXPECT_EQ(model->tokenizer().types, std::vector<int32_t>(320, 1));
  EXPECT_EQ(model->tokenizer().bos, -1);
}

GgufBuilder& set_yarn(GgufBuilder& f) { return f.set("llama.rope.scaling.type", "yarn").set("llama.rope.scaling.factor", 4.0f); }

RopeScaling scaling_of(void (*change)(GgufBuilder&), int context_length) {
  GgufBuilder file = tiny_llama();
  change(file);
  const auto bytes = exact(file.bytes());
  const auto model = ModelFile::view(bytes, "tiny");
  EXPECT_TRUE(model) << message_of(model);
  if (!model) return {};
  EXPECT_TRUE(model->warnings().empty());
  EXPECT_EQ(model->config().context_length, context_length);
  return model->config().rope_scaling;
}

TEST(ModelFile, ReadsRopeScaling) {
  const RopeScaling none = scaling_of([](GgufBuilder& f) { f.set("llama.rope.scaling.type", "none").set("llama.rope.scaling.factor", 4.0f); }, 256);
  EXPECT_EQ(none.type, RopeScalingType::kNone);
  const RopeScaling linear = scaling_of([](GgufBuilder& f) { f.set("llama.rope.scaling.type", "linear").set("llama.rope.scaling.factor", 4.0f); }, 256);
  EXPECT_EQ(linear.type, RopeScalingType::kLinear);
  EXPECT_EQ(linear.factor, 4.0f);
  for (const RopeScaling& untyped : {scaling_of([](GgufBuilder& f) { f.set("llama.rope.scaling.factor", 2.0f); }, 256),
                                     scaling_of([](GgufBuilder& f) { f.set("llama.rope.scale_linear", 2.0f); }, 256)}) {
    EXPECT_EQ(untyped.type, RopeScalingType::kLinear);
    EXPECT_EQ(untyped.factor, 2.0f);
  }
  const RopeScaling yarn = scaling_of([](GgufBuilder& f) { set_yarn(f); }, 256);
  EXPECT_EQ(yarn.type, RopeScalingType::kYarn);
  EXPECT_EQ(yarn.trained_context, 256);
  EXPECT_EQ((std::vector{yarn.beta_fast, yarn.beta_slow, yarn.attention_factor}), (std::vector{32.0f, 1.0f, 1.0f}));
  // A file that names its trained context twice is meant for the stretched one.
  const RopeScaling full = scaling_of([](GgufBuilder& f) {
    set_yarn(f).set("llama.rope.scaling.original_context_length", 256u).set("llama.rope.scaling.attn_factor", 1.5f);
    f.set("llama.rope.scaling.yarn_attn_factor", 2.0f).set("llama.rope.scaling.yarn_beta_fast", 16.0f).set("llama.rope.scaling.yarn_beta_slow", 2.0f);
    f.set("llama.rope.scaling.finetuned", true).set("llama.rope.scaling.yarn_ext_factor", 1.0f);
  }, 1024);
  EXPECT_EQ((std::vector{full.beta_fast, full.beta_slow, full.attention_factor}), (std::vector{16.0f, 2.0f, 3.0f}));
  EXPECT_EQ(scaling_of([](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.original_context_length", 32u); }, 256).trained_context, 32);
  scaling_of([](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.factor", 1e30f).set("llama.rope.scaling.original_context_length", 32u); }, 16 << 20);
}

TEST(ModelFile, AFileWithoutATokenizerHasEmptyTables) {
  for (const char* name : {"", "none", "no_vocab"}) {
    GgufBuilder file = tiny_llama({.tokenizer = false});
    if (*name) file.set("tokenizer.ggml.model", name).set("tokenizer.ggml.bos_token_id", 9999u);
    const auto bytes = exact(file.bytes());
    const auto model = ModelFile::view(bytes, "tiny");
    ASSERT_TRUE(model) << message_of(model);
    EXPECT_TRUE(model->tokenizer().model.empty());
    EXPECT_TRUE(model->tokenizer().tokens.empty());
  }
}

struct Case {
  const char* name;
  void (*change)(GgufBuilder&);
  ErrorCode code;
  const char* says;  // a part of the message
};

const float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

std::string floats(size_t count, float value) {
  std::string data;
  for (size_t i = 0; i < count; ++i) test::append(data, value);
  return data;
}

// Changes to tiny_llama with rope_factors: dim 64, 2 layers, hidden 96, 4 heads of 16, 2 key/value heads, 320 tokens.
const Case kBroken[] = {
    {"no architecture", [](GgufBuilder& f) { f.erase("general.architecture"); }, kMalformed, "'general.architecture' is missing"},
    {"unknown architecture", [](GgufBuilder& f) { f.set("general.architecture", "gpt-j\x1b"); }, kUnsupported,
     "'gpt-j\\x1b' (key 'general.architecture'); this build runs: llama, qwen2"},
    {"architecture as number", [](GgufBuilder& f) { f.set("general.architecture", 1u); }, kMalformed, "'general.architecture' has type u32"},
    {"layers as string", [](GgufBuilder& f) { f.set("llama.block_count", "2"); }, kMalformed, "'llama.block_count' has type string"},
    {"layers as float", [](GgufBuilder& f) { f.set("llama.block_count", 2.0f); }, kMalformed, "'llama.block_count' has type f32"},
    {"layers as array",
     [](GgufBuilder& f) {
       f.set("llama.block_count", std::vector<int32_t>{2, 2});
     },
     kMalformed, "'llama.block_count' has type array of i32"},
    {"layers missing", [](GgufBuilder& f) { f.erase("llama.block_count"); }, kMalformed, "'llama.block_count' is missing"},
    {"0 layers", [](GgufBuilder& f) { f.set("llama.block_count", 0u); }, kMalformed, "'llama.block_count' is 0; it must be from 1 to 1024"},
    {"-1 layers", [](GgufBuilder& f) { f.set("llama.block_count", -1); }, kMalformed, "'llama.block_count' is -1"},
    {"10^9 layers", [](GgufBuilder& f) { f.set("llama.block_count", 1000000000u); }, kMalformed, "'llama.block_count' is 1000000000"},
    {"one layer too many", [](GgufBuilder& f) { f.set("llama.block_count", 3u); }, kMalformed, "tensor 'blk.2.attn_norm.weight' is missing"},
    {"no heads", [](GgufBuilder& f) { f.set("llama.attention.head_count", 0u); }, kMalformed, "'llama.attention.head_count' is 0"},
    {"no key/value heads", [](GgufBuilder& f) { f.set("llama.attention.head_count_kv", 0u); }, kMalformed, "'llama.attention.head_count_kv' is 0"},
    {"heads do not divide", [](GgufBuilder& f) { f.set("llama.attention.head_count_kv", 3u); }, kMalformed, "4 attention heads cannot share 3"},
    {"more key/value heads than heads", [](GgufBuilder& f) { f.set("llama.attention.head_count_kv", 8u); }, kMalformed,
     "4 attention heads cannot share 8"},
    {"heads of layers",
     [](GgufBuilder& f) {
       f.set("llama.attention.head_count_kv", std::vector<int32_t>{2, 2});
     },
     kMalformed, "array of i32"},
    {"width does not divide",
     [](GgufBuilder& f) { f.set("llama.attention.head_count", 6u).erase("llama.attention.key_length").erase("llama.attention.value_length"); },
     kMalformed, "a width of 64 cannot be cut into 6 heads"},
    {"head of 0", [](GgufBuilder& f) { f.set("llama.attention.key_length", 0u); }, kMalformed, "'llama.attention.key_length' is 0"},
    {"odd head", [](GgufBuilder& f) { f.set("llama.attention.key_length", 15u).set("llama.attention.value_length", 15u); }, kMalformed,
     "15 dimensions; rotary positions need an even"},
    {"key and value lengths differ", [](GgufBuilder& f) { f.set("llama.attention.value_length", 32u); }, kUnsupported, "keys have 16 and values 32"},
    {"heads wider than any model", [](GgufBuilder& f) { f.set("llama.attention.head_count", 1u << 20); }, ErrorCode::kLimit, "1048576 heads of 16"},
    {"rotary part longer than a head", [](GgufBuilder& f) { f.set("llama.rope.dimension_count", 18u); }, kMalformed,
     "'llama.rope.dimension_count' is 18"},
    {"odd rotary part", [](GgufBuilder& f) { f.set("llama.rope.dimension_count", 7u); }, kMalformed, "'llama.rope.dimension_count' is 7"},
    {"rotary part of 0", [](GgufBuilder& f) { f.set("llama.rope.dimension_count", 0u); }, kMalformed, "'llama.rope.dimension_count' is 0"},
    {"width 0", [](GgufBuilder& f) { f.set("llama.embedding_length", 0u); }, kMalformed, "'llama.embedding_length' is 0"},
    {"width 2^32-1", [](GgufBuilder& f) { f.set("llama.embedding_length", 0xffffffffu); }, kMalformed, "'llama.embedding_length' is 4294967295"},
    {"hidden width 2^63", [](GgufBuilder& f) { f.set("llama.feed_forward_length", uint64_t{1} << 63); }, kMalformed, "more than 63 bits"},
    {"context 0", [](GgufBuilder& f) { f.set("llama.context_length", 0u); }, kMalformed, "'llama.context_length' is 0"},
    {"context 2^32-1", [](GgufBuilder& f) { f.set("llama.context_length", 0xffffffffu); }, kMalformed, "from 1 to 16777216"},
    {"eps 0", [](GgufBuilder& f) { f.set("llama.attention.layer_norm_rms_epsilon", 0.0f); }, kMalformed,
     "epsilon' is 0; it must be a finite number above 0"},
    {"eps NaN", [](GgufBuilder& f) { f.set("llama.attention.layer_norm_rms_epsilon", kNan); }, kMalformed, "finite number"},
    {"eps negative", [](GgufBuilder& f) { f.set("llama.attention.layer_norm_rms_epsilon", -1e-5f); }, kMalformed, "is -1e-05"},
    {"eps missing", [](GgufBuilder& f) { f.erase("llama.attention.layer_norm_rms_epsilon"); }, kMalformed, "is missing"},
    {"eps that vanishes in f32", [](GgufBuilder& f) { f.set_number("llama.attention.layer_norm_rms_epsilon", GgufType::kF64, 1e-60); }, kMalformed,
     "1e-60"},
    {"rope base 0", [](GgufBuilder& f) { f.set("llama.rope.freq_base", 0.0f); }, kMalformed, "'llama.rope.freq_base' is 0"},
    {"rope base NaN", [](GgufBuilder& f) { f.set("llama.rope.freq_base", kNan); }, kMalformed, "'llama.rope.freq_base' is "},
    {"rope base infinite", [](GgufBuilder& f) { f.set("llama.rope.freq_base", kInfinity); }, kMalformed, "'llama.rope.freq_base' is inf"},
    {"unknown scaling", [](GgufBuilder& f) { f.set("llama.rope.scaling.type", "longrope"); }, kUnsupported,
     "'llama.rope.scaling.type' is 'longrope'; only 'none', 'linear', 'yarn'"},
    {"scaling type as number", [](GgufBuilder& f) { f.set("llama.rope.scaling.type", 2u); }, kMalformed, "'llama.rope.scaling.type' has type u32"},
    {"linear scaling without a factor", [](GgufBuilder& f) { f.set("llama.rope.scaling.type", "linear"); }, kMalformed,
     "'llama.rope.scaling.factor' is missing"},
    {"yarn without a factor", [](GgufBuilder& f) { f.set("llama.rope.scaling.type", "yarn"); }, kMalformed, "'llama.rope.scaling.factor' is missing"},
    {"scaling factor 0", [](GgufBuilder& f) { f.set("llama.rope.scaling.factor", 0.0f); }, kMalformed, "'llama.rope.scaling.factor' is 0; it must be"},
    {"scaling factor NaN", [](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.factor", kNan); }, kMalformed, "'llama.rope.scaling.factor' is "},
    {"scaling factor negative", [](GgufBuilder& f) { f.set("llama.rope.scaling.factor", -4.0f); }, kMalformed, "'llama.rope.scaling.factor' is -4"},
    {"scaling factor infinite", [](GgufBuilder& f) { f.set("llama.rope.scaling.factor", kInfinity); }, kMalformed, "'llama.rope.scaling.factor' is inf"},
    {"scaling factor as integer", [](GgufBuilder& f) { f.set("llama.rope.scaling.factor", 4u); }, kMalformed, "'llama.rope.scaling.factor' has type u32"},
    {"old linear scale 0", [](GgufBuilder& f) { f.set("llama.rope.scale_linear", 0.0f); }, kMalformed, "'llama.rope.scale_linear' is 0"},
    {"original context 0", [](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.original_context_length", 0u); }, kMalformed,
     "'llama.rope.scaling.original_context_length' is 0; it must be from 1"},
    {"original context as float", [](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.original_context_length", 64.0f); }, kMalformed,
     "'llama.rope.scaling.original_context_length' has type f32"},
    {"attention factor 0", [](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.attn_factor", 0.0f); }, kMalformed,
     "'llama.rope.scaling.attn_factor' is 0"},
    {"yarn attention factor negative", [](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.yarn_attn_factor", -1.0f); }, kMalformed,
     "'llama.rope.scaling.yarn_attn_factor' is -1"},
    {"yarn beta NaN", [](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.yarn_beta_fast", kNan); }, kMalformed, "yarn_beta_fast' is "},
    {"yarn beta 0", [](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.yarn_beta_slow", 0.0f); }, kMalformed, "yarn_beta_slow' is 0"},
    {"yarn betas crossed", [](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.yarn_beta_slow", 33.0f); }, kMalformed,
     "'llama.rope.scaling.yarn_beta_slow' is 33; it must be at most 'llama.rope.scaling.yarn_beta_fast', 32"},
    {"yarn over a base of 1", [](GgufBuilder& f) { set_yarn(f).set("llama.rope.freq_base", 1.0f); }, kMalformed, "YaRN needs a base above 1"},
    {"another yarn extrapolation", [](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.yarn_ext_factor", 0.5f); }, kUnsupported,
     "'llama.rope.scaling.yarn_ext_factor' is 0.5: a YaRN extrapolation factor"},
    {"yarn of two multipliers", [](GgufBuilder& f) { set_yarn(f).set("llama.rope.scaling.yarn_log_multiplier", 0.1f); }, kUnsupported,
     "yarn_log_multiplier' is 0.1"},
    {"llama3 scaling without its tensor",
     [](GgufBuilder& f) {
       f.set("llama.rope.scaling.type", "llama3");
       f.erase_tensor("rope_freqs.weight");
     },
     kUnsupported, "'llama3'"},
    {"experts", [](GgufBuilder& f) { f.set("llama.expert_count", 8u); }, kUnsupported, "'llama.expert_count' is 8: a mixture of experts"},
    {"window over 2^31", [](GgufBuilder& f) { f.set("llama.attention.sliding_window", 0xffffffffu); }, kMalformed, "'llama.attention.sliding_window' is 4294967295; it must be"},
    {"experts as text", [](GgufBuilder& f) { f.set("llama.expert_count", "8"); }, kMalformed, "'llama.expert_count' has type string"},
    {"vocabulary size lies", [](GgufBuilder& f) { f.set("llama.vocab_size", 321u); }, kMalformed,
     "'llama.vocab_size' is 321, but tensor 'token_embd.weight' has 320 rows"},
    {"embedding missing", [](GgufBuilder& f) { f.erase_tensor("token_embd.weight"); }, kMalformed, "'token_embd.weight' is missing"},
    {"embedding of 2^19 + 1 rows",
     [](GgufBuilder& f) {
       f.tensor_named("token_embd.weight").dims[1] = (1 << 19) + 1;
       f.tensor_named("token_embd.weight").data_bytes = uint64_t{((1 << 19) + 1) * 256};
     },
     ErrorCode::kLimit, "524289 rows"},
    {"norm missing", [](GgufBuilder& f) { f.erase_tensor("output_norm.weight"); }, kMalformed, "tensor 'output_norm.weight' is missing"},
    {"layer tensor missing", [](GgufBuilder& f) { f.erase_tensor("blk.1.ffn_up.weight"); }, kMalformed, "tensor 'blk.1.ffn_up.weight' is missing"},
    {"transposed",
     [](GgufBuilder& f) {
       f.tensor_named("blk.0.ffn_up.weight").dims = {96, 64};
     },
     kMalformed, "'blk.0.ffn_up.weight' has shape 96 x 64 x 1 x 1, but this configuration needs 64 x 96 x 1 x 1"},
    {"vector as matrix",
     [](GgufBuilder& f) {
       f.tensor_named("blk.0.attn_norm.weight").dims = {8, 8};
     },
     kMalformed, "has shape 8 x 8"},
    {"third dimension",
     [](GgufBuilder& f) {
       f.tensor_named("blk.0.attn_k.weight").dims = {64, 16, 2};
     },
     kMalformed, "has shape 64 x 16 x 2"},
    {"output of other rows",
     [](GgufBuilder& f) {
       f.add_tensor("output.weight", {64, 319}, 0);
     },
     kMalformed, "tensor 'output.weight' has shape 64 x 319"},
    {"norm of a matrix type", [](GgufBuilder& f) { f.tensor_named("blk.0.attn_norm.weight").type = 2; }, kUnsupported,
     "'blk.0.attn_norm.weight' has type Q4_0; supported for it: F32, F16, BF16"},
    {"integer matrix", [](GgufBuilder& f) { f.tensor_named("blk.0.attn_q.weight").type = 24; }, kUnsupported,
     "has type I8; supported for it: F32, F16, BF16, Q4_0, Q4_1"},
    {"f64 matrix",
     [](GgufBuilder& f) {
       f.tensor_named("blk.0.attn_q.weight").type = 28;
       f.tensor_named("blk.0.attn_q.weight").data_bytes *= 2;
     },
     kUnsupported, "'blk.0.attn_q.weight' has type F64"},
    {"k-quant",
     [](GgufBuilder& f) {
       f.add_tensor("output.weight", {256, 80}, 10);
       f.set("llama.embedding_length", 64u);
     },
     kMalformed, "has shape 256 x 80"},
    {"bias of a norm", [](GgufBuilder& f) { f.add_tensor("blk.0.attn_norm.bias", {64}, 0); }, kUnsupported,
     "tensor 'blk.0.attn_norm.bias': a bias at this place cannot be run"},
    {"bias of wrong length", [](GgufBuilder& f) { f.add_tensor("blk.1.attn_k.bias", {64}, 0); }, kMalformed,
     "'blk.1.attn_k.bias' has shape 64 x 1 x 1 x 1, but this configuration needs 32 x 1"},
    {"bias as a column",
     [](GgufBuilder& f) {
       f.add_tensor("blk.1.attn_q.bias", {1, 64}, 0);
     },
     kMalformed, "'blk.1.attn_q.bias' has shape 1 x 64"},
    {"bias of a matrix type", [](GgufBuilder& f) { f.add_tensor("blk.0.ffn_down.bias", {64}, 8); }, kUnsupported,
     "'blk.0.ffn_down.bias' has type Q8_0; supported for it: F32, F16"},
    {"rope factors of f16", [](GgufBuilder& f) { f.tensor_named("rope_freqs.weight").type = 1; }, kUnsupported,
     "'rope_freqs.weight' has type F16; supported for it: F32"},
    {"rope factors of wrong length", [](GgufBuilder& f) { f.tensor_named("rope_freqs.weight").dims = {7}; }, kMalformed,
     "'rope_freqs.weight' has shape 7"},
    {"rope factor 0", [](GgufBuilder& f) { f.tensor_named("rope_freqs.weight").data = floats(7, 1.0f); }, kMalformed,
     "'rope_freqs.weight' has the value 0 at 7"},
    {"rope factor NaN", [](GgufBuilder& f) { f.tensor_named("rope_freqs.weight").data = floats(8, kNan); }, kMalformed,
     "'rope_freqs.weight' has the value"},
    {"rope factor negative", [](GgufBuilder& f) { f.tensor_named("rope_freqs.weight").data = floats(8, -1.0f); }, kMalformed,
     "has the value -1 at 0"},
    {"rope factor infinite", [](GgufBuilder& f) { f.tensor_named("rope_freqs.weight").data = floats(8, kInfinity); }, kMalformed,
     "has the value inf"},
    {"no tokens", [](GgufBuilder& f) { f.erase("tokenizer.ggml.tokens"); }, kMalformed, "'tokenizer.ggml.tokens' is missing or empty"},
    {"tokens as integers", [](GgufBuilder& f) { f.set("tokenizer.ggml.tokens", std::vector<int32_t>{1}); }, kMalformed,
     "'tokenizer.ggml.tokens' has type array of i32; expected array of string"},
    {"more tokens than rows", [](GgufBuilder& f) { f.set("tokenizer.ggml.tokens", std::vector<std::string>(321, "x")); }, kMalformed,
     "has 321 tokens, but tensor 'token_embd.weight' has 320 rows"},
    {"types shorter than tokens", [](GgufBuilder& f) { f.set("tokenizer.ggml.token_type", std::vector<int32_t>(319, 1)); }, kMalformed,
     "has 319 entries for 320 tokens"},
    {"types declared u8", [](GgufBuilder& f) { f.set_array("tokenizer.ggml.token_type", GgufType::kU8, 320, std::string(320, '\1')); }, kMalformed,
     "array of u8; expected array of i32"},
    {"unknown token type",
     [](GgufBuilder& f) {
       std::vector<int32_t> types(320, 1);
       types[7] = 9;
       f.set("tokenizer.ggml.token_type", types);
     },
     kMalformed, "has the value 9 for token 7"},
    {"scores longer than tokens", [](GgufBuilder& f) { f.set("tokenizer.ggml.scores", std::vector<float>(321, 0.0f)); }, kMalformed,
     "'tokenizer.ggml.scores' has 321 entries"},
    {"scores declared u8", [](GgufBuilder& f) { f.set_array("tokenizer.ggml.scores", GgufType::kU8, 320, std::string(320, '\0')); }, kMalformed,
     "array of u8; expected array of f32"},
    {"bos past the vocabulary", [](GgufBuilder& f) { f.set("tokenizer.ggml.bos_token_id", 320u); }, kMalformed,
     "'tokenizer.ggml.bos_token_id' is 320"},
    {"eos -1", [](GgufBuilder& f) { f.set("tokenizer.ggml.eos_token_id", -1); }, kMalformed, "'tokenizer.ggml.eos_token_id' is -1"},
    {"unknown token 2^32-1", [](GgufBuilder& f) { f.set("tokenizer.ggml.unknown_token_id", 0xffffffffu); }, kMalformed,
     "is 4294967295, which is no token"},
    {"bos as string", [](GgufBuilder& f) { f.set("tokenizer.ggml.bos_token_id", "1"); }, kMalformed, "'tokenizer.ggml.bos_token_id' has type string"},
    {"add_bos as number", [](GgufBuilder& f) { f.set("tokenizer.ggml.add_bos_token", 1u); }, kMalformed, "has type u32; expected bool"},
    {"merges as one string", [](GgufBuilder& f) { f.set("tokenizer.ggml.merges", "a b"); }, kMalformed, "'tokenizer.ggml.merges' has type string"},
    {"token of 70,000 bytes",
     [](GgufBuilder& f) {
       f.set("tokenizer.ggml.tokens", std::vector<std::string>(320, std::string(1000, 'a')))
           .set("tokenizer.ggml.merges", std::vector<std::string>{std::string(70000, 'a')});
     },
     ErrorCode::kLimit, "a string of 70000 bytes"},
    {"a million merges", [](GgufBuilder& f) { f.set("tokenizer.ggml.merges", std::vector<std::string>(1000000, "a b")); }, ErrorCode::kLimit,
     "1000320 strings"},
    {"21 MiB of merges", [](GgufBuilder& f) { f.set("tokenizer.ggml.merges", std::vector<std::string>(21, std::string(1 << 20, 'a'))); },
     ErrorCode::kLimit, "at most 800000 in 20971520"},
    {"chat template of 2 MiB", [](GgufBuilder& f) { f.set("tokenizer.chat_template", std::string_view(std::string(2 << 20, 'x'))); },
     ErrorCode::kLimit, "'tokenizer.chat_template' has 2097152 bytes"},
};

TEST(ModelFile, EveryBrokenRelationIsATypedErrorThatSaysWhat) {
  for (const Case& broken : kBroken) {
    GgufBuilder file = tiny_llama({.shape = {.rope_factors = true}});
    broken.change(file);
    const auto bytes = exact(file.bytes());
    const auto model = ModelFile::view(bytes, "tiny.gguf");
    ASSERT_FALSE(model) << broken.name;
    EXPECT_EQ(name_of(model.error().code()), name_of(broken.code)) << broken.name << ": " << message_of(model);
    EXPECT_TRUE(message_of(model).starts_with("tiny.gguf: ")) << broken.name << ": " << message_of(model);
    EXPECT_NE(message_of(model).find(broken.says), std::string::npos) << broken.name << ": " << message_of(model);
  }
}

// Unusual, and right.
const struct {
  const char* name;
  void (*change)(GgufBuilder&);
  std::vector<const char*> warnings;  // a part of each
} kAccepted[] = {
    {"counts of other integer types",
     [](GgufBuilder& f) { f.set("llama.block_count", uint64_t{2}).set_number("llama.context_length", GgufType::kI16, int16_t{256}); },
     {}},
    {"eps as f64", [](GgufBuilder& f) { f.set_number("llama.attention.layer_norm_rms_epsilon", GgufType::kF64, 1e-5); }, {}},
    {"neutral values",
     [](GgufBuilder& f) { f.set("llama.expert_count", 0u).set("llama.rope.scaling.factor", 1.0f).set("llama.logit_scale", 1.0f); },
     {}},
    {"no scaling by its factor", [](GgufBuilder& f) { f.set("llama.rope.scaling.factor", 1.0f); }, {}},
    {"no scaling, said so", [](GgufBuilder& f) { f.set("llama.rope.scaling.type", "none").set("llama.rope.scaling.factor", 8.0f); }, {}},
    {"llama3 scaling by its tensor", [](GgufBuilder& f) { f.set("llama.rope.scaling.type", "llama3").set("llama.rope.scaling.factor", 8.0f); }, {}},
    {"a shorter rotary part",
     [](GgufBuilder& f) {
       f.set("llama.rope.dimension_count", 14u);
       f.tensor_named("rope_freqs.weight").dims = {7};
     },
     {}},
    {"biases of either type", [](GgufBuilder& f) { f.add_tensor("blk.0.attn_q.bias", {64}, 0), f.add_tensor("blk.1.ffn_up.bias", {96}, 1); }, {}},
    {"f16 norms", [](GgufBuilder& f) { f.tensor_named("output_norm.weight").type = 1; }, {}},
    {"fewer tokens than rows",
     [](GgufBuilder& f) { f.set("tokenizer.ggml.tokens", std::vector<std::string>(300, "x")).erase("tokenizer.ggml.token_type"); },
     {}},
    {"trailing dimensions of 1",
     [](GgufBuilder& f) {
       f.tensor_named("output_norm.weight").dims = {64, 1, 1};
     },
     {}},
    {"unknown keys and tensors",
     [](GgufBuilder& f) { f.set("llama.new_feature", 1u).set("general.anything", 2u).add_tensor("blk.0.attn_rot_embd.weight", {8}, 0); },
     {"key 'llama.new_feature'", "tensor 'blk.0.attn_rot_embd.weight'"}},
    {"a tensor of a type that cannot be run, unused",
     [](GgufBuilder& f) {
       f.add_tensor("vision.weight", {256, 2}, 14);
     },
     {"tensor 'vision.weight'"}},
};

TEST(ModelFile, UnusualButValidFilesLoadWithTheirWarnings) {
  for (const auto& accepted : kAccepted) {
    GgufBuilder file = tiny_llama({.shape = {.rope_factors = true}});
    accepted.change(file);
    const auto bytes = exact(file.bytes());
    const auto model = ModelFile::view(bytes, "tiny.gguf");
    ASSERT_TRUE(model) << accepted.name << ": " << message_of(model);
    use(*model);
    ASSERT_EQ(model->warnings().size(), accepted.warnings.size()) << accepted.name;
    for (size_t i = 0; i < accepted.warnings.size(); ++i)
      EXPECT_NE(model->warnings()[i].find(accepted.warnings[i]), std::string::npos) << model->warnings()[i];
  }
}

TEST(ModelFile, WarningsAreCountedNotListedWithoutEnd) {
  GgufBuilder file = tiny_llama();
  for (int i = 0; i < 100; ++i) file.add_tensor("extra." + std::to_string(i), {1}, 0);
  const auto bytes = exact(file.bytes());
  const auto model = ModelFile::view(bytes, "tiny");
  ASSERT_TRUE(model) << message_of(model);
  ASSERT_EQ(model->warnings().size(), 21u);
  EXPECT_EQ(model->warnings().back(), "and 80 more warnings");
}

TEST(ModelFile, TokenizerTablesAloneComeFromAFileWithoutWeights) {
  const std::string folder = TESSERA_SOURCE_DIR "/tests/model/conform/tokenizers/";
  const auto tables = read_tokenizer_tables(folder + "smollm2-vocab.gguf");
  ASSERT_TRUE(tables) << message_of(tables);
  EXPECT_EQ(tables->tokens.size(), 49152u);
  EXPECT_EQ(tables->merges.size(), 48900u);
  EXPECT_EQ(tables->types[1], 3);
  EXPECT_EQ(tables->tokens[1], "<|im_start|>");
  EXPECT_EQ(tables->merges[2], "i n");
  EXPECT_EQ(tables->eos, 2);
  const auto model = ModelFile::open(folder + "smollm2-vocab.gguf");
  ASSERT_FALSE(model);
  EXPECT_NE(message_of(model).find("a vocabulary without weights"), std::string::npos);
  EXPECT_EQ(read_tokenizer_tables(folder + "absent.gguf").error().code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace tessera
