// A plan as text, for people: --dump-plan.
#pragma once
#include <sstream>
#include <string>

#include "tessera/base/text.hpp"
#include "tessera/plan/plan.hpp"

namespace tessera {

inline std::string_view name_of(Home home) {
  constexpr std::string_view kNames[] = {"weight", "state", "input", "output", "arena", "image"};
  return kNames[static_cast<int>(home)];
}

inline std::string dump(const Layout& layout) {
  std::ostringstream out;
  out << name_of(layout.storage) << ' ' << name_of(layout.element) << 'x' << layout.lanes << " [";
  for (size_t axis = 0; axis < layout.grid.size(); ++axis) out << (axis == 0 ? "" : ", ") << layout.grid[axis];
  out << ']';
  if (layout.fold != 0) out << " fold " << layout.fold;
  if (layout.interleave > 1) out << " interleave " << layout.interleave;
  return out.str();
}

inline std::string dump(const Plan& plan) {
  std::ostringstream out;
  out << "step of " << plan.shape.tokens << " token(s)" << (plan.shape.long_context ? ", long context" : "") << ": " << plan.dispatches.size() << " dispatches, arena " << bytes_text(static_cast<uint64_t>(plan.arena_bytes)) << " (no less than "
      << bytes_text(static_cast<uint64_t>(plan.arena_lower_bound)) << "), " << plan.image_slots.size() << " arena images\n";
  for (size_t d = 0; d < plan.dispatches.size(); ++d) {
    const Dispatch& dispatch = plan.dispatches[d];
    out << "#" << d << " " << dispatch.label << "  grid " << dispatch.workgroups[0] << "x" << dispatch.workgroups[1] << "x" << dispatch.workgroups[2] << "  " << bytes_text(static_cast<uint64_t>(dispatch.bytes)) << (dispatch.barrier ? "" : "  beside the one before") << "\n  ";
    for (const auto& [name, value] : dispatch.variant.consts) out << " " << name << "=" << value;
    out << "\n";
    for (const PlanBinding& binding : dispatch.bindings) {
      const PlanObject& object = plan.objects[static_cast<size_t>(binding.object)];
      out << "    " << binding.slot << " = " << name_of(object.home) << " " << object.name;
      if (object.home == Home::kArenaBuffer) out << " @" << object.offset;
      if (object.home == Home::kArenaImage) out << " #" << object.image_slot;
      if (object.plane != Plane::kWhole) out << " " << name_of(object.plane) << (object.part != 0 ? cat(" part ", object.part) : "");
      out << "  " << dump(binding.view) << "\n";
    }
  }
  return out.str();
}

}  // namespace tessera
