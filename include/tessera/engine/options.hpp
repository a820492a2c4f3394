// What an app chooses when it loads a model, and how it follows the loading.
#pragma once
#include <cstddef>
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

// How activations and, where KvType says nothing else, KV pages are stored. Sums are f32 in every precision, and so is what the layers add to.
enum class Precision {
  kDefault,  // f16 KV pages; activations f16 on devices that compute in f16, f32 on the others; products in int8 where the device's row says so
  kHalf,     // f16 activations and KV pages, on any device
  kFloat,    // f32 activations and KV pages: for comparing
};

inline constexpr std::pair<std::string_view, Precision> kPrecisions[] = {{"default", Precision::kDefault}, {"half", Precision::kHalf}, {"float", Precision::kFloat}};

// How keys and values are stored.
enum class KvType {
  kDefault,  // as the precision says
  kFloat,
  kHalf,
  kInt8,     // bytes, with an f32 scale a token and kv head; on any device
};

inline constexpr std::pair<std::string_view, KvType> kKvTypes[] = {{"default", KvType::kDefault}, {"float", KvType::kFloat}, {"half", KvType::kHalf}, {"int8", KvType::kInt8}};

// What a command line takes.
template <class Value, size_t kCount>
std::vector<std::string> names_of(const std::pair<std::string_view, Value> (&table)[kCount]) {
  std::vector<std::string> names;
  for (const auto& [text, value] : table) names.emplace_back(text);
  return names;
}
template <class Value, size_t kCount>
constexpr std::optional<Value> value_named(const std::pair<std::string_view, Value> (&table)[kCount], std::string_view name) {
  for (const auto& [text, value] : table)
    if (text == name) return value;
  return std::nullopt;
}
inline std::vector<std::string> precision_names() { return names_of(kPrecisions); }
inline std::vector<std::string> kv_type_names() { return names_of(kKvTypes); }
constexpr std::optional<Precision> precision_from_name(std::string_view name) { return value_named(kPrecisions, name); }
constexpr std::optional<KvType> kv_type_from_name(std::string_view name) { return value_named(kKvTypes, name); }

struct Progress {
  std::string_view stage;   // "weights" (bytes), "kernels" (compiled, then stored; a share of the work)
  uint64_t done = 0;
  uint64_t total = 0;       // > 0; done == total ends the stage
};

struct LoadOptions {
  int32_t context_tokens = 0;              // of one session at most; 0: as trained, at most 4096
  Precision precision = Precision::kDefault;
  KvType kv = KvType::kDefault;
  // Of the KV pages, which all sessions share: as many whole pages as fit, be it for many contexts or for a part of one (context_tokens is then no more than
  // the pages hold); kLimit where not one does. 0: pages for context_tokens, or for a sliding window and a chunk of a prompt, which such a model needs at most.
  uint64_t kv_bytes = 0;
  int32_t page_tokens = 0;                 // of a KV page, a power of two up to 256; 0: 16. A session wastes half a page on average.
  // Instead of what the device's tuning row says, and without its fallback: kLimit or kUnsupported where a matrix (an intermediate) cannot lie there.
  std::optional<Storage> weight_storage{};
  std::optional<Storage> activation_storage{};
  int32_t weight_parts = 0;                // objects that a matrix is cut into at least, by rows; 0: what the tuning row says
  uint64_t max_device_bytes = 0;           // 0: no cap; else kLimit before anything is loaded if the plan needs more
  std::string cache_folder{};                // compiled programs; empty: $TESSERA_CACHE, else the user's cache folder; "off": none
  // Rows that `tessera-bench tune` measured here: a file of them; "off": the shipped rows alone; empty: $TESSERA_TUNING, where it is set, names either, else
  // the file for this device in the cache folder, if there is one.
  std::string tuning{};
  bool prefix_cache = true;                // new conversations take over the pages of earlier ones that began alike, as long as nobody needs the room
  bool all_logits = false;                 // also plan steps that give the logits of every position (evaluation)
  std::function<void(const Progress&)> on_progress{};  // called on the loading thread
  LogCallback on_log{};
};

}  // namespace tessera
