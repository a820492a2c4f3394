// A plan: everything one step shape does on a device, as plain data that prints as text (plan/dump.hpp).
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/codegen/variant.hpp"
#include "tessera/device/tuning.hpp"
#include "tessera/graph/graph.hpp"
#include "tessera/graph/step_shape.hpp"
#include "tessera/tensor/weight_layout.hpp"

namespace tessera {

// The words of the run-time parameter buffer (int32), by index.
inline const std::vector<std::string>& step_params() {
  static const std::vector<std::string> kNames = {"tokens"};
  return kNames;
}

enum class Home : uint8_t {
  kWeight,       // uploaded once, shared by all plans: weight_key, part, plane
  kState,        // KV pages, shared by all plans: by name
  kInput,        // written by the host, shared by all plans: by name
  kOutput,       // read by the host, shared by all plans: by name
  kArenaBuffer,  // a range of the arena: offset
  kArenaImage,   // an image of the arena: image_slot
};

struct PlanObject {
  std::string name;
  Home home = Home::kArenaBuffer;
  Layout layout;                 // as allocated; the bindings see it through views
  int64_t offset = 0;            // kArenaBuffer, bytes
  int image_slot = -1;           // kArenaImage
  std::string weight_key;        // kWeight
  int part = 0;
  Plane plane = Plane::kWhole;
};

struct PlanBinding {
  std::string slot;
  int object = -1;
  Layout view;                   // the object's memory as this kernel's texels
};

struct Dispatch {
  int node = 0;                  // of the graph, as the passes left it: dispatches of one node follow each other
  OpShape shape;                 // of that node
  std::string label;             // kernel and what it computes: "gemv blk.0.ffn_down.weight"
  KernelVariant variant;
  std::vector<PlanBinding> bindings;
  std::map<std::string, uint32_t> args;
  std::array<int64_t, 3> workgroups{1, 1, 1};
  bool barrier = true;           // waits for the dispatches before it: it touches what one of them writes, or writes what one touches
  int64_t bytes = 0;             // read and written at least once each: what a profile divides by time (runs of fewer tokens move less)
};

// A weight that the plan reads, and how it is cut and laid out. Vectors have no parts: they are one f32 buffer.
struct PlanWeight {
  WeightDesc desc;
  WeightPlacement placement;
};

struct Plan {
  StepShape shape;
  std::vector<PlanObject> objects;
  std::vector<Dispatch> dispatches;
  std::map<std::string, PlanWeight> weights;   // by weight_key
  std::vector<Layout> image_slots;       // arena images
  int64_t arena_bytes = 0;               // arena buffer
  int64_t arena_lower_bound = 0;         // the largest set of bytes alive at once: no placement can be smaller
};

}  // namespace tessera
