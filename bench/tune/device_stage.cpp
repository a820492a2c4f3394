// Settings that ops share, layouts and fusions: each changes a whole step, so whole steps are timed.
#include "tuner.hpp"

namespace tessera::bench {
namespace {

constexpr double kStageShare = 0.5;   // of the budget

// One setting each, from what the device has now.
std::vector<TuningRow> device_candidates(const Tuning& now) {
  std::vector<TuningRow> all;
  const auto add = [&](auto member, const auto& current, auto value) {
    if (current == value) return;
    TuningRow row;
    row.*member = value;
    all.push_back(row);
  };
  for (const int width : {16, 8, 4}) add(&TuningRow::vector_width, now.vector_width, width);
  for (const int blocks : {1, 4, 8, 16, 32}) add(&TuningRow::weight_interleave, now.weight_interleave, blocks);
  for (const Storage storage : {Storage::kBuffer, Storage::kImageBuffer, Storage::kImage2D}) add(&TuningRow::weight_storage, now.weight_storage.storage, storage);
  for (const Storage storage : {Storage::kBuffer, Storage::kImageBuffer}) add(&TuningRow::activation_storage, now.activation_storage.storage, storage);
  add(&TuningRow::fuse_norm, now.fuse_norm, !now.fuse_norm);
  if (now.int8_activations) add(&TuningRow::fuse_norm_bytes, now.fuse_norm_bytes, !now.fuse_norm_bytes);
  add(&TuningRow::subgroups, now.words.subgroups, !now.words.subgroups);
  for (const int parts : {1, 2, 4}) add(&TuningRow::weight_parts, now.weight_parts, parts);
  return all;
}

// `row` and what `more` sets.
TuningRow merged(TuningRow row, const TuningRow& more) {
  const auto take = [&](auto member) {
    if (more.*member) row.*member = more.*member;
  };
  take(&TuningRow::vector_width), take(&TuningRow::weight_interleave), take(&TuningRow::weight_parts);
  take(&TuningRow::weight_storage), take(&TuningRow::activation_storage), take(&TuningRow::fuse_norm), take(&TuningRow::fuse_norm_bytes), take(&TuningRow::subgroups);
  return row;
}

// An answer, the same behind a long context, a prompt.
const std::vector<StepShape>& steps() {
  static const std::vector<StepShape> all{{1, LogitRows::kLast}, {1, LogitRows::kLast, true}, {kLargestChunk, LogitRows::kLast}};
  return all;
}

Status make_trials(StepBench& bench, std::vector<Trial>& trials) {
  for (const StepShape& step : steps()) {
    TESSERA_ASSIGN(Trial trial, bench.plan_step_behind(step, bench.context_behind(step), bench.tuning()));
    TESSERA_TRY(bench.prepare(trial));
    trials.push_back(std::move(trial));
  }
  return {};
}

}  // namespace

// Whether it is faster in all steps together, and slower in none.
Result<bool> Tuner::try_for_device(const TuningRow& candidate, StepBench& best_bench, std::vector<Trial>& best, const std::vector<Results>& expected, std::unique_ptr<StepBench>& bench, std::vector<Trial>& trials) {
  TESSERA_ASSIGN(bench, StepBench::open(file_, device_, load_, tuning_for(device_.info(), {candidate})));
  TESSERA_TRY(make_trials(*bench, trials));
  double gain = 1.0;
  bool plain = false, loses = false;
  for (size_t i = 0; i < trials.size(); ++i) {
    TESSERA_ASSIGN(const Results found, bench->results(trials[i]));
    TESSERA_TRY(same_results(found, expected[i], trials[i].tolerance));
    TESSERA_ASSIGN(const Comparison times, compare(best_bench, best[i], *bench, trials[i], true));
    gain *= times.ratios.median();
    if (is_far_slower(times.ratios)) return false;   // a prompt would take as many times as long
    plain = plain || is_faster(times.ratios);
    loses = loses || times.ratios.median() > 1.0 / kWorthIt;
  }
  return plain && !loses && gain < kWorthIt;
}

// One answer and several, behind `tokens` of context: faster in one, slower in neither.
Result<Outcome> Tuner::try_behind(StepBench& bench, int32_t tokens, const Tuning& best, const Tuning& candidate) {
  Outcome outcome = Outcome::kSame;
  for (const StepShape& step : {StepShape{1, LogitRows::kLast}, StepShape{static_cast<int64_t>(kMostRows), LogitRows::kAll}}) {
    TESSERA_ASSIGN(Trial before, bench.plan_step_behind(step, tokens, best));
    TESSERA_ASSIGN(Trial after, bench.plan_step_behind(step, tokens, candidate));
    if (before.identity == after.identity) continue;
    TESSERA_TRY(bench.prepare(before));
    TESSERA_ASSIGN(const Results expected, bench.results(before));
    TESSERA_TRY(bench.prepare(after));
    TESSERA_ASSIGN(const Results found, bench.results(after));
    TESSERA_TRY(same_results(found, expected, after.tolerance));
    TESSERA_ASSIGN(const Comparison times, compare(bench, before, bench, after, true));
    if (times.ratios.median() > 1.0 / kWorthIt) return Outcome::kSlower;
    if (is_faster(times.ratios)) outcome = Outcome::kFaster;
    if (outcome == Outcome::kSame) outcome = Outcome::kSlower;
  }
  return outcome;
}

Result<TuningRow> Tuner::tune_contexts(StepBench& bench) {
  const int32_t far = bench.context_behind({1, LogitRows::kLast, true});
  Tuning best = bench.tuning();
  TuningRow row;
  const auto attempt = [&](const char* name, int Tuning::*setting, int value, int32_t tokens) {
    Tuning candidate = best;
    candidate.*setting = value;
    const auto outcome = try_behind(bench, tokens, best, candidate);
    ++(outcome && *outcome == Outcome::kSame ? counts_.same : counts_.tried);
    counts_.rejected += !outcome;
    counts_.faster += outcome && *outcome == Outcome::kFaster;
    if (!outcome || *outcome != Outcome::kSame)
      say(cat("whole steps behind ", tokens, " tokens, ", name, " ", value, ": ", !outcome ? cat("rejected: ", outcome.error().message()) : *outcome == Outcome::kFaster ? "faster" : "not faster"));
    return outcome && *outcome == Outcome::kFaster;
  };
  for (const int groups : {1, 4, 8, 16, 32, 64, 128}) {   // 1: nothing is shared
    if (over(kStageShare)) return row;
    if (groups != best.attention_groups && attempt("attention_groups", &Tuning::attention_groups, groups, far)) best.attention_groups = groups, row.attention_groups = groups;
  }
  const int now = best.attention_long;
  const int found = search_long({128, 256, 512, 1024, 2048}, now, [&](int32_t tokens, bool as_long) {
    return tokens <= far && !over(kStageShare) && attempt("attention_long", &Tuning::attention_long, as_long ? tokens : tokens + 1, tokens);
  });
  if (found != now) row.attention_long = found;
  return row;
}

Status Tuner::tune_device() {
  const auto known = [&] { return std::ranges::find_if(rows_.rows, [](const TunedRow& row) { return !row.row.shape; }); };
  if (known() != rows_.rows.end()) return {};
  TESSERA_ASSIGN(std::unique_ptr<StepBench> best_bench, StepBench::open(file_, device_, load_, tuning_for(device_.info())));
  TESSERA_ASSIGN(TuningRow best_row, tune_contexts(*best_bench));
  if (settings_text(best_row) != settings_text({})) {
    TESSERA_ASSIGN(best_bench, StepBench::open(file_, device_, load_, tuning_for(device_.info(), {best_row})));
  }
  std::vector<Trial> best;
  TESSERA_TRY(make_trials(*best_bench, best));
  std::vector<Results> expected;
  for (Trial& trial : best) {
    TESSERA_ASSIGN(Results results, best_bench->results(trial));
    expected.push_back(std::move(results));
  }
  for (const TuningRow& one : device_candidates(best_bench->tuning())) {
    if (over(kStageShare)) break;
    const TuningRow candidate = merged(best_row, one);
    // What a device cannot do it plans as something else, or not at all.
    const Tuning tuning = tuning_for(device_.info(), {candidate});
    if (tuning == best_bench->tuning()) continue;
    ++counts_.tried;
    std::unique_ptr<StepBench> bench;
    std::vector<Trial> trials;
    const auto faster = try_for_device(candidate, *best_bench, best, expected, bench, trials);
    if (!faster) ++counts_.rejected;
    say(cat("whole steps, ", settings_text(one), ": ", !faster ? cat("rejected: ", faster.error().message()) : *faster ? "faster" : "not faster"));
    if (!faster || !*faster) continue;
    ++counts_.faster;
    best_row = candidate;
    best.clear();   // before the bench whose objects its lists name
    best_bench = std::move(bench);
    best = std::move(trials);
  }
  if (options_.interrupted()) return {};
  rows_.rows.insert(rows_.rows.begin(), TunedRow{.row = best_row});
  return save();
}

}  // namespace tessera::bench
