// The system calls behind opening a model fail one after the other: each failure is an error that names the file, the action and the reason.
// The linker gives this program's calls of open, fstat, mmap and stat to the functions below (--wrap in tests/CMakeLists.txt).
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string_view>

#include "../temporary_folder.hpp"
#include "model_file_use.hpp"

namespace {
std::string_view failing_call;  // "": none
int failing_number = 0;
int calls_failed = 0;

bool fails(std::string_view call) {
  if (call != failing_call) return false;
  ++calls_failed;
  errno = failing_number;
  return true;
}
}  // namespace

extern "C" {
int __real_open(const char* path, int flags, int mode);
int __real_fstat(int file, struct stat* facts);
int __real_stat(const char* path, struct stat* facts);
void* __real_mmap(void* address, size_t size, int protection, int flags, int file, off_t offset);

int __wrap_open(const char* path, int flags, int mode) { return fails("open") ? -1 : __real_open(path, flags, mode); }
int __wrap_fstat(int file, struct stat* facts) { return fails("fstat") ? -1 : __real_fstat(file, facts); }
int __wrap_stat(const char* path, struct stat* facts) { return fails("stat") ? -1 : __real_stat(path, facts); }
void* __wrap_mmap(void* address, size_t size, int protection, int flags, int file, off_t offset) {
  return fails("mmap") ? MAP_FAILED : __real_mmap(address, size, protection, flags, file, offset);
}
}

namespace tessera {
namespace {

struct Fault {
  const char* call;
  int number;
  const char* says;
};

constexpr Fault kOpening[] = {
    {"open", EIO, "cannot open: Input/output error"},
    {"open", EMFILE, "cannot open: Too many open files"},
    {"open", ESTALE, "cannot open: Stale file handle"},  // a network file system that lost its server
    {"fstat", EIO, "cannot read its size: Input/output error"},
    {"mmap", ENOMEM, "cannot map: Cannot allocate memory"},
    {"mmap", ENODEV, "cannot map: No such device"},  // a file system without mmap
};

class ModelFileIo : public testing::Test {
 protected:
  ~ModelFileIo() override { failing_call = ""; }
  void fail_at(const Fault& fault) {
    failing_call = fault.call;
    failing_number = fault.number;
    calls_failed = 0;
  }
  static int open_files() {
    int count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
    return count;
  }

  test::TemporaryFolder folder_;
  const std::string path_ = folder_.file("model.gguf", test::tiny_llama().bytes());
};

TEST_F(ModelFileIo, FailuresOfOpeningNameFileActionAndReason) {
  for (const Fault& fault : kOpening) {
    SCOPED_TRACE(fault.says);
    const int before = open_files();
    fail_at(fault);
    const auto model = ModelFile::open(path_);
    failing_call = "";
    ASSERT_FALSE(model);
    EXPECT_EQ(calls_failed, 1);
    EXPECT_EQ(model.error().code(), ErrorCode::kIo);
    EXPECT_NE(model.error().message().find(path_), std::string::npos) << model.error().message();
    EXPECT_NE(model.error().message().find(fault.says), std::string::npos) << model.error().message();
    EXPECT_EQ(open_files(), before) << "a descriptor was left open";
  }
  EXPECT_TRUE(ModelFile::open(path_));
}

TEST_F(ModelFileIo, AFileThatCannotBeLookedAtAgainIsNotTakenAsUnchanged) {
  const auto model = ModelFile::open(path_);
  ASSERT_TRUE(model);
  EXPECT_TRUE(model->unchanged());
  for (const Fault& fault : {Fault{"fstat", EIO, "cannot read its size"}, Fault{"stat", ESTALE, "was replaced or removed"}}) {
    SCOPED_TRACE(fault.says);
    fail_at(fault);
    const Status status = model->unchanged();
    failing_call = "";
    ASSERT_FALSE(status);
    EXPECT_EQ(calls_failed, 1);
    EXPECT_EQ(status.error().code(), ErrorCode::kIo);
    EXPECT_NE(status.error().message().find(fault.says), std::string::npos) << status.error().message();
  }
}

}  // namespace
}  // namespace tessera
