// The parts of a run that are a process of their own.
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "device_speed.hpp"

namespace tessera::bench {
namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

Status answer(const nlohmann::ordered_json& json) {
  std::printf("%s\n", json.dump().c_str());
  std::fflush(stdout);
  return {};
}

Result<std::optional<Storage>> storage_option(const std::string& name) {
  if (name.empty()) return std::optional<Storage>();
  const auto storage = storage_from_name(name);
  if (!storage) return fail(ErrorCode::kInvalidArgument, cat("no storage named '", escaped(name), "'; there are ", storage_names()));
  return storage;
}

nlohmann::ordered_json speed_json(const Speed& speed) {
  return {{"median", speed.rate.median()}, {"min", speed.rate.least()}, {"max", speed.rate.greatest()}, {"form", speed.form}};
}

}  // namespace

Result<LoadOptions> ModelOptions::load_options(int64_t context_tokens) const {
  LoadOptions options;
  options.precision = precision_from_name(precision).value_or(Precision::kDefault);
  options.kv = kv_type_from_name(kv).value_or(KvType::kDefault);
  TESSERA_ASSIGN(options.weight_storage, storage_option(weights_in));
  TESSERA_ASSIGN(options.activation_storage, storage_option(activations_in));
  options.context_tokens = static_cast<int32_t>(context_tokens);
  options.prefix_cache = false;
  options.on_log = [](LogLevel level, std::string_view line) {
    if (level == LogLevel::kWarning) std::fprintf(stderr, "warning: %.*s\n", static_cast<int>(line.size()), line.data());
  };
  return options;
}

std::vector<std::string> ModelOptions::arguments() const {
  std::vector<std::string> out{"--model", model, "--device", device, "--precision", precision, "--kv", kv};
  if (!weights_in.empty()) out.insert(out.end(), {"--weights-in", weights_in});
  if (!activations_in.empty()) out.insert(out.end(), {"--activations-in", activations_in});
  return out;
}

Status run_first_token(const ModelOptions& options, int32_t prompt) {
  const auto start = Clock::now();
  TESSERA_ASSIGN(Device device, Device::open(options.device));
  const double open = ms_since(start);
  TESSERA_ASSIGN(LoadOptions load, options.load_options(round_up(prompt + 1, kPageTokens)));
  TESSERA_ASSIGN(const ModelFile file, ModelFile::open(options.model));
  load.context_tokens = std::min(load.context_tokens, file.config().context_length);
  double weights = 0.0, ready = 0.0;   // when the last weight was there, and the kernels
  load.on_progress = [&](const Progress& progress) { (progress.stage == "weights" ? weights : ready) = ms_since(start); };
  TESSERA_ASSIGN(const Model model, Model::load(options.model, device, load));
  const double loaded = ms_since(start);
  Sequence sequence(model.runtime());
  TESSERA_ASSIGN(const int32_t first, sequence.append(prompt_of(model.config(), prompt, 1)));
  const gpu::Counters& counters = model.runtime()->counters();
  return answer({{"token", first}, {"open_ms", open}, {"weights_ms", weights - open}, {"kernels_ms", loaded - weights}, {"prompt_ms", ms_since(start) - loaded},
                 {"compiled", counters.programs_compiled}, {"loaded", counters.programs_loaded}});
}

Status run_bandwidth(const std::string& which, int64_t bytes) {
  TESSERA_ASSIGN(const Device device, Device::open(which));
  TESSERA_ASSIGN(const Speed read, measure_read(device.backend(), bytes));
  TESSERA_ASSIGN(const Speed copy, measure_copy(device.backend(), bytes));
  return answer({{"read", speed_json(read)}, {"copy", speed_json(copy)}});
}

Status run_greedy(const ModelOptions& options, const std::vector<int32_t>& prompt, int32_t count) {
  TESSERA_ASSIGN(Device device, Device::open(options.device));
  TESSERA_ASSIGN(const ModelFile file, ModelFile::open(options.model));
  const int64_t room = round_up(static_cast<int64_t>(prompt.size()) + count, kPageTokens);
  TESSERA_ASSIGN(const LoadOptions load, options.load_options(std::min<int64_t>(room, file.config().context_length)));
  TESSERA_ASSIGN(const Model model, Model::load(options.model, device, load));
  Sequence sequence(model.runtime());
  std::vector<int32_t> ids, next = prompt;
  for (int32_t i = 0; i < count; ++i) {
    TESSERA_ASSIGN(const int32_t id, sequence.append(next));
    ids.push_back(id);
    next = {id};
  }
  return answer({{"ids", ids}});
}

}  // namespace tessera::bench
