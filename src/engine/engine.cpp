#include "tessera/engine/engine.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace tessera {
namespace {

Request& request_of(Work& work) { return static_cast<Request&>(work); }

}  // namespace

void Engine::run(std::span<Request* const> mine, const std::function<void()>& look, const std::function<void()>& deliver) {
  struct Withdraw {   // also when deliver throws
    Engine& engine;
    std::span<Request* const> mine;
    ~Withdraw() { engine.withdraw(mine); }
  } const withdraw{*this, mine};
  {
    const std::lock_guard lock(mutex_);
    for (Request* request : mine) {
      request->on_device = device_can_sample(request->sampler);
      if (!request->on_device) request->steps_at_once = 1;
      request->tokens.reserve(std::min(request->tokens.size() + static_cast<size_t>(request->remaining), static_cast<size_t>(runtime_.cache().max_context_tokens())) + 1);   // a token that is chosen allocates nothing
      arrived_.push_back(request);
    }
  }
  const auto has_news = [&] { return std::ranges::any_of(mine, [](const Request* request) { return request->news; }); };
  const auto all_ended = [&] { return std::ranges::all_of(mine, [](const Request* request) { return request->outcome.has_value(); }); };
  for (bool ended = false; !ended;) {
    bool run_next = false;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return !stepping_ || has_news(); });
      ended = all_ended();
      run_next = !stepping_ && !has_news() && !ended;
      if (run_next) {
        stepping_ = true;
      } else {
        for (Request* request : mine) request->news = false;
        look();
      }
    }
    if (!run_next) {
      deliver();
      continue;
    }
    step();
    stepped();
  }
}

// In the place of a step.
void Engine::withdraw(std::span<Request* const> mine) {
  {
    std::unique_lock lock(mutex_);
    if (std::ranges::all_of(mine, [](const Request* request) { return request->outcome.has_value(); })) return;
    changed_.wait(lock, [&] { return !stepping_; });
    stepping_ = true;
    for (Request* request : mine) std::erase(arrived_, request);
  }
  {
    const std::lock_guard device(runtime_.mutex());
    for (Request* request : mine) {
      if (request->outcome) continue;
      scheduler_.give_up(*request);
      scheduler_.remove(*request);
    }
  }
  stepped();
}

void Engine::stepped() {
  {
    const std::lock_guard lock(mutex_);
    stepping_ = false;
  }
  changed_.notify_all();
}

void Engine::step() {
  const std::lock_guard device(runtime_.mutex());
  {
    const std::lock_guard lock(mutex_);
    for (Request* request : arrived_) scheduler_.add(*request);
    arrived_.clear();
  }
  const auto cancelled = [](Work* work) {
    const Request& request = request_of(*work);
    return request.unwanted || (request.cancelled != nullptr && *request.cancelled);
  };
  for (auto it = scheduler_.works().begin(); (it = std::ranges::find_if(scheduler_.works(), cancelled)) != scheduler_.works().end();) {
    Request& request = request_of(**it);
    if (request.made == 0) end(request, fail(ErrorCode::kCancelled, "cancelled"));
    else end(request, StopReason::kCancelled);
  }
  const Scheduler::Next& next = scheduler_.next();
  if (next.kind == Scheduler::Kind::kRefused) {
    Request& request = request_of(*next.works.front());
    // Pages that other conversations hold are a full context, too.
    if (request.sinks > 0 && static_cast<int32_t>(request.tokens.size()) > runtime_.cache().max_context_tokens() / 2) roll(request);
    else end(request, fail(*next.error));
  }
  if (next.kind == Scheduler::Kind::kPrefill || next.kind == Scheduler::Kind::kDecode) run_step(next);
}

void Engine::run_step(const Scheduler::Next& next) {
  const std::vector<Work*>& works = next.works;   // valid until the scheduler's next next(), also where works are removed
  Status status;
  for (const auto& [work, copy] : next.copies)
    if (status) status = runtime_.copy_page(copy);
  const bool copied = status.has_value();
  if (status) status = submit(next);
  const bool chooses = next.shape.logits != LogitRows::kNone;
  const bool host = std::ranges::any_of(works, [](Work* work) { return !request_of(*work).on_device; });
  if (status && chooses) status = runtime_.read_sampled(works.size());
  if (status && chooses && host) status = runtime_.read_logits(static_cast<int64_t>(works.size()), logits_);
  if (!status) {
    scheduler_.take_back(copied);
    for (Work* work : works) end(request_of(*work), fail(status.error()));
    return;
  }
  scheduler_.done();
  for (size_t row = 0; row < works.size(); ++row) {
    Request& request = request_of(*works[row]);
    if (!chooses) {
      if (Status settled = scheduler_.settle(request); !settled) end(request, fail(settled.error()));
      continue;
    }
    std::array<SampledToken, kStepsAtOnce> chosen{};
    size_t count = 0;
    Status fault;
    while (count < static_cast<size_t>(next.steps) && fault) {
      const auto token = request.on_device ? runtime_.sampled(row, static_cast<int32_t>(request.tokens.size() + count)) : choose_here(request, row);
      if (token) chosen[count++] = *token;
      else fault = fail(token.error());
    }
    keep(request, std::span(chosen).first(count));
    if (!fault && !request.outcome) end(request, fail(fault.error()));   // behind the end of an answer it is nobody's
  }
}

Status Engine::submit(const Scheduler::Next& next) {
  parts_.clear();
  for (Work* work : next.works) {
    const Request& request = request_of(*work);
    const std::span<const int32_t> tokens = std::span(request.tokens).first(static_cast<size_t>(request.held + next.tokens));
    parts_.push_back({.sequence = request.sequence, .position = request.held, .ids = tokens.subspan(static_cast<size_t>(request.held)),
                      .sampler = request.on_device ? &request.sampler : nullptr, .tokens = tokens, .log_probabilities = request.log_probabilities, .goes_on = request.goes_on});
  }
  return runtime_.run(parts_, next.shape, next.steps);
}

// The chain on the host, for options that the device has no kernel for.
Result<SampledToken> Engine::choose_here(Request& request, size_t row) {
  const size_t vocab = static_cast<size_t>(runtime_.config().vocab_size);
  const auto logits = std::span(logits_).subspan(row * vocab, vocab);
  SampledToken token;
  TESSERA_ASSIGN(token.id, sample(logits, request.sampler, request.tokens.size(), request.scratch, request.tokens));
  if (!request.log_probabilities) return token;
  TESSERA_ASSIGN(token.log_probability, log_probability(logits, request.sampler, token.id, request.scratch, request.tokens));
  return token;
}

void Engine::keep(Request& request, std::span<const SampledToken> chosen) {
  const int32_t capacity = runtime_.cache().max_context_tokens();
  std::optional<StopReason> reason;
  {
    const std::lock_guard lock(mutex_);
    request.news = true;
    request.goes_on = true;
    for (size_t i = 0; i < chosen.size() && !reason; ++i) {
      ++request.made;
      request.tokens.push_back(chosen[i].id);
      reason = request.on_token(chosen[i]);
      if (reason == StopReason::kEndOfText) request.tokens.pop_back();
      if (!reason && --request.remaining == 0) reason = StopReason::kMaxTokens;
      if (!reason && static_cast<int32_t>(request.tokens.size()) > capacity && request.sinks == 0) reason = StopReason::kContextFull;
    }
  }
  if (!reason && static_cast<int32_t>(request.tokens.size()) > capacity) roll(request);
  if (Status settled = scheduler_.settle(request); !settled) end(request, fail(settled.error()));
  else if (reason) end(request, *reason);
}

// What is kept is run again where it stands now: keys are stored rotated by their positions, and a position past those that the model was trained for
// means nothing to it. The first tokens stay because attention rests on them (attention sinks: Xiao et al. 2023, arXiv 2309.17453).
void Engine::roll(Request& request) {
  request.dropped += roll_context(request.tokens, request.sinks, runtime_.cache().max_context_tokens());
  request.begin = std::min(request.begin, request.sinks);
  request.goes_on = false;
  scheduler_.give_up(request);
}

void Engine::end(Request& request, Result<StopReason> outcome) {
  if (!outcome) scheduler_.give_up(request);
  scheduler_.remove(request);
  const std::lock_guard lock(mutex_);
  request.news = true;
  request.outcome.emplace(std::move(outcome));
}

}  // namespace tessera
