#include "mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tessera/base/text.hpp"

namespace tessera {
namespace {

tl::unexpected<Error> system_error(const std::string& path, std::string_view action) {
  const int number = errno;
  if (number == ENOENT || number == ENOTDIR) return fail(ErrorCode::kNotFound, cat(path, ": no such file; check the path"));
  return fail(ErrorCode::kIo, cat(path, ": cannot ", action, ": ", std::strerror(number)));
}

}  // namespace

MappedFile::Identity MappedFile::identity_of(const struct stat& facts) {
  return {facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec};
}

Result<MappedFile> MappedFile::open(const std::string& path) {
  MappedFile file;
  file.path_ = path;
  // O_NONBLOCK: opening a pipe without a writer must not wait.
  file.descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.descriptor_ < 0) return system_error(path, "open");
  struct stat facts {};
  if (::fstat(file.descriptor_, &facts) != 0) return system_error(path, "read its size");
  if (!S_ISREG(facts.st_mode))
    return fail(ErrorCode::kIo,
                cat(path, ": is ", S_ISDIR(facts.st_mode) ? "a directory" : "a pipe or device", ", not a file; give the .gguf file itself"));
  if (!std::in_range<size_t>(facts.st_size))
    return fail(ErrorCode::kLimit, cat(path, ": has ", facts.st_size, " bytes, more than this process can map"));
  file.identity_ = identity_of(facts);
  if (facts.st_size == 0) return file;  // nothing to map
  const auto size = static_cast<size_t>(facts.st_size);
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor_, 0);
  if (start == MAP_FAILED) return system_error(path, "map");
  file.bytes_ = {static_cast<const std::byte*>(start), size};
  return file;
}

Status MappedFile::unchanged() const {
  if (descriptor_ < 0) return {};
  struct stat facts {};
  if (::fstat(descriptor_, &facts) != 0) return system_error(path_, "read its size");
  if (identity_of(facts) != identity_)
    return fail(ErrorCode::kIo, cat(path_, ": was written to while it was being read (", identity_.size, " bytes at first, now ", facts.st_size,
                                    "); wait until the writer is done and load it again"));
  if (::stat(path_.c_str(), &facts) != 0 || identity_of(facts) != identity_)
    return fail(ErrorCode::kIo, cat(path_, ": was replaced or removed while it was being read; load it again"));
  return {};
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(bytes_, other.bytes_);
  std::swap(identity_, other.identity_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace tessera
