// Each family of vocabularies against Hugging Face's tokenizers and SentencePiece: tests/data/tokenizers/make.py.
#include <gtest/gtest.h>
#include <pthread.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "tessera/base/utf8.hpp"
#include "tessera/engine/text_stream.hpp"
#include "tessera/model/tokenizer.hpp"

namespace tessera {
namespace {

using Ids = std::vector<int32_t>;
using nlohmann::json;

const std::string kData = TESSERA_TEST_DATA "/tokenizers/";

TokenizerTables tables_of(const std::string& name) {
  auto tables = read_tokenizer_tables(kData + name + ".gguf");
  if (!tables) ADD_FAILURE() << tables.error().message();
  return std::move(*tables);
}

Tokenizer load(const TokenizerTables& tables) {
  auto made = Tokenizer::create(tables);
  if (!made) ADD_FAILURE() << made.error().message();
  return std::move(*made);
}

std::vector<json> rows_of(const std::string& name) {
  std::vector<json> rows;
  std::ifstream file(kData + name + ".jsonl");
  for (std::string line; std::getline(file, line);) rows.push_back(json::parse(line));
  return rows;
}

class TokenizerFamily : public testing::TestWithParam<std::string> {
 protected:
  const TokenizerTables tables = tables_of(GetParam());
  const Tokenizer tokenizer = load(tables);
  bool is_sentence_piece() const { return tables.model == "llama"; }
};

TEST_P(TokenizerFamily, GivesTheIdsOfTheOriginal) {
  size_t checked = 0, with_special = 0;
  for (const json& row : rows_of(GetParam())) {
    if (!row.contains("text")) continue;
    const std::string text = row["text"];
    const Ids plain = row["plain"].get<Ids>();
    EXPECT_EQ(tokenizer.encode(text, false), plain) << row["text"];
    EXPECT_EQ(tokenizer.encode(text, true), row.value("special", plain)) << row["text"];
    with_special += row.contains("special");
    ++checked;
  }
  EXPECT_GE(checked, 590u);
  EXPECT_GE(with_special, 35u);
}

TEST_P(TokenizerFamily, SpellsTokensLikeTheOriginal) {
  size_t checked = 0;
  for (const json& row : rows_of(GetParam())) {
    if (!row.contains("ids")) continue;
    ++checked;
    EXPECT_EQ(replace_invalid_utf8(tokenizer.decode(row["ids"].get<Ids>())), row["decoded"].get<std::string>()) << row;
  }
  EXPECT_EQ(checked, is_sentence_piece() ? 150u : 0u);
}

// A run of ids in any order, shown as they come or all at once.
TEST_P(TokenizerFamily, StreamedTextIsTheWholeText) {
  std::mt19937 random(4);
  for (int round = 0; round < 500; ++round) {
    Ids ids(random() % 30);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(tokenizer.vocab_size()));
    auto stream = TextStream::create({});
    ASSERT_TRUE(stream);
    TokenDecoder decoder(tokenizer);
    std::string shown;
    for (const int32_t id : ids) shown += stream->push(decoder.push(id));
    shown += stream->finish();
    EXPECT_EQ(shown, replace_invalid_utf8(tokenizer.decode(ids)));
  }
}

// Any bytes come back. Where text is composed (NFC), the bytes are such that no character of U+0300 and above is among them.
TEST_P(TokenizerFamily, TextComesBack) {
  if (!tokenizer.is_lossless()) GTEST_SKIP() << "this vocabulary has no byte tokens";
  std::mt19937 random(5);
  const uint32_t bytes = tables.pre == "qwen2" ? 0xCC : 0x100;
  for (int round = 0; round < 3000; ++round) {
    std::string text(random() % 60, '\0');
    for (char& c : text) c = static_cast<char>(random() % 3 == 0 ? static_cast<int>(" the'\n<|"[random() % 8]) : static_cast<int>(random() % bytes));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, false)), text);
  }
}

TEST_P(TokenizerFamily, TypedTextNeverBecomesAControlToken) {
  std::string all;
  Ids controls;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_control(id)) continue;
    controls.push_back(id);
    all += tokenizer.piece(id, true);
    EXPECT_EQ(tokenizer.encode(tokenizer.piece(id, true), true), Ids{id});
  }
  EXPECT_FALSE(controls.empty());
  EXPECT_EQ(tokenizer.encode(all, true), controls);
  for (const int32_t id : tokenizer.encode(all, false)) EXPECT_TRUE(!tokenizer.is_control(id) || id == tables.unknown);
  const std::vector<PromptSegment> prompt = {{all, true}, {all, false}, {all, true}};
  Ids found;
  for (const int32_t id : tokenizer.encode(prompt)) {
    if (tokenizer.is_control(id) && id != tables.unknown) found.push_back(id);
  }
  const auto without_unknown = [&](Ids ids) { return std::erase(ids, static_cast<int32_t>(tables.unknown)), ids; };
  Ids twice = controls;
  twice.insert(twice.end(), controls.begin(), controls.end());
  EXPECT_EQ(found, without_unknown(twice));
}

// Normalization form C against Python's tables: what is encoded is the composed text.
TEST(TokenizerNormalization, ComposesWhereTheModelWasTrainedSo) {
  const Tokenizer composing = load(tables_of("qwen2")), plain = load(tables_of("llama-bpe"));
  size_t changed = 0;
  const std::vector<json> rows = rows_of("composed");
  for (const json& row : rows) {
    const std::string text = row["text"], composed = row["nfc"];
    EXPECT_EQ(composing.decode(composing.encode(text, false)), composed) << row;
    EXPECT_EQ(composing.decode(composing.encode("\xFF" + text + "\xE4", false)), "\xFF" + composed + "\xE4") << row;
    EXPECT_EQ(plain.decode(plain.encode(text, false)), text);
    changed += text != composed;
  }
  EXPECT_EQ(rows.size(), 300u);
  EXPECT_GT(changed, 150u);
}

void run_with_small_stack(std::function<void()> work) {
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 256 << 10), 0);
  pthread_t thread;
  const auto entry = [](void* argument) -> void* {
    (*static_cast<std::function<void()>*>(argument))();
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &attributes, entry, &work), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

// 1 MiB of one thing. Anything quadratic would take 10^12 steps: the test's time limit is the guard, and the processor's time is printed.
TEST_P(TokenizerFamily, LongRunsOnASmallStack) {
  std::vector<std::string> units = {"a", " ", "\n", "1", "\u4e2d", "\u0301\u0323"};
  if (std::getenv("TESSERA_FULL") != nullptr) units.insert(units.end(), {"\u0301", "\u2581", "'s", "\xFF", "<|im_", " \n", "\u1100", "\U0001F600", "\u05d0"});
  run_with_small_stack([&] {
    for (const std::string& unit : units) {
      std::string text;
      while (text.size() < 1 << 20) text += unit;
      const std::clock_t start = std::clock();
      const Ids ids = tokenizer.encode(text, true);
      const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
      std::printf("%s: %zu ids of 1 MiB of %s in %.2f s\n", GetParam().c_str(), ids.size(), json(replace_invalid_utf8(unit)).dump(-1, ' ', true).c_str(), seconds);
      EXPECT_LE(ids.size(), text.size() + 1);
      const bool normalized = unit == "\u2581" || (tables.pre == "qwen2" && unit == "\u0301\u0323");
      EXPECT_TRUE(!tokenizer.is_lossless() || normalized || tokenizer.decode(ids) == text) << unit;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerFamily, testing::Values("gpt-2", "llama-bpe", "qwen2", "spm", "spm-words", "spm-unknown"), [](const auto& row) {
  std::string name = row.param;
  std::erase(name, '-');
  return name;
});

}  // namespace
}  // namespace tessera
