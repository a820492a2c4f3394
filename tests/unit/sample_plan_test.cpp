// How sampling is planned on devices that nobody here has: the shared memory it takes, and that its kernels compile for both targets.
#include <gtest/gtest.h>

#include "offline_compile.hpp"
#include "tessera/codegen/kernel_library.hpp"
#include "tessera/plan/planner.hpp"

namespace tessera {
namespace {

Result<Plan> plan_of_sampling(int64_t vocab, int workgroup, bool subgroups) {
  GraphBuilder g;
  const ValueId logits = g.output("logits", 4, vocab), rows = g.input("rows", DType::kI32, 4, {4}), samplers = g.input("samplers", DType::kU32, 4, {4, 4}),
                biases = g.input("biases", DType::kU32, 2, {4, kMaxDeviceBiases}), recent = g.input("recent", DType::kI32, 1, {4, kRecentTokens}),
                sampled = g.input("sampled", DType::kU32, 2, {4, kStepsAtOnce});
  ops::adjust_logits(g, logits, rows, samplers, biases, recent);
  ops::sample(g, logits, samplers, rows, recent, sampled);
  Tuning tuning;
  tuning.row_workgroup = workgroup;
  tuning.words.subgroups = subgroups;
  DeviceInfo device;
  device.max_allocation_bytes = device.max_binding_bytes = int64_t{1} << 30;
  device.max_grid = {65535, 65535, 65535};
  TESSERA_ASSIGN(Graph graph, std::move(g).build());
  return Planner(device, tuning).plan(std::move(graph), {4, LogitRows::kLast});
}

// Mali's workgroups have 32 KiB; what is taken bounds how many of them run at once.
TEST(SamplePlan, TakesLittleSharedMemoryOfAnyVocabulary) {
  for (const int64_t vocab : {1, 5, 127, 4096, 32000, 49152, 128256, 151936, 262144})
    for (const int workgroup : {1, 8, 16, 64, 128, 256}) {
      const Result<Plan> plan = plan_of_sampling(vocab, workgroup, false);
      ASSERT_TRUE(plan) << plan.error().message();
      const auto& consts = plan->dispatches.back().variant.consts;
      const int64_t tile = consts.at("TILE"), tiles = consts.at("TILES"), lanes = consts.at("WG");
      EXPECT_GE(tile * tiles * lanes * 4, vocab);
      EXPECT_LE((tiles * lanes + lanes + 3) * 4, 8192) << vocab << " tokens, " << workgroup << " lanes";
      EXPECT_LE(workgroup, lanes);
      EXPECT_TRUE(workgroup == 1 || lanes >= 128 || tile * tiles <= 1024) << "of one lane";
    }
}

TEST(SamplePlan, RefusesIdsThatAreNoExactFloats) {
  const Result<Plan> plan = plan_of_sampling((int64_t{1} << 24) + 4, 64, false);
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code(), ErrorCode::kLimit);
}

// The second reads what the first writes in place.
TEST(SamplePlan, WaitsForTheAdjustedLogits) {
  const Result<Plan> plan = plan_of_sampling(127, 64, false);
  ASSERT_TRUE(plan) << plan.error().message();
  ASSERT_EQ(plan->dispatches.size(), 2u);
  EXPECT_TRUE(plan->dispatches[1].barrier);
}

TEST(SamplePlan, LogitsThatAreNoOutputAreNotChangedInPlace) {
  GraphBuilder g;
  const ValueId x = g.activation("x", 1, 8), other = g.input("other", DType::kI32, 1, {1});
  ops::adjust_logits(g, x, other, other, other, other);
  const Result<Graph> graph = std::move(g).build();
  ASSERT_FALSE(graph);
  EXPECT_EQ(graph.error().code(), ErrorCode::kInvalidArgument);
}

TEST(SamplePlan, KernelsCompileForBothTargets) {
  for (const int64_t vocab : {5, 128256})
    for (const bool subgroups : {false, true}) {
      const Result<Plan> plan = plan_of_sampling(vocab, 128, subgroups);
      ASSERT_TRUE(plan) << plan.error().message();
      for (const Dispatch& dispatch : plan->dispatches)
        for (const Target target : {Target::kOpenCL, Target::kGlsl}) {
          const Result<LoweredKernel> lowered = lower(embedded_kernels(), dispatch.variant, target, step_params());
          ASSERT_TRUE(lowered) << lowered.error().message();
          const Status compiled = target == Target::kOpenCL ? test::compile_opencl(*lowered) : test::compile_glsl(*lowered);
          if (!compiled && compiled.error().code() == ErrorCode::kNotFound) GTEST_SKIP() << compiled.error().message();
          EXPECT_TRUE(compiled) << compiled.error().message();
        }
    }
}

}  // namespace
}  // namespace tessera
