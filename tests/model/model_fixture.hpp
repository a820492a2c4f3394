// Shared by the model tests: the device, the real model's path, golden files.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <limits>
#include <string>
#include <vector>

#include "../temporary_folder.hpp"
#include "../test_device.hpp"
#include "tessera/tessera.hpp"

namespace tessera::test {

inline std::string data_path(const std::string& name) { return std::string(TESSERA_SOURCE_DIR) + "/tests/model/" + name; }

inline std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline nlohmann::json read_json(const std::string& name) { return nlohmann::json::parse(read_bytes(data_path(name))); }

// A little-endian float32 array of a .npy file, format 1.0: magic, version, header length (u16), header, data.
inline std::vector<float> read_npy(const std::string& name) {
  const std::string bytes = read_bytes(data_path(name));
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8)) << name;
  const size_t start = 10 + (static_cast<unsigned char>(bytes[8]) | static_cast<size_t>(static_cast<unsigned char>(bytes[9])) << 8);
  EXPECT_NE(bytes.find("'<f4'"), std::string::npos) << name;
  std::vector<float> values((bytes.size() - start) / 4);
  std::memcpy(values.data(), bytes.data() + start, values.size() * 4);
  return values;
}

// SmolLM2-135M-Instruct, which tests/run.sh fetches; empty when it could not be had.
inline std::string real_model() {
  const char* path = std::getenv("TESSERA_TEST_MODEL");
  return path == nullptr ? std::string() : std::string(path);
}

// The value of --logit-bias with which answers of this model only end when they are full: a test can then interrupt one.
inline std::string without_end(const std::string& path) {
  const auto tables = read_tokenizer_tables(path);
  const auto tokenizer = tables ? Tokenizer::create(*tables) : Result<Tokenizer>(fail(tables.error()));
  EXPECT_TRUE(tokenizer) << tokenizer.error().message();
  std::string biases;
  for (int32_t id = 0; tokenizer && id < tokenizer->vocab_size(); ++id)
    if (tokenizer->ends_text(id)) biases += cat(biases.empty() ? "" : ",", id, "=-inf");
  return biases;
}

inline const Model* load_tiny_model(Precision precision) {
  auto loaded = Model::load(data_path("conform/models/llama-tied-gqa3.Q4_1.gguf"), *shared_device(), {.context_tokens = 256, .precision = precision});
  EXPECT_TRUE(loaded) << loaded.error().message();
  loaded->set_chat_template(*ChatTemplate::named("chatml"));
  return new Model(std::move(*loaded));
}

// Loaded once, with a context of 256 tokens, 16 pages: the model is random, so answers are nonsense, which is enough for most tests of sessions. Its
// vocabulary has the ChatML control tokens.
inline const Model* tiny_model() {
  static const Model* model = load_tiny_model(Precision::kDefault);
  return model;
}

// The same with float pages and activations. Steps of one row and of several add in other orders; here that moves a logit of 10 by a few 1e-6, which
// only a tie could show, where pages of halves or activations of bytes make 1e-2 of it (0.012 on lavapipe) and a draw in a hundred differs.
inline const Model* tiny_float_model() {
  static const Model* model = load_tiny_model(Precision::kFloat);
  return model;
}

inline bool full_tier() { return std::getenv("TESSERA_FULL") != nullptr; }

// All rows of logits for `ids`, [ids.size(), vocab_size].
inline std::vector<float> all_logits(const Model& model, const std::vector<int32_t>& ids) {
  Sequence sequence(model.runtime());
  std::vector<float> rows;
  const auto keep = [&](std::span<const float> chunk) -> Status {
    rows.insert(rows.end(), chunk.begin(), chunk.end());
    return {};
  };
  const auto done = sequence.append(ids, nullptr, keep, LogitRows::kAll);
  EXPECT_TRUE(done) << done.error().message();
  return rows;
}

inline std::vector<int32_t> greedy(const Model& model, std::vector<int32_t> ids, size_t count) {
  Sequence sequence(model.runtime());
  std::vector<int32_t> made;
  while (made.size() < count) {
    const auto id = sequence.append(ids);
    EXPECT_TRUE(id) << id.error().message();
    if (!id) break;
    made.push_back(*id);
    ids = {*id};
  }
  return made;
}

inline double standard_deviation(std::span<const float> values) {
  double sum = 0.0, squares = 0.0;
  for (float v : values) sum += static_cast<double>(v);
  const double mean = sum / static_cast<double>(values.size());
  for (float v : values) squares += (static_cast<double>(v) - mean) * (static_cast<double>(v) - mean);
  return std::sqrt(squares / static_cast<double>(values.size()));
}

inline double max_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0.0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return most;
}

inline double negative_log_likelihood(std::span<const float> row, int32_t id) {
  double top = -INFINITY, sum = 0.0;
  for (float v : row) top = std::max(top, static_cast<double>(v));
  for (float v : row) sum += std::exp(static_cast<double>(v) - top);
  return top + std::log(sum) - static_cast<double>(row[static_cast<size_t>(id)]);
}

inline int32_t greatest(std::span<const float> row) { return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()); }

// Buffers; then once each kind of image for weights, and for activations.
struct Storages {
  std::string name;
  std::optional<Storage> weights, activations;
};
inline const std::vector<Storages> kStorages = [] {
  std::vector<Storages> all{{"buffers", Storage::kBuffer, Storage::kBuffer}};
  for (size_t s = 1; s < kStorageRows.size(); ++s) {
    const auto storage = static_cast<Storage>(s);
    all.push_back({cat("weights_", name_of(storage)), storage, Storage::kBuffer});
    all.push_back({cat("activations_", name_of(storage)), Storage::kBuffer, storage});
  }
  return all;
}();

// A device of 8 GiB that computes nothing and keeps nothing.
inline Device null_device() {
  DeviceInfo info;
  info.name = "null";
  info.global_memory_bytes = int64_t{8} << 30;
  info.max_allocation_bytes = info.max_binding_bytes = int64_t{1} << 30;
  info.shared_memory_bytes = 32768;
  info.max_workgroup_size = 256;
  info.max_workgroup_extent = {256, 256, 64};
  return Device::wrap(gpu::make_null_device(info, Target::kOpenCL));
}

// Answers that only max_tokens ends.
inline std::vector<LogitBias> never_ending(const Model& model) {
  std::vector<LogitBias> biases;
  for (int32_t id = 0; id < model.config().vocab_size; ++id)
    if (model.tokenizer()->ends_text(id)) biases.push_back({id, -std::numeric_limits<float>::infinity()});
  return biases;
}

}  // namespace tessera::test
