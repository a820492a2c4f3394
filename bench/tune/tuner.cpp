#include "tuner.hpp"

#include <algorithm>
#include <cmath>
#include <set>

namespace tessera::bench {
namespace {

constexpr double kLeastShare = 0.01;       // of a step: less than that is not searched
constexpr double kLeastSeconds = 3e-3;     // of one sample, so that what submitting costs is small beside it
constexpr double kEnoughSeconds = 8e-3;    // of one run: of ops that take longer all together the first ones stand for the others
constexpr int kTurns = 9, kFewTurns = 3;
constexpr double kHopeless = 4.0;          // times as slow: one run says enough

// Steps that are tuned: an answer, the same behind a long context, a prompt, several answers, the end of a prompt, several answers behind long contexts.
std::vector<StepShape> tuned_steps() {
  constexpr auto kRows = static_cast<int64_t>(kMostRows);
  return {{1, LogitRows::kLast}, {1, LogitRows::kLast, true}, {kLargestChunk, LogitRows::kLast}, {kRows, LogitRows::kAll}, {kSharedChunk, LogitRows::kLast}, {kRows, LogitRows::kAll, true}};
}
constexpr size_t kFirstSteps = 3;   // of them: what a model mostly runs

Result<int32_t> times_for(StepBench& bench, Trial& trial) {
  TESSERA_TRY(bench.seconds(trial, 1));
  TESSERA_ASSIGN(const double once, bench.seconds(trial, 1));
  return static_cast<int32_t>(std::clamp(std::ceil(kLeastSeconds / std::max(once, 1e-7)), 1.0, static_cast<double>(gpu::kMaxTimes)));
}

// Microseconds of all ops of the case in a step, which is then cut to as many as are enough to time.
Status time_shipped(StepBench& bench, TunedCase& tuned) {
  TESSERA_ASSIGN(Trial trial, bench.plan(tuned.of, bench.tuning()));
  TESSERA_TRY(bench.prepare(trial));
  TESSERA_TRY(bench.results(trial));
  Samples seconds;
  for (int i = 0; i < kFewTurns; ++i) {
    TESSERA_ASSIGN(const double once, bench.seconds(trial, 1));
    seconds.values.push_back(once);
  }
  if (seconds.median() > kEnoughSeconds) tuned.of.most_ops = static_cast<int>(std::ceil(trial.ops * kEnoughSeconds / seconds.median()));
  tuned.of.between = true;
  tuned.ops = trial.ops;
  tuned.row.shipped_us = tuned.row.tuned_us = 1e6 * seconds.median();
  return {};
}

std::string percent(double share) {
  char text[16];
  std::snprintf(text, sizeof text, "%.1f %%", 100.0 * share);
  return text;
}

}  // namespace

Result<Comparison> compare(StepBench& best_bench, Trial& best, StepBench& candidate_bench, Trial& candidate, bool far_slower_ends) {
  TESSERA_ASSIGN(const int32_t times, times_for(best_bench, best));
  TESSERA_TRY(candidate_bench.seconds(candidate, 1));   // to warm up
  Comparison out;
  TESSERA_ASSIGN(const double before, best_bench.seconds(best, 1));
  TESSERA_ASSIGN(const double once, candidate_bench.seconds(candidate, 1));
  if (far_slower_ends && once > kHopeless * before) {
    out.best.values = {before}, out.candidate.values = {once}, out.ratios.values = {once / before};
    return out;
  }
  for (int turn = 0; turn < kTurns; ++turn) {
    double a = 0.0, b = 0.0;
    for (const bool first : {true, false}) {
      const bool is_best = first == (turn % 2 == 0);
      TESSERA_ASSIGN((is_best ? a : b), is_best ? best_bench.seconds(best, times) : candidate_bench.seconds(candidate, times));
    }
    out.best.values.push_back(a);
    out.candidate.values.push_back(b);
    out.ratios.values.push_back(b / a);
    if (far_slower_ends && turn + 1 == kFewTurns && out.ratios.least() > kWorthIt) break;
  }
  return out;
}

void Tuner::say(const std::string& what) const { options_.say(cat("[", static_cast<int64_t>(elapsed()), " of ", static_cast<int64_t>(options_.budget.count()), " s] ", what)); }

Status Tuner::save() const { return options_.path.empty() ? Status() : write_tuning_file(options_.path, rows_, device_.info()); }

Status Tuner::run() {
  if (options_.device_stage) TESSERA_TRY(tune_device());
  TunedRows for_device;
  for (const TunedRow& row : rows_.rows)
    if (!row.row.shape) for_device.rows.push_back(row);
  TESSERA_ASSIGN(const std::unique_ptr<StepBench> bench, StepBench::open(file_, device_, load_, tuning_for(device_.info(), for_device.tuning_rows())));
  TESSERA_TRY(find_cases(*bench));
  for (TunedCase& tuned : cases_) {
    if (over()) break;
    if (!tuned.decided) TESSERA_TRY(tune_case(*bench, tuned));
  }
  return {};
}

// Those of answers and prompts come first, then those that only the other steps have; the greatest shares of their steps before the others.
Status Tuner::find_cases(StepBench& bench) {
  std::vector<std::pair<size_t, TunedCase>> found;   // by rank
  const std::vector<StepShape> steps = tuned_steps();
  for (size_t s = 0; s < steps.size(); ++s) {
    TESSERA_ASSIGN(const std::vector<TuningCase> all, bench.cases(steps[s]));
    double total = 0.0;
    const size_t first = found.size();
    for (const TuningCase& each : all) {
      TunedCase tuned{.of = each, .row = {}};
      tuned.row.row.shape = each.shape;
      TESSERA_TRY(time_shipped(bench, tuned));
      total += tuned.row.shipped_us;
      tuned.share = tuned.row.shipped_us;
      const auto known = std::ranges::find_if(rows_.rows, [&](const TunedRow& row) { return row.row.shape == each.shape; });
      if (known != rows_.rows.end()) tuned.row = *known, tuned.decided = true;
      if (std::ranges::none_of(found, [&](const auto& other) { return other.second.of.shape == each.shape; })) found.emplace_back(std::max(s, kFirstSteps - 1), std::move(tuned));
      if (options_.interrupted()) return {};
    }
    for (size_t i = first; i < found.size(); ++i) found[i].second.share /= total;
  }
  std::ranges::stable_sort(found, [](const auto& a, const auto& b) { return a.first != b.first ? a.first < b.first : a.second.share > b.second.share; });
  for (auto& [rank, tuned] : found) {
    if (tuned.share < kLeastShare && !tuned.decided) continue;
    counts_.resumed += tuned.decided;
    cases_.push_back(std::move(tuned));
  }
  return {};
}

Status Tuner::tune_case(StepBench& bench, TunedCase& tuned) {
  const TuningCase& of = tuned.of;
  say(cat(of.shape.label(), ", ", percent(tuned.share), " of its step"));
  const auto with = [&](const TuningRow& row) {
    Tuning tuning = bench.tuning();
    tuning.shape_rows.push_back(row);
    return tuning;
  };
  // What workgroups that share a context find depends on how they share it: theirs are whole steps' results.
  const auto check = [&](Trial& trial, const Tuning& tuning, const Results* expected) -> Result<Results> {
    TESSERA_TRY(bench.prepare(trial));
    if (!of.shape.long_context) {
      TESSERA_ASSIGN(Results found, bench.results(trial));
      if (expected != nullptr) TESSERA_TRY(same_results(found, *expected, trial.tolerance));
      return found;
    }
    TESSERA_ASSIGN(Trial whole, bench.plan_step(of.step, tuning));
    TESSERA_TRY(bench.prepare(whole));
    TESSERA_ASSIGN(Results found, bench.results(whole));
    if (expected != nullptr) TESSERA_TRY(same_results(found, *expected, whole.tolerance));
    return found;
  };
  TESSERA_ASSIGN(Trial shipped, bench.plan(of, bench.tuning()));
  TESSERA_ASSIGN(const Results expected, check(shipped, bench.tuning(), nullptr));
  std::set<std::string> seen{shipped.identity};
  std::unique_ptr<Trial> faster;
  const auto attempt = [&](const TuningRow& row) {
    auto trial = bench.plan(of, with(row));
    if (trial && !seen.insert(trial->identity).second) return ++counts_.same, Outcome::kSame;
    ++counts_.tried;
    const auto results = trial ? check(*trial, with(row), &expected) : Result<Results>(fail(trial.error()));
    auto times = results ? compare(bench, faster ? *faster : shipped, bench, *trial, true) : Result<Comparison>(fail(results.error()));
    if (!times) {
      ++counts_.rejected;
      say(cat("  ", settings_text(row), ": rejected: ", times.error().message()));
      return Outcome::kRejected;
    }
    if (is_far_slower(times->ratios)) return Outcome::kFarSlower;
    if (!is_faster(times->ratios)) return Outcome::kSlower;
    ++counts_.faster;
    say(cat("  ", settings_text(row), ": ", percent(1.0 / times->ratios.median() - 1.0), " faster"));
    faster = std::make_unique<Trial>(std::move(*trial));
    return Outcome::kFaster;
  };
  TuningRow start;
  start.shape = of.shape;
  std::vector<OpSetting> settings;   // those that this op is planned by
  for (const OpSetting& setting : op_settings())
    for (const int extreme : {setting.values.front(), setting.values.back()}) {
      TuningRow row = start;
      row.*setting.row = extreme;
      const auto trial = bench.plan(of, with(row));
      if (trial && trial->identity == shipped.identity) continue;
      settings.push_back(setting);
      break;
    }
  TuningRow best = search(settings, tuning_for_shape(bench.tuning(), of.shape), start, attempt, [&] { return over(); });
  // Once more against what is shipped: small steps that each looked like a gain need not add up to one.
  if (faster) {
    TESSERA_ASSIGN(const Comparison all, compare(bench, shipped, bench, *faster, false));
    const bool is_gain = is_faster(all.ratios);
    TESSERA_ASSIGN(const bool holds, is_gain ? holds_in_step(bench, of.step, best) : Result<bool>(false));
    if (is_gain && !holds) say(cat("  ", settings_text(best), ": not kept, whole steps are slower with it"));
    if (holds) tuned.row.row = best, tuned.row.tuned_us -= 1e6 * (all.best.median() - all.candidate.median()) * tuned.ops / faster->ops;
  }
  if (over() && !faster) return {};   // not searched through: the next run does
  tuned.decided = true;
  rows_.rows.push_back(tuned.row);
  return save();
}

Result<bool> Tuner::holds_in_step(StepBench& bench, const StepShape& step, const TuningRow& row) {
  Tuning before = bench.tuning();
  for (const TuningRow& kept : rows_.tuning_rows())
    if (kept.shape) before.shape_rows.push_back(kept);
  Tuning after = before;
  after.shape_rows.push_back(row);
  TESSERA_ASSIGN(Trial without, bench.plan_step(step, before));
  TESSERA_TRY(bench.prepare(without));
  TESSERA_ASSIGN(const Results expected, bench.results(without));
  TESSERA_ASSIGN(Trial with, bench.plan_step(step, after));
  TESSERA_TRY(bench.prepare(with));
  TESSERA_ASSIGN(const Results found, bench.results(with));
  if (!same_results(found, expected, with.tolerance)) return false;
  TESSERA_ASSIGN(const Comparison times, compare(bench, without, bench, with, false));
  return times.ratios.median() < 1.0;
}

Status Tuner::drop(Part part) {
  const auto is_of = [&](const TunedRow& row) { return row.row.shape && part_of(*row.row.shape) == part && settings_text(row.row) != settings_text({}); };
  const bool has_own = std::ranges::any_of(rows_.rows, is_of);
  for (TunedRow& row : rows_.rows) {
    if (part == Part::kLongContext && !row.row.shape && (row.row.attention_groups || row.row.attention_long)) {
      row.row.attention_groups = row.row.attention_long = std::nullopt;
      continue;
    }
    if (!has_own && !row.row.shape) row.row = TuningRow{};   // then it is what all ops share
    if (!is_of(row)) continue;
    const OpShape shape = *row.row.shape;
    row.row = TuningRow{};
    row.row.shape = shape;
    row.tuned_us = row.shipped_us;
    for (TunedCase& tuned : cases_)
      if (tuned.of.shape == shape) tuned.row = row;
  }
  return save();
}

}  // namespace tessera::bench
