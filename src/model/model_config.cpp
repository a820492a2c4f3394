// Hyper-parameters: every key in its range, every relation between them checked once.
#include <algorithm>
#include <cmath>
#include <optional>

#include "model_parts.hpp"
#include "tessera/base/text.hpp"
#include "tessera/model/arch_table.hpp"

namespace tessera {
namespace {

constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxContext = 16 << 20;
constexpr int64_t kMaxWidth = 1 << 20;       // of any row of activations: products of two configuration values then fit in int64_t
constexpr int64_t kMaxVocabulary = 1 << 19;  // twice the largest in use

// Known to this build, but each only read with the scaling that it belongs to.
constexpr std::string_view kRopeScalingKeys[] = {
    "rope.scaling.factor",         "rope.scale_linear",           "rope.scaling.attn_factor",    "rope.scaling.original_context_length", "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor",        "rope.scaling.yarn_log_multiplier",
};
// What YaRN is run with only at its usual value.
constexpr NeutralKey kYarnNeutralKeys[] = {
    {"rope.scaling.yarn_ext_factor", 1.0, "a YaRN extrapolation factor of its own"},
    {"rope.scaling.yarn_log_multiplier", 0.0, "a YaRN attention factor of two multipliers"},
};

// Reads "ARCH.key" and remembers which keys were asked for.
class KeyReader {
 public:
  KeyReader(const Gguf& gguf, const Architecture& architecture) : gguf_(gguf), architecture_(architecture) {}

  std::string full(std::string_view key) const { return cat(architecture_.name, ".", key); }
  bool has(std::string_view key) const { return gguf_.find(full(key)) != nullptr; }

  Result<int> count(std::string_view key, int64_t most, std::optional<int64_t> fallback = {}) {
    used_.emplace_back(key);
    TESSERA_ASSIGN(const int64_t value, gguf_.integer(full(key), fallback));
    if (value < 1 || value > most) return fail(ErrorCode::kMalformed, cat("key '", full(key), "' is ", value, "; it must be from 1 to ", most));
    return static_cast<int>(value);
  }

  Result<float> positive(std::string_view key, std::optional<double> fallback = {}) {
    used_.emplace_back(key);
    TESSERA_ASSIGN(const double value, gguf_.real(full(key), fallback));
    const float rounded = static_cast<float>(value);
    if (!(rounded > 0.0f) || !std::isfinite(rounded))
      return fail(ErrorCode::kMalformed, cat("key '", full(key), "' is ", value, "; it must be a finite number above 0"));
    return rounded;
  }

  Result<std::string_view> text(std::string_view key, std::string_view fallback) {
    used_.emplace_back(key);
    return gguf_.string(full(key), fallback);
  }

  void warn_of_unused(Warnings& warnings) const {
    const std::string prefix = full("");
    for (const auto& [key, value] : gguf_.values()) {
      if (key.starts_with(prefix) && !known(key.substr(prefix.size())))
        warnings.add(cat("key '", escaped(key), "' is not known to this build and ignored"));
    }
  }

 private:
  bool known(std::string_view key) const {
    return std::ranges::find(used_, key) != used_.end() || std::ranges::find(architecture_.other_keys, key) != architecture_.other_keys.end() ||
           std::ranges::find(kRopeScalingKeys, key) != std::ranges::end(kRopeScalingKeys) ||
           std::ranges::find(architecture_.neutral_keys, key, &NeutralKey::key) != architecture_.neutral_keys.end();
  }

  const Gguf& gguf_;
  const Architecture& architecture_;
  std::vector<std::string> used_;
};

Result<double> number(const Gguf& gguf, std::string_view key) {
  const GgufValue* value = gguf.find(key);
  if (value && !value->is_array && (value->type == GgufType::kF32 || value->type == GgufType::kF64)) return gguf.real(key);
  TESSERA_ASSIGN(const int64_t integer, gguf.integer(key));
  return static_cast<double>(integer);
}

Status check_neutral(const Gguf& gguf, const KeyReader& keys, std::span<const NeutralKey> neutral_keys) {
  for (const NeutralKey& neutral : neutral_keys) {
    if (!keys.has(neutral.key)) continue;
    TESSERA_ASSIGN(const double value, number(gguf, keys.full(neutral.key)));
    if (value != neutral.neutral) {
      return fail(ErrorCode::kUnsupported, cat("key '", keys.full(neutral.key), "' is ", value, ": ", neutral.meaning, " cannot be run; only ",
                                               neutral.neutral, " (or no such key) can"));
    }
  }
  return {};
}

// An explicit type decides whether there is a factor at all; a factor alone means linear scaling, under its old name, too.
Result<RopeScalingType> read_scaling_type(const Gguf& gguf, KeyReader& keys) {
  const bool has_factor = keys.has("rope.scaling.factor") || keys.has("rope.scale_linear");
  TESSERA_ASSIGN(const std::string_view type, keys.text("rope.scaling.type", has_factor ? "linear" : "none"));
  if (type == "linear") return RopeScalingType::kLinear;
  if (type == "yarn") return RopeScalingType::kYarn;
  if (type == "none" || (type == "llama3" && gguf.find_tensor("rope_freqs.weight"))) return RopeScalingType::kNone;
  return fail(ErrorCode::kUnsupported, cat("key '", keys.full("rope.scaling.type"), "' is '", escaped(type),
                                           "'; only 'none', 'linear', 'yarn', or 'llama3' with a tensor rope_freqs.weight, can be run"));
}

Status read_yarn(const Gguf& gguf, KeyReader& keys, ModelConfig& config) {
  RopeScaling& scaling = config.rope_scaling;
  TESSERA_ASSIGN(scaling.beta_fast, keys.positive("rope.scaling.yarn_beta_fast", 32.0));
  TESSERA_ASSIGN(scaling.beta_slow, keys.positive("rope.scaling.yarn_beta_slow", 1.0));
  if (scaling.beta_slow > scaling.beta_fast)
    return fail(ErrorCode::kMalformed, cat("key '", keys.full("rope.scaling.yarn_beta_slow"), "' is ", scaling.beta_slow, "; it must be at most '",
                                           keys.full("rope.scaling.yarn_beta_fast"), "', ", scaling.beta_fast));
  if (config.rope_base <= 1.0f)
    return fail(ErrorCode::kMalformed, cat("key '", keys.full("rope.freq_base"), "' is ", config.rope_base, "; YaRN needs a base above 1"));
  TESSERA_ASSIGN(const float own, keys.positive("rope.scaling.yarn_attn_factor", 1.0));
  scaling.attention_factor *= own;
  return check_neutral(gguf, keys, kYarnNeutralKeys);
}

Status read_rope_scaling(const Gguf& gguf, KeyReader& keys, ModelConfig& config) {
  RopeScaling& scaling = config.rope_scaling;
  TESSERA_ASSIGN(scaling.type, read_scaling_type(gguf, keys));
  if (scaling.type == RopeScalingType::kNone) return {};
  TESSERA_ASSIGN(scaling.factor, keys.positive(keys.has("rope.scale_linear") && !keys.has("rope.scaling.factor") ? "rope.scale_linear" : "rope.scaling.factor"));
  TESSERA_ASSIGN(scaling.attention_factor, keys.positive("rope.scaling.attn_factor", 1.0));
  TESSERA_ASSIGN(scaling.trained_context, keys.count("rope.scaling.original_context_length", kMaxContext, config.context_length));
  // Some files name the trained context alone, some the stretched one.
  if (keys.has("rope.scaling.original_context_length")) {
    const double stretched = static_cast<double>(scaling.trained_context) * static_cast<double>(scaling.factor);
    config.context_length = static_cast<int>(std::clamp(stretched, static_cast<double>(config.context_length), static_cast<double>(kMaxContext)));
  }
  return scaling.type == RopeScalingType::kYarn ? read_yarn(gguf, keys, config) : Status{};
}

Status read_heads(KeyReader& keys, ModelConfig& config) {
  TESSERA_ASSIGN(config.n_heads, keys.count("attention.head_count", kMaxWidth));
  TESSERA_ASSIGN(config.n_kv_heads, keys.count("attention.head_count_kv", kMaxWidth, config.n_heads));
  if (config.n_heads % config.n_kv_heads != 0)
    return fail(ErrorCode::kMalformed, cat(config.n_heads, " attention heads cannot share ", config.n_kv_heads, " key/value heads evenly (keys '",
                                           keys.full("attention.head_count"), "', '", keys.full("attention.head_count_kv"), "')"));
  const bool has_length = keys.has("attention.key_length") || keys.has("attention.value_length");
  if (!has_length && config.dim % config.n_heads != 0)
    return fail(ErrorCode::kMalformed,
                cat("a width of ", config.dim, " cannot be cut into ", config.n_heads, " heads (keys '", keys.full("embedding_length"), "', '",
                    keys.full("attention.head_count"), "') and '", keys.full("attention.key_length"), "' is missing"));
  const int64_t whole = std::max(config.dim / config.n_heads, 1);
  TESSERA_ASSIGN(const int key_length, keys.count("attention.key_length", kMaxWidth, whole));
  TESSERA_ASSIGN(const int value_length, keys.count("attention.value_length", kMaxWidth, whole));
  if (key_length != value_length)
    return fail(ErrorCode::kUnsupported,
                cat("keys have ", key_length, " and values ", value_length, " dimensions a head; only equal lengths can be run"));
  config.head_dim = key_length;
  if (config.head_dim % 2 != 0)
    return fail(ErrorCode::kMalformed, cat("a head has ", config.head_dim, " dimensions; rotary positions need an even number"));
  if (extent_of(Extent::kQuery, config) > kMaxWidth)
    return fail(ErrorCode::kLimit, cat(config.n_heads, " heads of ", config.head_dim, " dimensions are wider than ", kMaxWidth));
  TESSERA_ASSIGN(config.n_rot, keys.count("rope.dimension_count", kMaxWidth, config.head_dim));
  if (config.n_rot > config.head_dim || config.n_rot % 2 != 0)
    return fail(ErrorCode::kMalformed, cat("key '", keys.full("rope.dimension_count"), "' is ", config.n_rot, "; it must be even and at most the ",
                                           config.head_dim, " dimensions of a head"));
  return {};
}

// The embedding's rows are the vocabulary; a key may only repeat it.
Status read_vocabulary(const Gguf& gguf, const KeyReader& keys, ModelConfig& config) {
  const GgufTensor* embedding = gguf.find_tensor("token_embd.weight");
  if (!embedding)
    return fail(ErrorCode::kMalformed,
                "tensor 'token_embd.weight' is missing; the model was not converted completely, or is a vocabulary without weights");
  const uint64_t rows = embedding->dims[1];
  if (rows > static_cast<uint64_t>(kMaxVocabulary))
    return fail(ErrorCode::kLimit, cat("tensor 'token_embd.weight' has ", rows, " rows; at most ", kMaxVocabulary, " are supported"));
  config.vocab_size = static_cast<int>(rows);
  TESSERA_ASSIGN(const int64_t claimed, gguf.integer(keys.full("vocab_size"), config.vocab_size));
  if (claimed != config.vocab_size)
    return fail(ErrorCode::kMalformed,
                cat("key '", keys.full("vocab_size"), "' is ", claimed, ", but tensor 'token_embd.weight' has ", rows, " rows"));
  return {};
}

}  // namespace

void Warnings::add(std::string text) {
  if (texts_.size() < kMax)
    texts_.push_back(std::move(text));
  else
    ++left_out_;
}

std::vector<std::string> Warnings::take() {
  if (left_out_ > 0) texts_.push_back(cat("and ", left_out_, " more warnings"));
  return std::move(texts_);
}

Result<const Architecture*> read_architecture(const Gguf& gguf) {
  TESSERA_ASSIGN(const std::string_view name, gguf.string("general.architecture"));
  if (const Architecture* architecture = find_architecture(name)) return architecture;
  std::string known;
  for (const Architecture* architecture : kArchitectures) known += cat(known.empty() ? "" : ", ", architecture->name);
  return fail(ErrorCode::kUnsupported, cat("the architecture is '", escaped(name), "' (key 'general.architecture'); this build runs: ", known));
}

Result<ModelConfig> read_config(const Gguf& gguf, const Architecture& architecture, Warnings& warnings) {
  KeyReader keys(gguf, architecture);
  ModelConfig config;
  config.architecture = architecture.name;
  TESSERA_ASSIGN(const std::string_view name, gguf.string("general.name", ""));
  config.name = escaped(name);
  TESSERA_ASSIGN(config.n_layers, keys.count("block_count", kMaxLayers));
  TESSERA_ASSIGN(config.context_length, keys.count("context_length", kMaxContext));
  TESSERA_ASSIGN(config.dim, keys.count("embedding_length", kMaxWidth));
  TESSERA_ASSIGN(config.hidden_dim, keys.count("feed_forward_length", kMaxWidth));
  TESSERA_TRY(read_heads(keys, config));
  TESSERA_ASSIGN(config.norm_eps, keys.positive("attention.layer_norm_rms_epsilon"));
  TESSERA_ASSIGN(config.rope_base, keys.positive("rope.freq_base", 10000.0));
  TESSERA_TRY(read_rope_scaling(gguf, keys, config));
  TESSERA_TRY(check_neutral(gguf, keys, architecture.neutral_keys));
  TESSERA_ASSIGN(const int64_t window, gguf.integer(keys.full("attention.sliding_window"), 0));
  if (window < 0 || window > kMaxContext) return fail(ErrorCode::kMalformed, cat("key '", keys.full("attention.sliding_window"), "' is ", window, "; it must be 0 (none) to ", kMaxContext));
  if (window != 0 && !architecture.has_window) return fail(ErrorCode::kUnsupported, cat("key '", keys.full("attention.sliding_window"), "' is ", window, ": sliding-window attention cannot be run in ", architecture.name, " models; only 0 (or no such key) can"));
  config.window = static_cast<int>(window);
  TESSERA_TRY(read_vocabulary(gguf, keys, config));
  config.tied_output = !gguf.find_tensor("output.weight");
  keys.warn_of_unused(warnings);
  return config;
}

}  // namespace tessera
