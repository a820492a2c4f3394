// Rows measured on a device: what a file of them may say, which op a row for one shape reaches, and what hostile files come to.
#include "tessera/device/tuned_rows.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "../temporary_folder.hpp"
#include "tessera/device/op_settings.hpp"
#include "tessera/engine/step_plans.hpp"
#include "tessera/model/arch_llama.hpp"
#include "tessera/plan/dump.hpp"
#include "tessera/plan/planner.hpp"

namespace tessera {
namespace {

DeviceInfo device() {
  DeviceInfo info;
  info.api = Api::kOpenCL;
  info.name = "a GPU";
  info.driver_version = "1.2";
  info.max_workgroup_size = 128;
  info.max_workgroup_extent = {128, 128, 64};
  info.max_allocation_bytes = info.max_binding_bytes = 1 << 26;
  info.shared_memory_bytes = 32768;
  return info;
}

bool is_op(std::string_view name) { return find_op(name) != nullptr; }

Result<TunedRows> read(const std::string& json, const DeviceInfo& info = device()) { return tuned_rows_from_json(json, info, "these kernels", is_op); }

std::string file_with(const std::string& rows) {
  return R"({"format": 1, "made_for": "these kernels", "driver": ["opencl", "a GPU", "", "", "", "1.2"], "rows": )" + rows + "}";
}
std::string row_with(const std::string& set, const std::string& shape = R"("op": "matmul", "rows": 128, "columns": 64, "tokens": 1, )") { return file_with("[{" + shape + R"("set": {)" + set + "}}]"); }

TuningRow shape_row(OpShape shape) {
  TuningRow row;
  row.shape = std::move(shape);
  return row;
}

TEST(TunedRows, ComeBackAsTheyWere) {
  TunedRows rows{.made_for = "these kernels", .rows = {}};
  TuningRow wide;
  wide.vector_width = 8;
  wide.weight_storage = Storage::kImage2D;
  wide.fuse_norm = false;
  TuningRow one = shape_row({"matmul", 128, 64, 1});
  one.gemv_workgroup = 32;
  rows.rows = {{.row = wide}, {.row = one, .shipped_us = 12.5, .tuned_us = 10.0}, {.row = shape_row({"attention", 0, 64, 8, true})}};
  const auto found = read(to_json(rows, device()));
  ASSERT_TRUE(found) << found.error().message();
  ASSERT_EQ(found->rows.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    TuningRow expected = rows.rows[i].row;
    expected.why = found->rows[i].row.why;
    EXPECT_EQ(found->rows[i].row, expected) << i;
  }
  EXPECT_EQ(found->rows[1].shipped_us, 12.5);
  EXPECT_EQ(found->tuning_rows().size(), 2u) << "a row that sets nothing says that its op is decided";
}

struct Hostile {
  const char* name;
  std::string json;
  ErrorCode code;
  const char* said;
};
class HostileRows : public testing::TestWithParam<Hostile> {};

TEST_P(HostileRows, AreRefusedByName) {
  const auto found = read(GetParam().json);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), GetParam().code) << found.error().message();
  EXPECT_NE(found.error().message().find(GetParam().said), std::string::npos) << found.error().message();
}

constexpr ErrorCode kMalformed = ErrorCode::kMalformed, kUnsupported = ErrorCode::kUnsupported;
INSTANTIATE_TEST_SUITE_P(TunedRows, HostileRows, testing::ValuesIn(std::vector<Hostile>{
    {"empty", "", kMalformed, "does not parse"},
    {"cut_off", file_with("[]").substr(0, 60), kMalformed, "does not parse"},
    {"deep", std::string(100000, '['), kMalformed, "nested deeper"},
    {"a_list", "[1]", kMalformed, "not an object"},
    {"no_format", "{}", kMalformed, "'format'"},
    {"another_format", R"({"format": 2})", kUnsupported, "format is 2"},
    {"another_driver", R"({"format": 1, "made_for": "these kernels", "driver": ["opencl", "a GPU", "", "", "", "1.3"], "rows": []})", kUnsupported, "another device or driver"},
    {"no_driver", R"({"format": 1, "made_for": "these kernels", "rows": []})", kUnsupported, "another device or driver"},
    {"other_kernels", R"({"format": 1, "made_for": "others", "driver": ["opencl", "a GPU", "", "", "", "1.2"], "rows": []})", kUnsupported, "other kernels"},
    {"rows_no_list", file_with("7"), kMalformed, "'rows'"},
    {"row_no_object", file_with("[7]"), kMalformed, "no object"},
    {"unknown_op", row_with("", R"("op": "rm -rf", "rows": 1, "columns": 1, "tokens": 1, )"), kMalformed, "there is no op 'rm -rf'"},
    {"negative_rows", row_with("", R"("op": "matmul", "rows": -1, "columns": 1, "tokens": 1, )"), kMalformed, "'rows'"},
    {"huge_tokens", row_with("", R"("op": "matmul", "rows": 1, "columns": 1, "tokens": 99999999999999999999, )"), kMalformed, "'tokens'"},
    {"long_or_not", row_with("", R"("op": "attention", "rows": 0, "columns": 1, "tokens": 1, "long_context": 1, )"), kMalformed, "'long_context'"},
    {"unknown_setting", row_with(R"("speed": 11)"), kMalformed, "there is no setting 'speed'"},
    {"zero", row_with(R"("gemv_workgroup": 0)"), kMalformed, "'gemv_workgroup' may be 1, 2, 4"},
    {"no_power_of_two", row_with(R"("gemv_workgroup": 48)"), kMalformed, "'gemv_workgroup' may be"},
    {"more_lanes_than_the_device", row_with(R"("gemv_workgroup": 256)"), kMalformed, "'gemv_workgroup' may be"},
    {"negative", row_with(R"("gemm_tokens": -4)"), kMalformed, "'gemm_tokens' may be"},
    {"a_fraction", row_with(R"("gemm_tokens": 4.5)"), kMalformed, "'gemm_tokens' may be"},
    {"huge", row_with(R"("attention_keys": 4294967300)"), kMalformed, "'attention_keys' may be"},
    {"a_text", row_with(R"("gemm_tokens": "8")"), kMalformed, "'gemm_tokens' may be"},
    {"layout_for_one_shape", row_with(R"("vector_width": 8)"), kMalformed, "'vector_width' is nothing that a measured row for one shape sets"},
    {"storage_for_one_shape", row_with(R"("weights in": "buffer")"), kMalformed, "nothing that a measured row"},
    {"no_storage", row_with(R"("weights in": "drawer")", ""), kMalformed, "must be one of"},
    {"less_quality", row_with(R"("int8_activations": true)", ""), kMalformed, "nothing that a measured row"},
    {"less_precision", row_with(R"("activations as": "f16")", ""), kMalformed, "nothing that a measured row"},
    {"set_no_object", file_with(R"([{"set": [1]}])"), kMalformed, "'set'"},
}), [](const auto& test) { return std::string(test.param.name); });

TEST(TunedRows, WidthsAreThoseOfTheApi) {
  EXPECT_TRUE(read(row_with(R"("vector_width": 16)", "")));
  DeviceInfo vulkan = device();
  vulkan.api = Api::kVulkan;
  std::string json = row_with(R"("vector_width": 16)", "");
  json.replace(json.find("opencl"), 6, "vulkan");
  const auto found = read(json, vulkan);
  ASSERT_FALSE(found);
  EXPECT_NE(found.error().message().find("may be 4 on this device"), std::string::npos) << found.error().message();
}

// Every value of every setting is one that the file may say, and a special row wins over what is shipped.
TEST(TunedRows, GoBeforeTheRowsShipped) {
  for (const OpSetting& setting : op_settings()) {
    EXPECT_TRUE(std::ranges::is_sorted(setting.values)) << setting.name;
    const auto found = read(row_with(cat('"', setting.name, "\": ", setting.values.front())));
    ASSERT_TRUE(found) << found.error().message();
    const Tuning tuning = tuning_for(device(), found->tuning_rows());
    EXPECT_EQ(tuning_for_shape(tuning, {"matmul", 128, 64, 1}).*setting.value, setting.values.front()) << setting.name;
    EXPECT_EQ(tuning.*setting.value, Tuning().*setting.value) << setting.name;
    for (const OpShape& other : {OpShape{"matmul", 128, 64, 8}, OpShape{"matmul", 128, 96, 1}, OpShape{"matmul", 64, 64, 1}, OpShape{"embed", 128, 64, 1}, OpShape{"matmul", 128, 64, 1, true}})
      EXPECT_EQ(tuning_for_shape(tuning, other).*setting.value, Tuning().*setting.value) << setting.name << ", " << other.label();
  }
}

// ---- plans -------------------------------------------------------------------------------------------------------------------------

ModelConfig config() {
  ModelConfig c;
  c.architecture = "llama";
  c.n_layers = 2;
  c.dim = c.hidden_dim = 64;
  c.hidden_dim = 96;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = c.n_rot = 16;
  c.vocab_size = 320;
  c.context_length = 128;
  return c;
}

std::vector<WeightRef> weights() {
  std::vector<WeightRef> refs = {{"token_embd.weight", WeightType::kQ8_0, 320, 64, {}}, {"output_norm.weight", WeightType::kF32, 1, 64, {}}, {"output.weight", WeightType::kQ4_0, 320, 64, {}}};
  for (int layer = 0; layer < 2; ++layer) {
    const auto add = [&](const char* name, int64_t rows, int64_t columns) { refs.push_back({cat("blk.", layer, ".", name, ".weight"), rows == 1 ? WeightType::kF32 : WeightType::kQ4_0, rows, columns, {}}); };
    add("attn_norm", 1, 64), add("attn_q", 64, 64), add("attn_k", 32, 64), add("attn_v", 32, 64), add("attn_output", 64, 64);
    add("ffn_norm", 1, 64), add("ffn_gate", 96, 64), add("ffn_up", 96, 64), add("ffn_down", 64, 96);
  }
  return refs;
}

Result<StepPlans> plans(const std::vector<TuningRow>& rows, const StepShape& step) {
  return make_step_plans(config(), weights(), device(), {.context_tokens = 64}, tuning_for(device(), rows), {step});
}

TEST(TunedRows, ARowForOneShapeReachesThatOpAlone) {
  TuningRow row = shape_row({"matmul", 64, 96, 1});   // ffn_down
  row.gemv_workgroup = 2;
  const auto shipped = plans({}, {}), tuned = plans({row}, {});
  ASSERT_TRUE(shipped && tuned);
  int changed = 0;
  for (size_t i = 0; i < shipped->plans[0].dispatches.size(); ++i) {
    const Dispatch &before = shipped->plans[0].dispatches[i], &after = tuned->plans[0].dispatches[i];
    const bool is_down = before.label.find("ffn_down") != std::string::npos;
    EXPECT_EQ(before.shape == *row.shape, is_down) << before.label << ": " << before.shape.label();
    EXPECT_EQ(before.variant.consts != after.variant.consts, is_down) << before.label;
    changed += is_down;
    EXPECT_TRUE(!is_down || after.variant.consts.at("WG") == 2) << before.label;
  }
  EXPECT_EQ(changed, 2) << "one a layer";
}

// A GEMM writes whole tiles: activations have room for the greatest, be it one op's alone.
TEST(TunedRows, ActivationsHaveRowsForEveryTile) {
  TuningRow row = shape_row({"matmul", 64, 96, 32});
  row.gemm_tokens = 12;
  const auto tuned = plans({row}, {32, LogitRows::kNone});
  ASSERT_TRUE(tuned) << tuned.error().message();
  for (const Dispatch& dispatch : tuned->plans[0].dispatches) {
    if (dispatch.shape != *row.shape) continue;
    EXPECT_EQ(dispatch.variant.consts.at("TM"), 12);
    for (const PlanBinding& binding : dispatch.bindings) {
      const bool activation = binding.slot == "y" || binding.slot == "x" || binding.slot == "residual";
      EXPECT_TRUE(!activation || binding.view.grid[0] >= 36) << binding.slot;
    }
  }
}

TEST(TunedRows, EverySettingPlansWithEveryValue) {
  for (const OpSetting& setting : op_settings())
    for (const int value : setting.values)
      for (const StepShape& step : {StepShape{1, LogitRows::kLast}, StepShape{8, LogitRows::kAll}, StepShape{128, LogitRows::kLast}}) {
        TuningRow row;
        row.*setting.row = value;
        const auto planned = plans({row}, step);
        EXPECT_TRUE(planned) << setting.name << " " << value << ": " << planned.error().message();
      }
}

// ---- files -------------------------------------------------------------------------------------------------------------------------

class TuningFile : public testing::Test {
 protected:
  TuningFile() {
    unsetenv("TESSERA_TUNING");
    options_.cache_folder = folder_.path();
    options_.on_log = [this](LogLevel, std::string_view line) { said_ += line; };
  }

  std::string path() const { return tuning_path(device(), folder_.path()); }
  static TunedRows rows() {
    TuningRow row = shape_row({"matmul", 64, 96, 1});
    row.gemv_workgroup = 2;
    return {.made_for = tuning_made_for(device()), .rows = {{.row = row}}};
  }
  void write(const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(path()).parent_path());
    std::ofstream(path(), std::ios::binary) << text;
  }

  test::TemporaryFolder folder_;
  std::string said_;
  LoadOptions options_;
};

TEST_F(TuningFile, OfTheDeviceIsUsedUnlessToldOtherwise) {
  EXPECT_TRUE(tuning_in_use(device(), options_)->path.empty());
  ASSERT_TRUE(write_tuning_file(path(), rows(), device()));
  const auto found = tuning_in_use(device(), options_);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->path, path());
  ASSERT_EQ(found->rows.size(), 1u);
  EXPECT_EQ(found->rows[0].gemv_workgroup, 2);
  DeviceInfo updated = device();
  updated.driver_version = "1.3";
  EXPECT_TRUE(tuning_in_use(updated, options_)->path.empty()) << "another driver's";
  for (const auto& change : std::vector<std::function<void(LoadOptions&)>>{[](LoadOptions& o) { o.tuning = "off"; }, [](LoadOptions& o) { o.precision = Precision::kFloat; },
                                                                           [](LoadOptions& o) { o.weight_storage = Storage::kBuffer; }, [](LoadOptions& o) { o.cache_folder = "off"; }}) {
    LoadOptions otherwise = options_;
    change(otherwise);
    EXPECT_TRUE(tuning_in_use(device(), otherwise)->path.empty());
  }
  setenv("TESSERA_TUNING", "off", 1);
  EXPECT_TRUE(tuning_in_use(device(), options_)->path.empty());
  unsetenv("TESSERA_TUNING");
  EXPECT_EQ(said_, "");
}

TEST_F(TuningFile, ThatCannotBeUsedIsLeftOutWithALine) {
  write(to_json(rows(), device()).substr(0, 100));
  const auto found = tuning_in_use(device(), options_);
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_TRUE(found->rows.empty());
  EXPECT_NE(said_.find("does not parse"), std::string::npos) << said_;
  write(std::string((1 << 20) + 1, ' '));
  EXPECT_TRUE(tuning_in_use(device(), options_)->rows.empty());
  EXPECT_NE(said_.find("which no file of tuned rows is"), std::string::npos) << said_;
  std::filesystem::remove(path());
  std::filesystem::create_directories(path());
  EXPECT_TRUE(tuning_in_use(device(), options_)->rows.empty());
}

TEST_F(TuningFile, AskedForByNameMustBeThere) {
  options_.tuning = folder_.file("none.json");
  const auto found = tuning_in_use(device(), options_);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), ErrorCode::kNotFound);
}

// Rows of other shipped rows or kernels measured something else.
TEST_F(TuningFile, OfOtherKernelsIsLeftOut) {
  TunedRows stale = rows();
  stale.made_for = "0123";
  ASSERT_TRUE(write_tuning_file(path(), stale, device()));
  EXPECT_TRUE(tuning_in_use(device(), options_)->rows.empty());
  EXPECT_NE(said_.find("measures anew"), std::string::npos) << said_;
}

}  // namespace
}  // namespace tessera
