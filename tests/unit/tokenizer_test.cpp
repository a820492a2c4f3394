// Against Hugging Face's tokenizers: tests/model/conform/tokenizers and tests/data/tokenizers/README.md.
#include "tessera/model/tokenizer.hpp"

#include <gtest/gtest.h>
#include <malloc.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "tessera/base/text.hpp"
#include "tessera/base/utf8.hpp"

namespace {
std::atomic<int64_t> bytes_now{0}, bytes_peak{0};
}

[[gnu::noinline]] void* operator new(size_t bytes) {
  void* memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  bytes_now += static_cast<int64_t>(malloc_usable_size(memory));
  if (bytes_now > bytes_peak) bytes_peak = bytes_now.load();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  bytes_now -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { operator delete(memory); }

namespace tessera {
namespace {

using Ids = std::vector<int32_t>;
using nlohmann::json;

const std::string kConform = TESSERA_SOURCE_DIR "/tests/model/conform/";
const std::string kData = TESSERA_TEST_DATA "/tokenizers/";

Tokenizer load(const std::string& path) {
  auto tables = read_tokenizer_tables(path);
  if (!tables) ADD_FAILURE() << tables.error().message();
  auto made = Tokenizer::create(*tables);
  if (!made) ADD_FAILURE() << made.error().message();
  return std::move(*made);
}

// "smollm" has every byte, "smollm2" lacks 21 of them.
const Tokenizer& vocabulary(const std::string& name) {
  static const Tokenizer smollm = load(kConform + "models/llama-tied-gqa3.Q4_0.gguf");
  static const Tokenizer smollm2 = load(kConform + "tokenizers/smollm2-vocab.gguf");
  return name == "smollm" ? smollm : smollm2;
}

std::string from_base64(const std::string& text) {
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const size_t digit = std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/").find(c);
    if (digit == std::string_view::npos) break;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count >= 8) bytes += static_cast<char>(bits >> (count -= 8) & 0xFF);
  }
  return bytes;
}

json read_json(const std::string& path) { return json::parse(std::ifstream(path)); }

// Byte tables with printable ASCII, newline and `more`.
TokenizerTables small_tables(const std::vector<std::string>& more = {}, const std::vector<std::string>& merges = {}) {
  TokenizerTables tables;
  tables.model = "gpt2";
  tables.pre = "smollm";
  for (char c = 0x21; c < 0x7F; ++c) tables.tokens.push_back({c});
  for (const char* mapped : {"Ġ", "Ċ"}) tables.tokens.push_back(mapped);
  tables.tokens.insert(tables.tokens.end(), more.begin(), more.end());
  tables.types.assign(tables.tokens.size(), 1);
  tables.merges = merges;
  return tables;
}

constexpr int32_t kFirstMore = 96;   // id of the first token of `more`

Tokenizer small(const TokenizerTables& tables) {
  auto made = Tokenizer::create(tables);
  if (!made) ADD_FAILURE() << made.error().message();
  return std::move(*made);
}

// ---- The same ids as Hugging Face.

TEST(Tokenizer, ConformanceStrings) {
  for (const std::string name : {"smollm", "smollm2"}) {
    const Tokenizer& tokenizer = vocabulary(name);
    size_t checked = 0;
    const json expected_ids = read_json(kConform + "tokenizers/" + name + ".json");
    for (const json& row : expected_ids["rows"]) {
      const std::string text = from_base64(row["b64"]);
      for (const bool special : {false, true}) {
        const json& expected = row[special ? "special" : "plain"];
        const Ids ids = tokenizer.encode(text, special);
        ++checked;
        if (expected.contains("ids")) {
          EXPECT_EQ(ids, expected["ids"].get<Ids>()) << name << " row " << row["i"] << " special " << special;
          continue;
        }
        // Not UTF-8: as U+FFFD, or ids that spell exactly these bytes.
        bool good = tokenizer.decode(ids, true) == text;
        for (const json& one : expected["any_of"]) good = good || ids == one.get<Ids>();
        EXPECT_TRUE(good) << name << " row " << row["i"];
      }
    }
    EXPECT_EQ(checked, 474u);
  }
}

TEST(Tokenizer, RandomStrings) {
  std::ifstream file(kData + "strings.jsonl");
  size_t checked = 0;
  for (std::string line; std::getline(file, line); ++checked) {
    const json row = json::parse(line);
    const Tokenizer& tokenizer = vocabulary(row["tokenizer"]);
    const std::string text = from_base64(row["b64"]);
    EXPECT_EQ(tokenizer.encode(text, false), row["plain"].get<Ids>()) << line;
    EXPECT_EQ(tokenizer.encode(text, true), row["special"].get<Ids>()) << line;
  }
  EXPECT_EQ(checked, 600u);
}

// Merge order, repeated merges (the last rank counts), several ways to one token, control and user-defined tokens.
TEST(Tokenizer, RandomTables) {
  for (const json& table : read_json(kData + "random_tables.json")) {
    TokenizerTables tables;
    tables.model = "gpt2";
    tables.pre = "smollm";
    tables.tokens = table["tokens"].get<std::vector<std::string>>();
    tables.types = table["types"].get<Ids>();
    tables.merges = table["merges"].get<std::vector<std::string>>();
    const Tokenizer tokenizer = small(tables);
    for (const json& row : table["rows"]) {
      EXPECT_EQ(tokenizer.encode(row["text"].get<std::string>(), false), row["plain"].get<Ids>()) << row["text"];
      EXPECT_EQ(tokenizer.encode(row["text"].get<std::string>(), true), row["special"].get<Ids>()) << row["text"];
    }
  }
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

// 1 MiB of one thing. A quadratic merge would take 10^12 steps: the test's time limit is the guard.
TEST(Tokenizer, LongRunsOnASmallStack) {
  run_with_small_stack([] {
    for (const json& row : read_json(kData + "long_runs.json")) {
      const std::string unit = row["unit"];
      std::string text;
      for (size_t i = row["repeats"]; i > 0; --i) text += unit;
      const Tokenizer& tokenizer = vocabulary(row["tokenizer"]);
      const Ids ids = tokenizer.encode(text, true);
      uint32_t digest = 0;
      for (const int32_t id : ids) digest = digest * 31 + static_cast<uint32_t>(id) + 1;
      EXPECT_EQ(ids.size(), row["count"].get<size_t>()) << row;
      EXPECT_EQ(digest, row["digest"].get<uint32_t>()) << row;
      EXPECT_EQ(tokenizer.decode(ids), text) << row;
    }
  });
}

// ---- Bytes.

TEST(Tokenizer, AnyBytesComeBackWhereEveryByteHasAToken) {
  const Tokenizer& tokenizer = vocabulary("smollm");
  ASSERT_TRUE(tokenizer.is_lossless());
  std::mt19937 random(2);
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 60, '\0');
    for (char& c : text) c = static_cast<char>(random() % 4 == 0 ? static_cast<int>(" the'\n<|"[random() % 8]) : static_cast<int>(random() & 0xFF));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, false)), text);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, true), true), text);
  }
}

TEST(Tokenizer, WhereBytesHaveNoTokenOnlyTheyAreLost) {
  const Tokenizer& tokenizer = vocabulary("smollm2");
  ASSERT_FALSE(tokenizer.is_lossless());
  const std::string missing = "\xc0\xc1\xf1\xf2\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff\x04\x06\x13\x14\x16\x1d";
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 60, '\0');
    for (char& c : text) c = static_cast<char>(random() & 0xFF);
    std::string expected;
    for (const char c : replace_invalid_utf8(text)) {
      if (missing.find(c) == std::string::npos) expected += c;
    }
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, false)), expected);
  }
}

TEST(Tokenizer, PiecesOutsideTheVocabularyAreEmpty) {
  const Tokenizer& tokenizer = vocabulary("smollm2");
  EXPECT_EQ(tokenizer.vocab_size(), 49152);
  for (const int32_t id : {-1, -2147483647, 49152, 2147483647}) {
    EXPECT_EQ(tokenizer.piece(id, true), "");
    EXPECT_FALSE(tokenizer.is_control(id));
    EXPECT_FALSE(tokenizer.ends_text(id));
  }
}

// ---- Control tokens.

TEST(Tokenizer, TypedTextNeverBecomesAControlToken) {
  for (const std::string name : {"smollm", "smollm2"}) {
    const Tokenizer& tokenizer = vocabulary(name);
    std::string all;
    int controls = 0;
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      if (!tokenizer.is_control(id)) continue;
      ++controls;
      const std::string text(tokenizer.piece(id, true));
      all += text;
      EXPECT_EQ(tokenizer.encode(text, true), Ids{id});
      EXPECT_EQ(tokenizer.id_of(text), id);
      EXPECT_EQ(tokenizer.piece(id), "");
    }
    EXPECT_EQ(controls, name == "smollm" ? 5 : 17);
    const Ids typed = tokenizer.encode(all, false);
    EXPECT_TRUE(std::none_of(typed.begin(), typed.end(), [&](int32_t id) { return tokenizer.is_control(id); }));
    EXPECT_EQ(tokenizer.decode(typed), all);
    EXPECT_EQ(tokenizer.encode(all, true).size(), static_cast<size_t>(controls));
  }
}

// A file may list merges that spell a control token. They are the one way around the scaffold.
TEST(Tokenizer, MergesCannotMakeAControlToken) {
  TokenizerTables tables = small_tables({"<|", "<|>"}, {"< |", "<| >"});
  tables.types[kFirstMore + 1] = 3;
  const Tokenizer tokenizer = small(tables);
  EXPECT_EQ(tokenizer.encode("<|>", false), (Ids{kFirstMore, tokenizer.id_of(">")}));
  EXPECT_EQ(tokenizer.encode("<|>", true), (Ids{kFirstMore + 1}));
}

TEST(Tokenizer, EndTokensTypedAsUserDefinedStillCountAsControl) {
  TokenizerTables tables = small_tables({"<|im_end|>", "<stop>", "<plain>"});
  tables.types[kFirstMore] = tables.types[kFirstMore + 1] = tables.types[kFirstMore + 2] = 4;
  tables.eot = kFirstMore + 1;
  const Tokenizer tokenizer = small(tables);
  for (const int32_t id : {kFirstMore, kFirstMore + 1}) {
    EXPECT_TRUE(tokenizer.is_control(id) && tokenizer.ends_text(id));
    EXPECT_GT(tokenizer.encode(tokenizer.piece(id, true), false).size(), 1u);
  }
  EXPECT_FALSE(tokenizer.is_control(kFirstMore + 2) || tokenizer.ends_text(kFirstMore + 2));
  EXPECT_EQ(tokenizer.encode("<plain>", false), (Ids{kFirstMore + 2}));
}

TEST(Tokenizer, KnowsWhatEndsText) {
  const Tokenizer& tokenizer = vocabulary("smollm2");
  for (const char* name : {"<|im_end|>", "<|endoftext|>"}) EXPECT_TRUE(tokenizer.ends_text(tokenizer.id_of(name))) << name;
  for (const char* name : {"<|im_start|>", "<repo_name>", "!", " the"}) {
    ASSERT_GE(tokenizer.id_of(name), 0) << name;
    EXPECT_FALSE(tokenizer.ends_text(tokenizer.id_of(name))) << name;
  }
  EXPECT_EQ(tokenizer.id_of("no such token"), -1);
  TokenizerTables plain_eos = small_tables();
  plain_eos.eos = 5;
  EXPECT_TRUE(small(plain_eos).ends_text(5));
}

TEST(Tokenizer, PromptSegmentsAreOneText) {
  const Tokenizer& tokenizer = vocabulary("smollm2");
  const auto prompt = [](const std::string& content) {
    return std::vector<PromptSegment>{{"<|im_start|>", true}, {"user", false}, {"\n", true}, {content, false}, {"<|im_end|>\n", true}};
  };
  // Spaces at a border join the neighbour's words, exactly as in the whole text.
  for (const std::string content : {"Hi", "  two spaces", "\n\nnewlines\n\n", "", " ", "12 'd"}) {
    EXPECT_EQ(tokenizer.encode(prompt(content)), tokenizer.encode("<|im_start|>user\n" + content + "<|im_end|>\n", true)) << content;
  }
  // A control token in the message, whole or completed by the scaffold, stays text.
  for (const std::string content : {"<|im_end|>", "a<|im_start|>b", "<|im_end|><|im_end|>"}) {
    const Ids ids = tokenizer.encode(prompt(content));
    EXPECT_EQ(std::count_if(ids.begin(), ids.end(), [&](int32_t id) { return tokenizer.is_control(id); }), 2) << content;
    EXPECT_EQ(tokenizer.decode(ids, true), "<|im_start|>user\n" + content + "<|im_end|>\n");
  }
  const std::vector<PromptSegment> split = {{"<|im_", false}, {"end|>", true}, {"<|im_", true}, {"end|>", false}};
  const Ids ids = tokenizer.encode(split);
  EXPECT_TRUE(std::none_of(ids.begin(), ids.end(), [&](int32_t id) { return tokenizer.is_control(id); }));
}

// ---- Tables that are wrong.

struct BadTables {
  std::string what;                                // part of the message
  ErrorCode code;
  std::function<void(TokenizerTables&)> damage;
};

TEST(Tokenizer, NamesTheBadEntry) {
  const auto base = small_tables({"ab", "<c>"}, {"a b"});
  ASSERT_TRUE(Tokenizer::create(base));
  const BadTables rows[] = {
      {"known tokenizers: gpt2 (byte-level BPE), llama (SentencePiece with scores)", ErrorCode::kUnsupported, [](auto& t) { t.model = "bert"; }},
      {"tokenizer.ggml.model is 't5'", ErrorCode::kUnsupported, [](auto& t) { t.model = "t5"; }},
      {"tokenizer.ggml.model", ErrorCode::kUnsupported, [](auto& t) { t.model.clear(); }},
      {"tokenizer.ggml.pre is 'qwen3000'; known pre-tokenizers: gpt-2, ", ErrorCode::kUnsupported, [](auto& t) { t.pre = "qwen3000"; }},
      {"tokenizer.ggml.pre is missing; known", ErrorCode::kUnsupported, [](auto& t) { t.pre.clear(); }},
      {"gguf-new-metadata --pre-tokenizer", ErrorCode::kUnsupported, [](auto& t) { t.pre = "default"; }},
      {"tokenizer.ggml.tokens", ErrorCode::kMalformed, [](auto& t) { t.tokens.clear(); }},
      {"token_type has 97 entries for 98 tokens", ErrorCode::kMalformed, [](auto& t) { t.types.pop_back(); }},
      {"token_type[3] is 7", ErrorCode::kMalformed, [](auto& t) { t.types[3] = 7; }},
      {"token_type[3] is -1", ErrorCode::kMalformed, [](auto& t) { t.types[3] = -1; }},
      {"eos_token_id is 98", ErrorCode::kMalformed, [](auto& t) { t.eos = 98; }},
      {"bos_token_id is -2", ErrorCode::kMalformed, [](auto& t) { t.bos = -2; }},
      {"eot_token_id", ErrorCode::kMalformed, [](auto& t) { t.eot = INT64_MAX; }},
      {"unknown_token_id", ErrorCode::kMalformed, [](auto& t) { t.unknown = INT64_MIN; }},
      {"padding_token_id", ErrorCode::kMalformed, [](auto& t) { t.padding = 1 << 20; }},
      {"tokens[97] 'ab' is the same text as token 96", ErrorCode::kMalformed, [](auto& t) { t.tokens[97] = "ab"; }},
      {"tokens[96]", ErrorCode::kLimit, [](auto& t) { t.tokens[96] = std::string(1'000'000, 'x'); }},
      {"special token of 2000 bytes", ErrorCode::kLimit, [](auto& t) { t.tokens[97] = std::string(2000, 'x'), t.types[97] = 3; }},
      {"no token for the byte 33 ('!')", ErrorCode::kMalformed, [](auto& t) { t.tokens[0] = "<0x-1>"; }},
      {"no token for the byte 32", ErrorCode::kMalformed, [](auto& t) { t.tokens[94] = " "; }},
      {"no token for the byte 33", ErrorCode::kMalformed, [](auto& t) { t.types[0] = 3; }},   // as a control token '!' cannot be typed
      {"merges[0] 'ab'", ErrorCode::kMalformed, [](auto& t) { t.merges[0] = "ab"; }},
      {"merges[0] ''", ErrorCode::kMalformed, [](auto& t) { t.merges[0] = ""; }},
      {"merges[1] 'a  b'", ErrorCode::kMalformed, [](auto& t) { t.merges.push_back("a  b"); }},
      {"merges[1] 'a b '", ErrorCode::kMalformed, [](auto& t) { t.merges.push_back("a b "); }},
      {"merges[1] ' b': ''", ErrorCode::kMalformed, [](auto& t) { t.merges.push_back(" b"); }},
      {"merges[1] 'a zz': 'zz' is not", ErrorCode::kMalformed, [](auto& t) { t.merges.push_back("a zz"); }},
      {"merges[1] 'a c': 'ac' is not", ErrorCode::kMalformed, [](auto& t) { t.merges.push_back("a c"); }},
      {"merges[1] 'xxx", ErrorCode::kMalformed, [](auto& t) { t.merges.push_back(std::string(500'000, 'x') + " " + std::string(500'000, 'y')); }},
  };
  for (const BadTables& row : rows) {
    TokenizerTables tables = base;
    row.damage(tables);
    const auto made = Tokenizer::create(tables);
    ASSERT_FALSE(made) << row.what;
    EXPECT_EQ(made.error().code(), row.code) << made.error().message();
    EXPECT_NE(made.error().message().find(row.what), std::string::npos) << made.error().message();
    EXPECT_LT(made.error().message().size(), 700u);
  }
}

// Pairs that lead in a circle, and a token made in several ways: each merge leaves fewer symbols, so merging ends.
TEST(Tokenizer, MergesInACircleEnd) {
  const Tokenizer tokenizer = small(small_tables({"ab", "ba", "aba", "bab", "abab"}, {"b a", "a b", "ab a", "a ba", "ba b", "b ab", "ab ab"}));
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "ab";
  const Ids ids = tokenizer.encode(text, false);
  EXPECT_EQ(tokenizer.decode(ids), text);
  EXPECT_LT(ids.size(), 5002u);
}

// A word that is a token is that token in families that look so, even if no merge makes it; never a control or user-defined one.
TEST(Tokenizer, WholeWordsOnlyWhereTheFamilyLooksForThem) {
  TokenizerTables tables = small_tables({"hello", "stop", "mine"});
  tables.types[kFirstMore + 1] = 3;
  EXPECT_EQ(small(tables).encode("hello", false).size(), 5u);
  tables.pre = "llama-bpe";
  EXPECT_EQ(small(tables).encode("hello", false), Ids{kFirstMore});
  EXPECT_EQ(small(tables).encode("stop", false).size(), 4u);
  EXPECT_EQ(small(tables).encode("stop", true), Ids{kFirstMore + 1});
}

TEST(Tokenizer, BosGoesInFrontOnce) {
  TokenizerTables tables = small_tables({"<s>"});
  tables.types[kFirstMore] = 3;
  tables.bos = kFirstMore;
  Ids ids = {1, 2};
  small(tables).add_bos(ids);
  EXPECT_EQ(ids, (Ids{1, 2}));
  tables.add_bos = true;
  for (int i = 0; i < 2; ++i) {   // a chat template may have written it already
    small(tables).add_bos(ids);
    EXPECT_EQ(ids, (Ids{kFirstMore, 1, 2}));
  }
  tables.bos = -1;
  ids.clear();
  small(tables).add_bos(ids);
  EXPECT_TRUE(ids.empty());
}

// What Hugging Face tolerates and we do too.
TEST(Tokenizer, HarmlessOdditiesAreRead) {
  TokenizerTables tables = small_tables({"", "ab", "", "aba", "not in the alphabet", "\xFF"}, {"a b", "ab a", "a b"});
  tables.types[kFirstMore + 2] = 3;   // an empty control token, which every place of a text begins with
  const Tokenizer tokenizer = small(tables);
  EXPECT_EQ(tokenizer.encode("abab", true), (Ids{kFirstMore + 3, tokenizer.id_of("b")}));
  EXPECT_EQ(tokenizer.piece(kFirstMore), "");
  EXPECT_EQ(tokenizer.piece(kFirstMore + 4), "not in the alphabet");
  EXPECT_EQ(tokenizer.piece(kFirstMore + 5), "\xFF");
  TokenizerTables untyped = small_tables();
  untyped.types.clear();
  EXPECT_EQ(small(untyped).decode(small(untyped).encode("Hi\n there", true)), "Hi\n there");
}

// Tables as large as those of Llama 3: 128,256 tokens, 280,000 merges.
TEST(Tokenizer, LargeTablesStayLean) {
  constexpr size_t kTokens = 128'256, kMerges = 280'000;
  TokenizerTables tables = small_tables();
  std::vector<std::string> words = {"a", "b", "c", "d", "e", "f", "g", "h"};
  for (size_t i = 0; tables.tokens.size() < kTokens; ++i) {
    for (const char last : std::string_view("abcdefgh")) words.push_back(words[i] + last);
    for (size_t k = words.size() - 8; k < words.size() && tables.tokens.size() < kTokens; ++k) tables.tokens.push_back(words[k]);
  }
  for (size_t t = tables.tokens.size(); tables.merges.size() < kMerges;) {
    const std::string& token = tables.tokens[--t];
    for (size_t cut = 1; cut < token.size(); ++cut) tables.merges.push_back(token.substr(0, cut) + " " + token.substr(cut));
  }
  tables.merges.resize(kMerges);
  tables.types.assign(kTokens, 1);
  const int64_t before = bytes_now;
  bytes_peak = before;
  const Tokenizer tokenizer = small(tables);
  EXPECT_EQ(tokenizer.vocab_size(), static_cast<int64_t>(kTokens));
  EXPECT_LT(bytes_peak - before, 20 << 20);   // while reading: with an index of the texts
  EXPECT_LT(bytes_now - before, 8 << 20);     // to keep
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("abcdefgh hgfedcba", false)), "abcdefgh hgfedcba");
}

}  // namespace
}  // namespace tessera
