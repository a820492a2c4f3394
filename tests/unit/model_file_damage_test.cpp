// Files that are not files, files that change, damage at every byte and bit, and the memory that opening a large model takes.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <set>

#include "../temporary_folder.hpp"
#include "model_file_use.hpp"

namespace {
// Live and largest number of bytes got through operator new.
std::atomic<size_t> live_bytes{0}, peak_bytes{0};
}  // namespace

void* operator new(size_t size) {
  void* block = std::malloc(size);
  if (!block) throw std::bad_alloc();
  const size_t now = live_bytes += malloc_usable_size(block);
  if (now > peak_bytes) peak_bytes = now;
  return block;
}
void operator delete(void* block) noexcept {
  if (block) live_bytes -= malloc_usable_size(block);
  std::free(block);
}
void operator delete(void* block, size_t) noexcept { operator delete(block); }

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::exact;
using test::GgufBuilder;
using test::message_of;
using test::TemporaryFolder;
using test::tiny_llama;
using test::use;

constexpr ErrorCode kMalformed = ErrorCode::kMalformed;

// The smallest model with a tokenizer, so that damage to every byte stays quick.
GgufBuilder smallest() {
  GgufBuilder file =
      tiny_llama({.shape = {.dim = 8, .layers = 1, .hidden = 4, .heads = 2, .kv_heads = 1, .head_dim = 4, .vocab = 6, .rope_factors = true},
                  .tokenizer = false});
  file.set("tokenizer.ggml.model", "gpt2")
      .set("tokenizer.ggml.pre", "smollm")
      .set("tokenizer.ggml.tokens", std::vector<std::string>{"<s>", "a", "b", "ab", "", "<e>"});
  file.set("tokenizer.ggml.token_type", std::vector<int32_t>{3, 1, 1, 1, 1, 3}).set("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  file.set("tokenizer.ggml.bos_token_id", 0u).set("tokenizer.ggml.eos_token_id", 5u).set("tokenizer.ggml.add_bos_token", true);
  return file;
}

TEST(ModelFileDamage, EveryTruncationIsAnError) {
  const std::string whole = smallest().bytes();
  ASSERT_TRUE(ModelFile::view(exact(whole), "whole"));
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto bytes = exact(std::string_view(whole).substr(0, size));
    const auto model = ModelFile::view(bytes, "cut");
    ASSERT_FALSE(model) << "the first " << size << " bytes were accepted";
    EXPECT_EQ(model.error().code(), kMalformed) << size << ": " << message_of(model);
  }
}

TEST(ModelFileDamage, EveryFlippedHeaderBitIsAnErrorOrAValidModel) {
  const std::string whole = smallest().bytes();
  const size_t header = smallest().header().size();
  auto bytes = exact(whole);
  size_t errors = 0, accepted = 0;
  for (size_t at = 0; at < header; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      const auto mask = static_cast<std::byte>(1 << bit);
      bytes[at] ^= mask;
      const auto model = ModelFile::view(bytes, "flipped");
      if (model) {
        use(*model);
        ++accepted;
      } else {
        EXPECT_FALSE(message_of(model).empty());
        ++errors;
      }
      bytes[at] ^= mask;
    }
  }
  EXPECT_GT(errors, header * 4);  // most of a header matters
  EXPECT_GT(accepted, 0u);        // names, texts and padding may change
}

TEST(ModelFileDamage, RefusesWhatIsNotAFile) {
  const TemporaryFolder folder;
  const auto expect = [](const std::string& path, ErrorCode code, std::string_view says) {
    const auto model = ModelFile::open(path);
    ASSERT_FALSE(model) << path;
    EXPECT_EQ(name_of(model.error().code()), name_of(code)) << message_of(model);
    EXPECT_TRUE(message_of(model).starts_with(path + ": ")) << message_of(model);
    EXPECT_NE(message_of(model).find(says), std::string::npos) << message_of(model);
  };
  expect(folder.file("absent.gguf"), ErrorCode::kNotFound, "no such file");
  expect(folder.file("absent/model.gguf"), ErrorCode::kNotFound, "no such file");
  expect(folder.file(""), ErrorCode::kIo, "is a directory");
  expect("/dev/zero", ErrorCode::kIo, "pipe or device");
  ASSERT_EQ(::mkfifo(folder.file("pipe").c_str(), 0600), 0);
  expect(folder.file("pipe"), ErrorCode::kIo, "pipe or device");  // and does not wait for a writer
  expect(folder.file("empty", ""), kMalformed, "has only 0 bytes");
  expect(folder.file("three", "GGU"), kMalformed, "has only 3 bytes");
  expect(folder.file("four", "GGUF"), kMalformed, "the version at byte 4 needs 4 bytes, but the file has 4 bytes");
  const std::string whole = smallest().bytes();
  expect(folder.file("short", whole.substr(0, whole.size() - 1)), kMalformed, "ends at byte");
}

TEST(ModelFileDamage, SaysWhenPermissionIsMissing) {
  const TemporaryFolder folder;
  const std::string path = folder.file("secret.gguf", smallest().bytes());
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  const bool root = ::geteuid() == 0;  // whom no permission stops: become somebody else for a moment
  if (root) {
    ASSERT_EQ(::chmod(fs::path(path).parent_path().c_str(), 0755), 0);
    if (::seteuid(65534) != 0) GTEST_SKIP() << "no user 65534 here, as in some containers";
  }
  const auto model = ModelFile::open(path);
  ASSERT_EQ(root ? ::seteuid(0) : 0, 0);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code(), ErrorCode::kIo);
  EXPECT_NE(message_of(model).find("cannot open: Permission denied"), std::string::npos) << message_of(model);
}

TEST(ModelFileDamage, NoticesThatTheFileChanged) {
  const TemporaryFolder folder;
  const std::string whole = smallest().bytes();
  const auto opened = [&](const char* name) { return ModelFile::open(folder.file(name, whole)); };
  const auto expect_io = [](const ModelFile& model, std::string_view says) {
    const Status status = model.unchanged();
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code(), ErrorCode::kIo);
    EXPECT_NE(status.error().message().find(says), std::string::npos) << status.error().message();
  };
  auto model = opened("same");
  EXPECT_TRUE(model->unchanged());
  model = opened("shorter");
  fs::resize_file(folder.file("shorter"), whole.size() - 1);
  expect_io(*model, "was written to while it was being read");
  model = opened("touched");
  fs::last_write_time(folder.file("touched"), fs::file_time_type::clock::now() - std::chrono::hours(1));
  expect_io(*model, "was written to");
  model = opened("replaced");
  fs::rename(folder.file("other", whole), folder.file("replaced"));
  expect_io(*model, "was replaced or removed");
  use(*model);  // the mapping is still the first file's
  model = opened("removed");
  fs::remove(folder.file("removed"));
  expect_io(*model, "was replaced or removed");
}

TEST(ModelFileDamage, CheckValuesFindsWhatIsNotANumber) {
  struct Damage {
    WeightType type;
    size_t at;
    size_t bytes;
    uint32_t bits;
    const char* says;
  };
  const Damage kDamage[] = {
      {WeightType::kF32, 4 * (64 * 2 + 3), 4, 0x7fc00000, "tensor 'token_embd.weight' has NaN or infinity in row 2, column 3"},
      {WeightType::kF16, 2 * (64 * 319 + 63), 2, 0xfc00, "in row 319, column 63"},
      {WeightType::kQ4_0, 18 * 3, 2, 0x7c00, "in row 1, in the scale of the block at column 32"},
      {WeightType::kQ4_1, 20 * 2 + 2, 2, 0x7e01, "in row 1, in the scale of the block at column 0"},  // the minimum
      {WeightType::kQ8_0, 34, 2, 0xfc00, "in row 0, in the scale of the block at column 32"},
  };
  for (const Damage& damage : kDamage) {
    GgufBuilder file = tiny_llama({.type = damage.type});
    std::memcpy(file.tensor_named("token_embd.weight").data.data() + damage.at, &damage.bits, damage.bytes);
    const auto bytes = exact(file.bytes());
    const auto model = ModelFile::view(bytes, "tiny");
    ASSERT_TRUE(model) << message_of(model);
    const Status status = model->check_values();
    ASSERT_FALSE(status) << format_of(damage.type).name;
    EXPECT_EQ(status.error().code(), ErrorCode::kNumericFault);
    EXPECT_NE(status.error().message().find(damage.says), std::string::npos) << status.error().message();
  }
}

TEST(ModelFileDamage, LargeModelsOpenInLittleMemory) {
  const TemporaryFolder folder;
  struct Large {
    const char* name;
    test::LlamaShape shape;
    size_t weights;
    double billions;
  } kLarge[] = {{"1b.gguf", test::kLlama32_1B, 147, 1.24}, {"8b.gguf", test::kLlama31_8B, 292, 8.03}};  // parameter counts as published
  for (const Large& large : kLarge) {
    test::sparse_llama(folder.file(large.name), large.shape, WeightType::kQ4_0, true);
    const size_t before = live_bytes;
    peak_bytes = before;
    const auto model = ModelFile::open(folder.file(large.name));
    const size_t peak = peak_bytes - before;
    ASSERT_TRUE(model) << message_of(model);
    RecordProperty(large.name, std::to_string(peak));
    EXPECT_GT(peak, size_t{8} << 20);   // the hook counts: the strings alone are more
    EXPECT_LT(peak, size_t{48} << 20);  // of the 64 MiB for all of loading
    EXPECT_EQ(model->tokenizer().tokens.size(), 128256u);
    EXPECT_EQ(model->tokenizer().merges.size(), 280000u);
    EXPECT_EQ(std::set<std::string>(model->tokenizer().tokens.begin(), model->tokenizer().tokens.end()).size(), 128256u);
    EXPECT_EQ(model->weights().size(), large.weights);
    double parameters = 0.0;
    for (const WeightRef& weight : model->weights()) parameters += static_cast<double>(weight.rows * weight.columns);
    EXPECT_NEAR(parameters / 1e9, large.billions, 0.01);
    EXPECT_EQ(model->config().rope_factors.size(), static_cast<size_t>(large.shape.head_dim) / 2);
    struct stat facts {};
    ASSERT_EQ(::stat(folder.file(large.name).c_str(), &facts), 0);
    EXPECT_LT(facts.st_blocks * 512, int64_t{32} << 20) << "the file has no holes";
  }
}

}  // namespace
}  // namespace tessera
