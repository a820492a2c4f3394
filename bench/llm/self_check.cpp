#include "self_check.hpp"

#include <algorithm>
#include <iterator>

#include "child.hpp"

namespace tessera::bench {
namespace {

// "What is the capital of France?" in SmolLM2's chat template, and the 64 ids that Hugging Face transformers 5.23 chooses on the dequantized weights in float32
// (tests/model/golden/11_chat1.json).
constexpr int32_t kKnownPrompt[] = {
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198, 1, 4093, 198, 1780, 314, 260,
    3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198};
constexpr int32_t kKnownIds[] = {
    504, 3575, 282, 4649, 314, 7042, 30, 2, 198, 2, 1, 9690, 198, 2, 198, 1, 4093, 198, 57, 5248, 3946, 288, 7198, 253, 725, 1406, 281, 260, 2342,
    30, 339, 3543, 2221, 4329, 253, 1443, 1566, 16031, 28, 564, 339, 5248, 18661, 563, 638, 288, 4025, 2342, 957, 1406, 288, 601, 30, 1978, 346,
    1538, 634, 5783, 335, 638, 288, 536, 338, 4025};
constexpr uint64_t kKnownBytes = 98362432;   // of SmolLM2-135M-Instruct.Q4_1.gguf
constexpr std::string_view kKnownFor = "Hugging Face transformers, float32";

constexpr int32_t kPrompt = 24, kIds = 32;   // where nothing is known: float mode's ids behind this prompt

struct Expected {
  std::string from;
  std::vector<int32_t> prompt, ids;
};

Result<Expected> expected_ids(const Model& model, const ModelOptions& options) {
  const ModelFile& file = model.runtime()->file();
  if (file.file_bytes() == kKnownBytes && file.config().vocab_size == 49152 && file.config().n_layers == 30)
    return Expected{std::string(kKnownFor), {std::begin(kKnownPrompt), std::end(kKnownPrompt)}, {std::begin(kKnownIds), std::end(kKnownIds)}};
  const int32_t room = std::min(model.context_tokens(), file.config().context_length);
  const int32_t prompt = std::min(kPrompt, room / 2), count = std::min(kIds, room - prompt);
  Expected expected{"float mode on the same device", prompt_of(file.config(), prompt, 3), {}};
  ModelOptions in_float = options;
  in_float.precision = "float";
  in_float.kv = "default";
  std::vector<std::string> arguments{"greedy", "--count", cat(count), "--prompt"};
  for (const int32_t id : expected.prompt) arguments.push_back(cat(id));
  const std::vector<std::string> load = in_float.arguments();
  arguments.insert(arguments.end(), load.begin(), load.end());
  TESSERA_ASSIGN(const ChildAnswer answer, run_self(arguments));
  expected.ids = answer.json.value("ids", std::vector<int32_t>());
  if (expected.ids.empty()) return fail(ErrorCode::kIo, "the self-check's float mode chose no ids");
  return expected;
}

}  // namespace

Result<SelfCheck> self_check(const Model& model, const ModelOptions& options) {
  TESSERA_ASSIGN(const Expected expected, expected_ids(model, options));
  SelfCheck check{.against = expected.from};
  Sequence sequence(model.runtime());
  std::vector<int32_t> next = expected.prompt;
  for (const int32_t id : expected.ids) {
    TESSERA_ASSIGN(const int32_t chosen, sequence.append(next));
    if (chosen == id) ++check.agree;
    else if (check.first_other < 0) check.first_other = check.tokens;
    ++check.tokens;
    next = {id};
  }
  return check;
}

}  // namespace tessera::bench
