// The tuner: which way it searches, that a candidate which computes wrongly is never kept, and that a run goes on where another ended. Counts decide, not times.
#include "tuner.hpp"

#include <cstring>
#include <map>

#include "../unit/gguf_builder.hpp"
#include "forwarding_device.hpp"
#include "model_fixture.hpp"

namespace tessera::test {
namespace {

using bench::Outcome;

std::string tiny() { return data_path("conform/models/llama-tied-gqa3.Q4_1.gguf"); }

// A search over times that a formula gives.
struct FakeSearch {
  std::vector<OpSetting> settings{{"gemv_workgroup", &Tuning::gemv_workgroup, &TuningRow::gemv_workgroup, {1, 2, 4, 8, 16, 32}}, {"gemm_tokens", &Tuning::gemm_tokens, &TuningRow::gemm_tokens, {1, 2, 4, 8}}};
  std::function<double(int, int)> time;
  std::function<bool(int, int)> right = [](int, int) { return true; };
  int tried = 0;

  TuningRow run(int most = 1000) {
    Tuning start;
    start.gemv_workgroup = 4;
    start.gemm_tokens = 4;
    double best = time(4, 4);
    return bench::search(settings, start, {}, [&](const TuningRow& row) {
      ++tried;
      const int lanes = row.gemv_workgroup.value_or(4), tokens = row.gemm_tokens.value_or(4);
      if (!right(lanes, tokens)) return Outcome::kRejected;
      const double ratio = time(lanes, tokens) / best;
      if (ratio > bench::kFarSlower) return Outcome::kFarSlower;
      if (ratio > bench::kWorthIt) return Outcome::kSlower;
      best = time(lanes, tokens);
      return Outcome::kFaster;
    }, [&] { return tried >= most; });
  }
};

TEST(TunerSearch, FindsTheBestOfEachSettingAndTakesTurnsUntilNothingChanges) {
  FakeSearch fake{.time = [](int lanes, int tokens) { return 100.0 / lanes + 10.0 / tokens + (lanes == 16 && tokens == 8 ? -5.0 : 0.0); }};
  const TuningRow found = fake.run();
  EXPECT_EQ(found.gemv_workgroup, 16) << "the best with 8 tokens only, which a second round finds";
  EXPECT_EQ(found.gemm_tokens, 8);
}

TEST(TunerSearch, LeavesWhatIsBestAsItIs) {
  FakeSearch fake{.time = [](int lanes, int tokens) { return std::abs(lanes - 4) * 0.1 + std::abs(tokens - 4) * 0.1 + 1.0; }};
  EXPECT_EQ(fake.run(), TuningRow());
}

TEST(TunerSearch, NeverKeepsWhatIsWrongHoweverFast) {
  FakeSearch fake{.time = [](int lanes, int tokens) { return 100.0 / lanes + 10.0 / tokens; }, .right = [](int lanes, int) { return lanes < 16; }};
  EXPECT_EQ(fake.run().gemv_workgroup, 8);
}

TEST(TunerSearch, EndsWhenItIsToldTo) {
  FakeSearch fake{.time = [](int lanes, int tokens) { return 100.0 / lanes + 10.0 / tokens; }};
  fake.run(3);
  EXPECT_EQ(fake.tried, 3);
}

TEST(TunerSearch, ContextsAreLongFromWhereSharingThemPays) {
  const std::vector<int> values{128, 256, 512, 1024, 2048};
  const auto found = [&](int from, int shared_is_faster_from) {
    return bench::search_long(values, from, [&](int tokens, bool as_long) {
      EXPECT_EQ(as_long, tokens < from) << "a step is timed as the other kind";
      return as_long == (tokens >= shared_is_faster_from);
    });
  };
  EXPECT_EQ(found(512, 600), 512);
  EXPECT_EQ(found(512, 1600), 2048) << "of 1,024 to 2,048 the middle speaks for all";
  EXPECT_EQ(found(512, 1500), 1024);
  EXPECT_EQ(found(512, 300), 256);
  EXPECT_EQ(found(512, 0), 128);
}

TEST(TunerSearch, NoiseIsNoGain) {
  EXPECT_TRUE(bench::is_faster({{0.9, 0.91, 0.9, 0.92}}));
  EXPECT_FALSE(bench::is_faster({{0.7, 0.8, 1.1, 1.2}})) << "a median below 1, but as many above";
  EXPECT_FALSE(bench::is_faster({{0.985, 0.986, 0.987}})) << "less than what is worth another program";
}

TEST(TunerResults, RoundingIsNoErrorAndAnErrorIsNoRounding) {
  const bench::Results right{{1.0f, -2.0f, 3.0f, NAN}};
  EXPECT_TRUE(bench::same_results({{1.0001f, -2.0f, 3.0f, NAN}}, right, 1e-3));
  EXPECT_FALSE(bench::same_results({{1.1f, -2.0f, 3.0f, NAN}}, right, 1e-3));
  EXPECT_FALSE(bench::same_results({{1.0f, -2.0f, 3.0f, 0.0f}}, right, 1e-3)) << "a number where there was none";
  EXPECT_FALSE(bench::same_results({{1.0f, -2.0f, NAN, NAN}}, right, 1e-3));
  EXPECT_FALSE(bench::same_results({{1.0f, -2.0f, 3.0f}}, right, 1e-3));
  const std::vector<float> many(1000, 1.0f);
  EXPECT_TRUE(bench::same_results({std::vector<float>(1000, 1.0003f)}, {many}, 1e-3));
  EXPECT_FALSE(bench::same_results({std::vector<float>(1000, 1.0005f)}, {many}, 1e-3)) << "none too far, all of them far";
}

// A driver that compiles kernels of workgroups of `wrong_lanes` wrongly: what they leave reads back otherwise.
class WrongDevice : public ForwardingDevice {
 public:
  WrongDevice(const tessera::Device& device, int wrong_lanes) : ForwardingDevice(device), wrong_lanes_(wrong_lanes) {}
  Result<std::unique_ptr<gpu::Kernel>> compile(const LoweredKernel& lowered) override {
    wrong_ = lowered.workgroup[0] == wrong_lanes_;
    return ForwardingDevice::compile(lowered);
  }
  Status read(const gpu::Buffer& buffer, int64_t offset, std::span<std::byte> bytes) override {
    TESSERA_TRY(ForwardingDevice::read(buffer, offset, bytes));
    if (wrong_) bytes[bytes.size() > 8 ? 7 : 0] ^= std::byte{0x44};
    return {};
  }

 private:
  int wrong_lanes_;
  bool wrong_ = false;
};

LoadOptions options() { return {.context_tokens = 64, .cache_folder = "off", .prefix_cache = false}; }
TunedRows none(const DeviceInfo& info) { return {.made_for = tuning_made_for(info), .rows = {}}; }

TEST(Tuner, RejectsCandidatesThatComputeWrongly) {
  TESSERA_NEEDS_DEVICE(shared_device());
  const int shipped = tuning_for(shared_device()->info()).gemv_workgroup, wrong = shipped * 2;
  WrongDevice device(*shared_device(), wrong);
  const auto file = ModelFile::open(tiny());
  ASSERT_TRUE(file);
  const bench::Tuner* running = nullptr;
  std::string said;
  bench::Tuner tuner(*file, device, options(), none(device.info()),
                     {.path = "", .device_stage = false, .budget = std::chrono::hours(1), .interrupted = [&] { return running->counts().rejected > 0 || running->counts().tried >= 100; }, .say = [&](const std::string& line) { said += line + "\n"; }});
  running = &tuner;
  const Status status = tuner.run();
  ASSERT_TRUE(status) << status.error().message();
  EXPECT_GT(tuner.counts().rejected, 0) << said;
  EXPECT_NE(said.find("rejected: "), std::string::npos) << said;
  for (const TunedRow& row : tuner.rows().rows)
    for (const OpSetting& setting : op_settings())
      EXPECT_TRUE(!setting.lanes || row.row.*setting.row != wrong) << setting.name;
}

// A device that computes nothing and knows which positions of an answer's row were submitted with.
class WatchedDevice : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  Status write(gpu::Buffer& buffer, int64_t offset, std::span<const std::byte> bytes) override {
    if (bytes.size() == sizeof(StepRow) * static_cast<size_t>(kMaxRows)) std::memcpy(&row_, bytes.data(), sizeof row_);
    return ForwardingDevice::write(buffer, offset, bytes);
  }
  Result<gpu::Fence*> submit(gpu::CommandList& list, const gpu::SubmitOptions& options) override {
    ++submitted[row_.position];
    return ForwardingDevice::submit(list, options);
  }
  std::map<int32_t, int> submitted;   // by position

 private:
  StepRow row_;
};

// The kernels that only an answer behind a long context has.
bool is_of_long_answer(const bench::TunedCase& each) { return each.of.shape.long_context && each.of.step.tokens == 1; }
bool all_decided(const bench::Tuner& tuner) {
  return std::ranges::any_of(tuner.cases(), is_of_long_answer) && std::ranges::none_of(tuner.cases(), [](const auto& each) { return is_of_long_answer(each) && !each.decided; });
}

TEST(Tuner, TimesStepsBehindLongContexts) {
  const std::string bytes = tiny_llama({.shape = {.context = 2 * bench::kFar}}).bytes();
  const auto file = ModelFile::view(std::as_bytes(std::span(bytes)), "tiny.gguf");
  ASSERT_TRUE(file) << file.error().message();
  LoadOptions load = options();
  load.context_tokens = 2 * bench::kFar;
  // In whole steps, how many workgroups share them and from where on; then their kernels, each for itself.
  for (const bool device_stage : {true, false}) {
    const Device null = null_device();
    WatchedDevice device(null);
    const bench::Tuner* running = nullptr;
    std::string said;
    bench::Tuner tuner(*file, device, load, none(device.info()),
                       {.path = "", .device_stage = device_stage, .budget = std::chrono::hours(1), .interrupted = [&] { return device_stage ? running->counts().tried >= 12 : all_decided(*running); }, .say = [&](const std::string& line) { said += line + "\n"; }});
    running = &tuner;
    const Status status = tuner.run();
    ASSERT_TRUE(status) << status.error().message();
    EXPECT_GT(device.submitted[bench::kFar], 0);
    if (device_stage) {
      EXPECT_NE(said.find("tokens, attention_groups"), std::string::npos) << said;
      // Times of nothing are noise: where it says that nothing need be shared, contexts are all of one kind, and there is nothing to try.
      if (said.find("attention_groups 1: faster") == std::string::npos) {
        EXPECT_NE(said.find("tokens, attention_long"), std::string::npos) << said;
      }
      continue;
    }
    for (const char* op : {"attention", "attention_combine"}) {
      const auto found = std::ranges::find_if(tuner.cases(), [&](const bench::TunedCase& each) { return each.of.shape.op == op && is_of_long_answer(each); });
      ASSERT_NE(found, tuner.cases().end()) << op;
      EXPECT_TRUE(found->of.step.long_context && found->decided) << op;
    }
  }
}

// On a device that computes nothing: everything is decided, and another run finds nothing left to do.
TEST(Tuner, GoesOnWhereARunEnded) {
  const Device device = null_device();
  const TemporaryFolder folder;
  const std::string path = folder.file("rows.json");
  const auto file = ModelFile::open(tiny());
  ASSERT_TRUE(file);
  const auto run = [&](TunedRows known, int most_tried) {
    const bench::Tuner* running = nullptr;
    auto tuner = std::make_unique<bench::Tuner>(*file, device.backend(), options(), std::move(known),
                                                bench::TunerOptions{.path = path, .device_stage = false, .budget = std::chrono::hours(1), .interrupted = [&] { return running->counts().tried >= most_tried; }});
    running = tuner.get();
    const Status status = tuner->run();
    EXPECT_TRUE(status) << status.error().message();
    return tuner;
  };
  const auto first = run(none(device.info()), 40);
  const auto kept = read_tuning_file(path, device.info());
  ASSERT_TRUE(kept) << kept.error().message();
  EXPECT_GT(kept->rows.size(), 0u);
  const auto second = run(*kept, INT32_MAX);
  EXPECT_EQ(second->counts().resumed, static_cast<int>(kept->rows.size()));
  EXPECT_GT(second->counts().tried, 0);
  for (const bench::TunedCase& each : second->cases()) EXPECT_TRUE(each.decided) << each.of.shape.label();
  const auto third = run(*read_tuning_file(path, device.info()), INT32_MAX);
  EXPECT_GE(third->counts().resumed, static_cast<int>(second->cases().size()));
}

}  // namespace
}  // namespace tessera::test
