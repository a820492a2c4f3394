// How many bytes one decoded token moves at least, from its plan alone: what a device has to read and write, not what its caches make of it.
#pragma once
#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "tessera/codegen/lower.hpp"
#include "tessera/engine/step_plans.hpp"
#include "tessera/exec/resources.hpp"

namespace tessera::bench {

struct TokenTraffic {
  int64_t touched = 0;   // distinct bytes that each dispatch touches, summed over the dispatches
  int64_t once = 0;      // weights, keys and values of the context, and every intermediate: each byte once
};

// Of a step of one token behind `context` others. Per dispatch a tensor counts whole, but for: keys and values (those of the context where they are read, of one
// token where they are written), inputs (one row; the block table: its entries in use), and where the op itself says fewer (one row of an embedding table).
inline Result<TokenTraffic> token_traffic(const Plan& plan, const KvPool& kv, int64_t context) {
  TokenTraffic traffic;
  std::map<std::string, int64_t> weights, states;   // by resource key: the most that a dispatch touches
  std::set<int> others;
  std::map<std::string, std::set<std::string>> written;
  for (const Dispatch& dispatch : plan.dispatches) {
    const std::string& kernel = dispatch.variant.kernel;
    if (!written.contains(kernel)) {
      TESSERA_ASSIGN(written[kernel], written_tensors(embedded_kernels(), kernel));
    }
    int64_t touched = 0, of_weights = 0;
    std::set<int> seen;
    std::map<std::string, int64_t> here;
    for (const PlanBinding& binding : dispatch.bindings) {
      const PlanObject& object = plan.objects[static_cast<size_t>(binding.object)];
      const int64_t whole = object.layout.object_bytes();
      const bool writes = written[kernel].contains(binding.slot);
      int64_t bytes = whole;
      if (object.home == Home::kState) {
        bytes = whole / (int64_t{kv.pages} * kv.page_tokens) * (writes ? 1 : context + 1);
        states[object.name] = std::max(states[object.name], bytes);
      } else if (object.home == Home::kInput) {
        bytes = object.layout.grid.size() > 1 ? whole / object.layout.grid.front() : std::min(whole, ceil_div(context + 1, kv.page_tokens) * object.layout.texel_bytes());
      } else if (object.home == Home::kWeight) {
        here[resource_key(object)] = whole;
        of_weights += whole;
      } else if (others.insert(binding.object).second) {
        traffic.once += whole;
      }
      if (seen.insert(binding.object).second) touched += bytes;
    }
    // An op that touches less of its weights than all of them says so.
    if (dispatch.bytes > 0 && dispatch.bytes < of_weights) {
      touched = dispatch.bytes;
      for (auto& [key, bytes] : here) bytes = bytes * dispatch.bytes / of_weights;
    }
    for (const auto& [key, bytes] : here) weights[key] = std::max(weights[key], bytes);
    traffic.touched += touched;
  }
  for (const auto& [key, bytes] : weights) traffic.once += bytes;
  for (const auto& [key, bytes] : states) traffic.once += bytes;
  return traffic;
}

}  // namespace tessera::bench
