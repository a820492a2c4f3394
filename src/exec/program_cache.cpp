#include "tessera/exec/program_cache.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "cache_file.hpp"
#include "tessera/base/text.hpp"
#include "tessera/version.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".program";
constexpr std::string_view kOff = "off";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

// The XDG base directory specification asks that a relative $XDG_CACHE_HOME be ignored.
std::string default_folder() {
  if (std::string chosen = environment("TESSERA_CACHE"); !chosen.empty()) return chosen;
  if (const std::string caches = environment("XDG_CACHE_HOME"); caches.starts_with('/')) return caches + "/tessera";
  if (const std::string home = environment("HOME"); home.starts_with('/')) return home + "/.cache/tessera";
  return std::string(kOff);
}

// Everything that shapes a binary.
std::string key_of(const gpu::Device& device, const LoweredKernel& lowered) {
  const DeviceInfo& info = device.info();
  const std::string format = cat(cache_file::kFormatVersion);
  const std::string workgroup = cat(lowered.workgroup[0], " ", lowered.workgroup[1], " ", lowered.workgroup[2]);
  const std::string_view parts[] = {format,
                                    kVersion,
                                    name_of(info.api),
                                    info.name,
                                    info.vendor,
                                    info.platform,
                                    info.api_version,
                                    info.driver_version,
                                    device.compile_options(),
                                    lowered.entry,
                                    workgroup,
                                    lowered.text};
  return cache_file::hash_of(parts);
}

struct CachedFile {
  fs::path path;
  fs::file_time_type used;
  int64_t bytes;
};

// Our files, and what writers that died left beside them.
std::vector<CachedFile> list_files(const std::string& folder) {
  std::vector<CachedFile> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code gone;  // another process may delete a file between any two of these calls
    if (name.find(kSuffix) == std::string::npos || !fs::is_regular_file(entry->symlink_status(gone))) continue;
    const fs::file_time_type used = entry->last_write_time(gone);
    const uintmax_t bytes = gone ? 0 : entry->file_size(gone);
    if (!gone) files.push_back({entry->path(), used, static_cast<int64_t>(bytes)});
  }
  return files;
}

}  // namespace

std::string cache_folder_of(const std::string& chosen) {
  const std::string folder = chosen.empty() ? default_folder() : chosen;
  return folder == kOff ? std::string() : folder;
}

ProgramCache ProgramCache::open(std::string folder, LogCallback log, int64_t max_bytes) {
  folder = cache_folder_of(folder);
  return ProgramCache(folder.empty() ? std::string() : folder + "/programs", std::move(log), max_bytes);
}

Result<std::unique_ptr<gpu::Kernel>> ProgramCache::get(gpu::Device& device, const LoweredKernel& lowered) {
  if (!folder_.empty()) {
    auto loaded = load(device, lowered, key_of(device, lowered));
    if (!loaded || *loaded) return loaded;
  }
  TESSERA_ASSIGN(std::unique_ptr<gpu::Kernel> kernel, device.compile(lowered));
  ++counters_.misses;
  return kernel;
}

// Null when it has to be compiled. An error only when the device was lost: compiling would fail too.
Result<std::unique_ptr<gpu::Kernel>> ProgramCache::load(gpu::Device& device, const LoweredKernel& lowered, const std::string& key) {
  const std::string path = cat(folder_, "/", key, kSuffix);
  auto binary = cache_file::read(path, key);
  if (!binary) {
    reject(path, binary.error());
    return nullptr;
  }
  if (!*binary) return nullptr;
  auto kernel = device.load(lowered, **binary);
  if (!kernel) {
    if (kernel.error().code() == ErrorCode::kDeviceLost) return fail(std::move(kernel).error());
    reject(path, kernel.error());
    return nullptr;
  }
  ++counters_.hits;
  kept_[key] = (*binary)->size();
  return kernel;
}

void ProgramCache::store(const gpu::Device& device, const gpu::Kernel& kernel) {
  if (folder_.empty()) return;
  const auto binary = kernel.binary();
  if (!binary) return warn(cat("no program binary from the driver: ", binary.error().message()));
  const auto bytes = static_cast<int64_t>(binary->size());
  if (bytes == 0 || bytes > max_bytes_) return;
  const std::string key = key_of(device, kernel.lowered());
  if (const auto kept = kept_.find(key); kept != kept_.end() && kept->second == binary->size()) return;

  Status status = cache_file::make_folder(folder_);
  if (status) status = cache_file::write(cat(folder_, "/", key, kSuffix), key, *binary);
  if (!status) return warn(cat("the program cache cannot be written, programs will be compiled again next time: ", status.error().message()));
  ++counters_.stored;
  kept_[key] = binary->size();
  if (bytes_ >= 0) bytes_ += bytes;
  if (bytes_ < 0 || bytes_ > max_bytes_) trim();
}

void ProgramCache::reject(const std::string& path, const Error& why) {
  ++counters_.rejected;
  std::error_code error;
  fs::remove(path, error);  // whatever has the name: a link itself and not its target, a folder only if it is empty
  warn(cat("program cache file ", escaped(path, 400), " is not used and will be made anew: ", why.message()));
}

void ProgramCache::warn(const std::string& line) {
  if (log_) log_(warned_ ? LogLevel::kDebug : LogLevel::kWarning, line);
  warned_ = true;
}

void ProgramCache::trim() {
  std::vector<CachedFile> files = list_files(folder_);
  bytes_ = 0;
  for (const CachedFile& file : files) bytes_ += file.bytes;
  std::sort(files.begin(), files.end(), [](const CachedFile& a, const CachedFile& b) { return a.used < b.used; });
  for (const CachedFile& file : files) {
    if (bytes_ <= max_bytes_) break;
    std::error_code error;
    fs::remove(file.path, error);
    bytes_ -= file.bytes;
  }
}

}  // namespace tessera
