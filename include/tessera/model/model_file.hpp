// What a model file holds, as checked plain data: configuration, tokenizer tables and where each weight's bytes are. Touches no device.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/status.hpp"
#include "tessera/tensor/quant.hpp"

namespace tessera {

enum class RopeScalingType : uint8_t { kNone, kLinear, kYarn };

// What the file says about positions beyond the trained context; model/rope_scaling.hpp says what it means.
struct RopeScaling {
  RopeScalingType type = RopeScalingType::kNone;
  float factor = 1.0f;             // > 0: the context is stretched so many times
  float attention_factor = 1.0f;   // > 0: on queries and keys, on top of YaRN's own
  int trained_context = 0;         // YaRN: tokens, before stretching
  float beta_fast = 32.0f;         // YaRN: turns in the trained context above which a pair keeps its frequency
  float beta_slow = 1.0f;          // YaRN: turns below which it is stretched in full; ≤ beta_fast
};

// Hyper-parameters of a Llama-style transformer. Every relation between them has been checked (TRUST: once, at load).
struct ModelConfig {
  std::string architecture;   // "llama", "qwen2"
  std::string name;           // general.name, for people
  int n_layers = 0;
  int dim = 0;                // residual stream width
  int hidden_dim = 0;         // feed-forward width
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;           // even
  int n_rot = 0;              // leading dimensions of a head that rotate, ≤ head_dim
  int vocab_size = 0;         // rows of the embedding
  int context_length = 0;     // as trained; as stretched, where the file names both
  int window = 0;             // tokens that a token sees, itself among them; 0: all before it
  float norm_eps = 1e-5f;
  float rope_base = 10000.0f;
  std::vector<float> rope_factors;  // empty, or n_rot / 2 divisors of the rotation frequencies (rope_freqs.weight)
  RopeScaling rope_scaling;
  bool tied_output = false;   // no output.weight: the embedding serves both
};

// A matrix [rows, columns] (or a vector: rows = 1) of the file. `bytes` are rows·row_bytes(type, columns) bytes of the mapped file,
// row after row, valid while the ModelFile lives.
struct WeightRef {
  std::string name;           // as in the file: "blk.0.attn_q.weight"
  WeightType type = WeightType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  std::span<const std::byte> bytes;
  // The same tensor of another layer whose bytes are equal, if there is one: layers that share weights are stored once on the device.
  std::string stored_as{};

  const std::string& stored_name() const { return stored_as.empty() ? name : stored_as; }
};

struct TokenizerTables {
  std::string model;          // tokenizer.ggml.model: "gpt2", "llama"; empty when the file has no tokenizer
  std::string pre;            // tokenizer.ggml.pre
  std::vector<std::string> tokens;   // as in the file (byte-level BPE: mapped characters)
  std::vector<int32_t> types;        // ggml token types: 1 normal, 2 unknown, 3 control, 4 user defined, 6 byte
  std::vector<std::string> merges;   // "left right"
  std::vector<float> scores;         // of the tokens: SentencePiece joins the highest first; empty where the file has none
  int64_t bos = -1, eos = -1, eot = -1, unknown = -1, padding = -1;  // -1: none; else < tokens.size()
  bool add_bos = false, add_eos = false;   // where the file does not say: as the tokenizer's kind and pre-tokenizer have it
  bool add_space_prefix = true;      // SentencePiece: a text begins with a space of its own
  std::string chat_template;
};

// The tokenizer tables alone, also of a file without weights or of an architecture that this build cannot run. Errors as ModelFile::open.
Result<TokenizerTables> read_tokenizer_tables(const std::string& path);

// A checked model. Everything but the tokenizer tables views the file's bytes: opening costs one pass over the header and a few MiB of our own
// memory for a vocabulary of 128,256 tokens. Of the weights it reads the first 4 KiB a tensor, and only tensors of different layers that begin
// alike whole, to find those that are equal. Safe to read from several threads at once.
class ModelFile {
 public:
  // Maps and checks the file. Errors: kNotFound, kIo, kMalformed, kUnsupported, kLimit; the message starts with the path.
  // The mapping stays valid when the file is replaced by renaming another over it; if somebody truncates it in place while it is read, the
  // operating system stops the process (SIGBUS), as with every mapped file: unchanged() narrows that window, it cannot close it.
  static Result<ModelFile> open(const std::string& path);
  // The same over bytes that the caller holds (an application's asset, say) and that outlive the ModelFile; `name` stands for the path.
  static Result<ModelFile> view(std::span<const std::byte> bytes, const std::string& name);

  const std::string& path() const;
  const ModelConfig& config() const;
  const TokenizerTables& tokenizer() const;
  uint64_t file_bytes() const;
  // kNotFound names the tensor; present tensors were checked to have the shape the architecture needs.
  Result<WeightRef> weight(std::string_view name) const;
  const std::vector<WeightRef>& weights() const;      // in the file's order
  const std::vector<std::string>& warnings() const;   // extra tensors, unknown optional keys
  // kIo if the file was written to, truncated or replaced since it was opened: call before and after reading weights.
  Status unchanged() const;
  // Looks for NaN and infinity in plain weights and in the scales and minima of quantized blocks: kNumericFault names tensor, row and column.
  // Reads the whole file: on request only.
  Status check_values() const;

  ModelFile(ModelFile&&) noexcept;
  ModelFile& operator=(ModelFile&&) noexcept;
  ~ModelFile();

 private:
  struct State;
  explicit ModelFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tessera
