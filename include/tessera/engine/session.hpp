// Session: one conversation. Its tokens stay in the KV cache, so a turn runs only what is new.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tessera/engine/decode.hpp"
#include "tessera/engine/model.hpp"
#include "tessera/engine/text_stream.hpp"

namespace tessera {

struct SessionOptions {
  std::string system{};          // the system message; empty: what the template says
};

struct GenerateOptions {
  int32_t max_tokens = 512;      // ≥ 1
  SamplerOptions sampler{};      // temperature 0: greedy, on the device
  std::vector<std::string> stop{}; // the answer ends before the first of these
};

struct Reply {
  std::string text;
  StopReason stop_reason = StopReason::kEndOfText;
  int32_t tokens = 0;                 // chosen, the end token included
  int32_t prompt_tokens = 0;          // run for this turn: only what was not in the cache
  double first_token_seconds = 0.0;   // from the call to the first chosen token
  double tokens_per_second = 0.0;     // of the tokens after the first; 0 if there are none
};

// One thread at a time may be in reply(); another gets kBusy. cancel() may be called from any thread.
class Session {
 public:
  // Text as it becomes final: whole UTF-8 characters, never part of a stop string. Return false to end the answer.
  using OnText = std::function<bool(std::string_view text)>;

  explicit Session(Model model, SessionOptions options = {}) : model_(std::move(model)), options_(std::move(options)), state_(std::make_unique<State>(model_.runtime())) { clear(); }

  // Answers `text`. Errors: kUnsupported (no tokenizer or template for this model), kInvalidArgument (an option), kContextFull (the turn
  // does not fit: both numbers are in the message), kCancelled (during the prompt), kBusy, and the device's. On any error the
  // conversation is as before the call. An answer that was cut short is a Reply with its stop_reason, and stays in the conversation.
  Result<Reply> reply(std::string_view text, const GenerateOptions& options = {}, const OnText& on_text = nullptr);

  void cancel() { state_->cancelled = true; }   // ends a running reply() within one chunk or token; no effect when none runs
  void clear();                                  // forgets the conversation; the system message stays
  void set_system(std::string system) { options_.system = std::move(system); clear(); }
  const std::vector<ChatMessage>& messages() const { return messages_; }
  int32_t context_used() const { return static_cast<int32_t>(history_.size()); }

 private:
  struct State {   // what a moved Session must not move: a running thread refers to it
    explicit State(std::shared_ptr<Runtime> runtime) : sequence(std::move(runtime)) {}
    Sequence sequence;
    std::atomic<bool> cancelled = false;
    std::atomic<bool> busy = false;
  };
  struct Turn;

  Result<Reply> answer(std::string_view text, const GenerateOptions& options, const OnText& on_text);
  Result<std::vector<int32_t>> turn_tokens(const std::vector<ChatMessage>& messages, bool& from_start) const;
  Result<Reply> generate(std::vector<int32_t> ids, const GenerateOptions& options, const OnText& on_text);

  Model model_;
  SessionOptions options_;
  std::unique_ptr<State> state_;
  std::vector<ChatMessage> messages_;
  std::vector<int32_t> history_;   // every token of the conversation; the last may be chosen but not yet run
};

inline void Session::clear() {
  messages_.clear();
  if (!options_.system.empty()) messages_.push_back({"system", options_.system});
  history_.clear();
  (void)state_->sequence.truncate(0);
}

inline Result<Reply> Session::reply(std::string_view text, const GenerateOptions& options, const OnText& on_text) {
  if (state_->busy.exchange(true)) return fail(ErrorCode::kBusy, "this session is answering already; use one session a thread");
  state_->cancelled = false;
  Result<Reply> result = answer(text, options, on_text);
  state_->busy = false;
  return result;
}

inline Result<Reply> Session::answer(std::string_view text, const GenerateOptions& options, const OnText& on_text) {
  if (!model_.tokenizer()) return fail(model_.tokenizer().error());
  if (!model_.chat_template()) return fail(model_.chat_template().error());
  if (options.max_tokens < 1) return fail(ErrorCode::kInvalidArgument, cat("max_tokens is ", options.max_tokens, "; it must be at least 1"));
  TESSERA_TRY(options.sampler.validate());
  std::vector<ChatMessage> messages = messages_;
  messages.push_back({"user", std::string(text)});
  bool from_start = false;
  TESSERA_ASSIGN(std::vector<int32_t> ids, turn_tokens(messages, from_start));
  const std::vector<int32_t> history_before = history_;
  if (from_start) {
    history_.clear();
    TESSERA_TRY(state_->sequence.truncate(0));
  }
  Result<Reply> reply = generate(std::move(ids), options, on_text);
  if (!reply) {
    // The cache keeps what both conversations share; the rest is run again when it is needed.
    history_ = history_before;
    const int32_t kept = from_start ? 0 : std::min<int32_t>(state_->sequence.length(), static_cast<int32_t>(history_.size()));
    (void)state_->sequence.truncate(kept);
    return reply;
  }
  messages_ = std::move(messages);
  messages_.push_back({"assistant", reply->text});
  return reply;
}

// The tokens of the conversation behind history_. `from_start`: the template rewrites what was said before, so all of it is run again.
inline Result<std::vector<int32_t>> Session::turn_tokens(const std::vector<ChatMessage>& messages, bool& from_start) const {
  const ChatTemplate& chat = *model_.chat_template();
  size_t skip = 0;   // bytes of the prompt that history_ holds already
  if (!history_.empty()) {
    const std::vector<ChatMessage> before(messages_.begin(), messages_.end() - 1);
    const std::string said = chat.render_text(before, true) + messages_.back().content;
    if (chat.render_text(messages, true).starts_with(said)) skip = said.size();
  }
  from_start = skip == 0;
  std::vector<PromptSegment> segments = chat.render(messages, true);
  for (PromptSegment& segment : segments) {
    const size_t drop = std::min(skip, segment.text.size());
    segment.text.erase(0, drop);
    skip -= drop;
  }
  std::vector<int32_t> ids = model_.tokenizer()->encode(segments);
  const TokenizerTables& tables = model_.runtime()->file().tokenizer();
  if (from_start && tables.add_bos && tables.bos >= 0) ids.insert(ids.begin(), static_cast<int32_t>(tables.bos));
  return ids;
}

inline Result<Reply> Session::generate(std::vector<int32_t> ids, const GenerateOptions& options, const OnText& on_text) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); };
  const Tokenizer& tokenizer = *model_.tokenizer();
  Sequence& sequence = state_->sequence;
  TESSERA_ASSIGN(TextStream stream, TextStream::create(options.stop));
  Reply reply;
  // What was chosen in the last turn but not run goes first.
  const std::vector<int32_t> pending(history_.begin() + sequence.length(), history_.end());
  history_.insert(history_.end(), ids.begin(), ids.end());
  ids.insert(ids.begin(), pending.begin(), pending.end());
  reply.prompt_tokens = static_cast<int32_t>(ids.size());

  const Clock::time_point start = Clock::now();
  TokenChooser chooser(sequence, options.sampler);
  TESSERA_ASSIGN(const int32_t first, chooser.after(ids, &state_->cancelled));
  reply.first_token_seconds = seconds_since(start);

  std::vector<size_t> text_ends;   // bytes of raw text after each token of the answer
  const auto emit = [&](std::string_view piece) {
    reply.text += piece;
    return piece.empty() || !on_text || on_text(piece);
  };
  DecodeScheduler scheduler(chooser, sequence, options.max_tokens);
  auto stop = scheduler.run(first, [&](int32_t id) -> std::optional<StopReason> {
    ++reply.tokens;
    if (tokenizer.ends_text(id)) return StopReason::kEndOfText;
    history_.push_back(id);
    const bool wanted = emit(stream.push(tokenizer.piece(id)));
    text_ends.push_back((text_ends.empty() ? 0 : text_ends.back()) + tokenizer.piece(id).size());
    if (stream.stopped()) return StopReason::kStopString;
    return wanted ? std::nullopt : std::optional(StopReason::kCancelled);
  }, state_->cancelled);
  if (!stop) return fail(std::move(stop).error());
  reply.stop_reason = *stop;
  if (!stream.stopped()) (void)emit(stream.finish());
  if (reply.tokens > 1) reply.tokens_per_second = (reply.tokens - 1) / std::max(1e-9, seconds_since(start) - reply.first_token_seconds);
  if (reply.stop_reason == StopReason::kStopString) {
    // The conversation goes on from the text that was shown: tokens past it are forgotten.
    size_t kept = 0;
    while (kept < text_ends.size() && text_ends[kept] <= reply.text.size()) ++kept;
    history_.resize(history_.size() - (text_ends.size() - kept));
    TESSERA_TRY(sequence.truncate(std::min<int32_t>(sequence.length(), static_cast<int32_t>(history_.size()))));
  }
  return reply;
}

}  // namespace tessera
