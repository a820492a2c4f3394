#include "tessera/engine/text_stream.hpp"

#include <gtest/gtest.h>

#include <random>

#include "allocation_count.hpp"

namespace tessera {
namespace {

struct Shown {
  std::string text;
  bool stopped = false;
  bool operator==(const Shown&) const = default;
};

// Every part that is shown must be whole characters, and nothing may come after a stop.
Shown stream(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
  auto made = TextStream::create(stops);
  EXPECT_TRUE(made);
  Shown shown;
  for (const std::string& piece : pieces) {
    const bool was_stopped = made->stopped();
    const std::string_view part = made->push(piece);
    EXPECT_TRUE(is_utf8(part));
    EXPECT_TRUE(!was_stopped || part.empty());
    shown.text += part;
  }
  shown.text += made->finish();
  shown.stopped = made->stopped();
  return shown;
}

// The plain definition: the whole text, cut before the stop string that ends first (the longest of those that end there).
Shown expected(std::string_view bytes, const std::vector<std::string>& stops) {
  const std::string text = replace_invalid_utf8(bytes);
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

std::vector<std::string> random_pieces(std::string_view text, std::mt19937& random) {
  std::vector<std::string> pieces;
  while (!text.empty()) {
    const size_t length = std::min<size_t>(text.size(), random() % 6);
    pieces.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return pieces;
}

TEST(TextStream, HoldsBackHalfACharacter) {
  auto made = TextStream::create({});
  ASSERT_TRUE(made);
  EXPECT_EQ(made->push("a\xF0\x9F"), "a");
  EXPECT_EQ(made->push("\x98"), "");
  EXPECT_EQ(made->push("\x80" "b"), "\xF0\x9F\x98\x80" "b");
  EXPECT_EQ(made->push("\xE4\xB8"), "");
  EXPECT_EQ(made->push("c"), "\xEF\xBF\xBD" "c");
  EXPECT_EQ(made->push("\xC3"), "");
  EXPECT_EQ(made->finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(made->finish(), "");
}

TEST(TextStream, HoldsBackWhatMayBecomeAStopString) {
  auto made = TextStream::create({"\nUser:"});
  ASSERT_TRUE(made);
  EXPECT_EQ(made->push("Hi\nUs"), "Hi");
  EXPECT_EQ(made->push("age"), "\nUsage");
  EXPECT_EQ(made->push("\n"), "");
  EXPECT_EQ(made->push("\nUser"), "\n");
  EXPECT_FALSE(made->stopped());
  EXPECT_EQ(made->push(": more"), "");
  EXPECT_TRUE(made->stopped());
  EXPECT_EQ(made->push("even more"), "");
  EXPECT_EQ(made->finish(), "");
}

TEST(TextStream, ShowsAtTheEndWhatWasNoStopString) {
  EXPECT_EQ(stream({"so", "me ST", "O"}, {"STOP"}), (Shown{"some STO", false}));
}

TEST(TextStream, StopsAtTheStopStringThatEndsFirst) {
  EXPECT_EQ(stream({"xabcd"}, {"abcd", "bc"}), (Shown{"xa", true}));
  EXPECT_EQ(stream({"xabcd"}, {"bc", "abc"}), (Shown{"x", true}));   // both end there: the longest
  EXPECT_EQ(stream({"aab"}, {"ab"}), (Shown{"a", true}));
  EXPECT_EQ(stream({"ab"}, {"abc", "ab", "ab"}), (Shown{"", true}));
  EXPECT_EQ(stream({"short"}, {"shorter than this"}), (Shown{"short", false}));
}

TEST(TextStream, ReplacementCharactersCanBeStoppedAt) {
  EXPECT_EQ(stream({"a\xFF", "b"}, {"\xEF\xBF\xBD"}), (Shown{"a", true}));
  EXPECT_EQ(stream({"a\xE4"}, {"\xEF\xBF\xBD"}), (Shown{"a", true}));   // only known at the end
}

TEST(TextStream, RefusesStopStringsThatCannotWork) {
  const auto empty = TextStream::create({"ok", ""});
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(empty.error().message().find("stop string 1"), std::string::npos);
  const auto broken = TextStream::create({"\xC3"});
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code(), ErrorCode::kInvalidArgument);
}

// Few letters, so that stop strings, their beginnings and overlaps are met all the time.
TEST(TextStream, TheCutIntoPiecesDoesNotMatter) {
  std::mt19937 random(5);
  const std::vector<std::string> letters = {"a", "b", "ab", "\xC3\xA9", "\xF0\x9F\x98\x80", "\xC3", "\x98", "\xFF", " "};
  const auto text = [&](size_t most, size_t kinds) {
    std::string out;
    for (size_t n = random() % most; n > 0; --n) out += letters[random() % kinds];
    return out;
  };
  int stopped = 0;
  for (int round = 0; round < 4000; ++round) {
    const std::string bytes = text(40, letters.size());
    std::vector<std::string> stops;
    for (size_t n = random() % 4; n > 0; --n) stops.push_back(letters[random() % 5] + text(6, 5));
    const Shown want = expected(bytes, stops);
    stopped += want.stopped;
    ASSERT_EQ(stream({bytes}, stops), want);
    ASSERT_EQ(stream(random_pieces(bytes, random), stops), want);
  }
  EXPECT_GT(stopped, 500);
  EXPECT_LT(stopped, 3900);
}

TEST(TextStream, AThousandStopStringsAndALongText) {
  std::vector<std::string> stops;
  for (int i = 0; i < 1000; ++i) stops.push_back(std::string(100, 'a') + std::to_string(i) + "!");
  const std::string text = std::string(200000, 'a') + "999";   // every byte of it may begin each of them
  EXPECT_EQ(stream({text}, stops), (Shown{text, false}));
  EXPECT_EQ(stream({text, "!"}, stops), (Shown{std::string(199900, 'a'), true}));
}

TEST(TextStream, AllocatesNothingPerToken) {
  auto made = TextStream::create({"STOP", "\n\nUser"});
  ASSERT_TRUE(made);
  size_t shown = 0;
  (void)made->push("first ");
  const int64_t before = allocation_count;
  for (int i = 0; i < 1000; ++i) shown += made->push(i % 3 == 0 ? " word ST" : i % 3 == 1 ? "\xF0\x9F" : "\x98\x80\n\n").size();
  EXPECT_EQ(allocation_count, before);
  EXPECT_GT(shown, 4000u);
}

}  // namespace
}  // namespace tessera
