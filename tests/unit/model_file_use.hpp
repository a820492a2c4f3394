// What tests of model files share: messages, and a reader of everything a model offers.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "gguf_builder.hpp"
#include "tessera/model/model_file.hpp"

namespace tessera::test {

std::string message_of(const auto& result) { return result ? std::string("no error") : result.error().message(); }

// Touches what a program would use; a wrong range shows under an address sanitizer.
inline uint64_t use(const ModelFile& model) {
  uint64_t sum = 0;
  for (const WeightRef& weight : model.weights()) {
    EXPECT_EQ(weight.bytes.size(), static_cast<uint64_t>(weight.rows * row_bytes(weight.type, weight.columns))) << weight.name;
    sum += std::to_integer<uint64_t>(weight.bytes.front()) + std::to_integer<uint64_t>(weight.bytes.back());
  }
  const TokenizerTables& tables = model.tokenizer();
  const auto n_tokens = static_cast<int64_t>(tables.tokens.size());
  EXPECT_EQ(tables.types.size(), tables.tokens.size());
  EXPECT_LE(n_tokens, model.config().vocab_size);
  for (const int64_t id : {tables.bos, tables.eos, tables.eot, tables.unknown, tables.padding}) EXPECT_TRUE(id >= -1 && id < n_tokens);
  EXPECT_EQ(model.config().n_heads % model.config().n_kv_heads, 0);
  EXPECT_EQ(model.config().head_dim % 2, 0);
  return sum + model.warnings().size();
}

}  // namespace tessera::test
