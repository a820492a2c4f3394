// What an app chooses when it loads a model, and how it follows the loading.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "tessera/base/log.hpp"
#include "tessera/tensor/storage.hpp"

namespace tessera {

enum class Precision {
  kDefault,  // what the device computes fastest within the stated bounds: f16 KV pages
  kFloat,    // f32 activations, KV pages and accumulation: for comparing
};

struct Progress {
  std::string_view stage;   // "weights" (bytes), "kernels" (compiled, then stored; a share of the work)
  uint64_t done = 0;
  uint64_t total = 0;       // > 0; done == total ends the stage
};

struct LoadOptions {
  int32_t context_tokens = 0;              // room in the KV cache, for all sessions together; 0: as trained, at most 4096
  Precision precision = Precision::kDefault;
  // Instead of what the device's tuning row says, and without its fallback: kLimit or kUnsupported where a matrix (an intermediate) cannot lie there.
  std::optional<Storage> weight_storage{};
  std::optional<Storage> activation_storage{};
  int32_t weight_parts = 0;                // objects that a matrix is cut into at least, by rows; 0: what the tuning row says
  uint64_t max_device_bytes = 0;           // 0: no cap; else kLimit before anything is loaded if the plan needs more
  std::string cache_folder{};                // compiled programs; empty: $TESSERA_CACHE, else the user's cache folder; "off": none
  bool all_logits = false;                 // also plan steps that give the logits of every position (evaluation)
  std::function<void(const Progress&)> on_progress{};  // called on the loading thread
  LogCallback on_log{};
};

}  // namespace tessera
