// Layers that share their weights (block-wise sharing: Liu et al., MobileLLM, arXiv 2402.14905). GGUF has no word for it: a converted file holds
// the shared tensors once a layer. They are found by their bytes.
#include <map>
#include <tuple>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "model_parts.hpp"

namespace tessera {
namespace {

constexpr size_t kSampleBytes = 4096;

// "attn_q.weight" of "blk.7.attn_q.weight"; empty for tensors of no layer.
std::string_view name_in_layer(std::string_view name) {
  return name.starts_with("blk.") ? name.substr(name.find('.', 4) + 1) : std::string_view();
}

using Digest = std::pair<uint64_t, uint64_t>;
Digest digest(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.high64, hash.low64};
}

}  // namespace

// Two steps, so that a model without repeats is not read through: only tensors that begin alike are hashed whole, each once.
void find_repeats(std::vector<WeightRef>& weights) {
  std::map<std::tuple<std::string_view, WeightType, int64_t, int64_t, Digest>, std::vector<WeightRef*>> alike;
  for (WeightRef& weight : weights)
    if (const std::string_view name = name_in_layer(weight.name); !name.empty())
      alike[{name, weight.type, weight.rows, weight.columns, digest(weight.bytes.first(std::min(kSampleBytes, weight.bytes.size())))}].push_back(&weight);
  for (const auto& [key, group] : alike) {
    if (group.size() < 2) continue;
    std::map<Digest, const WeightRef*> first;
    for (WeightRef* weight : group) {
      const auto [it, is_new] = first.try_emplace(digest(weight->bytes), weight);
      if (!is_new) weight->stored_as = it->second->name;
    }
  }
}

}  // namespace tessera
