// Which dispatches wait for which: the tracker, the planner's barriers, and the executor that refuses a plan without one that it needs. No device.
#include "tessera/plan/hazards.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "tessera/engine/step_plans.hpp"
#include "tessera/exec/executor.hpp"
#include "tessera/plan/dump.hpp"
#include "tessera/plan/planner.hpp"

namespace tessera {
namespace {

using Tracker = HazardTracker<std::string>;
using Accesses = std::vector<Access<std::string>>;

Accesses reads(const std::string& object, int64_t begin = 0, int64_t end = 1) { return {{object, begin, end, false}}; }
Accesses writes(const std::string& object, int64_t begin = 0, int64_t end = 1) { return {{object, begin, end, true}}; }

// What the second of two dispatches without a barrier between them meets.
std::optional<Hazard> between(const Accesses& first, const Accesses& second) {
  Tracker tracker;
  tracker.add(first);
  return tracker.conflict(second);
}

TEST(HazardTracker, FindsEachKind) {
  EXPECT_EQ(between(writes("x"), reads("x")), Hazard::kReadAfterWrite);
  EXPECT_EQ(between(reads("x"), writes("x")), Hazard::kWriteAfterRead);
  EXPECT_EQ(between(writes("x"), writes("x")), Hazard::kWriteAfterWrite);
  EXPECT_EQ(between(reads("x"), reads("x")), std::nullopt);
  EXPECT_EQ(between(writes("x"), writes("y")), std::nullopt);
  EXPECT_EQ(between(writes("x"), reads("y")), std::nullopt);
}

TEST(HazardTracker, ComparesRanges) {
  struct Case {
    int64_t begin, end;
    bool overlaps;
  };
  for (const Case& c : {Case{0, 100, false}, {0, 101, true}, {100, 200, true}, {150, 151, true}, {199, 300, true}, {200, 300, false}, {0, 1000, true}}) {
    EXPECT_EQ(between(writes("x", 100, 200), reads("x", c.begin, c.end)).has_value(), c.overlaps) << c.begin << " to " << c.end;
    EXPECT_EQ(between(reads("x", c.begin, c.end), writes("x", 100, 200)).has_value(), c.overlaps) << c.begin << " to " << c.end;
  }
}

TEST(HazardTracker, LooksAtEveryAccessSinceTheLastBarrier) {
  Tracker tracker;
  EXPECT_EQ(tracker.conflict(writes("x")), std::nullopt);
  tracker.add(writes("x"));
  tracker.add(writes("y"));
  tracker.add({{"a", 0, 1, false}, {"b", 0, 1, true}});
  EXPECT_EQ(tracker.conflict(reads("x")), Hazard::kReadAfterWrite);
  EXPECT_EQ(tracker.conflict({{"c", 0, 1, false}, {"a", 0, 1, true}}), Hazard::kWriteAfterRead);
  tracker.barrier();
  for (const char* object : {"x", "y", "a", "b"}) EXPECT_EQ(tracker.conflict(writes(object)), std::nullopt) << object;
  tracker.add(writes("x"));
  EXPECT_EQ(tracker.conflict(writes("x")), Hazard::kWriteAfterWrite);
}

DeviceInfo device() {
  DeviceInfo info;
  info.name = "a device of the test";
  info.global_memory_bytes = 1 << 28;
  info.max_allocation_bytes = info.max_binding_bytes = 1 << 26;
  info.buffer_offset_alignment = 64;
  info.shared_memory_bytes = 32768;
  info.max_image_width = info.max_image_height = 16384;
  info.max_image_buffer_texels = 1 << 26;
  info.max_image_layers = info.max_image3d_width = info.max_image3d_height = info.max_image3d_depth = 2048;
  info.image3d_writes = true;
  info.max_workgroup_size = 1024;
  info.max_workgroup_extent = {1024, 1024, 64};
  return info;
}

// y = w x, each a vector of 64.
ValueId product(GraphBuilder& g, const std::string& name, ValueId x, bool is_output = false) {
  const ValueId y = is_output ? g.output(name, 1, 64) : g.activation(name, 1, 64);
  ops::matmul_into(g, x, g.weight({"w." + name, WeightType::kF32, 64, 64}), y);
  return y;
}

std::vector<bool> barriers(GraphBuilder& g) {
  const DeviceInfo info = device();
  const Tuning tuning;
  const auto plan = Planner(info, tuning).plan(std::move(g.graph()), {});
  EXPECT_TRUE(plan) << plan.error().message();
  std::vector<bool> out;
  for (const Dispatch& dispatch : plan->dispatches) out.push_back(dispatch.barrier);
  return out;
}

TEST(PlanBarriers, AChainWaitsAtEveryLink) {
  GraphBuilder g;
  product(g, "c", product(g, "b", product(g, "a", g.activation("x", 1, 64))), true);
  EXPECT_EQ(barriers(g), (std::vector<bool>{false, true, true}));
}

TEST(PlanBarriers, IndependentDispatchesDoNotWaitForEachOther) {
  GraphBuilder g;
  const ValueId x = g.activation("x", 1, 64);
  const ValueId a = product(g, "a", x), b = product(g, "b", x);
  product(g, "from_a", a, true);   // waits for a, and so for b
  product(g, "from_b", b, true);
  EXPECT_EQ(barriers(g), (std::vector<bool>{false, false, true, false}));
}

TEST(PlanBarriers, MemoryThatIsUsedAgainIsWaitedFor) {
  GraphBuilder g;
  const ValueId a = product(g, "a", g.activation("x", 1, 64));
  const ValueId b = product(g, "b", a);
  product(g, "c", b, true);
  // a and b are done with: d may lie where one of them did, which c or the product before it may still be reading.
  const ValueId d = product(g, "d", g.activation("z", 1, 64));
  product(g, "e", d, true);
  const DeviceInfo info = device();
  const Tuning tuning;
  const auto plan = Planner(info, tuning).plan(std::move(g.graph()), {});
  ASSERT_TRUE(plan) << plan.error().message();
  ASSERT_EQ(plan->dispatches.size(), 5u);
  std::map<std::string, int64_t> offsets;
  for (const PlanObject& object : plan->objects)
    if (object.home == Home::kArenaBuffer) offsets[object.name] = object.offset;
  EXPECT_EQ(plan->dispatches[3].barrier, offsets.at("d") == offsets.at("b")) << dump(*plan);
  EXPECT_TRUE(plan->dispatches[4].barrier);
}

// A small llama on the null device: its plan, and all that the plan refers to.
class ExecutorHazards : public testing::TestWithParam<Storage> {
 protected:
  void SetUp() override {
    ModelConfig config;
    config.architecture = "llama";
    config.n_layers = 2;
    config.dim = 64;
    config.hidden_dim = 96;
    config.n_heads = 4;
    config.n_kv_heads = 2;
    config.head_dim = config.n_rot = 16;
    config.vocab_size = 320;
    config.context_length = 128;
    std::vector<WeightRef> weights = {
        {"token_embd.weight", WeightType::kQ8_0, 320, 64, {}}, {"output_norm.weight", WeightType::kF32, 1, 64, {}}, {"output.weight", WeightType::kQ4_0, 320, 64, {}}};
    for (int layer = 0; layer < config.n_layers; ++layer) {
      const auto add = [&](const char* name, int64_t rows, int64_t columns) {
        weights.push_back({cat("blk.", layer, ".", name, ".weight"), rows == 1 ? WeightType::kF32 : WeightType::kQ4_0, rows, columns, {}});
      };
      add("attn_norm", 1, 64), add("attn_q", 64, 64), add("attn_k", 32, 64), add("attn_v", 32, 64), add("attn_output", 64, 64);
      add("ffn_norm", 1, 64), add("ffn_gate", 96, 64), add("ffn_up", 96, 64), add("ffn_down", 64, 96);
    }
    LoadOptions options;
    options.activation_storage = GetParam();
    auto made = make_step_plans(config, weights, device(), options);
    ASSERT_TRUE(made) << made.error().message();
    plans = std::move(*made);
    for (const auto& [key, layout] : plans.shared) ASSERT_TRUE(resources.create(key, layout)) << key;
    ASSERT_TRUE(resources.create(kParamsResource, Layout{Storage::kBuffer, DType::kI32, 1, {3}}));
    ASSERT_TRUE(resources.create_arena(plans.arena));
    std::vector<const Plan*> all;
    for (const Plan& plan : plans.plans) all.push_back(&plan);
    ASSERT_TRUE(executor.compile(all, nullptr));
  }

  std::unique_ptr<gpu::NullDevice> null = gpu::make_null_device(device(), Target::kGlsl);
  ProgramCache cache = ProgramCache::open("off", nullptr);
  Resources resources{*null};
  Executor executor{*null, cache, resources};
  StepPlans plans;
};

TEST_P(ExecutorHazards, PlansAsTheyAreAreTaken) {
  for (const Plan& plan : plans.plans) {
    const auto step = executor.prepare(plan);
    EXPECT_TRUE(step) << step.error().message();
  }
}

TEST_P(ExecutorHazards, APlanWithoutABarrierThatItNeedsIsRefused) {
  int taken_away = 0;
  for (const Plan& plan : plans.plans)
    for (size_t d = 0; d < plan.dispatches.size(); ++d) {
      if (!plan.dispatches[d].barrier) continue;
      Plan bad = plan;
      bad.dispatches[d].barrier = false;
      const auto step = executor.prepare(std::move(bad));
      ASSERT_FALSE(step) << plan.dispatches[d].label;
      EXPECT_EQ(step.error().code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(step.error().message().find(plan.dispatches[d].label + ": without a barrier it "), std::string::npos) << step.error().message();
      ++taken_away;
    }
  EXPECT_GT(taken_away, 20);
}

TEST_P(ExecutorHazards, MoreBarriersThanNeededAreTaken) {
  Plan plan = plans.plans.front();
  for (Dispatch& dispatch : plan.dispatches) dispatch.barrier = true;
  EXPECT_TRUE(executor.prepare(std::move(plan)));
}

std::string storage_name(const testing::TestParamInfo<Storage>& info) { return std::string(name_of(info.param)); }
INSTANTIATE_TEST_SUITE_P(Activations, ExecutorHazards, testing::Values(Storage::kBuffer, Storage::kImage2D), storage_name);

// The executor compares the bytes where objects came to lie: an offset that is wrong is found, too.
TEST(ExecutorPlaces, ObjectsThatLieOverEachOtherAreFound) {
  GraphBuilder g;
  const ValueId x = g.activation("x", 1, 64);
  const ValueId a = product(g, "a", x), b = product(g, "b", x);
  product(g, "from_a", a, true);
  product(g, "from_b", b, true);
  const DeviceInfo info = device();
  const Tuning tuning;
  const Plan plan = std::move(*Planner(info, tuning).plan(std::move(g.graph()), {}));
  const auto null = gpu::make_null_device(info, Target::kGlsl);
  ProgramCache cache = ProgramCache::open("off", nullptr);
  Resources resources(*null);
  Executor executor(*null, cache, resources);
  for (const PlanObject& object : plan.objects)
    if (object.home != Home::kArenaBuffer) {
      ASSERT_TRUE(resources.create(resource_key(object), object.layout));
    }
  ASSERT_TRUE(resources.create(kParamsResource, Layout{Storage::kBuffer, DType::kI32, 1, {3}}));
  ArenaNeeds needs;
  needs.merge(plan);
  ASSERT_TRUE(resources.create_arena(needs));
  ASSERT_TRUE(executor.compile({&plan}, nullptr));
  ASSERT_TRUE(executor.prepare(plan));

  const auto offset_of = [](Plan& in, const std::string& name) -> int64_t& {
    return std::find_if(in.objects.begin(), in.objects.end(), [&](const PlanObject& object) { return object.name == name; })->offset;
  };
  const std::pair<const char*, Hazard> kMoves[] = {{"a", Hazard::kWriteAfterWrite}, {"x", Hazard::kWriteAfterRead}};
  for (const auto& [onto, hazard] : kMoves) {   // b is written while a is, or while x is still read
    Plan moved = plan;
    offset_of(moved, "b") = offset_of(moved, onto);
    const auto step = executor.prepare(std::move(moved));
    ASSERT_FALSE(step) << onto;
    EXPECT_NE(step.error().message().find(name_of(hazard)), std::string::npos) << step.error().message();
  }
}

}  // namespace
}  // namespace tessera
