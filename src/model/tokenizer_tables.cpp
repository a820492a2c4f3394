// The tokenizer's tables as they are in the file, with lengths and ids checked. What they mean is the tokenizer's business.
#include <algorithm>

#include "model_parts.hpp"
#include "tessera/base/text.hpp"
#include "tessera/model/pre_tokenizer.hpp"

namespace tessera {
namespace {

// Caps on tokens and merges together, which no vocabulary in use reaches (the largest has 262,144 and 514,906 of them): these tables are the
// only part of a file that is copied, at up to 64 bytes a string, and all of our own memory is to stay below 64 MiB.
constexpr uint64_t kMaxStrings = 800'000;
constexpr uint64_t kMaxStringBytes = 20 << 20;
constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens", kMergesKey = "tokenizer.ggml.merges";
constexpr size_t kMaxTokenBytes = 65536;
constexpr size_t kMaxTemplateBytes = 1 << 20;
constexpr size_t kMaxNameBytes = 256;
constexpr int32_t kNormalToken = 1, kUnknownToken = 2, kControlToken = 3, kLastTokenType = 6;

Status check_table_sizes(const Gguf& gguf) {
  uint64_t count = 0, bytes = 0;
  for (const std::string_view key : {kTokensKey, kMergesKey}) {
    if (const GgufValue* value = gguf.find(key)) count += value->count, bytes += value->bytes.size();
  }
  if (count <= kMaxStrings && bytes <= kMaxStringBytes) return {};
  return fail(ErrorCode::kLimit, cat("keys '", kTokensKey, "' and '", kMergesKey, "' have ", count, " strings in ", bytes, " bytes; at most ",
                                     kMaxStrings, " in ", kMaxStringBytes, " are read"));
}

Result<std::vector<std::string>> read_strings(const Gguf& gguf, std::string_view key) {
  std::vector<std::string> strings;
  TESSERA_ASSIGN(const GgufValue* array, gguf.array(key, GgufType::kString));
  if (!array) return strings;
  strings.reserve(array->count);
  size_t longest = 0;
  each_string(*array, [&](std::string_view text) {
    longest = std::max(longest, text.size());
    strings.emplace_back(text);
  });
  if (longest > kMaxTokenBytes)
    return fail(ErrorCode::kLimit, cat("key '", key, "' has a string of ", longest, " bytes; at most ", kMaxTokenBytes, " are read"));
  return strings;
}

Result<std::string> read_text(const Gguf& gguf, std::string_view key, size_t limit) {
  TESSERA_ASSIGN(const std::string_view text, gguf.string(key, ""));
  if (text.size() > limit) return fail(ErrorCode::kLimit, cat("key '", key, "' has ", text.size(), " bytes; at most ", limit, " are read"));
  return std::string(text);
}

Status check_length(std::string_view key, const GgufValue& array, size_t n_tokens) {
  if (array.count == n_tokens) return {};
  return fail(ErrorCode::kMalformed, cat("key '", key, "' has ", array.count, " entries for ", n_tokens, " tokens"));
}

Result<std::vector<int32_t>> read_types(const Gguf& gguf, size_t n_tokens) {
  constexpr std::string_view kKey = "tokenizer.ggml.token_type";
  std::vector<int32_t> types(n_tokens, kNormalToken);
  TESSERA_ASSIGN(const GgufValue* array, gguf.array(kKey, GgufType::kI32));
  if (!array) return types;
  TESSERA_TRY(check_length(kKey, *array, n_tokens));
  if (n_tokens > 0) std::memcpy(types.data(), array->bytes.data(), array->bytes.size());
  for (size_t i = 0; i < n_tokens; ++i) {
    if (types[i] < 0 || types[i] > kLastTokenType)
      return fail(ErrorCode::kMalformed, cat("key '", kKey, "' has the value ", types[i], " for token ", i, "; types are 0 to ", kLastTokenType));
  }
  return types;
}

Result<int64_t> read_id(const Gguf& gguf, std::string_view key, size_t n_tokens) {
  if (!gguf.find(key)) return int64_t{-1};
  TESSERA_ASSIGN(const int64_t id, gguf.integer(key));
  if (id < 0 || id >= static_cast<int64_t>(n_tokens))
    return fail(ErrorCode::kMalformed, cat("key '", key, "' is ", id, ", which is no token: the vocabulary has ", n_tokens));
  return id;
}

Result<std::vector<float>> read_scores(const Gguf& gguf, size_t n_tokens) {
  constexpr std::string_view kKey = "tokenizer.ggml.scores";
  std::vector<float> scores;
  TESSERA_ASSIGN(const GgufValue* array, gguf.array(kKey, GgufType::kF32));
  if (!array) return scores;
  TESSERA_TRY(check_length(kKey, *array, n_tokens));
  scores.resize(n_tokens);
  if (n_tokens > 0) std::memcpy(scores.data(), array->bytes.data(), array->bytes.size());
  return scores;
}

// SentencePiece models name these tokens so, and files of the first converters carry no ids.
void find_missing_ids(TokenizerTables& tables) {
  for (size_t i = 0; i < tables.tokens.size(); ++i) {
    const auto id = static_cast<int64_t>(i);
    if (tables.types[i] == kUnknownToken && tables.unknown < 0) tables.unknown = id;
    if (tables.types[i] == kControlToken && tables.tokens[i] == "<s>" && tables.bos < 0) tables.bos = id;
    if (tables.types[i] == kControlToken && tables.tokens[i] == "</s>" && tables.eos < 0) tables.eos = id;
  }
}

Status read_special(const Gguf& gguf, TokenizerTables& tables) {
  const size_t n_tokens = tables.tokens.size();
  const bool sentence_piece = tables.model == "llama";
  TESSERA_ASSIGN(tables.bos, read_id(gguf, "tokenizer.ggml.bos_token_id", n_tokens));
  TESSERA_ASSIGN(tables.eos, read_id(gguf, "tokenizer.ggml.eos_token_id", n_tokens));
  TESSERA_ASSIGN(tables.eot, read_id(gguf, "tokenizer.ggml.eot_token_id", n_tokens));
  TESSERA_ASSIGN(tables.unknown, read_id(gguf, "tokenizer.ggml.unknown_token_id", n_tokens));
  TESSERA_ASSIGN(tables.padding, read_id(gguf, "tokenizer.ggml.padding_token_id", n_tokens));
  if (sentence_piece) find_missing_ids(tables);
  const auto pre = find_pre_tokenizer(tables.pre);
  TESSERA_ASSIGN(tables.add_bos, gguf.boolean("tokenizer.ggml.add_bos_token", sentence_piece || (pre && (*pre)->add_bos)));
  TESSERA_ASSIGN(tables.add_eos, gguf.boolean("tokenizer.ggml.add_eos_token", false));
  TESSERA_ASSIGN(tables.add_space_prefix, gguf.boolean("tokenizer.ggml.add_space_prefix", true));
  return {};
}

}  // namespace

Result<TokenizerTables> read_tokenizer(const Gguf& gguf, int64_t max_tokens) {
  TokenizerTables tables;
  TESSERA_ASSIGN(tables.chat_template, read_text(gguf, "tokenizer.chat_template", kMaxTemplateBytes));
  TESSERA_ASSIGN(tables.model, read_text(gguf, "tokenizer.ggml.model", kMaxNameBytes));
  TESSERA_ASSIGN(tables.pre, read_text(gguf, "tokenizer.ggml.pre", kMaxNameBytes));
  if (tables.model.empty() || tables.model == "none" || tables.model == "no_vocab") {
    tables.model.clear();
    return tables;
  }
  TESSERA_TRY(check_table_sizes(gguf));
  TESSERA_ASSIGN(tables.tokens, read_strings(gguf, kTokensKey));
  const auto n_tokens = static_cast<int64_t>(tables.tokens.size());
  if (n_tokens == 0)
    return fail(ErrorCode::kMalformed, "key 'tokenizer.ggml.tokens' is missing or empty, though 'tokenizer.ggml.model' names a tokenizer");
  if (max_tokens > 0 && n_tokens > max_tokens)
    return fail(ErrorCode::kMalformed,
                cat("key 'tokenizer.ggml.tokens' has ", n_tokens, " tokens, but tensor 'token_embd.weight' has ", max_tokens, " rows"));
  TESSERA_ASSIGN(tables.types, read_types(gguf, tables.tokens.size()));
  TESSERA_ASSIGN(tables.scores, read_scores(gguf, tables.tokens.size()));
  TESSERA_ASSIGN(tables.merges, read_strings(gguf, kMergesKey));
  TESSERA_TRY(read_special(gguf, tables));
  return tables;
}

}  // namespace tessera
