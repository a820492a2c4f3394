// Against Hugging Face's pre-tokenizer: tests/data/tokenizers/README.md.
#include "tessera/model/pre_tokenizer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

namespace tessera {
namespace {

const PreTokenizer& smollm() {
  const auto found = find_pre_tokenizer("smollm");
  EXPECT_TRUE(found);
  return **found;
}

std::vector<std::string> words_of(const PreTokenizer& pre, std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const size_t length = pre.word_end(text);
    if (length < 1 || length > text.size()) ADD_FAILURE() << "a word of " << length << " bytes in a text of " << text.size();
    if (length < 1 || length > text.size()) break;
    words.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return words;
}

std::string utf8_of(char32_t code) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xC0 | code >> 6), tail(0)};
  if (code < 0x10000) return {static_cast<char>(0xE0 | code >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xF0 | code >> 18), tail(12), tail(6), tail(0)};
}

// The class of a character as two probes show it.
char class_of(const std::string& c) {
  const size_t before_letter = smollm().word_end(c + c + "x");
  const size_t alone = smollm().word_end(c + c);
  if (before_letter == 2 * c.size() + 1) return 'L';
  if (before_letter == 2 * c.size()) return 'O';
  return alone == 2 * c.size() ? 'S' : 'N';
}

TEST(PreTokenizer, CutsWordsAsHuggingFace) {
  std::ifstream file(TESSERA_TEST_DATA "/tokenizers/words.json");
  const auto rows = nlohmann::json::parse(file);
  ASSERT_GT(rows.size(), 20u);
  for (const auto& row : rows) EXPECT_EQ(words_of(smollm(), row["text"].get<std::string>()), row["words"].get<std::vector<std::string>>()) << row["text"];
}

// The patterns of GPT-2, Llama 3 and Qwen2, by Hugging Face's own engine for them.
TEST(PreTokenizer, CutsWordsAsThePatterns) {
  std::ifstream file(TESSERA_TEST_DATA "/tokenizers/splits.jsonl");
  size_t checked = 0;
  for (std::string line; std::getline(file, line); ++checked) {
    const auto row = nlohmann::json::parse(line);
    const auto pre = find_pre_tokenizer(row["pre"].get<std::string>());
    ASSERT_TRUE(pre) << row["pre"];
    EXPECT_EQ(words_of(**pre, row["text"].get<std::string>()), row["words"].get<std::vector<std::string>>()) << line;
  }
  EXPECT_EQ(checked, 750u);
}

TEST(PreTokenizer, NamesOfOneFamilyCutAlike) {
  const auto word_end = [](std::string_view name) { return find_pre_tokenizer(name).value()->word_end; };
  for (const char* name : {"phi-2", "olmo", "mpt", "exaone4"}) EXPECT_EQ(word_end(name), word_end("gpt-2")) << name;
  for (const char* name : {"llama3", "llama-v3", "falcon3", "dbrx", "glm4"}) EXPECT_EQ(word_end(name), word_end("llama-bpe")) << name;
  for (const char* name : {"deepseek-r1-qwen", "stablelm2", "megrez"}) EXPECT_EQ(word_end(name), word_end("qwen2")) << name;
  for (const char* name : {"starcoder", "command-r"}) EXPECT_EQ(word_end(name), word_end("smollm")) << name;
  for (const PreTokenizer& row : pre_tokenizers()) EXPECT_EQ(std::ranges::count(pre_tokenizers(), row.name, &PreTokenizer::name), 1) << row.name;
}

TEST(PreTokenizer, KnowsEveryCodePointsClass) {
  std::ifstream file(TESSERA_TEST_DATA "/tokenizers/classes.txt");
  uint32_t first = 0, last = 0, checked = 0;
  char expected = 0;
  while (file >> std::hex >> first >> last >> expected) {
    for (uint32_t code = first; code <= last; ++code, ++checked) ASSERT_EQ(class_of(utf8_of(code)), expected) << std::hex << code;
  }
  EXPECT_GT(checked, 250000u);
}

TEST(PreTokenizer, CutsAnyBytesWithoutLoss) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 40, '\0');
    for (char& c : text) c = static_cast<char>(random() % 3 == 0 ? "' s1\n"[random() % 5] : static_cast<int>(random() & 0xFF));
    for (const char* name : {"smollm", "gpt-2", "llama-bpe", "qwen2"}) {
      std::string joined;
      for (const std::string& word : words_of(*find_pre_tokenizer(name).value(), text)) joined += word;
      ASSERT_EQ(joined, text) << name;
    }
  }
}

TEST(PreTokenizer, NamesAnUnknownOneAndTheKnown) {
  const auto found = find_pre_tokenizer("gpt-\x01" "5");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(found.error().message().find("gpt-\\x015"), std::string::npos) << found.error().message();
  EXPECT_EQ(found.error().message().find("gguf-new-metadata"), std::string::npos);   // the file is not to blame
  for (const PreTokenizer& row : pre_tokenizers()) EXPECT_NE(found.error().message().find(row.name), std::string::npos);
}

TEST(PreTokenizer, SaysWhatToDoWhereTheConverterNamedNone) {
  for (const char* name : {"", "default"}) {
    const auto found = find_pre_tokenizer(name);
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().code(), ErrorCode::kUnsupported);
    EXPECT_NE(found.error().message().find(*name ? "is 'default'" : "is missing"), std::string::npos);
    EXPECT_NE(found.error().message().find("gguf-new-metadata --pre-tokenizer NAME"), std::string::npos) << found.error().message();
  }
}

}  // namespace
}  // namespace tessera
