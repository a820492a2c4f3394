#include "cache_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tessera/base/text.hpp"

namespace tessera::cache_file {
namespace {

// As it lies in the file, in the byte order of the machine: a cache does not travel.
struct Header {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t header_bytes;
  std::array<char, 32> key;
  uint64_t binary_bytes;
  XXH128_hash_t binary_hash;
};
static_assert(sizeof(Header) == 72);

constexpr std::array<char, 8> kMagic{'T', 'E', 'S', 'S', 'P', 'R', 'O', 'G'};
constexpr off_t kMaxFileBytes = off_t{1} << 30;  // no driver's binary is near: what is larger is no cache file

class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { close(); }
  int get() const { return descriptor_; }
  bool close() { return descriptor_ < 0 || ::close(std::exchange(descriptor_, -1)) == 0; }

 private:
  int descriptor_;
};

tl::unexpected<Error> fail_errno(std::string_view call, const std::string& path) {
  return fail(ErrorCode::kIo, cat(call, " ", escaped(path, 400), ": ", std::strerror(errno)));
}

Header header_for(const std::string& key, std::span<const std::byte> binary) {
  Header header{kMagic, kFormatVersion, sizeof(Header), {}, binary.size(), XXH3_128bits(binary.data(), binary.size())};
  std::memcpy(header.key.data(), key.data(), std::min(key.size(), header.key.size()));
  return header;
}

Status write_all(int descriptor, const void* data, size_t bytes, const std::string& path) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t wrote = ::write(descriptor, at, bytes);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return fail_errno("write", path);
    at += wrote;
    bytes -= static_cast<size_t>(wrote);
  }
  return {};
}

Status read_all(int descriptor, std::vector<std::byte>& bytes, const std::string& path) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::read(descriptor, bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("read", path);
    if (got == 0) return fail(ErrorCode::kMalformed, "it became shorter while it was read");
    done += static_cast<size_t>(got);
  }
  return {};
}

Status check_file(const struct stat& facts) {
  if (!S_ISREG(facts.st_mode)) return fail(ErrorCode::kMalformed, "it is not a regular file");
  if (facts.st_uid != ::geteuid()) return fail(ErrorCode::kMalformed, "it belongs to another user");
  if ((facts.st_mode & (S_IWGRP | S_IWOTH)) != 0) return fail(ErrorCode::kMalformed, "others may write to it");
  if (facts.st_size < static_cast<off_t>(sizeof(Header))) return fail(ErrorCode::kMalformed, cat("it is truncated to ", facts.st_size, " bytes"));
  if (facts.st_size > kMaxFileBytes) return fail(ErrorCode::kMalformed, cat("it has ", facts.st_size, " bytes"));
  return {};
}

Status check_content(std::span<const std::byte> content, const std::string& key) {
  Header found;
  std::memcpy(&found, content.data(), sizeof found);
  if (found.magic != kMagic) return fail(ErrorCode::kMalformed, "it is not a program file");
  if (found.version != kFormatVersion || found.header_bytes != sizeof(Header))
    return fail(ErrorCode::kMalformed, cat("its format is ", found.version, ", expected ", kFormatVersion));
  const std::span<const std::byte> binary = content.subspan(sizeof(Header));
  if (found.binary_bytes != binary.size())
    return fail(ErrorCode::kMalformed, cat("it has ", binary.size(), " bytes of binary, its header says ", found.binary_bytes));
  const Header expected = header_for(key, binary);
  if (found.key != expected.key) return fail(ErrorCode::kMalformed, "it was made for another key");
  if (!XXH128_isEqual(found.binary_hash, expected.binary_hash)) return fail(ErrorCode::kMalformed, "its checksum does not match");
  return {};
}

}  // namespace

std::string hash_of(std::span<const std::string_view> texts) {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  for (const std::string_view text : texts) {
    const uint64_t bytes = text.size();
    XXH3_128bits_update(&state, &bytes, sizeof bytes);
    XXH3_128bits_update(&state, text.data(), text.size());
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(&state);
  char hex[33];
  std::snprintf(hex, sizeof hex, "%016llx%016llx", static_cast<unsigned long long>(hash.high64), static_cast<unsigned long long>(hash.low64));
  return hex;
}

Result<std::optional<std::vector<std::byte>>> read(const std::string& path, const std::string& key) {
  // O_NONBLOCK: a FIFO in the file's place must not hang us.
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.get() < 0 && errno == ENOENT) return std::nullopt;
  if (file.get() < 0) return fail_errno("open", path);
  struct stat facts {};
  if (::fstat(file.get(), &facts) != 0) return fail_errno("stat", path);
  TESSERA_TRY(check_file(facts));
  std::vector<std::byte> content(static_cast<size_t>(facts.st_size));
  TESSERA_TRY(read_all(file.get(), content, path));
  TESSERA_TRY(check_content(content, key));
  ::futimens(file.get(), nullptr);  // the order of deletion: least recently used first
  content.erase(content.begin(), content.begin() + sizeof(Header));
  return content;
}

Status make_folder(const std::string& folder) {
  for (size_t end = folder.find('/', 1);; end = folder.find('/', end + 1)) {
    const std::string part = folder.substr(0, end);
    if (::mkdir(part.c_str(), S_IRWXU) != 0 && errno != EEXIST && end == std::string::npos) return fail_errno("mkdir", part);
    if (end == std::string::npos) break;
  }
  struct stat facts {};
  if (::stat(folder.c_str(), &facts) != 0) return fail_errno("stat", folder);
  if (!S_ISDIR(facts.st_mode)) return fail(ErrorCode::kIo, cat(escaped(folder, 400), " is not a folder"));
  return {};
}

Status replace(const std::string& path, const std::vector<std::span<const std::byte>>& parts) {
  constexpr std::string_view kSuffix = ".tmp";
  std::string aside = cat(path, ".XXXXXX", kSuffix);
  File file(::mkostemps(aside.data(), static_cast<int>(kSuffix.size()), O_CLOEXEC));  // mode 0600
  if (file.get() < 0) return fail_errno("create", aside);
  Status status;
  for (const std::span<const std::byte> part : parts)
    if (status) status = write_all(file.get(), part.data(), part.size(), aside);
  // Without the sync a crash could leave the new name with the content missing.
  if (status && (::fsync(file.get()) != 0 || !file.close())) status = fail_errno("sync", aside);
  if (status && ::rename(aside.c_str(), path.c_str()) != 0) status = fail_errno("rename to", path);
  if (!status) ::unlink(aside.c_str());
  return status;
}

Status write(const std::string& path, const std::string& key, std::span<const std::byte> binary) {
  const Header header = header_for(key, binary);
  return replace(path, {std::as_bytes(std::span(&header, 1)), binary});
}

}  // namespace tessera::cache_file
