// The shape of the source tree: layers, where foreign headers may be seen, the names at top level.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;

const fs::path kRoot = TESSERA_SOURCE_DIR;

// The layers and those directly below each; what is below those may be included as well.
const std::map<std::string, std::set<std::string>, std::less<>> kBelow = {
    {"base", {}},
    {"tensor", {"base"}},
    {"device", {"tensor"}},
    {"graph", {"tensor"}},
    {"kv", {"tensor"}},
    {"codegen", {"tensor", "device"}},
    {"ops", {"graph", "codegen"}},
    {"plan", {"ops"}},
    {"gpu", {"device", "codegen"}},
    {"exec", {"plan", "gpu"}},
    {"model", {"ops", "kv"}},
    {"engine", {"model", "exec", "kv"}},
    {"app", {"engine"}},  // tessera.hpp
};
// Folders of src/ that implement a layer under a name of their own.
const std::map<std::string, std::string, std::less<>> kLayerOfSource = {{"opencl", "gpu"}, {"null", "gpu"}, {"vulkan", "gpu"}};

// Headers of others, by how their path begins, and the one place of the library that may see them.
const std::vector<std::pair<std::string, std::string>> kForeign = {
    {"CL/", "src/opencl/"}, {"vulkan/", "src/vulkan/"}, {"shaderc/", "src/"}, {"nlohmann/", "src/"},      {"utf8proc", "src/"},
    {"xxh", "src/"},        {"pcre2", "src/"},          {"dlfcn.h", "src/"},  {"sys/", "src/"},           {"Eigen/", "tests/"},
    {"gtest/", "tests/"},   {"CLI/", "examples/"},      {"histedit.h", "examples/"}, {"editline/", "examples/"}, {"benchmark/", "bench/"},
};

// "tensor/layout.hpp" → tensor; a file that lies in no folder is the app's umbrella; version.hpp (generated) stands below all.
std::string layer_of(std::string_view path) {
  const size_t slash = path.find('/');
  if (slash == std::string_view::npos) return path == "version.hpp" ? "base" : "app";
  const std::string_view folder = path.substr(0, slash);
  const auto renamed = kLayerOfSource.find(folder);
  return std::string(renamed == kLayerOfSource.end() ? folder : renamed->second);
}

bool may_include(const std::string& from, const std::string& to) {
  if (from == to) return true;
  for (const std::string& below : kBelow.at(from))
    if (may_include(below, to)) return true;
  return false;
}

// What the #include directives of `text` name.
std::vector<std::string> includes_of(std::string_view text) {
  std::vector<std::string> found;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::erase_if(line, [](char c) { return c == ' ' || c == '\t' || c == '\r'; });
    if (!line.starts_with("#include")) continue;
    const size_t open = line.find_first_of("<\"");
    const size_t close = line.find_first_of(">\"", open + 1);
    if (open != std::string::npos && close != std::string::npos) found.push_back(line.substr(open + 1, close - open - 1));
  }
  return found;
}

// What is wrong with the includes of one file of the library; `path` is relative to the root, as in "src/opencl/device.cpp".
std::vector<std::string> violations(const std::string& path, std::string_view text) {
  std::vector<std::string> wrong;
  const std::string inside = path.starts_with("src/") ? path.substr(4) : path.substr(std::string("include/tessera/").size());
  const std::string from = layer_of(inside);
  if (!kBelow.contains(from)) return {path + ": " + from + " is no layer"};
  for (const std::string& name : includes_of(text)) {
    for (const auto& [beginning, place] : kForeign)
      if (name.starts_with(beginning) && !path.starts_with(place)) wrong.push_back(path + " includes " + name + ", which is for " + place);
    // A name with a folder that is not tessera/ can only be a header of src/ itself: "opencl/driver.hpp".
    std::string to = from;
    if (name.starts_with("tessera/")) to = layer_of(name.substr(8));
    else if (fs::exists(kRoot / "src" / name)) to = layer_of(name);
    else if (name.find("..") != std::string::npos) wrong.push_back(path + " includes " + name + ": name it from include/ or src/");
    if (!kBelow.contains(to)) wrong.push_back(path + " includes " + name + ": " + to + " is no layer");
    else if (!may_include(from, to)) wrong.push_back(path + " includes " + name + ": " + to + " is not below " + from);
  }
  return wrong;
}

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

TEST(Layers, RulesSeeWhatTheyForbid) {
  EXPECT_EQ(violations("include/tessera/tensor/a.hpp", "#include \"tessera/base/status.hpp\"\n#include <vector>\n").size(), 0u);
  EXPECT_EQ(violations("include/tessera/engine/a.hpp", "#include \"tessera/base/status.hpp\"\n").size(), 0u) << "edges are transitive";
  EXPECT_EQ(violations("include/tessera/tensor/a.hpp", "#include \"tessera/ops/op.hpp\"\n").size(), 1u);
  EXPECT_EQ(violations("include/tessera/tensor/a.hpp", "  #  include <tessera/device/a.hpp>\n").size(), 1u);
  EXPECT_EQ(violations("include/tessera/model/a.hpp", "#include \"tessera/gpu/gpu.hpp\"\n").size(), 1u);
  EXPECT_EQ(violations("include/tessera/kv/a.hpp", "#include \"tessera/tessera.hpp\"\n").size(), 1u);
  EXPECT_EQ(violations("include/tessera/misc/a.hpp", "").size(), 1u);
  EXPECT_EQ(violations("include/tessera/base/a.hpp", "#include \"tessera/misc/a.hpp\"\n").size(), 1u);
  EXPECT_EQ(violations("src/opencl/a.cpp", "#include <CL/cl.h>\n#include \"tessera/gpu/gpu.hpp\"\n").size(), 0u);
  EXPECT_EQ(violations("src/opencl/a.cpp", "#include \"tessera/exec/executor.hpp\"\n").size(), 1u);
  EXPECT_EQ(violations("src/gpu/a.cpp", "#include <CL/cl.h>\n").size(), 1u);
  EXPECT_EQ(violations("include/tessera/gpu/a.hpp", "#include <nlohmann/json.hpp>\n").size(), 1u);
  EXPECT_EQ(violations("src/model/a.cpp", "#include <gtest/gtest.h>\n").size(), 1u);
}

TEST(Layers, GraphHasNoCycle) {
  for (const auto& [layer, below] : kBelow)
    for (const std::string& lower : below) {
      ASSERT_TRUE(kBelow.contains(lower)) << lower;
      EXPECT_FALSE(may_include(lower, layer)) << lower << " and " << layer << " are below each other";
    }
}

TEST(Layers, EveryIncludeOfTheLibraryIsAllowed) {
  std::vector<std::string> wrong;
  size_t files = 0;
  for (const char* folder : {"include/tessera", "src"}) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      if (!entry.is_regular_file()) continue;
      const std::string path = entry.path().lexically_relative(kRoot).generic_string();
      for (std::string& line : violations(path, read(entry.path()))) wrong.push_back(std::move(line));
      ++files;
    }
  }
  EXPECT_GT(files, 10u);
  EXPECT_TRUE(wrong.empty()) << joined(wrong);
}

// APIs and vendors are for device/, codegen/ and gpu/: what computes a model names none of them.
TEST(SourceTree, NoKernelOpOrModelNamesAnApiOrAVendor) {
  const std::regex forbidden(R"(\b(vulkan|opencl|glsl|adreno|mali|qualcomm)\b)", std::regex::icase);
  ASSERT_TRUE(std::regex_search("// on Adreno", forbidden));
  size_t files = 0;
  for (const char* folder : {"kernels", "include/tessera/ops", "include/tessera/graph", "include/tessera/model", "include/tessera/engine", "src/model", "src/engine"})
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      if (!entry.is_regular_file() || entry.path().filename() == "README.md") continue;
      ++files;
      std::smatch found;
      const std::string text = read(entry.path());
      EXPECT_FALSE(std::regex_search(text, found, forbidden)) << entry.path() << " says '" << found.str() << "'";
    }
  EXPECT_GT(files, 30u);
}

// What `git ARGUMENTS` prints; empty where git or the repository is not there.
std::string git(const std::string& arguments) {
  const std::string command = "git -c safe.directory='*' -C '" + kRoot.string() + "' " + arguments + " 2>/dev/null";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string text;
  std::array<char, 4096> part;
  while (pipe && std::fgets(part.data(), part.size(), pipe.get())) text += part.data();
  return text;
}

TEST(SourceTree, TopLevelHoldsOnlyItsNames) {
  const std::set<std::string> allowed = {"CMakeLists.txt", "LICENSE", "README.md", "include", "src",  "kernels",
                                         "tests",          "bench",   "examples",  "cmake"};
  if (!fs::exists(kRoot / ".git")) GTEST_SKIP() << "not a git checkout";
  std::istringstream files(git("ls-files --cached --others --exclude-standard"));
  std::set<std::string> names;
  for (std::string file; std::getline(files, file);) names.insert(file.substr(0, file.find('/')));
  ASSERT_TRUE(names.contains("CMakeLists.txt")) << "git lists nothing here";
  for (const std::string& name : names)
    EXPECT_TRUE(name.starts_with('.') || allowed.contains(name)) << name << " is at top level; it belongs in one of the folders there";
}

}  // namespace
