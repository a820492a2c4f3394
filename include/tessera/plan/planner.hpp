// Graph → Plan: passes, kernel calls, layouts within the device's limits, memory.
#pragma once
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tessera/codegen/lower.hpp"
#include "tessera/device/device_info.hpp"
#include "tessera/device/op_settings.hpp"
#include "tessera/ops/op_table.hpp"
#include "tessera/plan/hazards.hpp"
#include "tessera/plan/memory.hpp"
#include "tessera/plan/passes/fold_gated.hpp"
#include "tessera/plan/passes/fold_norm.hpp"
#include "tessera/plan/passes/fold_residual.hpp"
#include "tessera/plan/passes/fold_rope.hpp"
#include "tessera/plan/passes/quantize_activations.hpp"
#include "tessera/plan/passes/remove_unused.hpp"
#include "tessera/plan/passes/split_context.hpp"
#include "tessera/plan/passes/stack_matmuls.hpp"
#include "tessera/plan/plan.hpp"

namespace tessera {

// The fusions, in the order that lets each see what the one before made.
inline void run_passes(Graph& graph, const Tuning& tuning, const StepShape& shape) {
  passes::remove_unused(graph);
  passes::fold_gated(graph);
  passes::stack_matmuls(graph);
  if (tuning.fuse_norm) passes::fold_norm(graph);
  passes::fold_residual(graph);
  passes::fold_rope(graph);
  if (shape.long_context) passes::split_context(graph, tuning);
  if (tuning.int8_activations) passes::quantize_activations(graph, tuning);
}

class Planner {
 public:
  Planner(const DeviceInfo& device, const Tuning& tuning) : device_(device), tuning_(tuning) {}

  // Errors: kLimit naming the tensor that no storage of the device can hold.
  Result<Plan> plan(Graph graph, const StepShape& shape) {
    run_passes(graph, tuning_, shape);
    graph_ = std::move(graph);
    plan_ = Plan{};
    plan_.shape = shape;
    objects_.clear();
    images_.clear();
    TESSERA_TRY(place_weights());
    for (const Node& node : graph_.nodes) {
      const OpShape op_shape = shape_of(graph_, node);
      const Tuning tuning = tuning_for_shape(tuning_, op_shape);
      const PlanContext context{graph_, tuning, placements_};
      const Op* op = find_op(node.op);
      if (op == nullptr) return fail(ErrorCode::kInvalidArgument, cat("no op named ", node.op));
      TESSERA_ASSIGN(const std::vector<KernelCall> calls, op->plan(context, node));
      for (const KernelCall& call : calls) TESSERA_TRY(add_dispatch(call, node, op_shape));
    }
    place_memory();
    TESSERA_TRY(place_barriers());
    return std::move(plan_);
  }

 private:
  Status place_weights() {
    placements_.assign(graph_.values.size(), {});
    for (const Node& node : graph_.nodes)
      for (const auto& [role, id] : node.inputs) {
        if (role == "w") graph_[id].role = ValueRole::kWeight;  // of one row, too: what multiplies is laid out as a matrix
        if (graph_[id].role != ValueRole::kWeight || !placements_[static_cast<size_t>(id)].parts.empty()) continue;
        const WeightDesc& desc = graph_[id].weight;
        const StorageChoice& choice = desc.bias() ? StorageChoice() : tuning_.weight_storage;   // a bias is one buffer, whatever its weight is
        TESSERA_ASSIGN(placements_[static_cast<size_t>(id)], place_weight(desc, tuning_.vector_width, choice, device_.storage_limits(), desc.bias() ? 1 : tuning_.weight_parts, tuning_.weight_interleave));
      }
    return {};
  }

  // Where an activation of [rows, channels] lies. Kernels write it, and their text must not depend on the rows: it is not folded by them.
  Result<Layout> activation_layout(const Value& value) const {
    const int64_t rows = value.rows == 1 ? 1 : padded_rows(tuning_, value.rows);
    const bool fixed = !value.grid.empty();   // texels of a type of its own
    const int64_t slices = fixed ? value.grid.back() : round_up(value.channels, std::max(4, tuning_.vector_width)) / 4;
    const DType type = fixed ? value.dtype : value.role == ValueRole::kOutput || value.residual ? DType::kF32 : tuning_.activation_type;
    return place_by(value.role == ValueRole::kOutput ? StorageChoice(Storage::kBuffer) : tuning_.activation_storage, [&](Storage storage) -> Result<Layout> {
      if (!is_writable(storage, device_.storage_limits())) return fail(ErrorCode::kUnsupported, cat("kernels of this device do not write ", name_of(storage)));
      TESSERA_ASSIGN(Layout layout, fit(Layout{storage, type, 4, {rows, slices}}, device_.storage_limits()));
      if (row_of(storage).form == StorageForm::kPanels && layout.fold != 0) return fail(ErrorCode::kLimit, cat(rows, " rows need a folded ", name_of(storage), "; activations are not folded"));
      return layout;
    });
  }

  Result<Layout> object_layout(const Value& value, const SlotUse& use) const {
    switch (value.role) {
      case ValueRole::kWeight: return *placements_[static_cast<size_t>(use.value)].parts[static_cast<size_t>(use.part)].layout(use.plane);
      case ValueRole::kVector: return fit(vector_layout(value.channels), device_.storage_limits());
      case ValueRole::kState:
      case ValueRole::kInput: return fit(Layout{Storage::kBuffer, value.dtype, value.lanes, value.grid}, device_.storage_limits());
      default: return activation_layout(value);
    }
  }

  // The object behind a slot, made when it is first used.
  Result<int> object_for(const SlotUse& use) {
    const ValueId owner = graph_.owner(use.value);
    const auto key = std::make_tuple(owner, use.plane, use.part);
    if (const auto it = objects_.find(key); it != objects_.end()) return it->second;
    const Value& value = graph_[owner];
    auto layout = object_layout(value, use);
    if (!layout) return fail(std::move(layout).error().within(value.name));
    PlanObject object;
    object.name = value.name;
    object.layout = *layout;
    switch (value.role) {
      case ValueRole::kWeight:
      case ValueRole::kVector:
        object.home = Home::kWeight;
        object.weight_key = value.weight.key();
        plan_.weights.try_emplace(object.weight_key, PlanWeight{value.weight, placements_[static_cast<size_t>(owner)]});
        object.part = use.part;
        object.plane = use.plane;
        break;
      case ValueRole::kState: object.home = Home::kState; break;
      case ValueRole::kInput: object.home = Home::kInput; break;
      case ValueRole::kOutput: object.home = Home::kOutput; break;
      case ValueRole::kActivation: object.home = is_image(layout->storage) ? Home::kArenaImage : Home::kArenaBuffer; break;
    }
    plan_.objects.push_back(std::move(object));
    return objects_[key] = static_cast<int>(plan_.objects.size()) - 1;
  }

  Status add_dispatch(const KernelCall& call, const Node& node, const OpShape& op_shape) {
    Dispatch dispatch;
    dispatch.node = static_cast<int>(&node - graph_.nodes.data());
    dispatch.shape = op_shape;
    dispatch.variant.kernel = call.kernel;
    dispatch.variant.consts = call.consts;
    dispatch.variant.words = tuning_.words;
    if (call.vector_width && *call.vector_width != tuning_.vector_width) {
      dispatch.variant.words.vector_width = *call.vector_width;
      dispatch.variant.words.dot = DotForm::kPlain;   // the tuning's form may be one of its own width
    }
    dispatch.args = call.args;
    dispatch.workgroups = call.workgroups;
    const ValueId w = node.input("w");
    dispatch.label = call.kernel + " " + (w != kNoValue ? graph_[w].name : node.outputs.empty() ? std::string() : graph_[node.outputs.front().second].name);
    for (const SlotUse& use : call.slots) {
      TESSERA_ASSIGN(const int object, object_for(use));
      Layout view = plan_.objects[static_cast<size_t>(object)].layout;
      if (view.lanes != use.lanes) {  // the same memory in wider or narrower texels
        view.grid.back() = view.grid.back() * view.lanes / use.lanes;
        view.lanes = use.lanes;
      }
      dispatch.bytes += view.object_bytes();
      Layout text_view = view;
      text_view.grid.front() = 1;  // the outermost extent never enters kernel text: one program for every number of tokens and pages
      dispatch.variant.tensors[use.slot] = text_view;
      dispatch.bindings.push_back({use.slot, object, view});
    }
    for (int axis = 0; axis < 3; ++axis)
      if (call.workgroups[static_cast<size_t>(axis)] > device_.max_grid[static_cast<size_t>(axis)])
        return fail(ErrorCode::kLimit, cat(dispatch.label, ": ", call.workgroups[static_cast<size_t>(axis)], " workgroups on axis ", axis, "; the device allows ", device_.max_grid[static_cast<size_t>(axis)]));
    dispatch.bytes = call.bytes.value_or(dispatch.bytes);
    plan_.dispatches.push_back(std::move(dispatch));
    return {};
  }

  std::vector<Lifetime> lifetimes() const {
    std::vector<Lifetime> lives(plan_.objects.size());
    for (size_t o = 0; o < lives.size(); ++o) lives[o] = {plan_.objects[o].layout.object_bytes(), -1, -1};
    for (size_t d = 0; d < plan_.dispatches.size(); ++d)
      for (const PlanBinding& binding : plan_.dispatches[d].bindings) {
        Lifetime& life = lives[static_cast<size_t>(binding.object)];
        if (life.first < 0) life.first = static_cast<int>(d);
        life.last = static_cast<int>(d);
      }
    return lives;
  }

  void place_memory() {
    const std::vector<Lifetime> lives = lifetimes();
    std::vector<size_t> in_buffer;
    std::vector<Lifetime> buffer_lives;
    for (size_t o = 0; o < lives.size(); ++o) {
      if (plan_.objects[o].home == Home::kArenaImage) place_image(plan_.objects[o], lives[o]);
      if (plan_.objects[o].home != Home::kArenaBuffer) continue;
      in_buffer.push_back(o);
      buffer_lives.push_back(lives[o]);
    }
    const ArenaPlacement placement = place_in_arena(buffer_lives, device_.buffer_offset_alignment);
    for (size_t i = 0; i < in_buffer.size(); ++i) plan_.objects[in_buffer[i]].offset = placement.offsets[i];
    plan_.arena_bytes = placement.bytes;
    plan_.arena_lower_bound = placement.lower_bound;
  }

  // Images cannot share bytes, only objects: the first of equal shape that is free for the whole life.
  void place_image(PlanObject& object, const Lifetime& life) {
    for (size_t s = 0; s < images_.size(); ++s) {
      if (plan_.image_slots[s] != object.layout) continue;
      const bool taken = std::any_of(images_[s].begin(), images_[s].end(), [&](const Lifetime& other) { return overlap_in_time(life, other); });
      if (taken) continue;
      images_[s].push_back(life);
      object.image_slot = static_cast<int>(s);
      return;
    }
    object.image_slot = static_cast<int>(images_.size());
    plan_.image_slots.push_back(object.layout);
    images_.push_back({life});
  }

  // A range of the arena, or an object that nothing else shares: its home and a number in it.
  using Place = std::pair<Home, int>;
  Access<Place> access_of(const PlanBinding& binding, bool written) const {
    const PlanObject& object = plan_.objects[static_cast<size_t>(binding.object)];
    if (object.home == Home::kArenaBuffer) return {{object.home, 0}, object.offset, object.offset + object.layout.object_bytes(), written};
    return {{object.home, object.home == Home::kArenaImage ? object.image_slot : binding.object}, 0, 1, written};
  }

  Status place_barriers() {
    HazardTracker<Place> tracker;
    for (Dispatch& dispatch : plan_.dispatches) {
      const std::string& kernel = dispatch.variant.kernel;
      auto written = written_.find(kernel);
      if (written == written_.end()) {
        TESSERA_ASSIGN(std::set<std::string> names, written_tensors(embedded_kernels(), kernel));
        written = written_.emplace(kernel, std::move(names)).first;
      }
      std::vector<Access<Place>> accesses;
      for (const PlanBinding& binding : dispatch.bindings) accesses.push_back(access_of(binding, written->second.contains(binding.slot)));
      dispatch.barrier = tracker.conflict(accesses).has_value();
      if (dispatch.barrier) tracker.barrier();
      tracker.add(accesses);
    }
    return {};
  }

  const DeviceInfo& device_;
  const Tuning& tuning_;
  std::map<std::string, std::set<std::string>> written_;   // by kernel: the tensors it writes
  Graph graph_;
  Plan plan_;
  std::vector<WeightPlacement> placements_;                      // by value id
  std::map<std::tuple<ValueId, Plane, int>, int> objects_;       // → index in plan_.objects
  std::vector<std::vector<Lifetime>> images_;                    // by image slot: who lives there
};

}  // namespace tessera
