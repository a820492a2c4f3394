// What an app chooses when it loads a model, and how it follows the loading.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tessera/base/log.hpp"
#include "tessera/tensor/storage.hpp"

namespace tessera {

// How activations and KV pages are stored. Sums are f32 in every precision, and so is what the layers add to.
enum class Precision {
  kDefault,  // f16 KV pages; activations f16 on devices that compute in f16, f32 on the others
  kHalf,     // f16 activations and KV pages, on any device
  kFloat,    // f32 activations and KV pages: for comparing
};

inline constexpr std::pair<std::string_view, Precision> kPrecisions[] = {{"default", Precision::kDefault}, {"half", Precision::kHalf}, {"float", Precision::kFloat}};

// What a command line takes.
inline std::vector<std::string> precision_names() {
  std::vector<std::string> names;
  for (const auto& [text, precision] : kPrecisions) names.emplace_back(text);
  return names;
}

constexpr std::optional<Precision> precision_from_name(std::string_view name) {
  for (const auto& [text, precision] : kPrecisions)
    if (text == name) return precision;
  return std::nullopt;
}

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
  bool prefix_cache = true;                // new conversations take over the pages of earlier ones that began alike, as long as nobody needs the room
  bool all_logits = false;                 // also plan steps that give the logits of every position (evaluation)
  std::function<void(const Progress&)> on_progress{};  // called on the loading thread
  LogCallback on_log{};
};

}  // namespace tessera
