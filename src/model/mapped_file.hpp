// A regular file mapped read-only, and whether it is still the file that was mapped.
#pragma once
#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "tessera/base/status.hpp"

namespace tessera {

class MappedFile {
 public:
  MappedFile() = default;
  // kNotFound, kIo; refuses what is not a regular file (a directory, a pipe, a device). Messages start with the path.
  static Result<MappedFile> open(const std::string& path);

  std::span<const std::byte> bytes() const { return bytes_; }
  // kIo if the file was written to, truncated, replaced or removed since. Nothing to check for a default-constructed one.
  Status unchanged() const;

  MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

 private:
  struct Identity {
    uint64_t device = 0, inode = 0;
    int64_t size = 0, seconds = 0, nanoseconds = 0;
    bool operator==(const Identity&) const = default;
  };
  static Identity identity_of(const struct stat& facts);

  std::string path_;
  int descriptor_ = -1;
  std::span<const std::byte> bytes_;
  Identity identity_;
};

}  // namespace tessera
