// The kernels in the library are the files in kernels/, all of them, byte for byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tessera/codegen/kernel_library.hpp"

namespace tessera {
namespace {

std::string file_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

TEST(EmbeddedKernels, AreTheFiles) {
  const std::filesystem::path folder = std::filesystem::path(TESSERA_SOURCE_DIR) / "kernels";
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".kernel") continue;
    const std::string name = std::filesystem::relative(entry.path(), folder).replace_extension().generic_string();
    const Result<std::string_view> text = embedded_kernels().text(name);
    ASSERT_TRUE(text.has_value()) << text.error().message();
    EXPECT_EQ(*text, file_text(entry.path())) << name;
    if (!name.starts_with("lib/")) names.push_back(name);
  }
  ASSERT_FALSE(names.empty());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(embedded_kernel_names(), names);
}

TEST(EmbeddedKernels, AMissingOneNamesThoseThereAre) {
  const Result<std::string_view> text = embedded_kernels().text("none");
  ASSERT_FALSE(text.has_value());
  EXPECT_EQ(text.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(text.error().message().find("there is no kernel file 'none'; there are "), std::string::npos) << text.error().message();
  EXPECT_NE(text.error().message().find("lib/reduce"), std::string::npos);
}

}  // namespace
}  // namespace tessera
