#include "vocabulary.hpp"

#include "tessera/base/text.hpp"

namespace tessera {
namespace {

constexpr size_t kMaxTokenBytes = 64 << 10;

Status check_tables(const TokenizerTables& tables) {
  const size_t size = tables.tokens.size();
  if (size == 0) return fail(ErrorCode::kMalformed, "tokenizer.ggml.tokens is missing or empty");
  if (size > INT32_MAX) return fail(ErrorCode::kLimit, cat("tokenizer.ggml.tokens has ", size, " entries; at most ", INT32_MAX, " are read"));
  if (!tables.types.empty() && tables.types.size() != size)
    return fail(ErrorCode::kMalformed, cat("tokenizer.ggml.token_type has ", tables.types.size(), " entries for ", size, " tokens"));
  for (size_t i = 0; i < tables.types.size(); ++i) {
    if (tables.types[i] < 0 || tables.types[i] > kLastType)
      return fail(ErrorCode::kMalformed, cat("tokenizer.ggml.token_type[", i, "] is ", tables.types[i], "; types are 0 to ", int{kLastType}));
  }
  const std::pair<const char*, int64_t> ids[] = {
      {"bos", tables.bos}, {"eos", tables.eos}, {"eot", tables.eot}, {"unknown", tables.unknown}, {"padding", tables.padding}};
  for (const auto& [name, id] : ids) {
    if (id < -1 || id >= static_cast<int64_t>(size))
      return fail(ErrorCode::kMalformed, cat("tokenizer.ggml.", name, "_token_id is ", id, "; the vocabulary has ", size, " tokens"));
  }
  return {};
}

}  // namespace

std::string entry_name(std::string_view array, size_t index, std::string_view text) {
  return cat("tokenizer.ggml.", array, "[", index, "] '", escaped(text), "'");
}

// Empty tokens are allowed, as in Hugging Face's tokenizers: no merge can make one, and it spells nothing.
Result<Vocabulary> read_vocabulary(const TokenizerTables& tables, SpellToken spell) {
  TESSERA_TRY(check_tables(tables));
  const size_t size = tables.tokens.size();
  Vocabulary words;
  words.begin.reserve(size + 1);
  words.control.resize(size);
  size_t total = 0;
  for (const std::string& token : tables.tokens) total += token.size();
  if (total > UINT32_MAX) return fail(ErrorCode::kLimit, cat("tokenizer.ggml.tokens holds ", total, " bytes; at most ", UINT32_MAX, " are read"));
  words.bytes.reserve(total);
  words.begin.push_back(0);
  for (size_t i = 0; i < size; ++i) {
    const std::string& text = tables.tokens[i];
    const TokenType type = type_of(tables, i);
    if (text.size() > kMaxTokenBytes)
      return fail(ErrorCode::kLimit, cat(entry_name("tokens", i, text), " is ", text.size(), " bytes long; at most ", kMaxTokenBytes, " are read"));
    auto spelled = spell(text, type);
    if (!spelled) return fail(std::move(spelled).error().within(entry_name("tokens", i, text)));
    words.bytes += *spelled;
    words.begin.push_back(static_cast<uint32_t>(words.bytes.size()));
    words.control[i] = type == kControl || type == kUnknown;
  }
  return words;
}

// Two ids with one text would make the vocabulary's meaning depend on the order of reading; no converter writes that.
Result<IdsByText> index_of_texts(const TokenizerTables& tables) {
  IdsByText ids;
  ids.reserve(tables.tokens.size());
  for (size_t i = 0; i < tables.tokens.size(); ++i) {
    const std::string& text = tables.tokens[i];
    if (text.empty()) continue;
    const auto [place, added] = ids.emplace(text, static_cast<int32_t>(i));
    if (!added) return fail(ErrorCode::kMalformed, cat(entry_name("tokens", i, text), " is the same text as token ", place->second));
  }
  return ids;
}

}  // namespace tessera
