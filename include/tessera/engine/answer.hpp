// Answer: one reply while it is made, from chosen tokens to the text that is shown.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tessera/engine/engine.hpp"
#include "tessera/engine/text_stream.hpp"
#include "tessera/model/tokenizer.hpp"

namespace tessera {

struct Reply {
  std::string text;
  StopReason stop_reason = StopReason::kEndOfText;
  int32_t tokens = 0;                 // chosen, the end token included
  std::vector<float> log_probabilities{};   // of these, where they were asked for: ln of each one's share, at temperature 1 and before any cut
  int32_t prompt_tokens = 0;          // run for this turn: only what was not in the cache
  double first_token_seconds = 0.0;   // from the call to the first chosen token
  double tokens_per_second = 0.0;     // of the tokens after the first; 0 if there are none
};

// Two threads meet here, one after the other (Engine::run()): that which runs a step hands over tokens, that which waits for the answer delivers their text.
class Answer {
 public:
  using OnText = std::function<bool(std::string_view text)>;   // false ends the answer

  // To `tokens`, of which the sequence holds `kept`. Stays where it is: the request refers to it.
  Answer(const Tokenizer& tokenizer, TextStream stream, SequenceId sequence, std::vector<int32_t> tokens, int32_t kept, int32_t max_tokens, const std::atomic<bool>& cancelled)
      : tokenizer_(tokenizer), decoder_(tokenizer), stream_(std::move(stream)), start_(Clock::now()) {
    reply_.prompt_tokens = static_cast<int32_t>(tokens.size()) - kept;
    request.sequence = sequence;
    request.tokens = std::move(tokens);
    request.begin = kept;
    request.remaining = max_tokens;
    request.cancelled = &cancelled;
    request.on_token = [this](const SampledToken& token) { return take(token); };
  }
  Answer(const Answer&) = delete;

  Request request;

  // What take() has left, for deliver().
  void look() {
    std::swap(fresh_, taken_);
    fresh_.clear();
  }

  // Text of whole tokens, until on_text refuses: the answer ends with the token whose text it was given last.
  void deliver(const OnText& on_text) {
    for (const Token& token : taken_.tokens) {
      if (request.unwanted) break;
      ++reply_.tokens;
      if (request.log_probabilities) reply_.log_probabilities.push_back(token.log_probability);
      if (!token.kept) continue;
      text_ends_.push_back((text_ends_.empty() ? 0 : text_ends_.back()) + token.bytes);
      request.unwanted = !emit(std::string_view(taken_.text).substr(token.shown_at, token.shown), on_text);
    }
    taken_.clear();
  }

  // After the run: the reply, with request.tokens cut to the conversation that it is part of.
  Result<Reply> finish(const OnText& on_text) {
    if (!*request.outcome) return fail(request.outcome->error());
    reply_.stop_reason = request.unwanted ? StopReason::kCancelled : **request.outcome;
    if (!request.unwanted && !stream_.stopped()) (void)emit(stream_.finish(), on_text);
    if (reply_.tokens > 0) reply_.first_token_seconds = seconds(start_, first_);
    if (reply_.tokens > 1) reply_.tokens_per_second = (reply_.tokens - 1) / std::max(1e-9, seconds(first_, Clock::now()));
    size_t shown = text_ends_.size();
    // The conversation goes on from the text that was shown: tokens past a stop string are forgotten.
    if (reply_.stop_reason == StopReason::kStopString)
      while (shown > 0 && text_ends_[shown - 1] > reply_.text.size()) --shown;
    request.tokens.resize(request.tokens.size() - std::min(request.tokens.size(), kept_ - shown));
    return std::move(reply_);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double seconds(Clock::time_point from, Clock::time_point to) { return std::chrono::duration<double>(to - from).count(); }

  struct Token {
    bool kept = true;         // false: it ended the text
    float log_probability = 0;
    size_t bytes = 0;         // of its raw text
    size_t shown_at = 0;      // what may be shown now that it is there, in Fresh::text
    size_t shown = 0;
  };
  struct Fresh {
    std::vector<Token> tokens;
    std::string text;
    void clear() {
      tokens.clear();
      text.clear();
    }
  };

  std::optional<StopReason> take(const SampledToken& token) {
    ++kept_;
    if (first_ == Clock::time_point()) first_ = Clock::now();
    if (tokenizer_.ends_text(token.id)) {
      --kept_;
      fresh_.tokens.push_back({.kept = false, .log_probability = token.log_probability});
      return StopReason::kEndOfText;
    }
    const std::string_view piece = decoder_.push(token.id);
    const std::string_view shown = stream_.push(piece);
    fresh_.tokens.push_back({.log_probability = token.log_probability, .bytes = piece.size(), .shown_at = fresh_.text.size(), .shown = shown.size()});
    fresh_.text += shown;
    return stream_.stopped() ? std::optional(StopReason::kStopString) : std::nullopt;
  }

  bool emit(std::string_view piece, const OnText& on_text) {
    reply_.text += piece;
    return piece.empty() || !on_text || on_text(piece);
  }

  const Tokenizer& tokenizer_;
  TokenDecoder decoder_;
  TextStream stream_;
  size_t kept_ = 0;                  // chosen tokens that stand in request.tokens; not all of them may have been delivered
  std::vector<size_t> text_ends_;    // bytes of raw text after each kept token
  Reply reply_;
  Fresh fresh_;                      // of the thread that runs a step
  Fresh taken_;                      // of the thread that waits
  Clock::time_point start_, first_{};
};

}  // namespace tessera
