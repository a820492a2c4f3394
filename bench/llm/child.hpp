// This program once more, in a process of its own: for what must begin from nothing (a cold start), or must not count as this process's memory.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tessera/base/status.hpp"

namespace tessera::bench {

struct ChildAnswer {
  nlohmann::ordered_json json;   // its one line on standard output
  double seconds = 0.0;          // from before it was started until the line was there
};

using Environment = std::vector<std::pair<std::string, std::string>>;

// Waits for it. Its standard error is this process's. kIo: it could not be started, or ended with an error, which it has told.
Result<ChildAnswer> run_self(const std::vector<std::string>& arguments, const Environment& changed = {});

// A folder for the caches of a first start, gone with the object.
class FreshFolder {
 public:
  static Result<FreshFolder> make();
  FreshFolder(FreshFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  FreshFolder& operator=(FreshFolder&&) = delete;
  ~FreshFolder();
  // Every cache of ours and of drivers in it: our programs; PoCL; Mesa; Intel's GPU driver; NVIDIA's; and whoever follows the XDG rules.
  // (Intel's driver for CPUs keeps nothing on disk.)
  Environment caches() const;

 private:
  explicit FreshFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace tessera::bench
