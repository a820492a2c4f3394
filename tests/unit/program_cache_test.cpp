#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <optional>

#include "gpu_fixture.hpp"
#include "program_cache_fixture.hpp"

namespace tessera {
namespace {

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}
void overwrite(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes; }

TEST_F(ProgramCacheTest, SecondStartCompilesNothing) {
  const auto first = start("a");
  EXPECT_EQ(first.hits, 0u);
  EXPECT_EQ(first.misses, 1u);
  EXPECT_EQ(first.stored, 1u);
  const auto second = start("a");
  EXPECT_EQ(second.hits, 1u);
  EXPECT_EQ(second.misses, 0u);
  EXPECT_EQ(second.stored, 0u);
  EXPECT_EQ(device.counters().programs_compiled, 1u);
  EXPECT_EQ(device.counters().programs_loaded, 1u);
  EXPECT_TRUE(lines.empty());
}

TEST_F(ProgramCacheTest, NothingIsWrittenBeforeStore) {
  ProgramCache cache = open();
  ASSERT_TRUE(cache.get(device, program("a")));
  EXPECT_FALSE(fs::exists(root / "cache"));
}

TEST_F(ProgramCacheTest, FilesAreTheOwnersAlone) {
  start("a");
  ASSERT_EQ(files().size(), 1u);
  EXPECT_EQ(fs::status(files()[0]).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_EQ(fs::status(root / "cache/programs").permissions(), fs::perms::owner_all);
}

TEST_F(ProgramCacheTest, BinaryThatGrewWithUseIsStoredAgain) {
  {
    ProgramCache cache = open();
    const auto kernel = std::move(*cache.get(device, program("a")));
    cache.store(device, *kernel);
    cache.store(device, *kernel);
    EXPECT_EQ(cache.counters().stored, 1u);
    static_cast<FakeKernel&>(*kernel).suffix = "+used";
    cache.store(device, *kernel);
    EXPECT_EQ(cache.counters().stored, 2u);
  }
  ProgramCache cache = open();
  const auto kernel = std::move(*cache.get(device, program("a")));
  EXPECT_EQ(static_cast<FakeKernel&>(*kernel).suffix, "+used");
  cache.store(device, *kernel);
  EXPECT_EQ(cache.counters().stored, 0u);
}

TEST_F(ProgramCacheTest, WhateverShapesTheBinaryIsInTheKey) {
  const std::vector<std::function<void(FakeDevice&, LoweredKernel&)>> changes{
      [](FakeDevice&, LoweredKernel&) {},
      [](FakeDevice&, LoweredKernel& k) { k.text = "b"; },
      [](FakeDevice&, LoweredKernel& k) { k.entry = "other"; },
      [](FakeDevice&, LoweredKernel& k) {
        k.workgroup = {2, 1, 1};
      },
      [](FakeDevice& d, LoweredKernel&) { d.options = "-O0"; },
      [](FakeDevice& d, LoweredKernel&) { d.facts.name = "other"; },
      [](FakeDevice& d, LoweredKernel&) { d.facts.driver_version = "e"; },
      [](FakeDevice& d, LoweredKernel&) { d.facts.platform = "q"; },
      [](FakeDevice& d, LoweredKernel&) { d.facts.api_version = "2"; },
      [](FakeDevice& d, LoweredKernel&) { d.facts.api = Api::kVulkan; },
      [](FakeDevice& d, LoweredKernel&) { d.facts.name = "fakev", d.facts.vendor = ""; },  // the same characters, divided elsewhere
  };
  for (const auto& change : changes) {
    FakeDevice other;
    LoweredKernel lowered = program("a");
    change(other, lowered);
    ProgramCache cache = open();
    const auto kernel = std::move(*cache.get(other, lowered));
    cache.store(other, *kernel);
    EXPECT_EQ(cache.counters().misses, 1u);
  }
  EXPECT_EQ(files().size(), changes.size());
}

// Each: what is done to the one cache file. The next start must compile, warn once, and leave a good file for the one after it.
struct Damage {
  const char* name;
  std::function<void(const fs::path&)> apply;
};

std::vector<Damage> damages() {
  std::vector<Damage> all{
      {"empty", [](const fs::path& p) { overwrite(p, ""); }},
      {"extended", [](const fs::path& p) { overwrite(p, content(p) + "x"); }},
      {"text", [](const fs::path& p) { overwrite(p, std::string(500, 'x')); }},
      {"empty folder", [](const fs::path& p) { fs::remove(p), fs::create_directory(p); }},
      {"dangling symlink", [](const fs::path& p) { fs::remove(p), fs::create_symlink("/nonexistent/target", p); }},
      {"symlink to a good copy", [](const fs::path& p) { fs::rename(p, p.parent_path() / "copy"), fs::create_symlink("copy", p); }},
      {"symlink to itself", [](const fs::path& p) { fs::remove(p), fs::create_symlink(p.filename(), p); }},
      {"fifo", [](const fs::path& p) { fs::remove(p), mkfifo(p.c_str(), 0600); }},
      {"writable by others", [](const fs::path& p) { fs::permissions(p, fs::perms::others_write, fs::perm_options::add); }},
      {"sparse and huge", [](const fs::path& p) { fs::resize_file(p, uintmax_t{5} << 30); }},
  };
  return all;
}

TEST_F(ProgramCacheTest, DamagedFilesAreReportedOnceAndMadeAnew) {
  for (const Damage& damage : damages()) {
    SCOPED_TRACE(damage.name);
    fs::remove_all(root / "cache");
    start("a");
    ASSERT_EQ(files().size(), 1u);
    const fs::path file = files()[0];
    damage.apply(file);
    lines.clear();
    const auto after = start("a");
    EXPECT_EQ(after.hits, 0u);
    EXPECT_EQ(after.misses, 1u);
    EXPECT_EQ(after.rejected, 1u);
    EXPECT_EQ(warnings(), 1u);
    lines.clear();
    EXPECT_EQ(start("a").hits, 1u);
    EXPECT_TRUE(lines.empty());
    EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(file)));
  }
}

TEST_F(ProgramCacheTest, EveryTruncationAndEveryFlippedBitIsFound) {
  start("a");
  const fs::path file = files().at(0);
  const std::string good = content(file);
  ASSERT_LT(good.size(), 200u);
  ProgramCache cache = open();
  uint64_t expected = 0;
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    overwrite(file, good.substr(0, bytes));
    ASSERT_TRUE(cache.get(device, program("a")));
    ASSERT_EQ(cache.counters().rejected, ++expected) << "truncated to " << bytes;
  }
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    overwrite(file, bad);
    fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
    ASSERT_TRUE(cache.get(device, program("a")));
    ASSERT_EQ(cache.counters().rejected, ++expected) << "bit " << bit;
  }
  EXPECT_EQ(cache.counters().hits, 0u);
  EXPECT_EQ(warnings(), 1u);
  overwrite(file, good);
  fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
  ASSERT_TRUE(cache.get(device, program("a")));
  EXPECT_EQ(cache.counters().hits, 1u);
}

TEST_F(ProgramCacheTest, FileOfAnotherProgramIsNotUsed) {
  start("a");
  const fs::path a = files().at(0);
  const std::string of_a = content(a);
  fs::remove(a);
  start("b");
  overwrite(files().at(0), of_a);  // a good file, under the name of "b"
  const auto after = start("b");
  EXPECT_EQ(after.hits, 0u);
  EXPECT_EQ(after.rejected, 1u);
}

TEST_F(ProgramCacheTest, FolderWithContentInPlaceOfAFileIsLeftAlone) {
  start("a");
  const fs::path file = files().at(0);
  fs::remove(file);
  fs::create_directories(file / "precious");
  const auto after = start("a");
  EXPECT_EQ(after.misses, 1u);
  EXPECT_EQ(after.stored, 0u);
  EXPECT_TRUE(fs::exists(file / "precious"));
  EXPECT_EQ(warnings(), 1u);
  EXPECT_EQ(files().size(), 1u);  // nothing left beside it
}

TEST_F(ProgramCacheTest, DriverThatRefusesTheBinaryCompiles) {
  start("a");
  FakeDevice picky;
  picky.accepts_binaries = false;
  const auto after = start("a", picky);
  EXPECT_EQ(after.misses, 1u);
  EXPECT_EQ(after.rejected, 1u);
  EXPECT_EQ(after.stored, 1u);
  EXPECT_EQ(warnings(), 1u);
}

TEST_F(ProgramCacheTest, LostDeviceIsTheCallersErrorAndKeepsTheFile) {
  start("a");
  FakeDevice dead;
  dead.lost = true;
  ProgramCache cache = open();
  const auto kernel = cache.get(dead, program("a"));
  ASSERT_FALSE(kernel);
  EXPECT_EQ(kernel.error().code(), ErrorCode::kDeviceLost);
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(ProgramCacheTest, FolderThatCannotBeMadeOrWritten) {
  overwrite(root / "file", "not a folder");
  for (const std::string& folder :
       {(root / "file").string(), (root / "file/below").string(), std::string("/proc/tessera"), std::string("/dev/null")}) {
    lines.clear();
    ProgramCache cache = ProgramCache::open(folder, [this](LogLevel level, std::string_view line) { lines.emplace_back(level, line); });
    for (const char* text : {"a", "b"}) {
      const auto kernel = cache.get(device, program(text));
      ASSERT_TRUE(kernel) << folder;
      cache.store(device, **kernel);
    }
    EXPECT_EQ(cache.counters().misses, 2u) << folder;
    EXPECT_EQ(cache.counters().stored, 0u) << folder;
    EXPECT_EQ(warnings(), 1u) << folder;
  }
  EXPECT_EQ(content(root / "file"), "not a folder");
}

TEST_F(ProgramCacheTest, UnreadableAndUnwritableForAnOrdinaryUser) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read and write everything";
  start("a");
  fs::permissions(files().at(0), fs::perms::none);
  EXPECT_EQ(start("a").misses, 1u);
  EXPECT_EQ(start("a").hits, 1u);
  fs::permissions(root / "cache/programs", fs::perms::owner_read | fs::perms::owner_exec);
  lines.clear();
  EXPECT_EQ(start("b").stored, 0u);
  EXPECT_EQ(warnings(), 1u);
  fs::permissions(root / "cache/programs", fs::perms::owner_all);
}

TEST_F(ProgramCacheTest, FullDiskLeavesNothingBehind) {
  // A file size limit makes write() fail as a full disk does: part of the way through.
  struct rlimit before {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit tight { 50, before.rlim_max };
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  const auto counters = start("a");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(counters.misses, 1u);
  EXPECT_EQ(counters.stored, 0u);
  EXPECT_EQ(warnings(), 1u);
  EXPECT_TRUE(files().empty());
  EXPECT_EQ(start("a").stored, 1u);
}

TEST_F(ProgramCacheTest, LeastRecentlyUsedGoFirst) {
  const std::string long_text(1000, 'x');
  const auto used_at = [&](const std::string& path, int hour) {
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(24 - hour));
  };
  ProgramCache cache = open(3500);  // three files of about 1,080 bytes
  std::vector<std::string> made;
  const auto add = [&](const std::string& text) {
    const auto before = files();
    const auto kernel = std::move(*cache.get(device, program(text + long_text)));
    cache.store(device, *kernel);
    for (const fs::path& path : files())
      if (std::find(before.begin(), before.end(), path) == before.end()) made.push_back(path);
  };
  for (const char* text : {"a", "b", "c"}) add(text);
  ASSERT_EQ(made.size(), 3u);
  for (int i = 0; i < 3; ++i) used_at(made[static_cast<size_t>(i)], i);
  ASSERT_TRUE(open(3500).get(device, program("a" + long_text)));  // a hit: now "b" is the oldest
  add("d");
  EXPECT_TRUE(fs::exists(made[0]));
  EXPECT_FALSE(fs::exists(made[1]));
  EXPECT_TRUE(fs::exists(made[2]));
  EXPECT_TRUE(fs::exists(made[3]));
}

TEST_F(ProgramCacheTest, ProgramLargerThanTheCapIsNotKept) {
  ProgramCache cache = open(100);
  const auto kernel = std::move(*cache.get(device, program(std::string(1000, 'x'))));
  cache.store(device, *kernel);
  EXPECT_EQ(cache.counters().stored, 0u);
  EXPECT_TRUE(files().empty());
}

TEST_F(ProgramCacheTest, OtherFilesInTheFolderSurvive) {
  start("a");
  overwrite(root / "cache/programs/notes.txt", std::string(5000, 'n'));
  ProgramCache cache = open(10);
  LoweredKernel tiny = program("");
  const auto kernel = std::move(*cache.get(device, tiny));
  cache.store(device, *kernel);
  EXPECT_TRUE(fs::exists(root / "cache/programs/notes.txt"));
}

TEST_F(ProgramCacheTest, OffKeepsNothing) {
  ProgramCache cache = ProgramCache::open("off", nullptr);
  EXPECT_TRUE(cache.folder().empty());
  const auto kernel = std::move(*cache.get(device, program("a")));
  cache.store(device, *kernel);
  EXPECT_EQ(cache.counters().stored, 0u);
  EXPECT_FALSE(fs::exists("off"));
}

// A variable of the environment, put back at the end.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    set(value);
  }
  ~ScopedVariable() { set(old_ ? old_->c_str() : nullptr); }

 private:
  void set(const char* value) { value != nullptr ? setenv(name_, value, 1) : unsetenv(name_); }
  const char* name_;
  std::optional<std::string> old_;
};

TEST_F(ProgramCacheTest, EnvironmentChoosesTheFolder) {
  const auto folder_with = [](const char* cache, const char* xdg, const char* home) {
    const ScopedVariable a("TESSERA_CACHE", cache), b("XDG_CACHE_HOME", xdg), c("HOME", home);
    return ProgramCache::open("", nullptr).folder();
  };
  EXPECT_EQ(folder_with("/t", "/x", "/h"), "/t/programs");
  EXPECT_EQ(folder_with("off", "/x", "/h"), "");
  EXPECT_EQ(folder_with(nullptr, "/x", "/h"), "/x/tessera/programs");
  EXPECT_EQ(folder_with("", "relative", "/h"), "/h/.cache/tessera/programs");
  EXPECT_EQ(folder_with(nullptr, nullptr, nullptr), "");
}

TEST_F(ProgramCacheTest, TwoProcessesMayRace) {
  // Two children start, store and read the same programs over and over; neither may ever see a broken file.
  std::vector<pid_t> children;
  for (int child = 0; child < 2; ++child) {
    const pid_t pid = fork();
    if (pid == 0) {
      uint64_t rejected = 0;
      for (int round = 0; round < 30; ++round)
        for (const char* text : {"a", "b", "c"}) {
          ProgramCache cache = open();
          const auto kernel = cache.get(device, program(text));
          if (!kernel) _exit(1);
          static_cast<FakeKernel&>(**kernel).suffix += "+";  // grows: written anew each time
          cache.store(device, **kernel);
          rejected += cache.counters().rejected + (cache.counters().stored == 1 ? 0 : 1);
        }
      _exit(rejected == 0 && !HasFailure() ? 0 : 2);
    }
    children.push_back(pid);
  }
  for (const pid_t pid : children) {
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  EXPECT_EQ(files().size(), 3u);
  EXPECT_EQ(start("a").hits, 1u);
}

// With a real driver: the binary taken after the first run, loaded by a device opened anew, compiles nothing and computes the same.
class DeviceProgramCacheTest : public ProgramCacheTest, public testing::WithParamInterface<Api> {
 protected:
  void SetUp() override {
    ProgramCacheTest::SetUp();
    if (auto any = gpu::backend_of(GetParam()).open(0); !any) GTEST_SKIP() << "no " << name_of(GetParam()) << " device: " << any.error().message();
  }

  struct Start {
    ProgramCache::Counters cache;
    gpu::Counters device;
  };
  // One start of a program: a device opened anew, a kernel that doubles 8 numbers, kept after it ran.
  Start start_device() {
    const auto opened = std::move(*gpu::backend_of(GetParam()).open(0));
    ProgramCache cache = open();
    const auto kernel = std::move(*cache.get(*opened, gpu::affine_kernel(opened->target())));
    const auto x = std::move(*opened->create_buffer(32)), y = std::move(*opened->create_buffer(32));
    EXPECT_TRUE(opened->write(*x, 0, gpu::bytes_of(gpu::ramp(8))));
    const auto list = std::move(*opened->create_list());
    EXPECT_TRUE(list->dispatch({kernel.get(), {{x.get(), 0, 32}, {y.get(), 0, 32}}, {gpu::bits(2.0f), 0}, {1, 1, 1}, "twice"}));
    EXPECT_TRUE(list->finish());
    EXPECT_TRUE(opened->submit(*list));
    std::vector<float> values(8);
    EXPECT_TRUE(opened->read(*y, 0, std::as_writable_bytes(std::span(values))));
    EXPECT_EQ(values, (std::vector<float>{0, 2, 4, 6, 8, 10, 12, 14}));
    cache.store(*opened, *kernel);
    return {cache.counters(), opened->counters()};
  }
};

TEST_P(DeviceProgramCacheTest, SecondStartCompilesNothing) {
  const Start first = start_device();
  if (first.cache.stored == 0) GTEST_SKIP() << "this driver gives no binaries";
  EXPECT_EQ(first.device.programs_compiled, 1u);
  for (int i = 0; i < 2; ++i) {
    const Start later = start_device();
    EXPECT_EQ(later.cache.hits, 1u);
    EXPECT_EQ(later.cache.stored, 0u);
    EXPECT_EQ(later.device.programs_compiled, 0u);
    EXPECT_EQ(later.device.programs_loaded, 1u);
  }
  EXPECT_TRUE(lines.empty());
}

TEST_P(DeviceProgramCacheTest, DamagedFileIsCompiledAgain) {
  if (start_device().cache.stored == 0) GTEST_SKIP() << "this driver gives no binaries";
  const fs::path file = files().at(0);
  std::string bad = content(file);
  bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);
  overwrite(file, bad);
  const Start after = start_device();
  EXPECT_EQ(after.cache.rejected, 1u);
  EXPECT_EQ(after.cache.stored, 1u);
  EXPECT_EQ(after.device.programs_compiled, 1u);
  EXPECT_EQ(after.device.programs_loaded, 0u);
  EXPECT_EQ(warnings(), 1u);
  EXPECT_EQ(start_device().cache.hits, 1u);
}

INSTANTIATE_TEST_SUITE_P(Apis, DeviceProgramCacheTest, testing::ValuesIn(gpu::apis()), gpu::api_name);

}  // namespace
}  // namespace tessera
