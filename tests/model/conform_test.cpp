// Tiny random models with awkward shapes, of every weight type and of several at once, against what Hugging Face transformers gives on the same
// dequantized weights (tests/model/conform): logits and likelihoods at every position, greedy continuations through the KV cache, in float and in half precision.
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

struct Case {
  std::string name;        // "llama-tied-gqa3.Q4_0"
  Storages storages;
  Precision precision;
  int32_t parts = 0;       // LoadOptions::weight_parts
};

// Of the golden logits' standard deviation. float: the f32 rounding of some hundred sums of some hundred terms is about 1e-5; 2e-4 leaves room
// for another order of summation and is far below what any wrong index, scale or position gives (> 1e-1). F16 files: check.py's 2e-3.
// half: f16 KV pages and activations, relative error 2⁻¹¹ of each number: 2e-2, as check.py's profile "float".
double tolerance(const Case& c) {
  if (c.precision == Precision::kHalf) return 2e-2;
  return c.name.ends_with("F16") ? 2e-3 : 2e-4;
}

class Conform : public testing::TestWithParam<Case> {};

TEST_P(Conform, EqualsHuggingFace) {
  const auto& device = shared_device();
  TESSERA_NEEDS_DEVICE(device);
  const Case& c = GetParam();
  const nlohmann::json golden = read_json("conform/golden/" + c.name + ".json");
  const auto model = Model::load(data_path("conform/models/" + c.name + ".gguf"), *device,
                                 {.precision = c.precision, .weight_storage = c.storages.weights, .activation_storage = c.storages.activations, .weight_parts = c.parts, .all_logits = true});
  ASSERT_TRUE(model) << model.error().message();
  const std::vector<float> last_rows = read_npy("conform/golden/" + c.name + ".npy");
  const size_t vocab = golden["n_vocab"];
  size_t index = 0;
  for (const auto& prompt : golden["prompts"]) {
    const std::vector<int32_t> ids = prompt["ids"];
    const double deviation = prompt["logits_std"], allowed = tolerance(c) * deviation;
    const std::vector<float> rows = all_logits(*model, ids);
    ASSERT_EQ(rows.size(), ids.size() * vocab);
    EXPECT_LE(max_difference(std::span(rows).last(vocab), std::span(last_rows).subspan(index++ * vocab, vocab)), allowed) << ids.size() << " tokens";
    double nll = 0.0;
    for (size_t t = 0; t < ids.size(); ++t) {
      const auto row = std::span(rows).subspan(t * vocab, vocab);
      if (greatest(row) != prompt["argmax"][t]) {
        EXPECT_LE(prompt["argmax_margin"][t].get<double>(), 2 * allowed) << "position " << t;
      }
      if (t + 1 < ids.size()) nll += negative_log_likelihood(row, ids[t + 1]) / static_cast<double>(ids.size() - 1);
    }
    if (ids.size() > 1) {
      EXPECT_NEAR(nll, prompt["mean_nll"].get<double>(), tolerance(c));
    }
    const std::vector<int32_t> expected = prompt["greedy"];
    const std::vector<int32_t> made = greedy(*model, ids, expected.size());
    for (size_t t = 0; t < expected.size(); ++t) {
      if (made[t] == expected[t]) continue;
      EXPECT_LE(prompt["greedy_margin"][t].get<double>(), 2 * allowed) << "greedy token " << t;
      break;  // after a near-tie the texts are different texts
    }
  }
}

// Every model in buffers; one in every storage. In the full tier a second one, too, and one more of each way to unpack weights takes turns through the storages
// (a program is compiled for each, which is what the time goes into), and every second one in half precision.
std::vector<Case> cases() {
  const char* const models[] = {"llama-tied-gqa3.F16",    "llama-tied-gqa3.F32",    "llama-tied-gqa3.Q4_0",    "llama-tied-gqa3.Q4_1",
                                "llama-tied-gqa3.Q8_0",   "llama-untied-mqa80.F32", "llama-untied-mqa80.Q4_0", "llama3-rope.Q4_0",
                                "llama-bias.F16",         "qwen2-tied-gqa3.F32",    "qwen2-untied-gqa3.Q4_0",
                                "qwen2-yarn.Q8_0",        "llama-yarn.F32",         "llama-linear.Q8_0",
                                "llama-small.BF16",       "llama-small.Q5_0",       "llama-small.Q5_1",        "llama-small.IQ4_NL",
                                "llama-wide.Q4_K",        "llama-wide.Q5_K",        "llama-wide.Q6_K",
                                "llama-mixed.Q4_K",       "llama-fallback.Q4_K",    "llama-window.Q8_0"};
  std::vector<Case> out;
  int turn = 0, model_turn = 0;
  for (const char* model : models) {
    const std::string name = model;
    const bool in_slice = name == "llama-tied-gqa3.Q4_1" || (full_tier() && name == "llama-untied-mqa80.F32");
    const bool in_full_slice = name == "qwen2-untied-gqa3.Q4_0" || name == "llama-small.BF16" || name == "llama-mixed.Q4_K" || name == "llama-fallback.Q4_K";
    for (const Storages& storages : kStorages)
      if (storages.name == "buffers" || in_slice || (full_tier() && in_full_slice && turn++ % 3 == 0)) out.push_back({name, storages, Precision::kFloat});
    if ((full_tier() && (model_turn++ % 2 == 0 || name == "llama3-rope.Q4_0")) || name == "qwen2-untied-gqa3.Q4_0" || name == "llama-window.Q8_0") out.push_back({name, kStorages[0], Precision::kHalf});
  }
  for (const Storages& storages : kStorages)
    if (storages.name == "weights_image2d") out.push_back({"llama-tied-gqa3.Q4_1", storages, Precision::kFloat, 4});  // four textures a weight
  return out;
}

INSTANTIATE_TEST_SUITE_P(Models, Conform, testing::ValuesIn(cases()), [](const auto& test) {
  std::string name = test.param.name + "_" + test.param.storages.name + (test.param.precision == Precision::kFloat ? "_float" : "_half") + (test.param.parts != 0 ? cat("_parts", test.param.parts) : "");
  for (char& ch : name)
    if (ch == '-' || ch == '.') ch = '_';
  return name;
});

}  // namespace
}  // namespace tessera::test
