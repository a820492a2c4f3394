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
  take(&TuningRow::weight_storage), take(&TuningRow::activation_storage), take(&TuningRow::fuse_norm), take(&TuningRow::subgroups);
  return row;
}

const std::vector<StepShape>& steps() {
  static const std::vector<StepShape> both{{1, LogitRows::kLast}, {kLargestChunk, LogitRows::kLast}};
  return both;
}

Status make_trials(StepBench& bench, std::vector<Trial>& trials) {
  for (const StepShape& step : steps()) {
    TESSERA_ASSIGN(Trial trial, bench.plan_step(step, bench.tuning()));
    TESSERA_TRY(bench.prepare(trial));
    trials.push_back(std::move(trial));
  }
  return {};
}

}  // namespace

// Whether it is faster in decode and prefill together, and slower in neither.
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

Status Tuner::tune_device() {
  const auto known = [&] { return std::ranges::find_if(rows_.rows, [](const TunedRow& row) { return !row.row.shape; }); };
  if (known() != rows_.rows.end()) return {};
  TuningRow best_row;
  TESSERA_ASSIGN(std::unique_ptr<StepBench> best_bench, StepBench::open(file_, device_, load_, tuning_for(device_.info())));
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
