// The decode scheduler: one token after the other until something ends the answer.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tessera/engine/sampler.hpp"
#include "tessera/engine/sequence.hpp"

namespace tessera {

// Runs tokens through a Sequence and chooses the next: on the device when greedy, else on the host from one row of logits. Tokens after the
// first few allocate nothing.
class TokenChooser {
 public:
  TokenChooser(Sequence& sequence, const SamplerOptions& options) : sequence_(sequence), options_(options) {
    if (options.plain_greedy()) return;
    on_logits_ = [this](std::span<const float> row) -> Status {
      // The draw is named by the position of the token it makes: the same conversation and seed give the same text, also after an undo.
      TESSERA_ASSIGN(chosen_, sample(row, options_, static_cast<uint64_t>(sequence_.length()), scratch_, sequence_.ids()));
      return {};
    };
  }
  TokenChooser(const TokenChooser&) = delete;

  // The token that follows `ids`.
  Result<int32_t> after(std::span<const int32_t> ids, const std::atomic<bool>* cancelled = nullptr) {
    TESSERA_ASSIGN(const int32_t greedy, sequence_.append(ids, cancelled, on_logits_));
    return on_logits_ ? chosen_ : greedy;
  }

 private:
  Sequence& sequence_;
  SamplerOptions options_;
  SamplerScratch scratch_;
  Sequence::OnLogits on_logits_;
  int32_t chosen_ = -1;
};

enum class StopReason { kEndOfText, kMaxTokens, kStopString, kCancelled, kContextFull };

inline std::string_view name_of(StopReason reason) {
  constexpr std::string_view kNames[] = {"end of text", "max tokens", "stop string", "cancelled", "context full"};
  return kNames[static_cast<int>(reason)];
}

class DecodeScheduler {
 public:
  // What to do with a chosen token: kEndOfText, kStopString or kCancelled end the answer, nothing goes on.
  using OnToken = std::function<std::optional<StopReason>(int32_t id)>;

  DecodeScheduler(TokenChooser& chooser, const Sequence& sequence, int32_t max_tokens) : chooser_(chooser), sequence_(sequence), max_tokens_(max_tokens) {}

  // `first` was chosen but not run. On return pending() tells whether the last chosen token is still to be run.
  Result<StopReason> run(int32_t first, const OnToken& on_token, const std::atomic<bool>& cancelled) {
    int32_t id = first;
    for (int32_t made = 1;; ++made) {
      if (const auto reason = on_token(id)) return *reason;
      if (made >= max_tokens_) return StopReason::kMaxTokens;
      if (cancelled.load(std::memory_order_relaxed)) return StopReason::kCancelled;
      if (sequence_.length() >= sequence_.capacity()) return StopReason::kContextFull;
      TESSERA_ASSIGN(id, chooser_.after(std::span(&id, 1)));
    }
  }

 private:
  TokenChooser& chooser_;
  const Sequence& sequence_;
  int32_t max_tokens_;
};

}  // namespace tessera
