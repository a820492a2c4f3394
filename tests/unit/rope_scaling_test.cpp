// Rotary frequencies and the factor on cos and sin against what transformers' own initialisation gives (tests/data/rope_scaling.txt).
#include "tessera/model/rope_scaling.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tessera/base/text.hpp"

namespace tessera {
namespace {

struct RopeCase {
  std::string text;   // the line that describes it
  ModelConfig config;
  double magnitude = 0.0;
  std::vector<double> frequencies;
};

std::vector<RopeCase> cases() {
  std::ifstream file(TESSERA_TEST_DATA "/rope_scaling.txt");
  std::vector<RopeCase> out;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    RopeCase c{line, {}, 0.0, {}};
    std::string type;
    float attention_factor = 0.0f;
    RopeScaling& scaling = c.config.rope_scaling;
    std::istringstream(line) >> type >> c.config.n_rot >> c.config.rope_base >> scaling.trained_context >> scaling.factor >> attention_factor >> scaling.beta_fast >> scaling.beta_slow;
    scaling.type = type == "yarn" ? RopeScalingType::kYarn : RopeScalingType::kLinear;
    // transformers' attention factor replaces YaRN's own, a model file's comes on top of it.
    if (attention_factor != 0.0f) scaling.attention_factor = attention_factor / (1.0f + 0.1f * std::log(scaling.factor));
    std::getline(file, line);
    c.magnitude = std::stod(line);
    std::getline(file, line);
    std::istringstream numbers(line);
    for (double value = 0.0; numbers >> value;) c.frequencies.push_back(value);
    out.push_back(std::move(c));
  }
  return out;
}

TEST(RopeScaling, EqualsTransformers) {
  const std::vector<RopeCase> all = cases();
  ASSERT_EQ(all.size(), 11u);
  for (const RopeCase& c : all) {
    SCOPED_TRACE(c.text);
    const ops::Rotation rotation = rotation_of(c.config);
    ASSERT_EQ(rotation.frequencies.size(), c.frequencies.size());
    ASSERT_EQ(c.frequencies.size(), static_cast<size_t>(c.config.n_rot / 2));
    // transformers computes in f32: the exponent's rounding grows by ln(base) ≤ 14, power, product, quotient and blend round, u = 2⁻²⁴ each.
    for (size_t i = 0; i < c.frequencies.size(); ++i) EXPECT_NEAR(rotation.frequencies[i], c.frequencies[i], 20 * 0x1p-24 * c.frequencies[i]) << "pair " << i;
    EXPECT_NEAR(rotation.magnitude, c.magnitude, 1e-6);   // the case's attention factor is rounded to f32 on its way here
  }
}

ModelConfig plain(int n_rot) {
  ModelConfig config;
  config.n_rot = n_rot;
  return config;
}

TEST(RopeScaling, NoneIsTheBaseAlone) {
  ModelConfig config = plain(4);
  config.rope_scaling.factor = 8.0f;   // of no type: nothing
  const ops::Rotation rotation = rotation_of(config);
  EXPECT_EQ(rotation.frequencies.size(), 2u);
  EXPECT_DOUBLE_EQ(rotation.frequencies[0], 1.0);
  EXPECT_DOUBLE_EQ(rotation.frequencies[1], 0.01);
  EXPECT_EQ(rotation.magnitude, 1.0);
}

TEST(RopeScaling, DivisorsComeFirst) {
  ModelConfig config = plain(4);
  config.rope_factors = {2.0f, 4.0f};
  config.rope_scaling = {.type = RopeScalingType::kLinear, .factor = 8.0f};
  const ops::Rotation rotation = rotation_of(config);
  EXPECT_DOUBLE_EQ(rotation.frequencies[0], 1.0 / 16);
  EXPECT_DOUBLE_EQ(rotation.frequencies[1], 0.01 / 32);
}

// Shorter than one turn of the fastest pair: everything but the first pair is stretched, and nothing is divided by zero.
TEST(RopeScaling, YarnOfATinyContextIsFinite) {
  ModelConfig config = plain(8);
  config.rope_scaling = {.type = RopeScalingType::kYarn, .factor = 4.0f, .trained_context = 1, .beta_fast = 1.0f, .beta_slow = 1.0f};
  const ops::Rotation rotation = rotation_of(config);
  for (size_t i = 1; i < 4; ++i) EXPECT_DOUBLE_EQ(rotation.frequencies[i], std::pow(10.0, -static_cast<double>(i)) / 4.0);
  config.rope_scaling.factor = 0.5f;   // a shrunk context has no factor on cos and sin
  EXPECT_EQ(rotation_of(config).magnitude, 1.0);
}

}  // namespace
}  // namespace tessera
