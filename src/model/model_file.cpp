#include "tessera/model/model_file.hpp"

#include <map>

#include "mapped_file.hpp"
#include "model_parts.hpp"
#include "tessera/base/text.hpp"

namespace tessera {

struct ModelFile::State {
  std::string path;
  MappedFile file;  // nothing mapped when the bytes are the caller's
  std::span<const std::byte> bytes;
  ModelConfig config;
  TokenizerTables tokenizer;
  std::vector<WeightRef> weights;
  std::map<std::string_view, size_t> index;  // views the names in `weights`
  std::vector<std::string> warnings;

  Status read();
};

Status ModelFile::State::read() {
  Warnings found;
  TESSERA_ASSIGN(const Gguf gguf, Gguf::parse(bytes));
  TESSERA_ASSIGN(const Architecture* architecture, read_architecture(gguf));
  TESSERA_ASSIGN(config, read_config(gguf, *architecture, found));
  TESSERA_ASSIGN(weights, read_weights(gguf, *architecture, config, found));
  find_repeats(weights);
  TESSERA_ASSIGN(config.rope_factors, read_rope_factors(weights));
  TESSERA_ASSIGN(tokenizer, read_tokenizer(gguf, config.vocab_size));
  for (size_t i = 0; i < weights.size(); ++i) index.emplace(weights[i].name, i);
  warnings = found.take();
  return {};
}

Result<ModelFile> ModelFile::open(const std::string& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  TESSERA_ASSIGN(state->file, MappedFile::open(path));
  state->bytes = state->file.bytes();
  if (Status status = state->read(); !status) return fail(std::move(status).error().within(path));
  return ModelFile(std::move(state));
}

Result<ModelFile> ModelFile::view(std::span<const std::byte> bytes, const std::string& name) {
  auto state = std::make_unique<State>();
  state->path = name;
  state->bytes = bytes;
  if (Status status = state->read(); !status) return fail(std::move(status).error().within(name));
  return ModelFile(std::move(state));
}

Result<TokenizerTables> read_tokenizer_tables(const std::string& path) {
  TESSERA_ASSIGN(const MappedFile file, MappedFile::open(path));
  const auto tables = Gguf::parse(file.bytes()).and_then([](const Gguf& gguf) { return read_tokenizer(gguf, 0); });
  if (!tables) return fail(Error(tables.error()).within(path));
  return *tables;
}

const std::string& ModelFile::path() const { return state_->path; }
const ModelConfig& ModelFile::config() const { return state_->config; }
const TokenizerTables& ModelFile::tokenizer() const { return state_->tokenizer; }
uint64_t ModelFile::file_bytes() const { return state_->bytes.size(); }
const std::vector<WeightRef>& ModelFile::weights() const { return state_->weights; }
const std::vector<std::string>& ModelFile::warnings() const { return state_->warnings; }
Status ModelFile::unchanged() const { return state_->file.unchanged(); }

Result<WeightRef> ModelFile::weight(std::string_view name) const {
  const auto found = state_->index.find(name);
  if (found == state_->index.end()) return fail(ErrorCode::kNotFound, cat(state_->path, ": the model has no tensor '", escaped(name), "'"));
  return state_->weights[found->second];
}

ModelFile::ModelFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
ModelFile::ModelFile(ModelFile&&) noexcept = default;
ModelFile& ModelFile::operator=(ModelFile&&) noexcept = default;
ModelFile::~ModelFile() = default;

}  // namespace tessera
