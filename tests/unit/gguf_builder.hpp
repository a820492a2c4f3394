// Builds GGUF files for tests: valid ones, ones that lie in any field, small random Llama models, and sparse files with the shapes of large
// ones. Header-only. Everything is deterministic: the same options give the same bytes.
//
//   GgufBuilder file = tiny_llama({.type = WeightType::kQ4_0});   // a valid model …
//   file.tensor_named("output_norm.weight").n_dims = 5;           // … that now lies
//   const auto bytes = exact(file.bytes());
//   auto model = ModelFile::view(bytes, "tiny.gguf");             // views the bytes
//   sparse_llama("/tmp/1b.gguf", kLlama32_1B, WeightType::kQ4_0); // 0.7 GB in size, a few MB on disk
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "random_blocks.hpp"
#include "tessera/base/half.hpp"
#include "tessera/model/gguf.hpp"
#include "tessera/tensor/quant.hpp"

namespace tessera::test {

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
inline void append_string(std::string& out, std::string_view text, std::optional<uint64_t> claimed_length = {}) {
  append<uint64_t>(out, claimed_length.value_or(text.size()));
  out += text;
}

// A heap block of exactly the file's size: an address sanitizer sees any read past it.
inline std::vector<std::byte> exact(std::string_view bytes) {
  const auto* start = reinterpret_cast<const std::byte*>(bytes.data());
  return {start, start + bytes.size()};
}

// A file as plain fields. Each std::optional is a lie that replaces the true value when set.
struct GgufBuilder {
  struct Entry {
    std::string key;
    uint32_t type = 0;    // GgufType
    std::string payload;  // all that follows the type
    std::optional<uint64_t> key_length = {};
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;  // dims[0] = columns
    uint32_t type = 0;           // ggml type id
    uint64_t data_bytes = 0;     // what the file reserves; `data` may be shorter, the rest is zero
    std::string data;
    std::optional<uint64_t> name_length = {}, offset = {};
    std::optional<uint32_t> n_dims = {};
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;  // how the data is placed; say so in the key general.alignment if it is not 32
  std::optional<uint64_t> tensor_count, key_count;
  std::vector<Entry> entries;
  std::vector<Tensor> tensors;

  // Replaces the key's value, or adds the key at the end.
  GgufBuilder& set_raw(std::string_view key, uint32_t type, std::string payload) {
    const auto found = std::ranges::find(entries, key, &Entry::key);
    if (found != entries.end())
      found->type = type, found->payload = std::move(payload);
    else
      entries.push_back({std::string(key), type, std::move(payload)});
    return *this;
  }
  template <class T>
  GgufBuilder& set_number(std::string_view key, GgufType type, T value) {
    std::string payload;
    append(payload, value);
    return set_raw(key, static_cast<uint32_t>(type), payload);
  }
  GgufBuilder& set(std::string_view key, uint32_t value) { return set_number(key, GgufType::kU32, value); }
  GgufBuilder& set(std::string_view key, int32_t value) { return set_number(key, GgufType::kI32, value); }
  GgufBuilder& set(std::string_view key, uint64_t value) { return set_number(key, GgufType::kU64, value); }
  GgufBuilder& set(std::string_view key, float value) { return set_number(key, GgufType::kF32, value); }
  GgufBuilder& set(std::string_view key, bool value) { return set_number(key, GgufType::kBool, value); }
  GgufBuilder& set(std::string_view key, const char* text) { return set(key, std::string_view(text)); }
  GgufBuilder& set(std::string_view key, std::string_view text) {
    std::string payload;
    append_string(payload, text);
    return set_raw(key, static_cast<uint32_t>(GgufType::kString), payload);
  }
  GgufBuilder& set(std::string_view key, const std::vector<std::string>& strings) {
    std::string elements;
    for (const std::string& text : strings) append_string(elements, text);
    return set_array(key, GgufType::kString, strings.size(), elements);
  }
  GgufBuilder& set(std::string_view key, const std::vector<int32_t>& values) {
    return set_array(key, GgufType::kI32, values.size(), {reinterpret_cast<const char*>(values.data()), values.size() * 4});
  }
  GgufBuilder& set(std::string_view key, const std::vector<float>& values) {
    return set_array(key, GgufType::kF32, values.size(), {reinterpret_cast<const char*>(values.data()), values.size() * 4});
  }
  GgufBuilder& set_array(std::string_view key, GgufType element, uint64_t count, std::string_view elements) {
    std::string payload;
    append(payload, element);
    append(payload, count);
    payload += elements;
    return set_raw(key, static_cast<uint32_t>(GgufType::kArray), payload);
  }
  GgufBuilder& erase(std::string_view key) {
    std::erase_if(entries, [&](const Entry& entry) { return entry.key == key; });
    return *this;
  }

  // A tensor of `type` with that shape; its data may follow later, or stay zero.
  Tensor& add_tensor(std::string_view name, std::vector<uint64_t> dims, uint32_t type, std::string data = {}) {
    const GgmlType* facts = find_ggml_type(type);
    uint64_t elements = 1;
    for (const uint64_t dim : dims) elements *= dim;
    const uint64_t bytes = facts ? elements / facts->block * facts->block_bytes : data.size();
    return tensors.emplace_back(Tensor{std::string(name), std::move(dims), type, bytes, std::move(data)});
  }
  Tensor& tensor_named(std::string_view name) {
    const auto found = std::ranges::find(tensors, name, &Tensor::name);
    if (found == tensors.end()) throw std::out_of_range("no tensor " + std::string(name));
    return *found;
  }
  void erase_tensor(std::string_view name) {
    std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
  }

  uint64_t padded(uint64_t bytes) const { return (bytes + alignment - 1) / alignment * alignment; }

  // Everything in front of the data section, padding included.
  std::string header() const {
    std::string out = header_without_padding();
    out.resize(padded(out.size()));
    return out;
  }
  std::string header_without_padding() const {
    std::string out = magic;
    append(out, version);
    append<uint64_t>(out, tensor_count.value_or(tensors.size()));
    append<uint64_t>(out, key_count.value_or(entries.size()));
    for (const Entry& entry : entries) {
      append_string(out, entry.key, entry.key_length);
      append(out, entry.type);
      out += entry.payload;
    }
    uint64_t offset = 0;
    for (const Tensor& tensor : tensors) {
      append_string(out, tensor.name, tensor.name_length);
      append<uint32_t>(out, tensor.n_dims.value_or(static_cast<uint32_t>(tensor.dims.size())));
      for (const uint64_t dim : tensor.dims) append(out, dim);
      append(out, tensor.type);
      append<uint64_t>(out, tensor.offset.value_or(offset));
      offset += padded(tensor.data_bytes);
    }
    return out;
  }
  // The whole file; the last tensor is not padded, so that every byte of it counts.
  std::string bytes() const {
    std::string out = header();
    for (const Tensor& tensor : tensors) {
      const size_t start = padded(out.size());
      out.resize(start);
      out += tensor.data;
      out.resize(start + tensor.data_bytes);
    }
    return out;
  }
  // The same file on disk with holes where tensor data is zero, but for a number at the start of each hole: no two tensors are equal. Throws std::runtime_error when the disk refuses.
  void write_sparse(const std::string& path) const {
    std::ofstream file(path, std::ios::binary);
    const std::string head = header();
    file << head;
    uint64_t start = head.size(), end = start;
    uint16_t number = 0;
    for (const Tensor& tensor : tensors) {
      std::string stamp;
      append(stamp, ++number);   // 16 bits: a float or a scale next to zero
      file.seekp(static_cast<std::streamoff>(start)), file << (tensor.data.empty() ? stamp : tensor.data);
      end = start + tensor.data_bytes;
      start += padded(tensor.data_bytes);
    }
    file.close();
    if (!file) throw std::runtime_error("cannot write " + path);
    std::filesystem::resize_file(path, end);
  }
};

struct LlamaShape {
  int dim = 64, layers = 2, hidden = 96, heads = 4, kv_heads = 2, head_dim = 16, vocab = 320, context = 256;
  bool tied = true, rope_factors = false;
  float rope_base = 10000.0f, eps = 1e-5f;
  bool biases = false;   // on every projection
};
// Shapes as published with the models' configurations.
inline constexpr LlamaShape kLlama32_1B{2048, 16, 8192, 32, 8, 64, 128256, 131072, true, true, 500000.0f, 1e-5f};
inline constexpr LlamaShape kLlama31_8B{4096, 32, 14336, 32, 8, 128, 128256, 131072, false, true, 500000.0f, 1e-5f};

struct TinyOptions {
  LlamaShape shape = {};
  WeightType type = WeightType::kF32;  // of the matrices; quantized types need dim, hidden and heads · head_dim to be multiples of their block
  bool tokenizer = true;               // needs shape.vocab ≥ 270
  uint32_t seed = 1;
};

namespace detail {

// Random rows of `columns` values, of norm 1 on average, so that activations keep their size.
inline std::string random_matrix(WeightType type, int64_t rows, int64_t columns, std::mt19937& random) {
  const uint32_t seed = random();
  const auto blocks = [&](float size) {
    std::mt19937 same(seed);
    return random_blocks(type, rows * columns / format_of(type).block, same, size);
  };
  const std::vector<std::byte> unit = blocks(1.0f);
  double squares = 0.0;
  std::vector<float> row(static_cast<size_t>(columns));
  for (int64_t r = 0; r < rows; ++r) {
    dequantize_row(type, unit.data() + r * row_bytes(type, columns), columns, row.data());
    for (const float value : row) squares += double{value} * value;
  }
  const std::vector<std::byte> bytes = blocks(static_cast<float>(std::sqrt(static_cast<double>(rows) / squares)));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline std::string near_one(int64_t count, float spread, std::mt19937& random) {
  std::string out;
  for (int64_t i = 0; i < count; ++i) append(out, 1.0f + spread * (static_cast<float>(random()) * 0x1p-31f - 1.0f));
  return out;
}

// `fill(rows, columns)` gives a matrix's data, or nothing for a hole; norms likewise by `norm(count)`.
template <class Fill, class Norm>
void add_llama_tensors(GgufBuilder& file, const LlamaShape& shape, WeightType type, Fill fill, Norm norm) {
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t columns) {
    file.add_tensor(name, {static_cast<uint64_t>(columns), static_cast<uint64_t>(rows)}, format_of(type).ggml_type, fill(rows, columns));
  };
  const auto vector = [&](const std::string& name, int64_t count) { file.add_tensor(name, {static_cast<uint64_t>(count)}, 0, norm(count)); };
  const int64_t query = int64_t{shape.heads} * shape.head_dim, key_value = int64_t{shape.kv_heads} * shape.head_dim;
  if (shape.rope_factors) {
    std::mt19937 random(7);
    file.add_tensor("rope_freqs.weight", {static_cast<uint64_t>(shape.head_dim / 2)}, 0, near_one(shape.head_dim / 2, 0.5f, random));
  }
  matrix("token_embd.weight", shape.vocab, shape.dim);
  for (int layer = 0; layer < shape.layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    vector(prefix + "attn_norm.weight", shape.dim);
    matrix(prefix + "attn_q.weight", query, shape.dim);
    matrix(prefix + "attn_k.weight", key_value, shape.dim);
    matrix(prefix + "attn_v.weight", key_value, shape.dim);
    matrix(prefix + "attn_output.weight", shape.dim, query);
    vector(prefix + "ffn_norm.weight", shape.dim);
    matrix(prefix + "ffn_gate.weight", shape.hidden, shape.dim);
    matrix(prefix + "ffn_up.weight", shape.hidden, shape.dim);
    matrix(prefix + "ffn_down.weight", shape.dim, shape.hidden);
    const std::pair<const char*, int64_t> kBiases[] = {{"attn_q", query},           {"attn_k", key_value},     {"attn_v", key_value},    {"attn_output", shape.dim},
                                                       {"ffn_gate", shape.hidden}, {"ffn_up", shape.hidden}, {"ffn_down", shape.dim}};
    for (const auto& [name, rows] : kBiases)
      if (shape.biases) vector(prefix + name + ".bias", rows);
  }
  vector("output_norm.weight", shape.dim);
  if (!shape.tied) matrix("output.weight", shape.vocab, shape.dim);
}

inline void add_llama_keys(GgufBuilder& file, const LlamaShape& shape, std::string_view name) {
  const auto u32 = [](int value) { return static_cast<uint32_t>(value); };
  file.set("general.architecture", "llama").set("general.name", name);
  file.set("llama.block_count", u32(shape.layers)).set("llama.context_length", u32(shape.context));
  file.set("llama.embedding_length", u32(shape.dim)).set("llama.feed_forward_length", u32(shape.hidden));
  file.set("llama.attention.head_count", u32(shape.heads)).set("llama.attention.head_count_kv", u32(shape.kv_heads));
  file.set("llama.attention.key_length", u32(shape.head_dim)).set("llama.attention.value_length", u32(shape.head_dim));
  file.set("llama.rope.dimension_count", u32(shape.head_dim)).set("llama.rope.freq_base", shape.rope_base);
  file.set("llama.attention.layer_norm_rms_epsilon", shape.eps).set("llama.vocab_size", u32(shape.vocab));
}

inline std::string utf8_below_800(uint32_t code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

// The 256 characters that stand for bytes in byte-level BPE vocabularies: printable Latin-1 for itself, the others from U+0100 on.
inline std::vector<std::string> byte_characters() {
  std::vector<std::string> characters;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    characters.push_back(utf8_below_800(itself ? byte : next++));
  }
  return characters;
}

}  // namespace detail

// Control tokens <|endoftext|> 0, <|im_start|> 1, <|im_end|> 2, then one token a byte (3 + byte), then merged pieces ("he", "ll", "hell",
// "hello", " t", "in", "er" …), then unused ones up to `vocab` (≥ 270). Pre-tokenizer smollm, ChatML template.
inline void add_small_tokenizer(GgufBuilder& file, int vocab) {
  std::vector<std::string> tokens{"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  std::vector<int32_t> types(3, 3);
  for (const std::string& character : detail::byte_characters()) tokens.push_back(character), types.push_back(1);
  const std::vector<std::string> merges{"h e", "l l", "he ll", "hell o", "\u0120 t", "i n", "e r", "\u0120 a"};
  for (std::string merge : merges) tokens.push_back(merge.erase(merge.find(' '), 1)), types.push_back(1);
  for (int i = static_cast<int>(tokens.size()); i < vocab; ++i) tokens.push_back("<unused" + std::to_string(i) + ">"), types.push_back(5);
  file.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.pre", "smollm");
  file.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.token_type", types).set("tokenizer.ggml.merges", merges);
  file.set("tokenizer.ggml.bos_token_id", 1u).set("tokenizer.ggml.eos_token_id", 2u).set("tokenizer.ggml.padding_token_id", 2u);
  file.set("tokenizer.ggml.add_bos_token", false);
  file.set("tokenizer.chat_template",
           "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
           "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
}

// Tables of a real vocabulary's size: 3 control tokens, 256 byte tokens, then words over a–z, shorter ones first; merges are all the ways to
// put such a word together from two tokens, up to `n_merges`. Pre-tokenizer llama-bpe.
inline void add_large_tokenizer(GgufBuilder& file, int n_tokens, size_t n_merges) {
  std::vector<std::string> tokens{"<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"};
  std::vector<int32_t> types(3, 3);
  for (const std::string& character : detail::byte_characters()) tokens.push_back(character);
  std::vector<std::string> merges;
  std::vector<std::string> words;
  for (char c = 'a'; c <= 'z'; ++c) words.emplace_back(1, c);
  for (size_t i = 0; static_cast<int>(tokens.size()) < n_tokens; ++i) {
    for (char c = 'a'; c <= 'z' && static_cast<int>(tokens.size()) < n_tokens; ++c) {
      const std::string word = words[i] + c;
      words.push_back(word);
      tokens.push_back(word);
      for (size_t cut = 1; cut < word.size() && merges.size() < n_merges; ++cut) merges.push_back(word.substr(0, cut) + " " + word.substr(cut));
    }
  }
  types.resize(tokens.size(), 1);
  file.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.pre", "llama-bpe");
  file.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.token_type", types).set("tokenizer.ggml.merges", merges);
  file.set("tokenizer.ggml.bos_token_id", 0u).set("tokenizer.ggml.eos_token_id", 1u).set("tokenizer.ggml.eot_token_id", 2u);
  file.set("tokenizer.ggml.add_bos_token", true);
}

// A small random model that loads.
inline GgufBuilder tiny_llama(const TinyOptions& options = {}) {
  GgufBuilder file;
  std::mt19937 random(options.seed);
  detail::add_llama_keys(file, options.shape, "tiny random llama");
  if (options.tokenizer) add_small_tokenizer(file, options.shape.vocab);
  detail::add_llama_tensors(
      file, options.shape, options.type, [&](int64_t rows, int64_t columns) { return detail::random_matrix(options.type, rows, columns, random); },
      [&](int64_t count) { return detail::near_one(count, 0.1f, random); });
  return file;
}

// Gives each run of `times` layers the weights of its first.
inline void repeat_layers(GgufBuilder& file, int times) {
  for (GgufBuilder::Tensor& tensor : file.tensors) {
    if (!tensor.name.starts_with("blk.")) continue;
    const size_t dot = tensor.name.find('.', 4);
    const int layer = std::stoi(tensor.name.substr(4, dot - 4));
    tensor.data = file.tensor_named("blk." + std::to_string(layer / times * times) + tensor.name.substr(dot)).data;
  }
}

// A file with true sizes and holes for weights: all matrices and norms read as zero or next to it. With `tokenizer`, a vocabulary of shape.vocab tokens and
// 280,000 merges. Throws std::runtime_error when the disk refuses.
inline void sparse_llama(const std::string& path, const LlamaShape& shape, WeightType type, bool tokenizer = false) {
  GgufBuilder file;
  detail::add_llama_keys(file, shape, "sparse llama");
  if (tokenizer) add_large_tokenizer(file, shape.vocab, 280000);
  const auto hole = [](auto...) { return std::string(); };
  detail::add_llama_tensors(file, shape, type, hole, hole);
  file.write_sparse(path);
}

}  // namespace tessera::test
