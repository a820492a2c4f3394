#include "tessera/engine/tuning_file.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>

#include "exec/cache_file.hpp"
#include "tessera/base/text.hpp"
#include "tessera/codegen/kernel_library.hpp"
#include "tessera/exec/program_cache.hpp"
#include "tessera/ops/op_table.hpp"
#include "tessera/version.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kOff = "off";
constexpr uintmax_t kMostBytes = uintmax_t{1} << 20;

std::string hash_of(const std::vector<std::string>& texts) {
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  return cache_file::hash_of(views);
}

bool is_op(std::string_view name) { return find_op(name) != nullptr; }

bool measured_as(const LoadOptions& options) {
  return options.precision == Precision::kDefault && !options.weight_storage && !options.activation_storage && options.weight_parts == 0;
}

}  // namespace

std::string tuning_path(const DeviceInfo& info, const std::string& cache_folder) {
  const std::string folder = cache_folder_of(cache_folder);
  return folder.empty() ? std::string() : cat(folder, "/tuning/", hash_of(driver_identity(info)), ".json");
}

std::string tuning_made_for(const DeviceInfo& info) {
  std::vector<std::string> texts{std::string(kVersion), shipped_settings(info)};
  for (const std::string& name : embedded_kernel_names())
    if (const auto text = embedded_kernels().text(name)) texts.emplace_back(*text);
  return hash_of(texts);
}

Result<TunedRows> read_tuning_file(const std::string& path, const DeviceInfo& info) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) return fail(ErrorCode::kNotFound, cat(escaped(path, 400), ": no such file"));
  if (!fs::is_regular_file(status)) return fail(ErrorCode::kIo, cat(escaped(path, 400), " is not a file that can be read"));
  if (const uintmax_t bytes = fs::file_size(path, error); error || bytes > kMostBytes) return fail(ErrorCode::kMalformed, cat(escaped(path, 400), ": more than ", bytes_text(kMostBytes), ", which no file of tuned rows is"));
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file) return fail(ErrorCode::kIo, cat(escaped(path, 400), ": reading it failed"));
  auto rows = tuned_rows_from_json(text, info, tuning_made_for(info), is_op);
  if (!rows) return fail(std::move(rows).error().within(escaped(path, 400)));
  return rows;
}

Status write_tuning_file(const std::string& path, const TunedRows& rows, const DeviceInfo& info) {
  const std::string text = to_json(rows, info);
  if (const fs::path folder = fs::path(path).parent_path(); !folder.empty()) TESSERA_TRY(cache_file::make_folder(folder.string()));
  return cache_file::replace(path, {std::as_bytes(std::span(text))});
}

Result<TuningInUse> tuning_in_use(const DeviceInfo& info, const LoadOptions& options) {
  std::string chosen = options.tuning;
  if (const char* value = std::getenv("TESSERA_TUNING"); chosen.empty() && value != nullptr) chosen = value;
  if (chosen == kOff || !measured_as(options)) return TuningInUse();
  const std::string path = chosen.empty() ? tuning_path(info, options.cache_folder) : chosen;
  if (path.empty()) return TuningInUse();
  const auto rows = read_tuning_file(path, info);
  if (rows) return TuningInUse{path, rows->tuning_rows()};
  if (!chosen.empty()) return fail(rows.error());
  if (rows.error().code() != ErrorCode::kNotFound && options.on_log) options.on_log(LogLevel::kInfo, cat("tuned rows are not used: ", rows.error().message()));
  return TuningInUse();
}

}  // namespace tessera
