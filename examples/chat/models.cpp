#include "models.hpp"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "tessera/tessera.hpp"
#include "words.hpp"

namespace chat {
namespace {
namespace fs = std::filesystem;
using tessera::cat;
using tessera::ErrorCode;
using tessera::fail;

// $TESSERA_MODELS may name several folders, with colons between.
std::vector<fs::path> folders() {
  std::vector<fs::path> out;
  if (const char* named = std::getenv("TESSERA_MODELS")) {
    std::string_view rest = named;
    while (!rest.empty()) {
      const std::string_view folder = rest.substr(0, rest.find(':'));
      if (!folder.empty()) out.emplace_back(folder);
      rest.remove_prefix(std::min(rest.size(), folder.size() + 1));
    }
  }
  if (const char* home = std::getenv("HOME")) out.push_back(fs::path(home) / ".cache/tessera/models");
  out.emplace_back(".");
  return out;
}

// Name without ".gguf" → path; of equal names the one in the earlier folder.
std::map<std::string, std::string> models() {
  std::map<std::string, std::string> out;
  for (const fs::path& folder : folders()) {
    std::error_code error;
    for (fs::directory_iterator entry(folder, fs::directory_options::skip_permission_denied, error), end; !error && entry != end; entry.increment(error)) {
      std::error_code ignored;
      if (entry->path().extension() == ".gguf" && entry->is_regular_file(ignored)) out.emplace(entry->path().stem().string(), entry->path().lexically_normal().string());
    }
  }
  return out;
}

std::string searched() {
  std::string text;
  for (const fs::path& folder : folders()) text += (text.empty() ? "" : ", ") + (folder == "." ? "the present folder" : folder.string());
  return text;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += "\n  " + tessera::escaped(name, 200);
  return text;
}

using Row = std::vector<std::string>;

std::string parameters_text(int64_t count) {
  char text[32];
  const double millions = static_cast<double>(count) / 1e6;
  std::snprintf(text, sizeof text, millions < 1 ? "%.2fM" : millions < 1000 ? "%.0fM" : "%.1fB", millions < 1000 ? millions : millions / 1000);
  return text;
}

// The type of most weights, and how many numbers they are.
std::pair<std::string, int64_t> weights_of(const tessera::ModelFile& file) {
  std::map<tessera::WeightType, int64_t> counts;
  int64_t total = 0;
  for (const tessera::WeightRef& weight : file.weights()) {
    counts[weight.type] += weight.rows * weight.columns;
    total += weight.rows * weight.columns;
  }
  const auto most = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return {most == counts.end() ? "-" : std::string(tessera::format_of(most->first).name), total};
}

Row row_of(const std::string& name, const std::string& path, const tessera::DeviceInfo& device, const tessera::LoadOptions& options) {
  std::error_code ignored;
  const std::string shown = tessera::escaped(name, 200), size = tessera::bytes_text(fs::file_size(path, ignored));
  const auto file = tessera::ModelFile::open(path);
  if (!file) return {shown, "-", "-", "-", size, cat("no: ", file.error().message())};
  const auto [type, parameters] = weights_of(*file);
  const auto plan = memory_plan(*file, device, options);
  std::string fits = !plan ? cat("no: ", plan.error().message()) : "yes";
  if (plan && plan->total() > static_cast<uint64_t>(device.global_memory_bytes)) fits = cat("no: needs ", tessera::bytes_text(plan->total()), " of ", tessera::bytes_text(static_cast<uint64_t>(device.global_memory_bytes)));
  return {shown, file->config().architecture, parameters_text(parameters), type, size, fits};
}

std::string table(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const Row& row : rows)
    for (size_t i = 0; i + 1 < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size() + 2);
  std::string text;
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) text += row[i] + std::string(i + 1 < row.size() ? widths[i] - row[i].size() : 0, ' ');
    text += '\n';
  }
  return text;
}

}  // namespace

tessera::Result<std::string> find_model(const std::string& name) {
  std::error_code ignored;
  if (fs::exists(name, ignored) || name.find('/') != std::string::npos) return name;   // opening it says what is wrong with it
  const std::string wanted = lower(name.ends_with(".gguf") ? name.substr(0, name.size() - 5) : name);
  std::vector<std::string> begin_so, names;
  const std::map<std::string, std::string> all = models();
  for (const auto& [known, path] : all) {
    if (lower(known) == wanted) return path;
    if (lower(known).starts_with(wanted)) begin_so.push_back(known);
    names.push_back(known);
  }
  if (begin_so.size() == 1) return all.at(begin_so.front());
  if (!begin_so.empty()) return fail(ErrorCode::kInvalidArgument, cat("several models begin with '", tessera::escaped(name), "':", listed(begin_so)));
  std::vector<std::string> close = nearest(wanted, names);
  if (close.empty()) close = names;
  close.resize(std::min<size_t>(close.size(), 5));
  return fail(ErrorCode::kNotFound, cat("no model '", tessera::escaped(name), "' in ", searched(), close.empty() ? "; give the path of a GGUF file" : ". The nearest names:", listed(close)));
}

tessera::Result<std::string> model_table(const std::string& device_name, int32_t context_tokens) {
  TESSERA_ASSIGN(const tessera::Device device, tessera::Device::open(device_name));
  std::vector<Row> rows = {{"NAME", "ARCH", "PARAMS", "QUANT", "SIZE", cat("FITS ", device.info().name)}};
  for (const auto& [name, path] : models()) rows.push_back(row_of(name, path, device.info(), {.context_tokens = context_tokens}));
  if (rows.size() == 1) return cat("no models in ", searched(), "\n");
  return table(rows);
}

}  // namespace chat
