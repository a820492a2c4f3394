// mobile_kernels FOLDER PROFILE.json…: writes as SPIR-V every program that the plans of three models have for the devices of the profiles (tests/data/devices),
// and FOLDER/kernels.json, which says what each is. No device is opened, and no model file is needed: the models' shapes are those published, in sparse files.
// no-dots:PROFILE.json stands for the same device with a driver that reports no packed dots.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "../../tests/unit/gguf_builder.hpp"
#include "tessera/codegen/lower.hpp"
#include "tessera/engine/step_plans.hpp"
#include "tessera/model/model_file.hpp"
#include "vulkan/glsl_compiler.hpp"

namespace tessera {
namespace {

using nlohmann::ordered_json;

// Two layers: the programs of one serve all others.
constexpr test::LlamaShape kSmolLm2{576, 2, 1536, 9, 3, 64, 49152, 8192, true, false, 100000.0f, 1e-5f};
constexpr test::LlamaShape kLlama1B{2048, 2, 8192, 32, 8, 64, 128256, 131072, true, true, 500000.0f, 1e-5f};
constexpr test::LlamaShape kLlama3B{3072, 2, 8192, 24, 8, 128, 128256, 131072, true, true, 500000.0f, 1e-5f};

struct ModelCase {
  const char* name;
  test::LlamaShape shape;
  WeightType type;
};
constexpr ModelCase kModels[] = {{"smollm2-135m q4_1", kSmolLm2, WeightType::kQ4_1}, {"llama-1b q4_0", kLlama1B, WeightType::kQ4_0}, {"llama-3b q4_k", kLlama3B, WeightType::kQ4_K}};

struct StepCase {
  const char* name;
  StepShape shape;
};
// A name is one word. The other steps of a model have no programs of their own.
constexpr StepCase kSteps[] = {{"decode", {1, LogitRows::kLast}},
                               {"prefill", {kLargestChunk, LogitRows::kLast}},
                               {"decode-long", {1, LogitRows::kLast, true}},
                               {"batch", {static_cast<int64_t>(kMostRows), LogitRows::kAll}},
                               {"batch-long", {static_cast<int64_t>(kMostRows), LogitRows::kAll, true}}};

Result<std::string> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorCode::kIo, cat("cannot read ", path));
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// "gemv blk.0.ffn_down.weight" → "gemv ffn_down"
std::string short_label(std::string label) {
  for (size_t at = 0; (at = label.find("blk.")) != std::string::npos;) label.erase(at, label.find('.', at + 4) + 1 - at);
  for (size_t at = 0; (at = label.find(".weight")) != std::string::npos;) label.erase(at, 7);
  for (char& c : label)
    if (c == '|') c = '&';   // gate and up by turns; | parts the columns of bench/mobile/budgets.txt
  return label;
}

// Texts become SPIR-V once, whichever profile, model or step has them.
class Writer {
 public:
  explicit Writer(std::string folder) : folder_(std::move(folder)) {}

  // The file's name in the folder.
  Result<std::string> write(const LoweredKernel& lowered) {
    if (const auto known = files_.find(lowered.text); known != files_.end()) return known->second;
    TESSERA_ASSIGN(const std::vector<uint32_t> words, vulkan::compile_glsl(lowered.text, lowered.entry));
    const std::string name = cat(lowered.entry, "-", files_.size(), ".spv");
    std::ofstream file(folder_ + "/" + name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(words.data()), static_cast<std::streamsize>(words.size() * 4));
    file.close();
    if (!file) return fail(ErrorCode::kIo, cat("cannot write ", folder_, "/", name));
    return files_.emplace(lowered.text, name).first->second;
  }

 private:
  std::string folder_;
  std::map<std::string, std::string> files_;   // by text
};

// The distinct programs of one step: {"kernel": "decode gemv ffn_down", "file": …, "consts": {…}}.
Result<ordered_json> step_kernels(const Plan& plan, const StepCase& step, Writer& writer) {
  ordered_json kernels = ordered_json::array();
  std::map<std::string, int> files, names;
  for (const Dispatch& dispatch : plan.dispatches) {
    auto lowered = lower(embedded_kernels(), dispatch.variant, Target::kGlsl, step_params());
    if (!lowered) return fail(std::move(lowered).error().within(dispatch.label));
    TESSERA_ASSIGN(const std::string file, writer.write(*lowered));
    if (files[file]++ > 0) continue;
    std::string name = cat(step.name, " ", short_label(dispatch.label));
    if (const int number = ++names[name]; number > 1) name += cat(" ", number);
    kernels.push_back({{"kernel", name}, {"file", file}, {"consts", dispatch.variant.consts}, {"width", dispatch.variant.words.vector_width}, {"dot", name_of(dispatch.variant.words.dot)}});
  }
  return kernels;
}

Result<ordered_json> device_kernels(const DeviceInfo& info, const std::vector<std::pair<const ModelCase*, ModelFile>>& files, Writer& writer) {
  ordered_json models = ordered_json::object();
  for (const auto& [model, file] : files) {
    TESSERA_ASSIGN(const StepPlans plans, make_step_plans(file.config(), file.weights(), info, {.context_tokens = 4096}));
    ordered_json kernels = ordered_json::array();
    for (const StepCase& step : kSteps)
      for (const Plan& plan : plans.plans) {
        if (plan.shape != step.shape) continue;
        TESSERA_ASSIGN(const ordered_json some, step_kernels(plan, step, writer));
        kernels.insert(kernels.end(), some.begin(), some.end());
      }
    models[model->name] = std::move(kernels);
  }
  return models;
}

Status run(const std::string& folder, const std::vector<std::string>& profiles) {
  std::filesystem::create_directories(folder);
  std::vector<std::pair<const ModelCase*, ModelFile>> files;
  for (const ModelCase& model : kModels) {
    const std::string path = folder + "/sparse.gguf";
    test::sparse_llama(path, model.shape, model.type);
    TESSERA_ASSIGN(ModelFile file, ModelFile::open(path));
    files.emplace_back(&model, std::move(file));
    std::filesystem::remove(path);   // what is open stays
  }
  Writer writer(folder);
  ordered_json devices = ordered_json::object();
  for (std::string path : profiles) {
    constexpr std::string_view kNoDots = "no-dots:";
    const bool dots = !path.starts_with(kNoDots);
    if (!dots) path.erase(0, kNoDots.size());
    TESSERA_ASSIGN(const std::string text, read_text(path));
    auto info = device_info_from_any_json(text);
    if (!info) return fail(std::move(info).error().within(path));
    info->packed_dots = info->packed_dots && dots;
    TESSERA_ASSIGN(devices[std::filesystem::path(path).stem().stem().string()], device_kernels(*info, files, writer));
  }
  std::ofstream out(folder + "/kernels.json");
  out << devices.dump(1) << '\n';
  out.close();
  return out ? Status() : fail(ErrorCode::kIo, cat("cannot write ", folder, "/kernels.json"));
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: mobile_kernels FOLDER [no-dots:]PROFILE.json...\n");
    return 2;
  }
  const tessera::Status status = tessera::run(argv[1], std::vector<std::string>(argv + 2, argv + argc));
  if (status) return 0;
  std::fprintf(stderr, "mobile_kernels: %s\n", status.error().message().c_str());
  return 1;
}
