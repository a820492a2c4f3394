// tessera-bench tune: what the tuner finds, kept as rows, and what they gain end to end beside the rows that are shipped.
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <tuple>

#include "commands.hpp"
#include "samples.hpp"
#include "tuner.hpp"

namespace tessera::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kContext = 2 * kFar, kPrompt = 256, kAnswer = 32;   // tokens

std::atomic<bool> interrupted{false};
extern "C" void on_interrupt(int) {
  interrupted = true;
  std::signal(SIGINT, SIG_DFL);   // the second time ends the program
}

// A file for the rows of a run that keeps none, gone with the object.
struct ScratchFile {
  std::string path;
  ~ScratchFile() {
    std::error_code ignored;
    if (!path.empty()) std::filesystem::remove(path, ignored);
  }
};

struct Rates {
  double prefill = 0.0, decode = 0.0, far = 0.0;   // tok/s; far: decode behind a long context
};

// tok/s of an answer that begins with `first`, behind what `sequence` holds.
Result<double> answer(const Model& model, const Sequence& sequence, int32_t first) {
  Request request;
  request.sequence = sequence.id();
  request.tokens.assign(sequence.ids().begin(), sequence.ids().end());
  request.tokens.push_back(first);
  request.begin = sequence.length();
  request.remaining = kAnswer;
  request.steps_at_once = kStepsAtOnce;
  request.on_token = [](const SampledToken&) -> std::optional<StopReason> { return std::nullopt; };
  Request* const all[] = {&request};
  const auto start = Clock::now();
  model.engine().run(all, [] {}, [] {});
  if (!*request.outcome) return fail(request.outcome->error());
  return kAnswer / std::chrono::duration<double>(Clock::now() - start).count();
}

// `far`: a long context, whose pages are shared by all rounds; empty: the model knows none.
Result<Rates> run_once(const Model& model, const Sequence& far) {
  Rates rates;
  {
    Sequence sequence(model.runtime());
    const auto start = Clock::now();
    TESSERA_ASSIGN(const int32_t first, sequence.append(prompt_of(model.config(), kPrompt, 1)));
    rates.prefill = kPrompt / std::chrono::duration<double>(Clock::now() - start).count();
    TESSERA_ASSIGN(rates.decode, answer(model, sequence, first));
  }
  if (far.length() == 0) return rates;
  TESSERA_ASSIGN(const Sequence branch, far.fork());
  TESSERA_ASSIGN(rates.far, answer(model, branch, 1));
  return rates;
}

// Rates of two tunings by turns, and tuned ÷ shipped of each turn.
struct EndToEnd {
  Samples shipped, tuned, ratios;
  void add(double before, double after) {
    shipped.values.push_back(before);
    tuned.values.push_back(after);
    ratios.values.push_back(after / before);
  }
  bool is_slower() const { return !ratios.values.empty() && ratios.median() < 1.0 && ratios.at(0.75) < 1.0; }
  void print(const char* what) const {
    std::printf("%-18s %9.1f tok/s shipped %9.1f tuned   tuned / shipped %.3f (%.3f to %.3f)\n", what, shipped.median(), tuned.median(), ratios.median(), ratios.least(), ratios.greatest());
  }
};

struct Parts {
  EndToEnd prefill, decode, far;
};

Result<Parts> measure(const TuneOptions& options, const Device& device, LoadOptions load, const std::string& path) {
  load.tuning = "off";
  TESSERA_ASSIGN(const Model shipped, Model::load(options.model, device, load));
  load.tuning = path;
  TESSERA_ASSIGN(const Model tuned, Model::load(options.model, device, load));
  Sequence far_shipped(shipped.runtime()), far_tuned(tuned.runtime());
  if (load.context_tokens >= kContext)
    for (Sequence* const far : {&far_shipped, &far_tuned}) TESSERA_TRY(far->append(prompt_of(shipped.config(), kFar, 1)));
  Parts parts;
  for (int32_t round = -1; round < options.rounds && !interrupted; ++round) {   // the first is to warm up
    Rates rates[2];
    for (const int turn : {0, 1}) {
      const int which = (round + 1 + turn) % 2;
      TESSERA_ASSIGN(rates[which], which == 0 ? run_once(shipped, far_shipped) : run_once(tuned, far_tuned));
    }
    if (round < 0) continue;
    parts.prefill.add(rates[0].prefill, rates[1].prefill);
    parts.decode.add(rates[0].decode, rates[1].decode);
    if (rates[0].far > 0.0) parts.far.add(rates[0].far, rates[1].far);
  }
  return parts;
}

void print_table(const Tuner& tuner) {
  std::printf("| op | of its step | shipped | tuned | gain | row |\n|---|---|---|---|---|---|\n");
  for (const TunedCase& each : tuner.cases()) {
    const TunedRow& row = each.row;
    std::printf("| %s | %.1f %% | %.1f us | %.1f us | %.2f | %s |\n", each.of.shape.label().c_str(), 100.0 * each.share, row.shipped_us, row.tuned_us, row.tuned_us > 0.0 ? row.shipped_us / row.tuned_us : 1.0,
                each.decided ? settings_text(row.row).c_str() : "not reached");
  }
  for (const TunedRow& row : tuner.rows().rows)
    if (!row.row.shape) std::printf("all ops: %s\n", settings_text(row.row).c_str());
  const TunerCounts& counts = tuner.counts();
  std::printf("%d candidates tried, %d faster, %d rejected, %d planned as another; %d ops were decided before\n", counts.tried, counts.faster, counts.rejected, counts.same, counts.resumed);
}

// What an earlier run decided for this driver and these kernels. A file that the user names and that is none of ours is not overwritten.
Result<TunedRows> known_rows(const TuneOptions& options, const std::string& path, const DeviceInfo& info) {
  TunedRows known{.made_for = tuning_made_for(info), .rows = {}};
  if (path.empty()) return known;
  auto found = read_tuning_file(path, info);
  if (!options.out.empty() && !found && (found.error().code() == ErrorCode::kMalformed || found.error().code() == ErrorCode::kIo)) return fail(std::move(found).error());
  if (options.again) return known;
  if (found) return found;
  if (found.error().code() != ErrorCode::kNotFound) std::fprintf(stderr, "tessera-bench: begins anew: %s\n", found.error().message().c_str());
  return known;
}

}  // namespace

Status run_tune(const TuneOptions& options) {
  TESSERA_ASSIGN(Device device, Device::open(options.device));
  TESSERA_ASSIGN(const ModelFile file, ModelFile::open(options.model));
  LoadOptions load{.context_tokens = std::min(kContext, file.config().context_length), .prefix_cache = false};
  load.on_log = [](LogLevel level, std::string_view line) {
    if (level == LogLevel::kWarning) std::fprintf(stderr, "warning: %.*s\n", static_cast<int>(line.size()), line.data());
  };
  const std::string kept = !options.out.empty() ? options.out : tuning_path(device.info(), load.cache_folder);
  if (kept.empty() && !options.dry_run) return fail(ErrorCode::kInvalidArgument, "the cache is off ($TESSERA_CACHE), so there is no place for rows; -o FILE names one, --dry-run writes none");
  TunerOptions tuner_options{.path = options.dry_run ? std::string() : kept, .device_stage = !options.shapes_only, .budget = std::chrono::duration<double>(options.budget_s)};
  tuner_options.interrupted = [] { return interrupted.load(); };
  tuner_options.say = [](const std::string& what) { std::fprintf(stderr, "tessera-bench: %s\n", what.c_str()); };
  std::signal(SIGINT, on_interrupt);
  TESSERA_ASSIGN(TunedRows known, known_rows(options, options.dry_run && options.out.empty() ? std::string() : kept, device.info()));
  if (!options.dry_run) TESSERA_TRY(write_tuning_file(kept, known, device.info()));   // that it cannot be written is said before the search
  Tuner tuner(file, device.backend(), load, std::move(known), tuner_options);
  TESSERA_TRY(tuner.run());
  std::printf("%s on %s (%s %s)\n", file.config().name.c_str(), device.info().name.c_str(), device.info().platform.c_str(), device.info().driver_version.c_str());
  print_table(tuner);
  if (options.rounds > 0 && !tuner.rows().tuning_rows().empty() && !interrupted) {
    ScratchFile scratch;
    if (options.dry_run) scratch.path = (std::filesystem::temp_directory_path() / cat("tessera-tuned-", Clock::now().time_since_epoch().count(), ".json")).string();
    const std::string path = options.dry_run ? scratch.path : kept;
    TESSERA_TRY(write_tuning_file(path, tuner.rows(), device.info()));
    TESSERA_ASSIGN(const Parts parts, measure(options, device, load, path));
    std::printf("prompt of %d tokens, answer of %d, %d rounds by turns\n", kPrompt, kAnswer, options.rounds);
    const std::tuple<const char*, const EndToEnd&, Part> all[] = {{"prefill", parts.prefill, Part::kPrefill}, {"decode", parts.decode, Part::kDecode}, {"decode behind 2048", parts.far, Part::kLongContext}};
    for (const auto& [name, rates, part] : all)
      if (!rates.ratios.values.empty()) rates.print(name);
    for (const auto& [name, rates, part] : all)
      if (rates.is_slower()) {
        std::printf("%s is slower with its rows: they are dropped\n", name);
        TESSERA_TRY(tuner.drop(part));
      }
  }
  if (tuner.rows().tuning_rows().empty()) std::printf("the shipped rows are the best that was found\n");
  if (!options.dry_run) std::printf("rows in %s\n", escaped(kept, 400).c_str());
  if (interrupted) return fail(ErrorCode::kCancelled, "interrupted; what was decided is kept, and the next run goes on from there");
  return {};
}

}  // namespace tessera::bench
