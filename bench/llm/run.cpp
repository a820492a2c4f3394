// The default command: prompts and answers as llama-bench times them, with what else decides how fast a model feels.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <fstream>
#include <map>

#include "child.hpp"
#include "commands.hpp"
#include "commit.hpp"
#include "rows.hpp"
#include "samples.hpp"
#include "self_check.hpp"
#include "traffic.hpp"

namespace tessera::bench {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Test {
  int32_t prompt = 0, gen = 0, depth = 0;   // tokens

  std::string name() const { return cat(prompt > 0 ? cat("pp", prompt) : "", prompt > 0 && gen > 0 ? "+" : "", gen > 0 ? cat("tg", gen) : "", depth > 0 ? cat(" @ d", depth) : ""); }
  int32_t tokens() const { return prompt + gen; }
};

std::vector<Test> tests_of(const RunOptions& options) {
  std::vector<Test> tests;
  for (const int32_t depth : options.n_depth) {
    for (const int32_t prompt : options.n_prompt)
      if (prompt > 0) tests.push_back({prompt, 0, depth});
    for (const int32_t gen : options.n_gen)
      if (gen > 0) tests.push_back({0, gen, depth});
    for (const auto& [prompt, gen] : options.n_prompt_gen)
      if (prompt + gen > 0) tests.push_back({prompt, gen, depth});
  }
  return tests;
}

struct Measured {
  Samples seconds;             // one a repetition
  Samples between_ms;          // of two tokens, where each is a submission and a wait of its own
  Samples bursts_ms;           // of two deliveries, as sessions are served: several tokens each
  gpu::Counters before, after;   // the repetitions
  bool same_ids = true;        // greedy: every repetition chose the same
  std::string began;           // UTC
};

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// An answer of `count` tokens behind what the sequence holds and `first`, greedy; an end-of-text token does not end it.
struct Answer {
  std::vector<int32_t> ids;
  std::vector<double> arrivals;   // seconds since it was asked for
};
Result<Answer> generate(const Model& model, Sequence& sequence, int32_t first, int32_t count, int32_t steps) {
  Answer answer;
  answer.arrivals.reserve(static_cast<size_t>(count));
  answer.ids.reserve(static_cast<size_t>(count));
  Request request;
  request.sequence = sequence.id();
  request.tokens.assign(sequence.ids().begin(), sequence.ids().end());
  request.tokens.push_back(first);
  request.begin = sequence.length();
  request.remaining = count;
  request.steps_at_once = steps;
  const auto start = Clock::now();
  request.on_token = [&](const SampledToken& token) -> std::optional<StopReason> {
    answer.arrivals.push_back(seconds_since(start));
    answer.ids.push_back(token.id);
    return std::nullopt;
  };
  Request* const all[] = {&request};
  model.engine().run(all, [] {}, [] {});
  if (!*request.outcome) return fail(request.outcome->error());
  TESSERA_TRY(sequence.settle(request.tokens));
  if (static_cast<int32_t>(answer.ids.size()) != count) return fail(ErrorCode::kContextFull, cat("an answer of ", count, " tokens ended behind ", answer.ids.size()));
  return answer;
}

// The test once, behind what the sequence holds.
Result<Answer> run_once(const Model& model, Sequence& sequence, const Test& test, int32_t steps) {
  int32_t next = prompt_of(model.config(), 1, 2).front();
  if (test.prompt > 0) {
    TESSERA_ASSIGN(next, sequence.append(prompt_of(model.config(), test.prompt, 1)));
  }
  return test.gen > 0 ? generate(model, sequence, next, test.gen, steps) : Answer{{next}, {}};
}

Result<Measured> measure(const Model& model, const Test& test, int32_t repetitions) {
  Measured measured;
  measured.began = utc_now();
  Sequence sequence(model.runtime());
  if (test.depth > 0) TESSERA_TRY(sequence.append(prompt_of(model.config(), test.depth, 0)));
  std::vector<int32_t> ids;
  for (int32_t round = -1; round < repetitions; ++round) {   // the first is to warm up
    if (round == 0) measured.before = model.runtime()->counters();
    const auto start = Clock::now();
    TESSERA_ASSIGN(const Answer answer, run_once(model, sequence, test, kStepsAtOnce));
    const double seconds = seconds_since(start);
    TESSERA_TRY(sequence.truncate(test.depth));
    if (round < 0) ids = answer.ids;
    measured.same_ids = measured.same_ids && ids == answer.ids;
    if (round < 0) continue;
    measured.seconds.values.push_back(seconds);
    for (size_t i = 1; i < answer.arrivals.size(); ++i)
      if (i % kStepsAtOnce == 0) measured.bursts_ms.values.push_back(1e3 * (answer.arrivals[i] - answer.arrivals[i - 1]));
  }
  measured.after = model.runtime()->counters();
  if (test.gen == 0) return measured;
  TESSERA_ASSIGN(const Answer answer, run_once(model, sequence, test, 1));
  measured.same_ids = measured.same_ids && ids == answer.ids;
  for (size_t i = 1; i < answer.arrivals.size(); ++i) measured.between_ms.values.push_back(1e3 * (answer.arrivals[i] - answer.arrivals[i - 1]));
  return measured;
}

uint64_t peak_host_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (uint64_t kib = 0; word == "VmHWM:" && status >> kib) return kib * 1024;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(std::min(line.size(), line.find(':') + 2));
  return "unknown";
}

struct Starts {
  Samples ms;
  nlohmann::ordered_json last;   // where the time of the last one went
};

// What holds for every test of a model.
struct Common {
  int32_t start_prompt = 0;
  Starts cold, warm;
  nlohmann::ordered_json bandwidth;
  std::optional<SelfCheck> check;
};

class Run {
 public:
  explicit Run(RunOptions options) : options_(std::move(options)), tests_(tests_of(options_)), printer_(options_.output) {}

  Status all() {
    if (tests_.empty()) return fail(ErrorCode::kInvalidArgument, "nothing to run: every -p and -n is 0");
    for (const std::string& path : options_.models) {
      options_.load.model = path;
      TESSERA_TRY(model());
    }
    printer_.end();
    if (!wrong_.empty()) return fail(ErrorCode::kNumericFault, wrong_ + ": the kernels compute wrongly on this device, and the speeds above mean nothing");
    return {};
  }

 private:
  void say(const std::string& what) const {
    if (!options_.quiet) std::fprintf(stderr, "tessera-bench: %s\n", what.c_str());
  }

  Status model() {
    TESSERA_ASSIGN(const ModelFile file, ModelFile::open(options_.load.model));
    TESSERA_ASSIGN(const Device device, Device::open(options_.load.device));
    int64_t room = 0;
    for (const Test& test : tests_) {
      room = std::max<int64_t>(room, int64_t{test.depth} + test.tokens() + 1);
      if (room > file.config().context_length)
        return fail(ErrorCode::kLimit, cat("the test ", test.name(), " needs a context of ", room, " tokens; this model was trained for ", file.config().context_length, ": ask for fewer with -p, -n, -d"));
    }
    // Room for the self-check.
    const int64_t context = std::min<int64_t>(file.config().context_length, round_up(std::max<int64_t>(room, 128), kPageTokens));
    TESSERA_ASSIGN(const LoadOptions load, options_.load.load_options(context));
    TESSERA_ASSIGN(const StepPlans plans, make_step_plans(file.config(), file.weights(), device.info(), load));
    Common common;
    TESSERA_TRY(start(common));
    TESSERA_TRY(bandwidth(common, plans));
    say("loading " + options_.load.model);
    TESSERA_ASSIGN(const Model model, Model::load(options_.load.model, device, load));
    if (options_.check) {
      say("self-check");
      TESSERA_ASSIGN(common.check, self_check(model, options_.load));
      if (!common.check->passed()) wrong_ = cat("the self-check failed, ", common.check->agree, " of ", common.check->tokens, " choices are those of ", common.check->against);
    }
    for (size_t i = 0; i < tests_.size(); ++i) {
      say(cat("test ", i + 1, " of ", tests_.size(), ": ", tests_[i].name(), ", ", options_.repetitions, " repetitions and one to warm up"));
      auto measured = measure(model, tests_[i], options_.repetitions);
      if (!measured) return fail(std::move(measured).error().within(tests_[i].name()));
      if (!measured->same_ids) wrong_ = cat("the same test (", tests_[i].name(), ") chose other tokens the next time");
      TESSERA_ASSIGN(const Row row, make_row(file, model, plans, common, tests_[i], *measured));
      printer_.print(row);
    }
    return {};
  }

  // Cold and warm starts by turns, each pair with caches of its own.
  Status start(Common& common) {
    common.start_prompt = tests_.front().prompt > 0 ? tests_.front().prompt : 32;
    std::vector<std::string> arguments{"first-token", "--prompt", cat(common.start_prompt)};
    const std::vector<std::string> load = options_.load.arguments();
    arguments.insert(arguments.end(), load.begin(), load.end());
    for (int32_t i = 0; i < options_.starts; ++i) {
      say(cat("start ", i + 1, " of ", options_.starts, ", cold, then warm"));
      TESSERA_ASSIGN(const FreshFolder folder, FreshFolder::make());
      for (Starts* starts : {&common.cold, &common.warm}) {
        TESSERA_ASSIGN(ChildAnswer answer, run_self(arguments, folder.caches()));
        starts->ms.values.push_back(1e3 * answer.seconds);
        starts->last = std::move(answer.json);
      }
    }
    return {};
  }

  // Over as many bytes as a token reads: what stays in a cache there stays in it here.
  Status bandwidth(Common& common, const StepPlans& plans) const {
    say("bandwidth");
    TESSERA_ASSIGN(const TokenTraffic traffic, token_traffic(decode_plan(plans), plans.kv, 0));
    TESSERA_ASSIGN(ChildAnswer answer, run_self({"bandwidth", "--device", options_.load.device, "--bytes", cat(traffic.once)}));
    common.bandwidth = std::move(answer.json);
    return {};
  }

  static const Plan& decode_plan(const StepPlans& plans) {
    return *std::ranges::find_if(plans.plans, [](const Plan& plan) { return plan.shape.tokens == 1; });
  }

  Result<Row> make_row(const ModelFile& file, const Model& model, const StepPlans& plans, const Common& common, const Test& test, const Measured& measured) const {
    const DeviceInfo& device = model.device().info();
    std::map<WeightType, int64_t> counts;
    int64_t bytes = 0, parameters = 0;
    for (const WeightRef& weight : file.weights()) {
      counts[weight.type] += weight.rows * weight.columns;
      bytes += static_cast<int64_t>(weight.bytes.size());
      parameters += weight.rows * weight.columns;
    }
    const auto most = std::ranges::max_element(counts, {}, [](const auto& count) { return count.second; });
    char millions[32];
    std::snprintf(millions, sizeof millions, parameters < 1'000'000 ? "%.2fM" : "%.0fM", static_cast<double>(parameters) / 1e6);
    const std::string type = cat(file.config().architecture, " ", millions, " ", most == counts.end() ? std::string_view("-") : format_of(most->first).name);

    Samples ns, rates;
    std::vector<int64_t> samples_ns;
    for (const double seconds : measured.seconds.values) {
      ns.values.push_back(1e9 * seconds);
      samples_ns.push_back(std::llround(1e9 * seconds));
      rates.values.push_back(test.tokens() / seconds);
    }
    const double tokens = static_cast<double>(test.tokens()) * options_.repetitions;
    const auto a_token = [&](uint64_t gpu::Counters::* counter) { return static_cast<double>(measured.after.*counter - measured.before.*counter) / tokens; };
    const bool decode_only = test.prompt == 0;
    TESSERA_ASSIGN(const TokenTraffic traffic, token_traffic(decode_plan(plans), plans.kv, test.depth + test.prompt + test.gen / 2));
    const auto if_decode = [&](double value) { return decode_only ? Row(value) : Row(nullptr); };
    const auto if_any = [](const Samples& samples, double share) { return samples.values.empty() ? Row(nullptr) : Row(samples.at(share)); };
    const nlohmann::ordered_json &read = common.bandwidth.at("read"), &copy = common.bandwidth.at("copy");

    Row row{{"build_commit", kBuildCommit}, {"build_number", kBuildNumber}, {"build_version", kVersion}, {"cpu_info", cpu_name()}, {"gpu_info", device.name},
            {"backends", device.api == Api::kOpenCL ? "OpenCL" : device.api == Api::kVulkan ? "Vulkan" : "null"}, {"driver", cat(device.platform, " ", device.driver_version)}, {"api_version", device.api_version},
            {"model_filename", options_.load.model}, {"model_name", file.config().name}, {"model_type", type}, {"model_size", bytes}, {"model_n_params", parameters},
            {"n_batch", kLargestChunk}, {"n_ubatch", kLargestChunk}, {"type_k", name_of(plans.kv.type)}, {"type_v", name_of(plans.kv.type)}, {"type_activations", name_of(plans.activation_type)},
            {"precision", options_.load.precision}, {"n_prompt", test.prompt}, {"n_gen", test.gen}, {"n_depth", test.depth}, {"test", test.name()}, {"test_time", measured.began},
            {"avg_ns", std::llround(ns.mean())}, {"stddev_ns", std::llround(ns.deviation())}, {"avg_ts", rates.mean()}, {"stddev_ts", rates.deviation()},
            {"median_ns", std::llround(ns.median())}, {"min_ns", std::llround(ns.least())}, {"max_ns", std::llround(ns.greatest())}, {"median_ts", rates.median()}, {"min_ts", rates.least()}, {"max_ts", rates.greatest()},
            {"samples_ns", samples_ns}, {"samples_ts", rates.values}};
    // Tokens come several in a submission; what lies between two of them is timed with one in each.
    row.update({{"steps_per_submission", test.gen > 0 ? kStepsAtOnce : 1}, {"itl_p50_ms", if_any(measured.between_ms, 0.5)}, {"itl_p95_ms", if_any(measured.between_ms, 0.95)}, {"itl_max_ms", if_any(measured.between_ms, 1.0)},
                {"burst_p50_ms", if_any(measured.bursts_ms, 0.5)}, {"burst_p95_ms", if_any(measured.bursts_ms, 0.95)}, {"same_ids", measured.same_ids},
                {"dispatches_per_token", a_token(&gpu::Counters::dispatches)}, {"submissions_per_token", a_token(&gpu::Counters::submissions)}, {"waits_per_token", a_token(&gpu::Counters::synchronizations)},
                {"host_bytes_read_per_token", a_token(&gpu::Counters::bytes_read)}, {"host_bytes_written_per_token", a_token(&gpu::Counters::bytes_written)}});
    const auto touched = static_cast<double>(traffic.touched), once = static_cast<double>(traffic.once);
    row.update({{"bytes_per_token", decode_only ? Row(traffic.touched) : Row(nullptr)}, {"bytes_per_token_once", decode_only ? Row(traffic.once) : Row(nullptr)}, {"bytes_per_token_ratio", if_decode(touched / once)},
                {"roofline_percent", if_decode(100.0 * once * rates.median() / read.at("median").get<double>())},
                {"read_gb_s", read.at("median").get<double>() / 1e9}, {"read_min_gb_s", read.at("min").get<double>() / 1e9}, {"read_max_gb_s", read.at("max").get<double>() / 1e9}, {"read_form", read.at("form")},
                {"copy_gb_s", copy.at("median").get<double>() / 1e9}, {"copy_min_gb_s", copy.at("min").get<double>() / 1e9}, {"copy_max_gb_s", copy.at("max").get<double>() / 1e9}, {"copy_form", copy.at("form")},
                {"peak_host_bytes", peak_host_bytes()}, {"peak_device_bytes", measured.after.peak_device_bytes}, {"planned_device_bytes", model.memory().total()}, {"arena_bytes", model.memory().arena},
                {"arena_lower_bound", model.memory().arena_lower_bound}, {"ttft_prompt", common.start_prompt}});
    for (const auto& [name, starts] : {std::pair("cold", &common.cold), std::pair("warm", &common.warm)}) {
      row[cat("ttft_", name, "_ms")] = if_any(starts->ms, 0.5);
      row[cat("ttft_", name, "_samples_ms")] = starts->ms.values;
      for (const char* part : {"open_ms", "weights_ms", "kernels_ms", "prompt_ms", "compiled", "loaded"}) row[cat("ttft_", name, "_", part)] = starts->last.is_null() ? Row(nullptr) : Row(starts->last.at(part));
    }
    row["check"] = common.check ? Row(common.check->passed() ? "passed" : "FAILED") : Row(nullptr);
    row["check_agree"] = common.check ? Row(common.check->agree) : Row(nullptr);
    row["check_tokens"] = common.check ? Row(common.check->tokens) : Row(nullptr);
    row["check_first_other"] = common.check ? Row(common.check->first_other) : Row(nullptr);
    row["check_against"] = common.check ? Row(common.check->against) : Row(nullptr);
    return row;
  }

  RunOptions options_;
  std::vector<Test> tests_;
  RowPrinter printer_;
  std::string wrong_;   // what went wrong in a test that ran
};

}  // namespace

Status run_tests(RunOptions options) { return Run(std::move(options)).all(); }

}  // namespace tessera::bench
