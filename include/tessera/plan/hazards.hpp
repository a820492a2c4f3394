// Which dispatches must wait for those before them. The planner asks it for the barriers of a plan, by the plan's own places; the executor asks it
// again before it records, by the objects and bytes that the places became.
#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace tessera {

// What a dispatch touches: a range of something that has an identity.
template <class Object>
struct Access {
  Object object;
  int64_t begin = 0;   // bytes; an image is touched whole
  int64_t end = 1;
  bool written = false;
};

enum class Hazard { kReadAfterWrite, kWriteAfterRead, kWriteAfterWrite };

constexpr std::string_view name_of(Hazard hazard) {
  constexpr std::string_view kNames[] = {"reads what is being written", "writes what is being read", "writes what is being written"};
  return kNames[static_cast<int>(hazard)];
}

// The accesses since the last barrier. Cost: the product of their number and a dispatch's own, a few hundred comparisons.
template <class Object>
class HazardTracker {
 public:
  // Why a dispatch with these accesses cannot run beside the ones since the last barrier.
  std::optional<Hazard> conflict(const std::vector<Access<Object>>& accesses) const {
    for (const Access<Object>& now : accesses)
      for (const Access<Object>& before : since_)
        if ((now.written || before.written) && now.object == before.object && now.begin < before.end && before.begin < now.end)
          return !now.written ? Hazard::kReadAfterWrite : before.written ? Hazard::kWriteAfterWrite : Hazard::kWriteAfterRead;
    return std::nullopt;
  }
  void barrier() { since_.clear(); }
  void add(const std::vector<Access<Object>>& accesses) { since_.insert(since_.end(), accesses.begin(), accesses.end()); }

 private:
  std::vector<Access<Object>> since_;
};

}  // namespace tessera
