#include "tessera/engine/device.hpp"

#include <cstdlib>

#include "tessera/base/text.hpp"

namespace tessera {
namespace {

struct Found {
  const gpu::Backend* backend;
  size_t index;
  ListedDevice device;
};

// The devices of the APIs that are looked for, and what the others said.
struct Search {
  std::vector<Found> found;
  std::string troubles;
  ErrorCode trouble = ErrorCode::kNotFound;

  // An empty `api`: all.
  explicit Search(std::string_view api) {
    for (const gpu::Backend& backend : gpu::backends()) {
      if (!api.empty() && api != name_of(backend.api)) continue;
      auto devices = backend.list();
      if (!devices) {
        troubles += cat(troubles.empty() ? "" : "\n", devices.error().message());
        trouble = devices.error().code();
        continue;
      }
      for (size_t i = 0; i < devices->size(); ++i) found.push_back({&backend, i, {cat(name_of(backend.api), ':', i), std::move((*devices)[i])}});
    }
  }

  std::string known() const {
    std::string text;
    for (const Found& each : found) text += cat("\n  ", each.device.id, "  ", each.device.info.name);
    return text;
  }
};

// Whether `which` is "API" or "API:N".
bool asks_for(std::string_view which, Api api) {
  const std::string_view name = name_of(api);
  return which == name || (which.starts_with(name) && which.substr(name.size()).starts_with(':'));
}

// The API that `which` asks for; empty where it is something else.
std::string_view api_of(std::string_view which) {
  for (const gpu::Backend& backend : gpu::backends())
    if (asks_for(which, backend.api)) return name_of(backend.api);
  return {};
}

const Found* pick_automatic(const Search& search, std::string& choice) {
  for (const Found& each : search.found)
    if (!each.device.info.is_cpu) {
      choice = "the first GPU that answers";
      return &each;
    }
  choice = "no GPU answers, this is the first CPU driver";
  return search.found.empty() ? nullptr : &search.found.front();
}

const Found* pick(const Search& search, std::string_view which, std::string& choice) {
  if (which == "auto") return pick_automatic(search, choice);
  choice = cat("asked for as '", escaped(which), "'");
  const bool whole_api = which == api_of(which);
  for (const Found& each : search.found)
    if (whole_api || each.device.id == which || each.device.info.name.find(which) != std::string::npos) return &each;
  return nullptr;
}

}  // namespace

std::vector<ListedDevice> Device::list() {
  std::vector<ListedDevice> devices;
  for (Found& each : Search({}).found) devices.push_back(std::move(each.device));
  return devices;
}

Result<Device> Device::open(std::string_view which) {
  std::string from_environment;
  if (const char* chosen = std::getenv("TESSERA_DEVICE"); which == "auto" && chosen != nullptr && *chosen != '\0') {
    from_environment = chosen;
    which = from_environment;
  }
  if (which.empty()) return fail(ErrorCode::kInvalidArgument, "the name of a device is empty; auto takes the first GPU");
  for (const gpu::LeftOut& each : gpu::left_out())
    if (asks_for(which, each.api)) return fail(ErrorCode::kUnsupported, cat("this build of tessera has no ", name_of(each.api), " backend: ", each.what_to_do));
  const Search search(api_of(which));
  std::string choice;
  const Found* picked = pick(search, which, choice);
  if (picked == nullptr && search.found.empty()) return fail(search.trouble, search.troubles);
  if (picked == nullptr) return fail(ErrorCode::kNotFound, cat("no device '", escaped(which), "'. There are:", search.known()));
  TESSERA_ASSIGN(auto backend, picked->backend->open(picked->index));
  return Device(std::move(backend), cat(from_environment.empty() ? "" : "$TESSERA_DEVICE: ", choice));
}

}  // namespace tessera
