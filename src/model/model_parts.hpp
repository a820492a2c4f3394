// The parts of loading a model, each checking its own share of a parsed container.
#pragma once
#include <string>
#include <vector>

#include "tessera/model/arch.hpp"
#include "tessera/model/gguf.hpp"
#include "tessera/model/model_file.hpp"

namespace tessera {

// Warnings for people, at most kMax of them: a hostile file must not fill the screen or the memory.
class Warnings {
 public:
  void add(std::string text);
  // The list, with a last line that counts what was left out.
  std::vector<std::string> take();

 private:
  static constexpr size_t kMax = 20;
  std::vector<std::string> texts_;
  size_t left_out_ = 0;
};

// kUnsupported lists the architectures that are known.
Result<const Architecture*> read_architecture(const Gguf& gguf);
// Everything but rope_factors, which read_weights fills in.
Result<ModelConfig> read_config(const Gguf& gguf, const Architecture& architecture, Warnings& warnings);
// In the file's order.
Result<std::vector<WeightRef>> read_weights(const Gguf& gguf, const Architecture& architecture, const ModelConfig& config, Warnings& warnings);
// Fills in stored_as: reads the first 4 KiB of every tensor, and tensors of several layers that begin alike whole.
void find_repeats(std::vector<WeightRef>& weights);
// The values of rope_freqs.weight, checked; empty when the model has none.
Result<std::vector<float>> read_rope_factors(const std::vector<WeightRef>& weights);
// `max_tokens`: rows of the embedding, or 0 if there is none to compare with.
Result<TokenizerTables> read_tokenizer(const Gguf& gguf, int64_t max_tokens);

}  // namespace tessera
