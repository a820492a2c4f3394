// Compiled programs kept on disk, so that a second start compiles nothing.
//
// One file a program: FOLDER/programs/KEY.program. The key is a hash of everything that shapes the binary: kernel text, compile options,
// device, driver, platform, this library's version and the file format's. A file is trusted only if its own header, length and hash agree;
// anything else is reported once, removed and compiled again. No trouble with the cache is ever an error of the caller's.
//
// Several processes may share a folder: a file appears whole (written aside, synced, renamed) and may vanish at any time. One object is
// used by one thread at a time. Files are readable by their owner only, and another user's files are never loaded: they are code.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "tessera/base/log.hpp"
#include "tessera/base/status.hpp"
#include "tessera/gpu/gpu.hpp"

namespace tessera {

// `chosen`, where it is not empty; else $TESSERA_CACHE, else $XDG_CACHE_HOME/tessera, else ~/.cache/tessera. Empty: "off" was chosen.
std::string cache_folder_of(const std::string& chosen);

class ProgramCache {
 public:
  static constexpr int64_t kDefaultMaxBytes = int64_t{256} << 20;

  struct Counters {
    uint64_t hits = 0;      // loaded
    uint64_t misses = 0;    // compiled
    uint64_t stored = 0;    // files written
    uint64_t rejected = 0;  // files that could not be used
  };

  // In cache_folder_of(folder); "off" (here or in $TESSERA_CACHE) keeps nothing. The folder is created when the first program is stored. Past `max_bytes` the least recently used programs are deleted.
  static ProgramCache open(std::string folder, LogCallback log, int64_t max_bytes = kDefaultMaxBytes);

  // The program from disk, or compiled. Errors are the device's own.
  Result<std::unique_ptr<gpu::Kernel>> get(gpu::Device& device, const LoweredKernel& lowered);

  // Keeps a program that get() gave, unless the file has it already. Call it once the kernel has run: some drivers (PoCL) generate the
  // machine code at the first dispatch, and only a binary taken after that has it. Costs a file write, and on such drivers some compile time.
  void store(const gpu::Device& device, const gpu::Kernel& kernel);

  const Counters& counters() const { return counters_; }
  // Where the files are; empty when the cache is off.
  const std::string& folder() const { return folder_; }

 private:
  ProgramCache(std::string folder, LogCallback log, int64_t max_bytes) : folder_(std::move(folder)), log_(std::move(log)), max_bytes_(max_bytes) {}

  Result<std::unique_ptr<gpu::Kernel>> load(gpu::Device& device, const LoweredKernel& lowered, const std::string& key);
  void reject(const std::string& path, const Error& why);
  void warn(const std::string& line);
  void trim();

  std::string folder_;
  LogCallback log_;
  int64_t max_bytes_;
  int64_t bytes_ = -1;  // of all files, about (other processes add and delete too); -1: not counted yet
  bool warned_ = false;
  std::map<std::string, size_t> kept_;  // key → bytes of the binary that is on disk
  Counters counters_;
};

}  // namespace tessera
