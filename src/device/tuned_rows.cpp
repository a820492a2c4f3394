#include "tessera/device/tuned_rows.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "device/parse_json.hpp"
#include "tessera/base/text.hpp"
#include "tessera/device/op_settings.hpp"

namespace tessera {
namespace {

using Json = nlohmann::json;

constexpr int64_t kFormat = 1;
constexpr size_t kMostRows = 4096;
constexpr const char* kWhat = "tuned rows";

// Settings of whole devices that a measured row may give, and their values. Not among them: what trades quality for speed.
struct DeviceNumber {
  std::string_view name;
  std::vector<int> values;
};
const std::vector<DeviceNumber>& device_numbers() {
  static const std::vector<DeviceNumber> numbers = {{"vector_width", {4, 8, 16}}, {"weight_interleave", {1, 2, 4, 8, 16, 32, 64}}, {"weight_parts", {1, 2, 4, 8}},
                                                    {"attention_groups", {1, 4, 8, 16, 32, 64, 128}}, {"attention_long", {128, 256, 512, 1024, 2048}}};
  return numbers;
}

Json value_json(int number) { return number; }
Json value_json(bool flag) { return flag; }
Json value_json(Storage storage) { return std::string(name_of(storage)); }
Json value_json(DType type) { return std::string(name_of(type)); }
Json value_json(DotForm form) { return std::string(name_of(form)); }
Json value_json(const StorageChoice& choice) { return value_json(choice.storage); }

Error wrong(std::string message) { return Error(ErrorCode::kMalformed, cat(kWhat, ": ", message)); }

// A non-negative integer below 2³¹.
Result<int64_t> integer(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_unsigned() || found->get<uint64_t>() > INT32_MAX) return fail(wrong(cat("'", key, "' must be an integer from 0 to ", INT32_MAX)));
  return static_cast<int64_t>(found->get<uint64_t>());
}

Result<std::string> text(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return fail(wrong(cat("'", key, "' must be a string")));
  return found->get<std::string>();
}

double microseconds(const Json& object, const char* key) {
  const auto found = object.find(key);
  const double value = found == object.end() || !found->is_number() ? 0.0 : found->get<double>();
  return std::isfinite(value) && value > 0.0 ? value : 0.0;   // for people alone
}

// The values that `name` may have on this device; empty: no row may set it.
std::vector<int> allowed_numbers(std::string_view name, bool one_shape, const DeviceInfo& info) {
  for (const OpSetting& setting : op_settings()) {
    if (setting.name != name) continue;
    std::vector<int> values = setting.values;
    if (setting.lanes) std::erase_if(values, [&](int lanes) { return lanes > info.max_workgroup_size || lanes > info.max_workgroup_extent[0]; });
    return values;
  }
  for (const DeviceNumber& number : device_numbers())
    if (number.name == name && !one_shape) return name == "vector_width" && info.api == Api::kVulkan ? std::vector<int>{4} : number.values;
  return {};
}

struct SettingReader {
  const Json& value;
  std::string_view name;
  bool one_shape;
  const DeviceInfo& info;

  Status read(std::optional<int>& member) const {
    const std::vector<int> allowed = allowed_numbers(name, one_shape, info);
    if (allowed.empty()) return refused();
    if (value.is_number_unsigned())
      for (const int each : allowed)
        if (value.get<uint64_t>() == static_cast<uint64_t>(each)) member = each;
    if (member) return {};
    std::string list;
    for (const int each : allowed) list += cat(list.empty() ? "" : ", ", each);
    return fail(wrong(cat("'", name, "' may be ", list, " on this device")));
  }
  Status read(std::optional<bool>& member) const {
    if (one_shape || (name != "fuse_norm" && name != "fuse_norm_bytes" && name != "subgroups")) return refused();
    if (!value.is_boolean()) return fail(wrong(cat("'", name, "' must be true or false")));
    member = value.get<bool>();
    return {};
  }
  Status read(std::optional<Storage>& member) const {
    if (one_shape) return refused();
    if (value.is_string()) member = storage_from_name(value.get<std::string>());
    return member ? Status() : fail(wrong(cat("'", name, "' must be one of ", storage_names())));
  }
  Status read(std::optional<DType>&) const { return refused(); }
  Status read(std::optional<DotForm>&) const { return refused(); }
  Status refused() const { return fail(wrong(cat("'", name, "' is nothing that a measured row ", one_shape ? "for one shape " : "", "sets"))); }
};

Status read_settings(const Json& set, const DeviceInfo& info, TuningRow& row) {
  const bool one_shape = row.shape.has_value();
  for (const auto& [key, value] : set.items()) {
    Status status = fail(wrong(cat("there is no setting '", escaped(key), "'")));
    Tuning unused;
    visit_settings(unused, row, [&, &name_of_key = key, &json = value](std::string_view name, auto&, auto& member) {
      if (name == name_of_key) status = SettingReader{json, name, one_shape, info}.read(member);
    });
    TESSERA_TRY(status);
  }
  return {};
}

Result<TunedRow> read_row(const Json& object, const DeviceInfo& info, bool (*is_op)(std::string_view)) {
  TunedRow tuned{.row = {.why = "measured on this device"}};
  if (!object.is_object()) return fail(wrong("a row is no object"));
  if (object.contains("op")) {
    OpShape shape;
    TESSERA_ASSIGN(shape.op, text(object, "op"));
    if (!is_op(shape.op)) return fail(wrong(cat("there is no op '", escaped(shape.op), "'")));
    TESSERA_ASSIGN(shape.rows, integer(object, "rows"));
    TESSERA_ASSIGN(shape.columns, integer(object, "columns"));
    TESSERA_ASSIGN(shape.tokens, integer(object, "tokens"));
    if (const auto found = object.find("long_context"); found != object.end()) {
      if (!found->is_boolean()) return fail(wrong("'long_context' must be true or false"));
      shape.long_context = found->get<bool>();
    }
    tuned.row.shape = std::move(shape);
  }
  const auto set = object.find("set");
  if (set == object.end() || !set->is_object()) return fail(wrong("'set' must be an object"));
  TESSERA_TRY(read_settings(*set, info, tuned.row));
  tuned.shipped_us = microseconds(object, "shipped_us");
  tuned.tuned_us = microseconds(object, "tuned_us");
  return tuned;
}

Json settings_json(const TuningRow& row) {
  Json set = Json::object();
  Tuning unused;
  visit_settings(unused, row, [&](std::string_view name, auto&, const auto& member) {
    if (member) set[std::string(name)] = value_json(*member);
  });
  return set;
}

bool sets_something(const TuningRow& row) { return !settings_json(row).empty(); }

}  // namespace

std::vector<TuningRow> TunedRows::tuning_rows() const {
  std::vector<TuningRow> all;
  for (const TunedRow& tuned : rows)
    if (sets_something(tuned.row)) all.push_back(tuned.row);
  return all;
}

std::string settings_text(const TuningRow& row) {
  std::string text;
  Tuning unused;
  visit_settings(unused, row, [&](std::string_view name, const auto&, const auto& member) {
    if (!member) return;
    const Json value = value_json(*member);
    text += cat(text.empty() ? "" : ", ", name, " ", value.is_string() ? value.get<std::string>() : value.is_boolean() ? (value.get<bool>() ? "yes" : "no") : value.dump());
  });
  return text.empty() ? "as shipped" : text;
}

std::string shipped_settings(const DeviceInfo& info) {
  Tuning tuning = tuning_for(info);
  const TuningRow none;
  Json all = Json::object();
  visit_settings(tuning, none, [&](std::string_view name, const auto& member, const auto&) { all[std::string(name)] = value_json(member); });
  std::string text = all.dump();
  for (const TuningRow& row : tuning.shape_rows) text += cat(" ", row.shape->op, " ", row.shape->rows, " ", row.shape->columns, " ", row.shape->tokens, row.shape->long_context ? " long " : " ", settings_json(row).dump());
  return text;
}

std::vector<std::string> driver_identity(const DeviceInfo& info) { return {std::string(name_of(info.api)), info.name, info.vendor, info.platform, info.api_version, info.driver_version}; }

std::string to_json(const TunedRows& tuned, const DeviceInfo& info) {
  nlohmann::ordered_json file{{"format", kFormat}, {"made_for", tuned.made_for}, {"driver", driver_identity(info)}, {"rows", nlohmann::ordered_json::array()}};
  for (const TunedRow& each : tuned.rows) {
    nlohmann::ordered_json row;
    if (const auto& shape = each.row.shape) row = {{"op", shape->op}, {"rows", shape->rows}, {"columns", shape->columns}, {"tokens", shape->tokens}, {"long_context", shape->long_context}};
    row["set"] = settings_json(each.row);
    row["shipped_us"] = each.shipped_us;
    row["tuned_us"] = each.tuned_us;
    file["rows"].push_back(std::move(row));
  }
  return file.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

Result<TunedRows> tuned_rows_from_json(std::string_view json, const DeviceInfo& info, std::string_view made_for, bool (*is_op)(std::string_view)) {
  TESSERA_ASSIGN(const Json file, parse_json_object(json, kWhat));
  TESSERA_ASSIGN(const int64_t format, integer(file, "format"));
  if (format != kFormat) return fail(ErrorCode::kUnsupported, cat(kWhat, ": their format is ", format, ", this library's ", kFormat));
  TunedRows tuned;
  TESSERA_ASSIGN(tuned.made_for, text(file, "made_for"));
  const auto driver = file.find("driver");
  // Compared as they were written: names of drivers need not be UTF-8.
  if (driver == file.end() || driver->dump() != Json::parse(Json(driver_identity(info)).dump(-1, ' ', false, Json::error_handler_t::replace)).dump())
    return fail(ErrorCode::kUnsupported, cat(kWhat, ": they are of another device or driver than ", info.name, " (", info.driver_version, ")"));
  if (tuned.made_for != made_for) return fail(ErrorCode::kUnsupported, cat(kWhat, ": they were measured with other kernels or other shipped rows; `tessera-bench tune` measures anew"));
  const auto rows = file.find("rows");
  if (rows == file.end() || !rows->is_array() || rows->size() > kMostRows) return fail(wrong(cat("'rows' must be a list of at most ", kMostRows)));
  for (const Json& object : *rows) {
    TESSERA_ASSIGN(TunedRow row, read_row(object, info, is_op));
    tuned.rows.push_back(std::move(row));
  }
  return tuned;
}

}  // namespace tessera
