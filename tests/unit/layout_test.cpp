// The virtualization holds together: every layout puts every texel somewhere of its own inside the object, and the address that a kernel computes from
// the printed expression is the one that the host packs to.
#include "tessera/tensor/layout.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tessera/tensor/index_text.hpp"

namespace tessera {
namespace {

// Evaluates an index expression as C and GLSL do: binary operators on non-negative integers, parentheses, names.
class Evaluator {
 public:
  Evaluator(std::string_view text, const std::map<std::string, int64_t>& names) : text_(text), names_(names) {}
  int64_t run() {
    const int64_t value = expression(0);
    EXPECT_EQ(at_, text_.size()) << "left over in " << text_;
    return value;
  }

 private:
  struct Op {
    std::string_view text;
    int precedence;
  };
  static constexpr Op kOps[] = {{"&", 1}, {">>", 2}, {"+", 3}, {"*", 4}, {"/", 4}, {"%", 4}};

  void skip() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  int64_t operand() {
    skip();
    if (text_.substr(at_, 1) == "(") {
      ++at_;
      const int64_t value = expression(0);
      ++at_;
      return value;
    }
    std::string word;
    while (at_ < text_.size() && std::isalnum(static_cast<unsigned char>(text_[at_])) != 0) word += text_[at_++];
    return names_.contains(word) ? names_.at(word) : std::stoll(word);
  }
  int64_t expression(int lowest) {
    int64_t left = operand();
    while (true) {
      skip();
      const Op* op = nullptr;
      for (const Op& candidate : kOps)
        if (candidate.precedence > lowest && text_.substr(at_).starts_with(candidate.text)) op = &candidate;
      if (op == nullptr) return left;
      at_ += op->text.size();
      left = apply(op->text, left, expression(op->precedence));
    }
  }
  static int64_t apply(std::string_view op, int64_t a, int64_t b) {
    switch (op[0]) {
      case '&': return a & b;
      case '>': return a >> b;
      case '+': return a + b;
      case '*': return a * b;
      case '/': return a / b;
      default: return a % b;
    }
  }

  std::string_view text_;
  const std::map<std::string, int64_t>& names_;
  size_t at_ = 0;
};

TEST(IndexText, TheEvaluatorKnowsPrecedence) {
  const std::map<std::string, int64_t> names = {{"a", 13}, {"b", 3}};
  EXPECT_EQ(Evaluator("a + b * 2 >> 1 & 7", names).run(), ((13 + 3 * 2) >> 1) & 7);
  EXPECT_EQ(Evaluator("(a + b) * 2 % 5", names).run(), (13 + 3) * 2 % 5);
  EXPECT_EQ(Evaluator("a / 2 / 3", names).run(), 2);
}

TEST(IndexText, FoldsAndShortens) {
  const IndexText a("a", true);
  const IndexText sum("a + b");
  EXPECT_EQ((IndexText(3) * IndexText(4) + IndexText(1)).value(), 13);
  EXPECT_EQ((a * IndexText(1) + IndexText(0)).text(), "a");
  EXPECT_EQ((a * IndexText(0)).value(), 0);
  EXPECT_EQ((sum * IndexText(3)).text(), "(a + b) * 3");
  EXPECT_EQ((sum / 8).text(), "(a + b) >> 3");
  EXPECT_EQ((sum % 8).text(), "(a + b) & 7");
  EXPECT_EQ((a / 6).text(), "a / 6");
  EXPECT_EQ((a % 6).text(), "a % 6");
  EXPECT_EQ((a / 1).text(), "a");
  EXPECT_EQ((a % 1).value(), 0);
}

Layout random_layout(std::mt19937& random) {
  // Channels 1, 3, 5, 127 are 1, 1, 2, 32 slices; the others are rows, heads, groups.
  const int64_t kExtents[] = {1, 2, 3, 5, 7, 16, 32};
  Layout layout;
  layout.storage = static_cast<Storage>(random() % kStorageRows.size());
  layout.element = random() % 2 == 0 ? DType::kF32 : DType::kF16;
  const int kLanes[] = {1, 2, 4, 8, 16};
  layout.lanes = kLanes[is_image(layout.storage) ? 2 + random() % 3 : random() % 5];
  for (size_t axes = 1 + random() % 4; axes > 0; --axes) layout.grid.push_back(kExtents[random() % std::size(kExtents)]);
  if (row_of(layout.storage).form != StorageForm::kLine && random() % 2 == 0)
    layout.fold = 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(layout.rows()));
  if (row_of(layout.storage).form == StorageForm::kLine && random() % 2 == 0) layout.interleave = int64_t{1} << random() % 5;
  return layout;
}

std::string describe(const Layout& layout) {
  std::string out = cat(name_of(layout.storage), " ", name_of(layout.element), " x", layout.lanes, " fold ", layout.fold, " interleave ", layout.interleave, " [");
  for (int64_t extent : layout.grid) out += cat(extent, " ");
  return out + "]";
}

// Calls check(coords) for every texel of the grid.
template <class Check>
void for_each_texel(const Layout& layout, const Check& check) {
  std::vector<int64_t> coords(layout.grid.size(), 0);
  for (int64_t left = layout.texels(); left > 0; --left) {
    check(coords);
    for (size_t axis = coords.size(); axis-- > 0 && ++coords[axis] == layout.grid[axis];) coords[axis] = 0;
  }
}

TEST(Layout, EveryTexelHasAPlaceOfItsOwnInsideTheObject) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const Layout layout = random_layout(random);
    SCOPED_TRACE(describe(layout));
    std::set<int64_t> bytes;
    for_each_texel(layout, [&](const std::vector<int64_t>& coords) {
      const TexelAddress<int64_t> at = locate<int64_t>(layout, coords);
      ASSERT_GE(at.x, 0);
      ASSERT_GE(at.y, 0);
      ASSERT_GE(at.z, 0);
      ASSERT_LE(at.x + layout.pixels_per_texel(), layout.extent().width);
      ASSERT_LT(at.y, layout.extent().height);
      ASSERT_LT(at.z, layout.extent().depth);
      const int64_t begin = host_byte_offset(layout, coords);
      ASSERT_EQ(begin % layout.texel_bytes(), 0);  // texels start at multiples of their size: different starts cannot overlap
      ASSERT_LE(begin + layout.texel_bytes(), layout.object_bytes());
      ASSERT_TRUE(bytes.insert(begin).second) << "two texels at byte " << begin;
    });
  }
}

// pack∘unpack is the identity over elements, and what no element lies in stays zero: tensors of C channels, in texels of every width, in every
// storage, with lanes past the last channel left alone.
TEST(Layout, PackingAndUnpackingAreInverse) {
  std::mt19937 random(4);
  for (const int64_t channels : {1, 3, 4, 5, 127, 130})
    for (size_t s = 0; s < kStorageRows.size(); ++s)
      for (const int lanes : {1, 2, 4, 8, 16})
        for (const DType element : {DType::kF32, DType::kF16, DType::kI8}) {
          Layout layout{static_cast<Storage>(s), element, lanes, {1 + static_cast<int64_t>(random() % 9), 3, ceil_div(channels, lanes)}, 0};
          if (row_of(layout.storage).form != StorageForm::kLine) layout.fold = static_cast<int64_t>(random() % 9);
          SCOPED_TRACE(cat(describe(layout), " channels ", channels));
          std::vector<uint8_t> host(static_cast<size_t>(layout.object_bytes()), 0);
          const auto bytes = static_cast<size_t>(byte_size(element));
          const auto place = [&](const std::vector<int64_t>& coords, int64_t channel) {
            const std::vector<int64_t> texel{coords[0], coords[1], channel / lanes};
            return static_cast<size_t>(host_byte_offset(layout, texel) + channel % lanes * byte_size(element));
          };
          const auto for_each_element = [&](const auto& act) {
            for_each_texel(layout, [&](const std::vector<int64_t>& coords) {
              for (int64_t c = coords[2] * lanes; c < std::min(channels, (coords[2] + 1) * lanes); ++c) act(coords, c, static_cast<uint8_t>(1 + (coords[0] * 977 + coords[1] * 131 + c) % 255));
            });
          };
          size_t elements = 0;
          for_each_element([&](const std::vector<int64_t>& coords, int64_t c, uint8_t value) { std::memset(&host[place(coords, c)], value, bytes), ++elements; });
          for_each_element([&](const std::vector<int64_t>& coords, int64_t c, uint8_t value) {
            for (size_t b = 0; b < bytes; ++b) ASSERT_EQ(host[place(coords, c) + b], value);
          });
          ASSERT_EQ(static_cast<size_t>(std::count_if(host.begin(), host.end(), [](uint8_t b) { return b != 0; })), elements * bytes) << "padding is not zero";
        }
}

TEST(Layout, ThePrintedExpressionIsTheHostsAddress) {
  std::mt19937 random(2);
  const std::string kNames[] = {"a", "b", "c", "d"};
  for (int round = 0; round < 300; ++round) {
    const Layout layout = random_layout(random);
    SCOPED_TRACE(describe(layout));
    std::vector<IndexText> names;
    for (size_t axis = 0; axis < layout.grid.size(); ++axis) names.emplace_back(kNames[axis], true);
    const TexelAddress<IndexText> text = locate<IndexText>(layout, names);
    for_each_texel(layout, [&](const std::vector<int64_t>& coords) {
      std::map<std::string, int64_t> values;
      for (size_t axis = 0; axis < coords.size(); ++axis) values[kNames[axis]] = coords[axis];
      const TexelAddress<int64_t> at = locate<int64_t>(layout, coords);
      ASSERT_EQ(Evaluator(text.x.text(), values).run(), at.x) << text.x.text();
      ASSERT_EQ(Evaluator(text.y.text(), values).run(), at.y) << text.y.text();
      ASSERT_EQ(Evaluator(text.z.text(), values).run(), at.z) << text.z.text();
    });
  }
}

// Programs do not depend on how many tokens or pages there are.
TEST(Layout, TheOutermostExtentIsNotInTheExpression) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    Layout layout = random_layout(random);
    SCOPED_TRACE(describe(layout));
    const std::vector<IndexText> names = {IndexText("a", true), IndexText("b", true), IndexText("c", true), IndexText("d", true)};
    const std::span<const IndexText> coords(names.data(), layout.grid.size());
    const TexelAddress<IndexText> before = locate<IndexText>(layout, coords);
    if (layout.grid.size() == 1 && row_of(layout.storage).form != StorageForm::kLine) continue;  // one axis: it is the image's width
    layout.grid[0] += 1000;
    const TexelAddress<IndexText> after = locate<IndexText>(layout, coords);
    EXPECT_EQ(before.x.text(), after.x.text());
    EXPECT_EQ(before.y.text(), after.y.text());
    EXPECT_EQ(before.z.text(), after.z.text());
  }
}

constexpr StorageLimits kLimits{.max_buffer_bytes = 1 << 20,
                                .max_object_bytes = 1 << 21,
                                .max_image_width = 64,
                                .max_image_height = 128,
                                .max_image_buffer_texels = 5000,
                                .max_image_layers = 10,
                                .max_image3d_width = 48,
                                .max_image3d_height = 40,
                                .max_image3d_depth = 20,
                                .image3d_writes = true};

Layout wanted(Storage storage, std::vector<int64_t> grid, int lanes = 4) {
  Layout layout;
  layout.storage = storage;
  layout.lanes = lanes;
  layout.grid = std::move(grid);
  return layout;
}

TEST(Layout, AnImageTooHighIsFoldedIntoPanels) {
  const Result<Layout> placed = fit(wanted(Storage::kImage2D, {300, 16}), kLimits);
  ASSERT_TRUE(placed.has_value()) << placed.error().message();
  EXPECT_EQ(placed->fold, 128);
  EXPECT_EQ(placed->extent(), (ImageExtent{48, 128, 1}));
  const int64_t last[] = {299, 15};
  EXPECT_EQ(locate<int64_t>(*placed, last).x, 2 * 16 + 15);
  EXPECT_EQ(locate<int64_t>(*placed, last).y, 299 - 256);
  EXPECT_EQ(fit(wanted(Storage::kImage2D, {128, 16}), kLimits)->fold, 0);

  StorageLimits odd = kLimits;
  odd.max_image_height = 100;
  EXPECT_EQ(fit(wanted(Storage::kImage2D, {128, 16}), odd)->fold, 64);  // a power of two: shift and mask
}

// Layers have a fixed height, so that the address does not depend on the rows; an object of fewer rows is as high as these.
TEST(Layout, LayersAreFoldedAtAConstant) {
  const Result<Layout> placed = fit(wanted(Storage::kImage2DArray, {140, 12}), kLimits);
  ASSERT_TRUE(placed.has_value()) << placed.error().message();
  EXPECT_EQ(placed->fold, 16);
  EXPECT_EQ(placed->extent(), (ImageExtent{12, 16, 9}));
  EXPECT_EQ(placed->lines(), 144);
  const int64_t last[] = {139, 11};
  EXPECT_EQ(locate<int64_t>(*placed, last).x, 11);
  EXPECT_EQ(locate<int64_t>(*placed, last).y, 139 - 128);
  EXPECT_EQ(locate<int64_t>(*placed, last).z, 8);
  EXPECT_EQ(host_byte_offset(*placed, last), (139 * 12 + 11) * 16);  // layer after layer: as a buffer
  EXPECT_EQ(fit(wanted(Storage::kImage2DArray, {3, 16}), kLimits)->fold, 16);
  EXPECT_EQ(fit(wanted(Storage::kImage2DArray, {3, 16}), kLimits)->extent(), (ImageExtent{16, 3, 1}));
  StorageLimits low = kLimits;
  low.max_image3d_height = 11;
  EXPECT_EQ(fit(wanted(Storage::kImage3D, {50, 16}), low)->extent(), (ImageExtent{16, 8, 7}));  // a power of two
}

TEST(Layout, WhatDoesNotFitIsALimit) {
  const Layout kTooBig[] = {wanted(Storage::kImage2D, {2, 65}),          wanted(Storage::kImage2D, {2, 17}, 16),
                            wanted(Storage::kImage2D, {641, 16}),        wanted(Storage::kImageBuffer, {5001}),
                            wanted(Storage::kImageBuffer, {2501}, 8),    wanted(Storage::kBuffer, {(1 << 16) + 1}),
                            wanted(Storage::kBuffer, {1 << 16, 1 << 16}),      wanted(Storage::kImage2DArray, {161, 16}),
                            wanted(Storage::kImage2DArray, {2, 65}),     wanted(Storage::kImage3D, {2, 49}),
                            wanted(Storage::kImage3D, {321, 16})};
  StorageLimits small = kLimits;
  small.max_object_bytes = 1000;
  EXPECT_EQ(fit(wanted(Storage::kImage2D, {2, 32}), small).error().code(), ErrorCode::kLimit);
  EXPECT_EQ(fit(wanted(Storage::kImageBuffer, {63}), small).error().code(), ErrorCode::kLimit);
  for (const Layout& layout : kTooBig) {
    const Result<Layout> placed = fit(layout, kLimits);
    ASSERT_FALSE(placed.has_value()) << describe(layout);
    EXPECT_EQ(placed.error().code(), ErrorCode::kLimit);
  }
  for (const Layout& layout : {wanted(Storage::kImage2D, {2, 64}), wanted(Storage::kImage2D, {512, 16}), wanted(Storage::kImageBuffer, {5000}),
                               wanted(Storage::kImage2DArray, {160, 16}), wanted(Storage::kImage3D, {320, 48}), wanted(Storage::kBuffer, {1 << 16})})
    EXPECT_TRUE(fit(layout, kLimits).has_value()) << describe(layout);
  StorageLimits none = kLimits;
  none.max_image_width = none.max_image_buffer_texels = none.max_image3d_depth = 0;
  EXPECT_EQ(fit(wanted(Storage::kImage2D, {2, 2}), none).error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(fit(wanted(Storage::kImageBuffer, {2, 2}), none).error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(fit(wanted(Storage::kImage2DArray, {2, 2}), none).error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(fit(wanted(Storage::kImage3D, {2, 2}), none).error().code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace tessera
