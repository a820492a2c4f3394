// A driver that is pure text, and a cache folder of its own for each test.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../temporary_folder.hpp"
#include "tessera/exec/program_cache.hpp"

namespace tessera {
namespace fs = std::filesystem;

// A driver whose binary of a kernel is its text and a suffix that tests change, as drivers change binaries at first use.
class FakeKernel final : public gpu::Kernel {
 public:
  explicit FakeKernel(const LoweredKernel& lowered) : lowered_(lowered) {}
  const LoweredKernel& lowered() const override { return lowered_; }
  Result<std::vector<std::byte>> binary() const override {
    const std::string text = "binary of " + lowered_.text + suffix;
    const auto bytes = std::as_bytes(std::span(text));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  }
  std::string suffix;

 private:
  LoweredKernel lowered_;
};

class FakeDevice final : public gpu::Device {
 public:
  DeviceInfo facts{.api = Api::kOpenCL, .name = "fake", .vendor = "v", .platform = "p", .api_version = "1", .driver_version = "d"};
  std::string options = "-O";
  bool accepts_binaries = true;
  bool lost = false;

  const DeviceInfo& info() const override { return facts; }
  Target target() const override { return Target::kOpenCL; }
  std::string_view compile_options() const override { return options; }
  const gpu::Counters& counters() const override { return counters_; }
  Result<std::unique_ptr<gpu::Kernel>> compile(const LoweredKernel& lowered) override {
    ++counters_.programs_compiled;
    return std::make_unique<FakeKernel>(lowered);
  }
  Result<std::unique_ptr<gpu::Kernel>> load(const LoweredKernel& lowered, std::span<const std::byte> binary) override {
    if (lost) return fail(ErrorCode::kDeviceLost, "gone");
    if (!accepts_binaries) return fail(ErrorCode::kDriver, "CL_INVALID_BINARY");
    const std::string expected = "binary of " + lowered.text;
    const std::string_view got(reinterpret_cast<const char*>(binary.data()), binary.size());
    EXPECT_TRUE(got.starts_with(expected)) << "the cache handed out another program's binary";
    ++counters_.programs_loaded;
    auto kernel = std::make_unique<FakeKernel>(lowered);
    kernel->suffix = got.substr(expected.size());
    return kernel;
  }

  Result<std::unique_ptr<gpu::Buffer>> create_buffer(int64_t) override { return unused(); }
  Result<std::unique_ptr<gpu::Image>> create_image(const Layout&) override { return unused(); }
  Result<std::unique_ptr<gpu::CommandList>> create_list() override { return unused(); }
  Status write(gpu::Buffer&, int64_t, std::span<const std::byte>) override { return unused(); }
  Status read(const gpu::Buffer&, int64_t, std::span<std::byte>) override { return unused(); }
  Status fill_zero(gpu::Buffer&, int64_t, int64_t) override { return unused(); }
  Status copy(std::span<const gpu::BufferCopy>) override { return unused(); }
  Status write_rows(gpu::Image&, int64_t, int64_t, std::span<const std::byte>) override { return unused(); }
  Status read_rows(const gpu::Image&, int64_t, int64_t, std::span<std::byte>) override { return unused(); }
  Result<gpu::Fence*> submit(gpu::CommandList&, const gpu::SubmitOptions&) override { return unused(); }

 private:
  static tl::unexpected<Error> unused() { return fail(ErrorCode::kUnsupported, "not part of this test"); }
  gpu::Counters counters_;
};

inline LoweredKernel program(const std::string& text) { return {.entry = "k", .text = text, .workgroup = {1, 1, 1}, .slots = {}, .args = {}}; }

class ProgramCacheTest : public testing::Test {
 protected:
  ProgramCache open(int64_t max_bytes = ProgramCache::kDefaultMaxBytes) {
    return ProgramCache::open((root / "cache").string(), [this](LogLevel level, std::string_view line) { lines.emplace_back(level, line); },
                              max_bytes);
  }
  // One start of a program that uses `text`.
  ProgramCache::Counters start(const std::string& text, FakeDevice& on) {
    ProgramCache cache = open();
    const auto kernel = cache.get(on, program(text));
    EXPECT_TRUE(kernel) << kernel.error().message();
    if (kernel) cache.store(on, **kernel);
    return cache.counters();
  }
  ProgramCache::Counters start(const std::string& text) { return start(text, device); }
  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    if (fs::exists(root / "cache/programs"))
      for (const auto& entry : fs::directory_iterator(root / "cache/programs")) found.push_back(entry.path());
    return found;
  }
  size_t warnings() const {
    return static_cast<size_t>(std::count_if(lines.begin(), lines.end(), [](const auto& line) { return line.first == LogLevel::kWarning; }));
  }

  const test::TemporaryFolder folder_;
  const fs::path root = folder_.path();
  FakeDevice device;
  std::vector<std::pair<LogLevel, std::string>> lines;
};

}  // namespace tessera
