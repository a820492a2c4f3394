// Recorded work: order, bindings, counters, fences, and what recording refuses.
#include "gpu_fixture.hpp"

namespace tessera::gpu {
namespace {

class GpuListTest : public GpuTest, public testing::WithParamInterface<Api> {
 protected:
  void SetUp() override { open(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Apis, GpuListTest, testing::ValuesIn(apis()), api_name);

// What only OpenCL promises.
class OpenClListTest : public GpuTest {
 protected:
  void SetUp() override { open(Api::kOpenCL); }
};

TEST_P(GpuListTest, ListRunsTwiceAndTheSecondTimeCreatesNothing) {
  const auto program = affine();
  const auto x = buffer(32 * 4), y = buffer(32 * 4);
  ASSERT_TRUE(device->write(*x, 0, bytes_of(ramp(32))));
  const auto list = new_list();
  // x → y → x: the second dispatch needs what the first wrote.
  ASSERT_TRUE(list->dispatch({program.get(), {{x.get(), 0, 128}, {y.get(), 0, 128}}, {bits(2.0f), 1}, {4, 1, 1}, "first"}));
  ASSERT_TRUE(list->dispatch({program.get(), {{y.get(), 0, 128}, {x.get(), 0, 128}}, {bits(3.0f), uint32_t(-5)}, {4, 1, 1}, "second"}));
  ASSERT_TRUE(list->finish());
  EXPECT_EQ(list->size(), 2u);

  run(*list);
  const Counters before = device->counters();
  run(*list);
  const Counters& after = device->counters();
  EXPECT_EQ(after.kernels_created, before.kernels_created);
  EXPECT_EQ(after.buffers_created, before.buffers_created);
  EXPECT_EQ(after.programs_compiled, 1u);
  EXPECT_EQ(after.lists_recorded, 1u);
  EXPECT_EQ(after.submissions, before.submissions + 1);
  EXPECT_EQ(after.dispatches, before.dispatches + 2);
  // One call of the driver, or on OpenCL where its command buffers are not used one a dispatch.
  EXPECT_TRUE(after.enqueues == before.enqueues + 1 || (GetParam() == Api::kOpenCL && after.enqueues == before.enqueues + 2)) << after.enqueues;
  EXPECT_EQ(after.descriptor_updates, before.descriptor_updates);
  EXPECT_EQ(after.synchronizations, before.synchronizations + 1);

  const std::vector<float> got = floats(*x, 0, 32);
  for (size_t i = 0; i < 32; ++i) {
    float expected = static_cast<float>(i);
    for (int pass = 0; pass < 2; ++pass) expected = (expected * 2.0f + 1.0f) * 3.0f - 5.0f;
    EXPECT_EQ(got[i], expected) << i;
  }
}

// Several runs in one submission see each other's results in order, and the second such submission records nothing.
TEST_P(GpuListTest, AListRunsSeveralTimesInOneSubmission) {
  const auto program = affine();
  const auto x = buffer(32 * 4), y = buffer(32 * 4);
  ASSERT_TRUE(device->write(*x, 0, bytes_of(ramp(32))));
  const auto list = new_list();
  ASSERT_TRUE(list->dispatch({program.get(), {{x.get(), 0, 128}, {y.get(), 0, 128}}, {bits(2.0f), 1}, {4, 1, 1}, "there"}));
  ASSERT_TRUE(list->dispatch({program.get(), {{y.get(), 0, 128}, {x.get(), 0, 128}}, {bits(1.0f), uint32_t(-3)}, {4, 1, 1}, "back"}));
  ASSERT_TRUE(list->finish());
  for (const int32_t wrong : {0, -1, kMaxTimes + 1}) EXPECT_EQ(device->submit(*list, {.times = wrong}).error().code(), ErrorCode::kInvalidArgument) << wrong;
  EXPECT_EQ(device->submit(*list, {.profiled = true, .times = 2}).error().code(), ErrorCode::kInvalidArgument);
  const auto submit = [&](int32_t times) {
    const auto fence = device->submit(*list, {.times = times});
    ASSERT_TRUE(fence) << fence.error().message();
    ASSERT_TRUE((*fence)->wait());
  };
  submit(5);
  const Counters before = device->counters();
  submit(5);
  submit(1);
  submit(4);
  const Counters& after = device->counters();
  EXPECT_EQ(after.submissions, before.submissions + 3);
  EXPECT_EQ(after.dispatches, before.dispatches + 20);
  EXPECT_EQ(after.synchronizations, before.synchronizations + 3);
  EXPECT_EQ(after.lists_recorded, before.lists_recorded);
  EXPECT_EQ(after.descriptor_updates, before.descriptor_updates);
  const std::vector<float> got = floats(*x, 0, 32);
  for (size_t i = 0; i < 32; ++i) {   // v → 2 v − 2, 15 times: exact in a float, for 2^15 · 32 has 20 bits
    float expected = static_cast<float>(i);
    for (int run = 0; run < 15; ++run) expected = expected * 2.0f - 2.0f;
    EXPECT_EQ(got[i], expected) << i;
  }
}

TEST_P(GpuListTest, DispatchesOfOneListAreOrdered) {
  const auto program = affine();
  const auto x = buffer(32 * 4);
  const int64_t step = stride();
  const auto y = buffer(step * 200);
  ASSERT_TRUE(device->write(*x, 0, bytes_of(ramp(8))));
  const auto list = new_list();
  // A chain of 199 dispatches through ranges of one buffer, each adding 1 to what the one before wrote.
  ASSERT_TRUE(list->dispatch({program.get(), {{x.get(), 0, 128}, {y.get(), 0, 32}}, {bits(1.0f), 1}, {1, 1, 1}, "start"}));
  for (int64_t i = 1; i < 200; ++i)
    ASSERT_TRUE(list->dispatch({program.get(), {{y.get(), (i - 1) * step, 32}, {y.get(), i * step, 32}}, {bits(1.0f), 1}, {1, 1, 1}, "link"}));
  ASSERT_TRUE(list->finish());
  run(*list);
  const std::vector<float> got = floats(*y, 199 * step, 8);
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(got[i], static_cast<float>(i + 200));
}

// Without barriers between dispatches that share nothing, and with them where one reads what another wrote.
TEST_P(GpuListTest, DispatchesWithoutAHazardNeedNoBarrier) {
  constexpr int64_t kPairs = 50;
  const auto program = affine();
  const int64_t step = stride();
  const auto x = buffer(32), y = buffer(step * 2 * kPairs), z = buffer(step * 2 * kPairs);
  ASSERT_TRUE(device->write(*x, 0, bytes_of(ramp(8))));
  const auto list = new_list();
  const auto record = [&](const Binding& from, Buffer& to, int64_t at, uint32_t offset, bool barrier) {
    return list->dispatch({.kernel = program.get(), .bindings = {from, {&to, at * step, 32}}, .args = {bits(1.0f), offset}, .workgroups = {1, 1, 1}, .label = {}, .barrier = barrier});
  };
  // All of y reads x alone; all of z reads y alone, each its own range: one wait is enough.
  for (int64_t i = 0; i < 2 * kPairs; ++i) ASSERT_TRUE(record({x.get(), 0, 32}, *y, i, static_cast<uint32_t>(i), false));
  for (int64_t i = 0; i < 2 * kPairs; ++i) ASSERT_TRUE(record({y.get(), (2 * kPairs - 1 - i) * step, 32}, *z, i, 1000, i == 0));
  ASSERT_TRUE(list->finish());
  for (int pass = 0; pass < 3; ++pass) {
    ASSERT_TRUE(device->fill_zero(*y, 0, y->bytes()));
    ASSERT_TRUE(device->fill_zero(*z, 0, z->bytes()));
    run(*list);
    for (int64_t i = 0; i < 2 * kPairs; ++i) {
      EXPECT_EQ(floats(*y, i * step, 8).at(7), static_cast<float>(7 + i));
      EXPECT_EQ(floats(*z, i * step, 8).at(7), static_cast<float>(7 + (2 * kPairs - 1 - i) + 1000));
    }
  }
}

// Lists are ordered among themselves, whatever their first dispatch says.
TEST_P(GpuListTest, ListsWaitForTheListsBeforeThem) {
  const auto program = affine();
  const auto x = buffer(32), y = buffer(32);
  ASSERT_TRUE(device->write(*x, 0, bytes_of(ramp(8))));
  std::vector<std::unique_ptr<CommandList>> lists;
  for (const auto& [from, to] : {std::pair{x.get(), y.get()}, {y.get(), x.get()}}) {
    lists.push_back(new_list());
    ASSERT_TRUE(lists.back()->dispatch({.kernel = program.get(), .bindings = {{from, 0, 32}, {to, 0, 32}}, .args = {bits(1.0f), 1}, .workgroups = {1, 1, 1}, .label = {}, .barrier = false}));
    ASSERT_TRUE(lists.back()->finish());
  }
  for (int i = 0; i < 50; ++i)
    for (const auto& list : lists) ASSERT_TRUE(device->submit(*list));
  EXPECT_EQ(floats(*x, 0, 8).at(3), 103.0f);
}

TEST_P(GpuListTest, BindingsSeeTheirRangeOnly) {
  const auto program = affine();
  const int64_t step = stride();
  const auto x = buffer(step * 3), y = buffer(step * 3);
  ASSERT_TRUE(device->fill_zero(*y, 0, step * 3));
  ASSERT_TRUE(device->write(*x, step, bytes_of(ramp(8))));
  const auto list = new_list();
  ASSERT_TRUE(list->dispatch({program.get(), {{x.get(), step, 32}, {y.get(), 2 * step, 32}}, {bits(1.0f), 10}, {1, 1, 1}, {}}));
  ASSERT_TRUE(list->finish());
  run(*list);
  EXPECT_EQ(floats(*y, 2 * step, 8), (std::vector<float>{10, 11, 12, 13, 14, 15, 16, 17}));
  EXPECT_EQ(floats(*y, step, 8), std::vector<float>(8, 0.0f));
}

TEST_P(GpuListTest, WritesBetweenSubmissionsKeepTheirPlace) {
  const auto program = affine();
  const auto x = buffer(32);
  const int64_t step = stride();
  std::vector<std::unique_ptr<CommandList>> lists;
  const auto y = buffer(step * 100);
  for (int64_t i = 0; i < 100; ++i) {
    auto list = new_list();
    ASSERT_TRUE(list->dispatch({program.get(), {{x.get(), 0, 32}, {y.get(), i * step, 32}}, {bits(1.0f), 0}, {1, 1, 1}, {}}));
    ASSERT_TRUE(list->finish());
    lists.push_back(std::move(list));
  }
  // Nobody waits here: each submission must see the value written just before it, also after OpenCL's staging ring went round.
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(device->write(*x, 0, bytes_of(std::vector<float>(8, static_cast<float>(i)))));
    ASSERT_TRUE(device->submit(*lists[static_cast<size_t>(i)]));
  }
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(floats(*y, i * step, 8), std::vector<float>(8, static_cast<float>(i)));
}

// The Vulkan backend writes into memory that the host sees, and waits for work in flight before it does; OpenCL queues a copy.
TEST_F(OpenClListTest, SmallWritesDoNotSynchronize) {
  const auto program = affine();
  const auto x = buffer(32), y = buffer(32);
  const auto list = new_list();
  ASSERT_TRUE(list->dispatch({program.get(), {{x.get(), 0, 32}, {y.get(), 0, 32}}, {bits(1.0f), 0}, {1, 1, 1}, {}}));
  ASSERT_TRUE(list->finish());
  const uint64_t before = device->counters().synchronizations;
  for (int i = 0; i < 40; ++i) {  // fewer than the staging ring has slots
    ASSERT_TRUE(device->write(*x, 0, bytes_of(ramp(8))));
    ASSERT_TRUE(device->submit(*list));
  }
  EXPECT_EQ(device->counters().synchronizations, before);
  floats(*y, 0, 8);
  EXPECT_EQ(device->counters().synchronizations, before + 1);
}

TEST_P(GpuListTest, FenceWaitsOnceAndProfilesOnRequest) {
  const auto program = affine();
  const auto x = buffer(32), y = buffer(32);
  const auto list = new_list();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(list->dispatch({program.get(), {{x.get(), 0, 32}, {y.get(), 0, 32}}, {bits(1.0f), 0}, {1, 1, 1}, {}}));
  ASSERT_TRUE(list->finish());

  const auto plain = device->submit(*list);
  ASSERT_TRUE(plain) << plain.error().message();
  ASSERT_TRUE((*plain)->wait());
  const uint64_t waited = device->counters().synchronizations;
  ASSERT_TRUE((*plain)->wait());
  EXPECT_EQ(device->counters().synchronizations, waited);
  EXPECT_TRUE((*plain)->dispatch_microseconds().empty());

  const auto profiled = device->submit(*list, {.profiled = true});
  ASSERT_TRUE(profiled) << profiled.error().message();
  ASSERT_TRUE((*profiled)->wait());
  const std::vector<double> times = (*profiled)->dispatch_microseconds();
  if (times.empty()) GTEST_SKIP() << "this device has no timestamps";
  ASSERT_EQ(times.size(), 3u);
  for (const double time : times) EXPECT_GE(time, 0.0);
}

TEST_P(GpuListTest, ListsHaveTwoStates) {
  const auto program = affine();
  const auto x = buffer(32), y = buffer(32);
  const DispatchInfo good{program.get(), {{x.get(), 0, 32}, {y.get(), 0, 32}}, {bits(1.0f), 0}, {1, 1, 1}, {}};
  const auto list = new_list();
  EXPECT_EQ(device->submit(*list).error().code(), ErrorCode::kInvalidArgument);
  ASSERT_TRUE(list->dispatch(good));
  ASSERT_TRUE(list->finish());
  EXPECT_EQ(list->dispatch(good).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(list->finish().error().code(), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(device->submit(*list));
}

TEST_P(GpuListTest, EmptyListIsFinishedAtOnce) {
  const auto list = new_list();
  ASSERT_TRUE(list->finish());
  run(*list);
}

TEST_P(GpuListTest, WrongDispatchesNameKernelAndSlot) {
  const auto program = affine();
  const auto x = buffer(64), y = buffer(64);
  const Binding good_x{x.get(), 0, 64}, good_y{y.get(), 0, 64};
  const std::vector<uint32_t> args{bits(1.0f), 0};
  struct Case {
    const char* what;
    DispatchInfo info;
    ErrorCode code;
    const char* mentions;
  };
  const std::vector<Case> cases{
      {"no kernel", {nullptr, {good_x, good_y}, args, {1, 1, 1}, {}}, ErrorCode::kInvalidArgument, "kernel"},
      {"one binding", {program.get(), {good_x}, args, {1, 1, 1}, {}}, ErrorCode::kInvalidArgument, "2 slots, 1 bindings"},
      {"three bindings", {program.get(), {good_x, good_y, good_y}, args, {1, 1, 1}, {}}, ErrorCode::kInvalidArgument, "2 slots, 3 bindings"},
      {"one arg", {program.get(), {good_x, good_y}, {1}, {1, 1, 1}, {}}, ErrorCode::kInvalidArgument, "2 args, 1"},
      {"nothing bound", {program.get(), {good_x, {}}, args, {1, 1, 1}, {}}, ErrorCode::kInvalidArgument, "slot 1 'y'"},
      {"past the end", {program.get(), {{x.get(), 0, 65}, good_y}, args, {1, 1, 1}, {}}, ErrorCode::kInvalidArgument, "slot 0 'x'"},
      {"negative offset", {program.get(), {{x.get(), -64, 64}, good_y}, args, {1, 1, 1}, {}}, ErrorCode::kInvalidArgument, "slot 0 'x'"},
      {"empty range", {program.get(), {{x.get(), 0, 0}, good_y}, args, {1, 1, 1}, {}}, ErrorCode::kInvalidArgument, "slot 0 'x'"},
      {"no workgroups", {program.get(), {good_x, good_y}, args, {0, 1, 1}, {}}, ErrorCode::kLimit, "axis 0"},
      {"negative workgroups", {program.get(), {good_x, good_y}, args, {1, 1, -1}, {}}, ErrorCode::kLimit, "axis 2"},
      {"32-bit overflow", {program.get(), {good_x, good_y}, args, {int64_t{1} << 28, 1, 1}, {}}, ErrorCode::kLimit, "axis 0"},
  };
  for (const Case& c : cases) {
    const auto list = new_list();
    const Status status = list->dispatch(c.info);
    ASSERT_FALSE(status) << c.what;
    EXPECT_EQ(status.error().code(), c.code) << c.what << ": " << status.error().message();
    EXPECT_NE(status.error().message().find(c.mentions), std::string::npos) << c.what << ": " << status.error().message();
    if (c.info.kernel != nullptr) {
      EXPECT_NE(status.error().message().find("'affine'"), std::string::npos) << status.error().message();
    }
    EXPECT_EQ(list->size(), 0u);
  }
}

TEST_P(GpuListTest, MisalignedOffsetsAreRefused) {
  if (device->info().buffer_offset_alignment == 1) GTEST_SKIP() << "any offset is aligned on this device";
  const auto program = affine();
  const auto x = buffer(1024), y = buffer(1024);
  const auto list = new_list();
  const Status status = list->dispatch({program.get(), {{x.get(), 1, 32}, {y.get(), 0, 32}}, {bits(1.0f), 0}, {1, 1, 1}, {}});
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message().find("multiple"), std::string::npos) << status.error().message();
}

TEST_P(GpuListTest, ObjectsOfAnotherDeviceAreRefused) {
  const auto other = std::move(*backend_of(GetParam()).open(0));
  const auto foreign = std::move(*other->create_buffer(64));
  const auto program = affine();
  const auto y = buffer(64);
  std::vector<std::byte> bytes(4);
  EXPECT_EQ(device->write(*foreign, 0, bytes).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(device->read(*foreign, 0, bytes).error().code(), ErrorCode::kInvalidArgument);
  const auto list = new_list();
  EXPECT_EQ(list->dispatch({program.get(), {{foreign.get(), 0, 64}, {y.get(), 0, 64}}, {0, 0}, {1, 1, 1}, {}}).error().code(),
            ErrorCode::kInvalidArgument);
  const auto null = make_null_device(device->info(), device->target());
  const auto nothing = std::move(*null->create_buffer(64));
  EXPECT_EQ(device->write(*nothing, 0, bytes).error().code(), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::gpu
