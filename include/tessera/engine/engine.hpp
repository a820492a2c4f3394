// Engine: makes the answers of all sessions of a model, several in one step. The bodies are in src/engine/engine.cpp.
//
// There is no thread of its own: of the threads that wait for an answer, one at a time runs the next step for all. Each delivers its own text.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "tessera/engine/runtime.hpp"
#include "tessera/engine/sampler.hpp"
#include "tessera/engine/scheduler.hpp"

namespace tessera {

// One answer: what is asked for, and what became of it.
struct Request : Work {
  SamplerOptions sampler;
  // Called for each chosen token, in order, by the thread that runs the step, which waits: it says what ends the answer, if anything. A token that ends the
  // text is not kept; other ones stand in `tokens` when it is called.
  std::function<std::optional<StopReason>(const SampledToken& token)> on_token;
  bool log_probabilities = false;                 // else each is 0
  // When the context is full: 0: the answer ends. Else it goes on behind the first `sinks` tokens and the newer half of the others, which are run again
  // behind them; tokens that fell out are counted in `dropped`.
  int32_t sinks = 0;         // at most a quarter of the context
  int32_t dropped = 0;
  // Looked at before each step.
  const std::atomic<bool>* cancelled = nullptr;
  std::atomic<bool> unwanted = false;

  // The outcome, there once Engine::run() has returned: why the answer ended, or the error.
  std::optional<Result<StopReason>> outcome;

 private:
  friend class Engine;
  bool on_device = true;       // its tokens are chosen there
  bool goes_on = false;        // the device chose its last token
  bool news = false;           // since the owner looked last
  int32_t made = 0;            // chosen tokens
  SamplerScratch scratch;
};

// Leaves of `tokens` the first `sinks` and the newest, together half of what the context holds; gives how many fell out.
inline int32_t roll_context(std::vector<int32_t>& tokens, int32_t sinks, int32_t context_tokens) {
  const int32_t size = static_cast<int32_t>(tokens.size()), kept = std::min(size, context_tokens / 2);
  tokens.erase(tokens.begin() + sinks, tokens.end() - (kept - sinks));
  return size - kept;
}

class Engine {
 public:
  explicit Engine(Runtime& runtime) : runtime_(runtime), scheduler_(runtime.cache()) {}

  // Makes the answers of `mine`, together with those that other threads ask for, and calls `deliver` on this thread when there is something new, and once
  // when all have an outcome. `look` is called before it, while nobody's on_token runs: it takes over what those have left. When deliver throws, the answers
  // are given up and it passes through. On any error a sequence is as it was, or holds less of it: where the device failed to copy a page, or nothing where
  // pages behind a window were let go.
  void run(std::span<Request* const> mine, const std::function<void()>& look, const std::function<void()>& deliver);

 private:
  void step();
  void stepped();
  void run_step(const Scheduler::Next& next);
  Status submit(const Scheduler::Next& next);
  void keep(Request& request, std::span<const SampledToken> chosen);
  Result<SampledToken> choose_here(Request& request, size_t row);
  void roll(Request& request);
  void end(Request& request, Result<StopReason> outcome);
  void withdraw(std::span<Request* const> mine);

  Runtime& runtime_;
  Scheduler scheduler_;                // of who runs a step
  std::mutex mutex_;                   // of the requests, but for their Work, and of what follows
  std::condition_variable changed_;
  std::vector<Request*> arrived_;      // not yet in the scheduler
  bool stepping_ = false;
  std::vector<StepPart> parts_;        // scratch of a step
  std::vector<float> logits_;
};

}  // namespace tessera
