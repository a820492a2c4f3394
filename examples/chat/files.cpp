#include "files.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "tessera/base/text.hpp"

namespace chat {
namespace {
namespace fs = std::filesystem;
using tessera::cat;
using tessera::ErrorCode;
using tessera::fail;

constexpr size_t kMaxBytes = size_t{64} << 20;
}  // namespace

std::string expand_home(std::string_view path) {
  const char* home = std::getenv("HOME");
  return home != nullptr && path.starts_with("~/") ? cat(home, path.substr(1)) : std::string(path);
}

tessera::Result<std::string> read_text_file(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return fail(ErrorCode::kInvalidArgument, cat(path, " is a folder"));
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, cat("cannot read ", path, ": ", std::strerror(errno)));
  std::string text;
  char part[1 << 16];
  size_t got = 0;
  while (text.size() <= kMaxBytes && (got = std::fread(part, 1, sizeof part, file)) > 0) text.append(part, got);
  const bool broken = std::ferror(file) != 0;
  std::fclose(file);
  if (broken) return fail(ErrorCode::kIo, cat("reading ", path, " failed"));
  if (text.size() > kMaxBytes) return fail(ErrorCode::kLimit, cat(path, " has more than ", tessera::bytes_text(kMaxBytes)));
  return text;
}

tessera::Status write_text_file(const std::string& path, std::string_view text, bool replace) {
  std::error_code ignored;
  if (!replace && fs::exists(fs::symlink_status(path, ignored))) return fail(ErrorCode::kInvalidArgument, cat(path, " exists; --force replaces it"));
  std::string temporary = path + ".XXXXXX";
  const int file = mkstemp(temporary.data());   // mode 0600
  if (file < 0) return fail(ErrorCode::kIo, cat("cannot write ", path, ": ", std::strerror(errno)));
  std::string_view left = text;
  bool written = true;
  while (written && !left.empty()) {
    const ssize_t count = ::write(file, left.data(), left.size());
    if (count < 0 && errno == EINTR) continue;
    written = count > 0;
    if (written) left.remove_prefix(static_cast<size_t>(count));
  }
  written = written && fsync(file) == 0;
  written = ::close(file) == 0 && written;
  if (written && std::rename(temporary.c_str(), path.c_str()) == 0) return {};
  const std::string why = std::strerror(errno);
  std::remove(temporary.c_str());
  return fail(ErrorCode::kIo, cat("writing ", path, " failed: ", why));
}

}  // namespace chat
