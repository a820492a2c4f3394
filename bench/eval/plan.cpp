// tessera-eval device, tessera-eval plan: what a device is, and how a model would lie and run on it. No device is opened for a plan.
#include <cstdio>
#include <map>
#include <set>
#include <utility>

#include "common.hpp"
#include "tessera/codegen/lower.hpp"
#include "tessera/plan/dump.hpp"

namespace tessera::eval {
namespace {

std::string size_text(int64_t bytes) { return bytes_text(static_cast<uint64_t>(bytes)); }

struct Profile {
  DeviceInfo info;
  bool assumed;   // limits of OpenCL, told from a Vulkan report
};

// The device to plan for: the profile's, or the same GPU through the other API.
Result<Profile> read_profile(const std::string& path, const std::string& target) {
  TESSERA_ASSIGN(const std::string text, read_file(path));
  auto info = device_info_from_any_json(text);
  if (!info) return fail(std::move(info).error().within(path));
  if (target.empty() || target == name_of(info->api)) return Profile{std::move(*info), false};
  if (target == "opencl") return Profile{assumed_opencl(std::move(*info)), true};
  return fail(ErrorCode::kInvalidArgument, cat(path, " describes ", info->name, " through ", name_of(info->api), ", which does not say what Vulkan allows there; --target vulkan needs a report of Vulkan limits"));
}

std::string device_text(const Profile& profile) {
  const DeviceInfo& info = profile.info;
  std::string text = cat("device   ", info.name, " (", info.platform, " ", info.driver_version, "), family ", name_of(family_of(info)), ", through ", name_of(info.api), "\n");
  text += cat("limits   ", profile.assumed ? "assumed for OpenCL from a Vulkan report: " : "", "one object ", size_text(info.max_allocation_bytes), ", one binding ", size_text(info.max_binding_bytes), ", images ",
              info.max_image_width, " x ", info.max_image_height, ", workgroup ", info.max_workgroup_size, ", shared memory ", size_text(info.shared_memory_bytes));
  return text + (info.subgroup_max > 0 ? cat(", subgroups ", info.subgroup_min, " to ", info.subgroup_max, "\n") : ", no subgroups\n");
}

std::string tuning_text(const DeviceInfo& info, const TuningInUse& tuned, const Common& common) {
  const std::vector<const TuningRow*> rows = rows_for(info);
  std::string text = rows.empty() ? "tuning   neutral: no row names this device\n" : "";
  for (const TuningRow* row : rows) text += cat("tuning   ", row->label(), ": ", settings_text(*row), "\n           why: ", row->why, "\n");
  if (!tuned.path.empty()) text += cat("tuned    ", tuned.rows.size(), " rows measured on the device, from ", tuned.path, "\n");
  for (const TuningRow& row : tuned.rows) text += cat("           ", row.shape ? row.shape->label() : "all ops", ": ", settings_text(row), "\n");
  if (!common.weights_in.empty()) text += cat("asked    weights in ", common.weights_in, "\n");
  if (!common.activations_in.empty()) text += cat("asked    activations in ", common.activations_in, "\n");
  return text;
}

// "image2d 91.0 MiB, buffer 1.1 MiB": where the weights came to lie, which shows what the wanted storage could not hold.
std::string weight_storages(const StepPlans& plans) {
  std::map<std::string, const Layout*> weights;
  for (const Plan& plan : plans.plans)
    for (const PlanObject& object : plan.objects)
      if (object.home == Home::kWeight) weights.emplace(resource_key(object), &object.layout);
  std::map<Storage, int64_t> bytes;
  for (const auto& [key, layout] : weights) bytes[layout->storage] += layout->object_bytes();
  std::string text;
  for (const auto& [storage, total] : bytes) text += cat(text.empty() ? "" : ", ", name_of(storage), " ", size_text(total));
  return text;
}

bool fits(const MemoryPlan& memory, const DeviceInfo& info) { return memory.total() <= static_cast<uint64_t>(info.global_memory_bytes); }

std::string memory_text(const StepPlans& plans, const DeviceInfo& info) {
  const MemoryPlan& memory = plans.memory;
  std::string text = cat("\nmemory for a context of ", plans.kv.context_tokens, " tokens\n");
  const auto line = [&](const char* name, uint64_t bytes, const std::string& note) {
    char row[64];
    std::snprintf(row, sizeof row, "  %-8s %12s", name, bytes_text(bytes).c_str());
    text += cat(row, note.empty() ? "" : "   ", note, "\n");
  };
  line("weights", memory.weights, weight_storages(plans));
  line("KV cache", memory.kv, cat(plans.kv.pages, " pages of ", plans.kv.page_tokens, " tokens, ", name_of(plans.kv.type)));
  line("arena", memory.arena, cat("no less than ", bytes_text(memory.arena_lower_bound)));
  line("inputs", memory.inputs, "");
  line("total", memory.total(), cat("of ", size_text(info.global_memory_bytes), ": ", fits(memory, info) ? "fits" : "DOES NOT FIT"));
  return text;
}

std::string shape_text(const StepShape& shape) {
  const char* logits = shape.logits == LogitRows::kNone ? "no logits" : shape.logits == LogitRows::kLast ? "logits of the last" : "all logits";
  return cat(shape.tokens, shape.tokens == 1 ? " token, " : " tokens, ", logits, shape.long_context ? ", long context" : "");
}

// Every program of the plans lowered for the device's API and taken by a null device with its limits, as a driver would be given it.
Result<size_t> check_programs(const StepPlans& plans, const DeviceInfo& info) {
  const Target target = info.api == Api::kVulkan ? Target::kGlsl : Target::kOpenCL;
  const auto null_device = gpu::make_null_device(info, target);
  std::set<std::string> texts;
  for (const Plan& plan : plans.plans)
    for (const Dispatch& dispatch : plan.dispatches) {
      auto lowered = lower(embedded_kernels(), dispatch.variant, target, step_params());
      if (!lowered) return fail(std::move(lowered).error().within(dispatch.label));
      if (texts.insert(lowered->text).second) TESSERA_TRY(null_device->compile(*lowered));
    }
  return texts.size();
}

// "1, 8, 32, 128"
std::string chunks_text(const StepPlans& plans) {
  std::set<int64_t> chunks;
  for (const Plan& plan : plans.plans) chunks.insert(plan.shape.tokens);
  std::string text;
  for (const int64_t tokens : chunks) text += cat(text.empty() ? "" : ", ", tokens);
  return text;
}

}  // namespace

Status run_device(const Common& common) {
  TESSERA_ASSIGN(const Device device, Device::open(common.device));
  return write_output(common.out, to_json(device.info()) + "\n");
}

Status run_plan(const Common& common, const std::string& path, const std::string& target, int64_t chunk) {
  TESSERA_ASSIGN(const Profile profile, read_profile(path, target));
  const DeviceInfo& info = profile.info;
  TESSERA_ASSIGN(const LoadOptions options, load_options(common));
  TESSERA_ASSIGN(const ModelFile file, ModelFile::open(common.model));
  TESSERA_ASSIGN(const StepPlans plans, make_step_plans(file.config(), file.weights(), info, options));
  TESSERA_ASSIGN(const size_t programs, check_programs(plans, info));
  std::string text = device_text(profile) + tuning_text(info, plans.tuning, common);
  text += memory_text(plans, info);
  text += cat("\nsteps, ", programs, " programs together\n");
  std::string details;
  for (const Plan& plan : plans.plans) {
    text += cat("  ", shape_text(plan.shape), ": ", plan.dispatches.size(), " dispatches\n");
    if (chunk == 0 || chunk == plan.shape.tokens) details += "\n" + dump(plan);
  }
  if (details.empty()) return fail(ErrorCode::kInvalidArgument, cat("--chunk ", chunk, ": there are steps of ", chunks_text(plans), " tokens"));
  TESSERA_TRY(write_output(common.out, text + details));
  if (fits(plans.memory, info)) return {};
  return fail(ErrorCode::kLimit, cat("the model does not fit: it needs ", bytes_text(plans.memory.total()), ", and ", info.name, " has ", size_text(info.global_memory_bytes),
                                     " of memory (global_memory_bytes; memoryHeaps of a report). A smaller --context needs less."));
}

}  // namespace tessera::eval
