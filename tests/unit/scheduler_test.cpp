// The schedulers by scripts of arrivals: no device, only the pages and what is chosen to run.
#include "tessera/engine/scheduler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "tessera/engine/prefill.hpp"

namespace tessera {
namespace {

using Kind = Scheduler::Kind;

// Runs what the scheduler says, as the engine does; every chosen token is 7.
class Script {
 public:
  explicit Script(int32_t pages, int32_t context = 1024, bool prefix_cache = false, int32_t window = 0)
      : cache(*PagedCache::make({.pages = pages, .page_size = 16, .max_context_tokens = context, .window = window, .prefix_cache = prefix_cache})), scheduler(cache), window_(window) {}

  // An answer of `answer` tokens to a prompt of `prompt`; with `before`, the next turn of that one's conversation, which must not have left.
  Work& arrives(int32_t prompt, int32_t answer, const Work* before = nullptr) {
    works.push_back(std::make_unique<Work>());
    Work& work = *works.back();
    work.sequence = before == nullptr ? cache.create() : before->sequence;
    work.begin = before == nullptr ? 0 : before->held;
    if (before != nullptr) work.tokens = before->tokens;
    work.tokens.resize(work.tokens.size() + static_cast<size_t>(prompt), static_cast<int32_t>(works.size()));
    work.remaining = answer;
    work.steps_at_once = kStepsAtOnce;
    scheduler.add(work);
    return work;
  }

  // One step; false: nothing to do.
  bool step() {
    const Scheduler::Next& next = scheduler.next();
    kinds.push_back(next.kind);
    ran.assign(next.works.begin(), next.works.end());
    if (next.kind == Kind::kIdle) return !scheduler.works().empty();
    if (next.kind == Kind::kRefused) {
      refused.push_back(next.works.front());
      leave(*next.works.front());
      return true;
    }
    check(next);
    tokens_of_step = next.kind == Kind::kPrefill ? next.tokens : next.steps;
    scheduler.done();
    const bool chooses = next.shape.logits != LogitRows::kNone;
    const int32_t steps = next.kind == Kind::kDecode ? next.steps : 1;
    for (Work* work : ran) {
      for (int32_t i = 0; chooses && i < steps && work->remaining > 0; ++i) {
        work->tokens.push_back(7);
        --work->remaining;
      }
      EXPECT_TRUE(scheduler.settle(*work));
      if (work->remaining == 0) leave(*work);
    }
    return true;
  }
  void run_all() {
    for (int steps = 0; step(); ++steps) ASSERT_LT(steps, 10000) << "it does not end";
  }
  void leave(Work& work) {
    scheduler.remove(work);
    finished.push_back(&work);
    if (!ends) return;
    EXPECT_TRUE(cache.free(work.sequence));
  }
  int32_t busy_pages() const { return cache.statistics().live_pages; }

  PagedCache cache;
  Scheduler scheduler;
  std::deque<std::unique_ptr<Work>> works;
  std::vector<Kind> kinds;
  std::vector<Work*> ran, finished, refused;
  int32_t tokens_of_step = 0;
  bool ends = true;   // a conversation, with its answer

 private:
  int32_t window_;

  // What the device will do has room, and fits its step.
  void check(const Scheduler::Next& next) {
    EXPECT_FALSE(next.works.empty());
    EXPECT_LE(next.works.size(), kMostRows);
    for (const Work* work : next.works) {
      const int32_t rows = next.kind == Kind::kPrefill ? next.tokens : next.steps;
      EXPECT_TRUE(work->running);
      EXPECT_EQ(*cache.length(work->sequence), work->held + rows);
      EXPECT_LE(cache.block_table(work->sequence)->first * 16, window_ == 0 ? 0 : std::max(0, work->held - window_ + 1)) << "what the step reads is let go";
      EXPECT_TRUE(next.kind == Kind::kDecode ? work->to_run() == 1 : rows <= next.shape.tokens);
    }
    if (next.kind == Kind::kDecode) {
      EXPECT_EQ(next.shape, DecodeScheduler::shape(next.works.size()));
    } else {
      EXPECT_EQ(next.shape.logits == LogitRows::kLast, next.works[0]->to_run() == next.tokens) << "logits with the last chunk alone";
    }
  }
};

TEST(PrefillChunk, CutsPromptsIntoPlannedShapes) {
  const auto cut = [](int64_t tokens, int64_t most) {
    std::string text;
    while (tokens > 0) {
      const PrefillChunk chunk = prefill_chunk(tokens, most);
      text += cat(chunk.tokens, " of ", chunk.shape.tokens, chunk.shape.logits == LogitRows::kLast ? " with logits; " : "; ");
      tokens -= chunk.tokens;
    }
    return text;
  };
  EXPECT_EQ(cut(1, 128), "1 of 1 with logits; ");
  EXPECT_EQ(cut(9, 128), "9 of 32 with logits; ");
  EXPECT_EQ(cut(128, 128), "128 of 128 with logits; ");
  EXPECT_EQ(cut(300, 128), "128 of 128; 128 of 128; 44 of 128 with logits; ");
  EXPECT_EQ(cut(70, 32), "32 of 32; 32 of 32; 6 of 8 with logits; ");
}

TEST(Scheduler, OneAnswerIsAPromptAndThenHandfulsOfTokens) {
  Script script(64);
  Work& work = script.arrives(200, 20);
  script.run_all();
  EXPECT_EQ(script.kinds, (std::vector<Kind>{Kind::kPrefill, Kind::kPrefill, Kind::kDecode, Kind::kDecode, Kind::kDecode, Kind::kIdle}));   // 1 + 8 + 8 + 3
  EXPECT_EQ(work.tokens.size(), 220u);
  EXPECT_EQ(script.busy_pages(), 0);
}

TEST(Scheduler, AnswersOfSeveralAreMadeInOneStep) {
  Script script(64);
  for (int i = 0; i < 8; ++i) script.arrives(1, 17);   // prompts of one token need no chunk
  script.run_all();
  EXPECT_EQ(script.kinds, (std::vector<Kind>{Kind::kDecode, Kind::kDecode, Kind::kDecode, Kind::kIdle}));
  EXPECT_EQ(script.finished.size(), 8u);
}

TEST(Scheduler, TheStepsOfOneSubmissionStopWhereAnAnswerMayEnd) {
  Script script(64, 40);
  script.arrives(1, 3);
  Work& other = script.arrives(1, 50);
  ASSERT_TRUE(script.step());
  EXPECT_EQ(script.tokens_of_step, 3);
  while (*script.cache.length(other.sequence) < 40 && script.step()) EXPECT_LE(*script.cache.length(other.sequence), 40);
  EXPECT_EQ(other.tokens.size(), 41u);   // the last one has no place to be run

  Script host(64);
  host.arrives(1, 30).steps_at_once = 1;
  host.arrives(1, 30);
  ASSERT_TRUE(host.step());
  EXPECT_EQ(host.tokens_of_step, 1);
  EXPECT_EQ(host.ran.size(), 2u);
}

// While a long prompt is run, every answer gets its tokens between two chunks of at most 32.
TEST(Scheduler, ALongPromptDoesNotStallAnswers) {
  for (const int answers : {1, 8, 15}) {
    Script script(400, 4096);
    std::map<const Work*, int> chunks_since;
    for (int i = 0; i < answers; ++i) chunks_since[&script.arrives(1, 600)] = 0;
    ASSERT_TRUE(script.step());
    const Work& prompt = script.arrives(2000, 5);
    const int bound = (answers + 7) / 8;
    while (prompt.to_run() > 1 && script.step()) {
      if (script.kinds.back() == Kind::kPrefill) {
        EXPECT_LE(script.tokens_of_step, kSharedChunk);
        for (auto& [work, chunks] : chunks_since) EXPECT_LE(++chunks, bound) << answers << " answers";
      } else {
        for (Work* work : script.ran) chunks_since[work] = 0;
      }
    }
    EXPECT_EQ(prompt.held, 2000);
    script.run_all();
    EXPECT_EQ(script.finished.size(), static_cast<size_t>(answers) + 1);
  }
}

TEST(Scheduler, APromptAloneIsRunInTheLargestChunks) {
  Script script(200, 4096);
  script.arrives(1000, 1);
  ASSERT_TRUE(script.step());
  EXPECT_EQ(script.tokens_of_step, kLargestChunk);
}

TEST(Scheduler, MoreAnswersThanRowsTakeTurns) {
  Script script(200);
  std::map<const Work*, int> turns;
  for (int i = 0; i < 12; ++i) turns[&script.arrives(1, 400)] = 0;
  for (int step = 0; step < 30; ++step) {
    ASSERT_TRUE(script.step());
    for (Work* work : script.ran) ++turns[work];
  }
  for (const auto& [work, count] : turns) EXPECT_NEAR(count, 20, 1);   // 30 steps of 8 rows for 12
}

TEST(Scheduler, TheNewestWaitsForPagesAndNobodyOvertakes) {
  Script script(8);
  Work& first = script.arrives(100, 10);    // 7 pages with its answer
  Work& second = script.arrives(60, 4);     // 5: none is left
  Work& third = script.arrives(1, 4);       // 1, which is there, but the second came before
  while (!first.running || first.remaining > 0) {
    ASSERT_TRUE(script.step());
    EXPECT_FALSE(second.running && first.remaining > 0);
    EXPECT_FALSE(third.running && !second.running && second.remaining > 0);
  }
  script.run_all();
  EXPECT_EQ(script.finished.front(), &first);
  EXPECT_EQ(script.finished.size(), 3u);
  EXPECT_TRUE(script.refused.empty());
  EXPECT_EQ(script.busy_pages(), 0);
}

TEST(Scheduler, WhenPagesRunOutTheNewestGivesUpAndIsMadeLater) {
  Script script(10);
  Work& first = script.arrives(33, 90);    // 3 pages, 8 in the end
  Work& second = script.arrives(33, 90);
  bool gave_up = false;
  while (first.remaining > 0) {
    ASSERT_TRUE(script.step());
    if (!gave_up && second.tokens.size() > 33 && !second.running) {
      gave_up = true;
      EXPECT_EQ(*script.cache.length(second.sequence), 0);
      EXPECT_GT(second.to_run(), 33) << "what was chosen is kept, to be run again";
    }
    EXPECT_TRUE(first.running);
  }
  EXPECT_TRUE(gave_up);
  script.run_all();
  EXPECT_EQ(second.tokens.size(), 123u);
  EXPECT_TRUE(script.refused.empty());
  EXPECT_EQ(script.busy_pages(), 0);
}

TEST(Scheduler, WhatCannotFitIsRefusedAndLeavesNothing) {
  Script script(8);
  const SequenceId idle = script.cache.create();   // a conversation that nobody answers
  ASSERT_TRUE(script.cache.append(idle, 80));
  Work& too_long = script.arrives(60, 4);
  Work& fits = script.arrives(20, 4);
  script.run_all();
  EXPECT_EQ(script.refused, std::vector<Work*>{&too_long});
  EXPECT_EQ(fits.remaining, 0);
  Work& grows = script.arrives(20, 60);            // begins, and finds no page when it is alone
  script.run_all();
  EXPECT_EQ(script.refused.back(), &grows);
  EXPECT_EQ(script.busy_pages(), 5);
}

TEST(Scheduler, WhatTheDeviceDidNotRunIsTakenBack) {
  Script script(16);
  Work& work = script.arrives(20, 30);
  ASSERT_TRUE(script.step());
  const SequenceId fork = *script.cache.fork(work.sequence);
  const Scheduler::Next& next = script.scheduler.next();
  ASSERT_EQ(next.copies.size(), 1u) << "the page that the fork shares";
  script.scheduler.take_back(true);
  EXPECT_EQ(*script.cache.length(work.sequence), 20);
  EXPECT_EQ(work.held, 20);
  const SequenceId again = *script.cache.fork(work.sequence);
  ASSERT_EQ(script.scheduler.next().copies.size(), 1u);
  script.scheduler.take_back(false);   // the copy failed: the new page holds nothing
  EXPECT_EQ(*script.cache.length(work.sequence), 16);
  EXPECT_EQ(work.held, 16);
  script.run_all();
  EXPECT_EQ(work.remaining, 0);
  EXPECT_TRUE(script.cache.free(fork) && script.cache.free(again));
  EXPECT_EQ(script.busy_pages(), 0);
}

// Pages for a window and a chunk are enough for a conversation of any length, turn after turn; and a second conversation waits, but is made.
TEST(Scheduler, AWindowGoesOnInFewPages) {
  for (const int32_t window : {20, 64, 100}) {
    SCOPED_TRACE(window);
    Script script((window + 128 + 15) / 16 + 1, 4096, false, window);
    script.ends = false;
    Work* talk = &script.arrives(700, 50);
    script.run_all();
    for (const int32_t prompt : {1, 100, 129, 400}) {
      talk = &script.arrives(prompt, 200, talk);
      script.run_all();
      EXPECT_EQ(talk->remaining, 0);
      EXPECT_LE(script.busy_pages(), (window + kStepsAtOnce + 15) / 16 + 1);
    }
    EXPECT_TRUE(script.refused.empty());
    script.ends = true;
    Work& again = script.arrives(30, 40, talk);
    Work& other = script.arrives(500, 60);
    script.run_all();
    EXPECT_EQ(again.remaining, 0);
    EXPECT_EQ(other.remaining, 0);
    EXPECT_TRUE(script.refused.empty());
    EXPECT_EQ(script.busy_pages(), 0);
  }
}

// Arrivals, ends and cancellations at random: nobody who came before a running answer is refused, nothing is forgotten, no page is lost.
TEST(Scheduler, RandomScriptsEndWithEveryPageBack) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto below = [&](int32_t n) { return static_cast<int32_t>(random() % static_cast<uint32_t>(n)); };
    Script script(8 + below(60), 256, seed % 2 == 0, seed % 4 == 1 ? 1 + below(100) : 0);
    size_t cancelled = 0;
    for (int step = 0; step < 400; ++step) {
      if (below(6) == 0 && script.scheduler.works().size() < 24) script.arrives(1 + below(100), 1 + below(60));
      const size_t refused = script.refused.size();
      (void)script.step();
      if (script.refused.size() > refused) {
        for (const Work* other : script.scheduler.works()) EXPECT_FALSE(other->running) << "refused while others would have given pages back";
      }
      if (below(20) == 0 && !script.scheduler.works().empty()) {
        script.leave(*script.scheduler.works()[static_cast<size_t>(below(static_cast<int32_t>(script.scheduler.works().size())))]);
        ++cancelled;
      }
    }
    script.run_all();
    EXPECT_EQ(script.finished.size(), script.works.size());
    EXPECT_GT(script.finished.size(), cancelled + script.refused.size());
    EXPECT_EQ(script.busy_pages(), 0);
    EXPECT_EQ(script.cache.available_pages(), script.cache.pool().total_pages());
  }
}

}  // namespace
}  // namespace tessera
