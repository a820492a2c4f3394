// SentencePiece vocabularies by hand: each rule alone, and tables that are wrong. Against the original: tokenizer_families_test.cpp.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "gguf_builder.hpp"
#include "tessera/base/text.hpp"
#include "tessera/model/tokenizer.hpp"

namespace tessera {
namespace {

using Ids = std::vector<int32_t>;

struct Piece {
  std::string text;
  float score = 0.0f;
  int32_t type = 1;
};

constexpr int32_t kUnknownType = 2, kControlType = 3, kUserType = 4, kUnusedType = 5, kByteType = 6;
const std::string kSpace = "\xE2\x96\x81";

// <unk>, <s>, </s>, then the pieces, then byte tokens if asked for.
TokenizerTables tables_of(const std::vector<Piece>& pieces, bool bytes = false) {
  std::vector<Piece> all = {{"<unk>", 0, kUnknownType}, {"<s>", 0, kControlType}, {"</s>", 0, kControlType}};
  all.insert(all.end(), pieces.begin(), pieces.end());
  for (int byte = 0; bytes && byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    all.push_back({text, 0, kByteType});
  }
  TokenizerTables tables;
  tables.model = "llama";
  for (const Piece& piece : all) {
    tables.tokens.push_back(piece.text);
    tables.scores.push_back(piece.score);
    tables.types.push_back(piece.type);
  }
  tables.unknown = 0;
  tables.bos = 1;
  tables.eos = 2;
  return tables;
}

Tokenizer make(const TokenizerTables& tables) {
  auto made = Tokenizer::create(tables);
  if (!made) ADD_FAILURE() << made.error().message();
  return std::move(*made);
}

std::string spelled(const Tokenizer& tokenizer, const Ids& ids) {
  std::string out;
  for (const int32_t id : ids) out += cat("[", tokenizer.piece(id, true), "]");
  return out;
}
std::string pieces_of(const Tokenizer& tokenizer, std::string_view text, bool special = false) { return spelled(tokenizer, tokenizer.encode(text, special)); }

const std::vector<Piece> kLetters = {{kSpace, -9}, {"a", -9}, {"b", -9}, {"c", -9}};

std::vector<Piece> letters_and(std::vector<Piece> more) {
  more.insert(more.begin(), kLetters.begin(), kLetters.end());
  return more;
}

TEST(SentencePiece, JoinsTheHighestScoreFirstAndOfEqualsTheLeftmost) {
  TokenizerTables tables = tables_of(letters_and({{"ab", -2}, {"bc", -1}, {"aa", -3}}));
  tables.add_space_prefix = false;
  EXPECT_EQ(pieces_of(make(tables), "abc"), "[a][bc]");
  EXPECT_EQ(pieces_of(make(tables), "aaa"), "[aa][a]");
  tables.scores[7] = -1;   // "ab" is as good as "bc"
  EXPECT_EQ(pieces_of(make(tables), "abc"), "[ab][c]");
  EXPECT_EQ(pieces_of(make(tables), "bcabc"), "[bc][ab][c]");
}

TEST(SentencePiece, PutsASpaceInFrontOfEachTextAndTakesTheFirstAway) {
  const auto pieces = letters_and({{kSpace + "a", -1}});
  const Tokenizer tokenizer = make(tables_of(pieces));
  EXPECT_EQ(pieces_of(tokenizer, "a a"), "[ a][ a]");
  EXPECT_EQ(pieces_of(tokenizer, " a"), "[ ][ a]");
  EXPECT_EQ(pieces_of(tokenizer, ""), "");
  EXPECT_EQ(pieces_of(tokenizer, "<s>a</s>a", true), "[<s>][ a][</s>][ a]");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a a", false)), "a a");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("<s> a", true)), " a");   // a control token shows nothing, so the text begins behind it
  const std::vector<PromptSegment> prompt = {{"a", false}, {"</s>", true}, {"a", false}};
  EXPECT_EQ(spelled(tokenizer, tokenizer.encode(prompt)), "[ a][</s>][ a]");
  EXPECT_EQ(spelled(tokenizer, tokenizer.encode(prompt, true)), "[a][</s>][ a]");
  TokenizerTables bare = tables_of(pieces);
  bare.add_space_prefix = false;
  EXPECT_EQ(pieces_of(make(bare), "a a"), "[a][ a]");
  EXPECT_EQ(make(bare).decode(make(bare).encode(" a", false)), " a");
}

TEST(SentencePiece, ByteTokensSpellWhatHasNoPiece) {
  const Tokenizer tokenizer = make(tables_of(kLetters, true));
  ASSERT_TRUE(tokenizer.is_lossless());
  const int32_t first_byte = 7;
  EXPECT_EQ(tokenizer.encode("a\xC3\xA9", false), (Ids{3, 4, first_byte + 0xC3, first_byte + 0xA9}));
  EXPECT_EQ(tokenizer.encode(std::string_view("\0\xFF\xE4\xB8", 4), false), (Ids{3, first_byte, first_byte + 0xFF, first_byte + 0xE4, first_byte + 0xB8}));
  for (const std::string_view text : {"a<0x41>", "\x80", "\xC0\x80", "\xED\xA0\x80", "\xF5\x90", "b\xE4\xB8"}) EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, false)), text);
  EXPECT_EQ(tokenizer.decode(Ids{first_byte + ' ', 4}), " a");   // a space of the text's own
}

TEST(SentencePiece, WithoutByteTokensUnknownCharactersBecomeOneToken) {
  TokenizerTables tables = tables_of(kLetters);
  EXPECT_EQ(make(tables).encode("axyz\xFF" "b\xC3\xA9", false), (Ids{3, 4, 0, 5, 0}));
  EXPECT_FALSE(make(tables).is_lossless());
  tables.unknown = -1;
  EXPECT_EQ(make(tables).encode("axyz\xFF" "b", false), (Ids{3, 4, 5}));
  // Some byte tokens: characters that they spell whole are spelled, the others unknown.
  TokenizerTables some = tables_of(letters_and({{"<0x78>", 0, kByteType}}));
  EXPECT_EQ(make(some).encode("axy", false), (Ids{3, 4, 7, 0}));
}

TEST(SentencePiece, UserDefinedTokensAreTakenWholeLongestFirst) {
  const auto pieces = letters_and({{"ab", -1}, {"bc", 0, kUserType}, {"bca", 0, kUserType}, {"c c", 0, kUserType}, {kSpace + kSpace, 0, kUserType}});
  const Tokenizer tokenizer = make(tables_of(pieces));
  EXPECT_EQ(pieces_of(tokenizer, "abc"), "[ ][a][bc]");
  EXPECT_EQ(pieces_of(tokenizer, "abcab"), "[ ][a][bca][b]");
  EXPECT_EQ(pieces_of(tokenizer, "ac c"), "[ ][a][c c]");
  EXPECT_EQ(pieces_of(tokenizer, " a"), "[  ][a]");   // the space in front counts
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(" a", false)), " a");
}

TEST(SentencePiece, UnusedPiecesFallApart) {
  const auto pieces = letters_and({{"ab", -1, kUnusedType}, {"abc", -2}, {"abca", -3, kUnusedType}});
  const Tokenizer tokenizer = make(tables_of(pieces));
  EXPECT_EQ(pieces_of(tokenizer, "ab"), "[ ][a][b]");
  EXPECT_EQ(pieces_of(tokenizer, "abc"), "[ ][abc]");
  EXPECT_EQ(pieces_of(tokenizer, "abcab"), "[ ][abc][a][b]");
}

TEST(SentencePiece, ControlAndByteTokensAreNotMadeFromText) {
  auto pieces = letters_and({{"<", -1}, {"s", -1}, {">", -1}, {"<s", -1}, {"s>", -1}, {"0", -1}, {"x", -1}, {"4", -1}, {"1", -1}, {"<0", -1}, {"<0x", -1}, {"<0x4", -1}, {"<0x41", -1}});
  const Tokenizer tokenizer = make(tables_of(pieces, true));
  EXPECT_EQ(pieces_of(tokenizer, "<s>"), "[ ][<s][>]");
  EXPECT_EQ(pieces_of(tokenizer, "<s>", true), "[<s>]");
  EXPECT_EQ(pieces_of(tokenizer, "<0x41>", true), "[ ][<0x41][>]");
  EXPECT_EQ(tokenizer.encode("<unk>", true), Ids{0});
}

// ---- Tables that are wrong.

struct BadTables {
  std::string what;                                // part of the message
  ErrorCode code;
  std::function<void(TokenizerTables&)> damage;
};

TEST(SentencePiece, NamesTheBadEntry) {
  const auto base = tables_of(letters_and({{"ab", -1}}), true);
  ASSERT_TRUE(Tokenizer::create(base));
  const auto no_number = std::numeric_limits<float>::quiet_NaN();
  const BadTables rows[] = {
      {"tokenizer.ggml.tokens is missing or empty", ErrorCode::kMalformed, [](auto& t) { t.tokens.clear(); }},
      {"tokenizer.ggml.scores has 0 entries for 264 tokens", ErrorCode::kMalformed, [](auto& t) { t.scores.clear(); }},
      {"tokenizer.ggml.scores has 263 entries", ErrorCode::kMalformed, [](auto& t) { t.scores.pop_back(); }},
      {"tokenizer.ggml.scores[5] is no number", ErrorCode::kMalformed, [&](auto& t) { t.scores[5] = no_number; }},
      {"token_type has 263 entries", ErrorCode::kMalformed, [](auto& t) { t.types.pop_back(); }},
      {"token_type[4] is 7", ErrorCode::kMalformed, [](auto& t) { t.types[4] = 7; }},
      {"unknown_token_id is 264", ErrorCode::kMalformed, [](auto& t) { t.unknown = 264; }},
      {"bos_token_id is -2", ErrorCode::kMalformed, [](auto& t) { t.bos = -2; }},
      {"tokens[8] '<0x-1>': a byte token, but its text", ErrorCode::kMalformed, [](auto& t) { t.tokens[8] = "<0x-1>"; }},
      {"tokens[8] '<0xZZ>'", ErrorCode::kMalformed, [](auto& t) { t.tokens[8] = "<0xZZ>"; }},
      {"tokens[8] '<0x1>'", ErrorCode::kMalformed, [](auto& t) { t.tokens[8] = "<0x1>"; }},
      {"tokens[8] '<0x001>'", ErrorCode::kMalformed, [](auto& t) { t.tokens[8] = "<0x001>"; }},
      {"tokens[8] 'a'", ErrorCode::kMalformed, [](auto& t) { t.tokens[8] = "a"; }},
      {"tokens[4] 'a': a byte token", ErrorCode::kMalformed, [](auto& t) { t.types[4] = kByteType; }},
      {"tokens[19] '<0x0a>' is the same byte as token 18", ErrorCode::kMalformed, [](auto& t) { t.tokens[19] = "<0x0a>"; }},
      {"is the same text as token 4", ErrorCode::kMalformed, [](auto& t) { t.tokens[5] = "a"; }},
      {"is a piece of 600 bytes", ErrorCode::kLimit, [](auto& t) { t.tokens[5] = std::string(600, 'b'); }},
      {"is a special token of 2000 bytes", ErrorCode::kLimit, [](auto& t) { t.tokens[5] = std::string(2000, 'b'), t.types[5] = kUserType; }},
  };
  for (const BadTables& row : rows) {
    TokenizerTables tables = base;
    row.damage(tables);
    const auto made = Tokenizer::create(tables);
    ASSERT_FALSE(made) << row.what;
    EXPECT_EQ(made.error().code(), row.code) << made.error().message();
    EXPECT_NE(made.error().message().find(row.what), std::string::npos) << made.error().message();
    EXPECT_LT(made.error().message().size(), 500u);
  }
}

TEST(SentencePiece, HarmlessOdditiesAreRead) {
  TokenizerTables tables = tables_of(letters_and({{"", 0}, {"\xFF", 0}, {"", 0, kControlType}, {"xyz", std::numeric_limits<float>::infinity()}, {"<0x41>", 0}, {"", 0, kUserType}}));
  const Tokenizer tokenizer = make(tables);
  EXPECT_EQ(pieces_of(tokenizer, "a b", true), "[ ][a][ ][b]");
  EXPECT_EQ(tokenizer.piece(7), "");
  EXPECT_EQ(tokenizer.piece(11), "<0x41>");   // not typed as a byte
  tables.types.clear();
  EXPECT_EQ(pieces_of(make(tables), "ab"), "[ ][a][b]");
}

// All lengths of one letter: 45,000 cuts for 300 pieces, and more than are read for many.
TEST(SentencePiece, PiecesThatCanBePutTogetherInManyWaysAreBounded) {
  const auto table = [](int letters, int longest) {
    std::vector<Piece> pieces;
    for (int letter = 0; letter < letters; ++letter) {
      for (int length = 1; length <= longest; ++length) pieces.push_back({std::string(static_cast<size_t>(length), static_cast<char>('a' + letter)), static_cast<float>(-length)});
    }
    return tables_of(pieces);
  };
  const Tokenizer tokenizer = make(table(1, 300));
  const std::string text(100'000, 'a');
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, false)), text);
  const auto refused = Tokenizer::create(table(10, 500));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kLimit);
}

// ---- What a file without the keys means.

TEST(SentencePiece, MissingKeysHaveTheKindsDefaults) {
  const auto read = [](const std::function<void(test::GgufBuilder&)>& change) {
    test::GgufBuilder file = test::tiny_llama({.tokenizer = false});
    file.set("tokenizer.ggml.model", "llama").set("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "<s>", "</s>", "a"});
    file.set("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 3, 1}).set("tokenizer.ggml.scores", std::vector<float>{0, 0, 0, -1});
    change(file);
    const auto bytes = test::exact(file.bytes());
    auto model = ModelFile::view(bytes, "tiny");
    if (!model) ADD_FAILURE() << model.error().message();
    return model->tokenizer();
  };
  const TokenizerTables plain = read([](auto&) {});
  EXPECT_TRUE(plain.add_bos && plain.add_space_prefix && !plain.add_eos);
  EXPECT_EQ(plain.unknown, 0);
  EXPECT_EQ(plain.bos, 1);
  EXPECT_EQ(plain.eos, 2);
  EXPECT_EQ(plain.scores, (std::vector<float>{0, 0, 0, -1}));
  EXPECT_TRUE(Tokenizer::create(plain));
  const TokenizerTables said = read([](auto& file) {
    file.set("tokenizer.ggml.add_bos_token", false).set("tokenizer.ggml.add_space_prefix", false).set("tokenizer.ggml.bos_token_id", 2u);
  });
  EXPECT_TRUE(!said.add_bos && !said.add_space_prefix);
  EXPECT_EQ(said.bos, 2);
  const TokenizerTables normal = read([](auto& file) { file.set("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1, 1, 1}); });
  EXPECT_TRUE(normal.unknown == -1 && normal.bos == -1 && normal.eos == -1);   // text that anybody may type is no control token
  // Byte-level: only the families that were trained so begin with BOS.
  for (const auto& [pre, expected] : std::vector<std::pair<const char*, bool>>{{"llama-bpe", true}, {"gpt-2", false}, {"qwen2", false}, {"smollm", false}, {"unheard-of", false}}) {
    const TokenizerTables bpe = read([name = pre](auto& file) { file.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.pre", name); });
    EXPECT_EQ(bpe.add_bos, expected) << pre;
    EXPECT_EQ(bpe.bos, -1);
  }
}

}  // namespace
}  // namespace tessera
