#include "tessera/base/utf8.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace tessera {
namespace {

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

TEST(Utf8, ReplacesIllFormedBytesAsPythonDoes) {
  std::ifstream file(TESSERA_TEST_DATA "/utf8_replaced.json");
  const auto rows = nlohmann::json::parse(file);
  ASSERT_EQ(rows.size(), 300u);
  for (const auto& row : rows) {
    const std::string bytes = from_hex(row["bytes"]);
    const std::string text = from_hex(row["text"]);
    EXPECT_EQ(replace_invalid_utf8(bytes), text) << row["bytes"];
    EXPECT_EQ(is_utf8(bytes), bytes == text) << row["bytes"];
  }
}

TEST(Utf8, DecodesTheEdgesOfEveryLength) {
  const std::pair<const char*, char32_t> edges[] = {{"\x7F", 0x7F},           {"\xC2\x80", 0x80},          {"\xDF\xBF", 0x7FF},
                                                    {"\xE0\xA0\x80", 0x800},  {"\xED\x9F\xBF", 0xD7FF},    {"\xEE\x80\x80", 0xE000},
                                                    {"\xEF\xBF\xBF", 0xFFFF}, {"\xF0\x90\x80\x80", 0x10000}, {"\xF4\x8F\xBF\xBF", 0x10FFFF}};
  for (const auto& [text, code] : edges) {
    const Utf8Char c = first_utf8(text);
    EXPECT_EQ(c.status, Utf8Status::kValid);
    EXPECT_EQ(c.code, code);
    EXPECT_EQ(c.bytes, std::string_view(text).size());
  }
}

TEST(Utf8, TellsAnUnfinishedCharacterFromAnImpossibleOne) {
  const std::string character = "\xF0\x9F\x98\x80";
  for (size_t n = 1; n < 4; ++n) {
    EXPECT_EQ(first_utf8(character.substr(0, n)).status, Utf8Status::kIncomplete);
    const Utf8Char broken = first_utf8(character.substr(0, n) + "x");
    EXPECT_EQ(broken.status, Utf8Status::kInvalid);
    EXPECT_EQ(broken.bytes, n);
  }
}

}  // namespace
}  // namespace tessera
