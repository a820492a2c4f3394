// What the device does next, for all answers that are being made: a chunk of one prompt, or the next tokens of several answers. Pure logic over the pages.
//
//   admitted    in the order in which they came, when there are pages for the prompt and a page's worth of answer; nobody overtakes
//   in turns    while prompts and answers wait, one chunk of at most kSharedChunk tokens, then one decode step: between two of its tokens an answer waits for
//               at most ⌈running / kMostRows⌉ such chunks
//   no page     the newest gives up what it has and waits until there are pages again; only when it runs alone (the pages are those of conversations that
//               nobody answers) is it refused
#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "tessera/engine/decode.hpp"
#include "tessera/engine/prefill.hpp"
#include "tessera/model/step_graph.hpp"

namespace tessera {

class Scheduler {
 public:
  enum class Kind { kIdle, kPrefill, kDecode, kRefused };
  struct Next {
    Kind kind = Kind::kIdle;
    std::vector<Work*> works;                        // kPrefill, kRefused: one
    StepShape shape;
    int32_t tokens = 1;                              // kPrefill: of the one work
    int32_t steps = 1;                               // kDecode
    std::vector<std::pair<Work*, PageCopy>> copies;  // to be done first
    std::optional<Error> error;                      // kRefused
  };

  explicit Scheduler(PagedCache& cache) : cache_(cache) {}

  // `work` stays where it is until it is removed.
  void add(Work& work) {
    work.held = work.begin;
    work.running = false;
    work.arrival = ++arrivals_;
    works_.push_back(&work);
  }
  // What its sequence holds is its owner's business from here on.
  void remove(Work& work) { std::erase(works_, &work); }

  // Valid until the next call. The sequences have room for what is to be run; done() or take_back() follows.
  const Next& next() {
    admit();
    next_.works.clear();
    next_.copies.clear();
    next_.error.reset();
    next_.kind = Kind::kIdle;
    Work* const prompt = PrefillScheduler::choose(running_);
    const bool answers = std::ranges::any_of(running_, [](const Work* work) { return work->to_run() == 1; });
    const bool prefill = prompt != nullptr && !(answers && prefilled_last_);
    prefilled_last_ = prefill;
    if (prefill) {
      choose_chunk(*prompt, answers);
    } else if (answers) {
      choose_step();
    } else if (!works_.empty()) {
      refuse(*works_.front(), no_room(*works_.front()));
    }
    return next_;
  }

  // The device ran it. The ids that a decode step chose come behind `tokens` of each work, as far as its owner keeps them; then settle().
  void done() {
    for (Work* work : next_.works) work->held += next_.kind == Kind::kPrefill ? next_.tokens : next_.steps;
  }
  // After done() and after tokens were added: forgets what was run and is not kept.
  Status settle(Work& work) {
    if (work.held > static_cast<int32_t>(work.tokens.size())) {
      TESSERA_ASSIGN(work.held, cache_.truncate(work.sequence, static_cast<int32_t>(work.tokens.size())));
    }
    return cache_.publish(work.sequence, std::span(work.tokens).first(static_cast<size_t>(work.held)));
  }
  // The device did not run it: the sequences hold what they held; without what was to be copied, the pages of that hold nothing.
  void take_back(bool copied) {
    for (Work* work : next_.works) truncate(*work, work->held);
    if (copied) return;
    for (const auto& [work, copy] : next_.copies) {
      truncate(*work, work->held - copy.tokens);
    }
  }
  // What the work has run goes back to the pool, but for what the sequence held before it.
  void give_up(Work& work) {
    truncate(work, std::min(cache_.length(work.sequence).value_or(0), work.begin));
    work.running = false;
  }

  const std::vector<Work*>& works() const { return works_; }   // in the order in which they came

 private:
  // Behind a window, what was run before may be needed again: the sequence then holds nothing.
  void truncate(Work& work, int32_t length) { work.held = cache_.truncate(work.sequence, length).value_or(0); }

  // Pages for what is to be run, and for the token behind it.
  int32_t wanted(const Work& work) const {
    const int32_t most = std::min(static_cast<int32_t>(work.tokens.size()) + 1, cache_.max_context_tokens());
    return cache_.pages_to_run(work.sequence, most - work.held, static_cast<int32_t>(kLargestChunk)).value_or(0);
  }

  void admit() {
    int32_t available = cache_.available_pages();
    running_.clear();
    for (const Work* work : works_)
      if (work->running && work->to_run() > 1) available -= wanted(*work);
    bool more = true;
    for (Work* work : works_) {
      if (!work->running && more) {
        available -= wanted(*work);
        more = work->running = available >= 0 && running_.size() < static_cast<size_t>(kSlots);
      }
      if (work->running) running_.push_back(work);
    }
  }

  // Room for `tokens` more of `work`, taken from newer ones if need be; false: there is none, and next_ says what becomes of it.
  bool make_room(Work& work, int32_t tokens) {
    for (;;) {
      auto copy = cache_.append(work.sequence, tokens);
      if (copy) {
        if (*copy) next_.copies.emplace_back(&work, **copy);
        return true;
      }
      if (copy.error().code() != ErrorCode::kOutOfMemory) {
        refuse(work, std::move(copy).error());
        return false;
      }
      // What lies behind the windows of others is let go when they go on; now is sooner. But for those of this step: it reads what is before their new tokens.
      const int32_t available = cache_.available_pages();
      for (Work* other : running_)
        if (std::ranges::find(next_.works, other) == next_.works.end()) (void)cache_.append(other->sequence, 0);
      if (cache_.available_pages() > available) continue;
      Work& newest = *running_.back();
      if (running_.size() == 1) {
        refuse(work, std::move(copy).error());
        return false;
      }
      give_up(newest);
      running_.pop_back();
      if (&newest == &work) return false;
    }
  }

  void choose_chunk(Work& work, bool answers) {
    const PrefillChunk chunk = PrefillScheduler::next(work, answers);
    if (!make_room(work, static_cast<int32_t>(chunk.tokens))) return;
    next_.kind = Kind::kPrefill;
    next_.steps = 1;
    next_.works.push_back(&work);
    next_.shape = chunk.shape;
    next_.tokens = static_cast<int32_t>(chunk.tokens);
  }

  void choose_step() {
    decode_.choose(running_, chosen_);
    next_.steps = DecodeScheduler::steps(chosen_, cache_.max_context_tokens());
    if (next_.steps > 1 && pages_for_steps() > cache_.available_pages()) next_.steps = 1;
    std::ranges::sort(chosen_, {}, &Work::arrival);   // the oldest take pages first
    for (Work* work : chosen_) {
      if (!work->running) continue;   // gave up its pages to an older one
      if (make_room(*work, next_.steps)) next_.works.push_back(work);
      if (next_.kind == Kind::kRefused) return;
    }
    if (next_.works.empty()) return;   // the newest of all gave up its pages: the next call finds something else
    next_.kind = Kind::kDecode;
    next_.tokens = 1;
    next_.shape = DecodeScheduler::shape(next_.works.size());
  }
  int32_t pages_for_steps() const {
    int32_t pages = 0;
    for (const Work* work : chosen_) pages += cache_.pages_to_append(work->sequence, next_.steps).value_or(0);
    return pages;
  }

  Error no_room(const Work& work) const {
    return Error(ErrorCode::kOutOfMemory, cat("the KV cache has ", cache_.available_pages(), " of ", cache_.pool().total_pages(), " pages to give; the ", work.to_run(),
                                              " tokens to be run need ", wanted(work), " of ", cache_.page_size().tokens(), " tokens (other conversations hold the rest)"));
  }
  void refuse(Work& work, Error error) {
    take_back(true);
    next_.copies.clear();
    next_.kind = Kind::kRefused;
    next_.works.assign(1, &work);
    next_.error = std::move(error);
  }

  PagedCache& cache_;
  DecodeScheduler decode_;
  std::vector<Work*> works_;     // in the order in which they came
  std::vector<Work*> running_;   // of these the admitted ones
  std::vector<Work*> chosen_;
  Next next_;
  uint64_t arrivals_ = 0;
  bool prefilled_last_ = false;
};

}  // namespace tessera
