// Session: one conversation. Its tokens stay in the KV cache, so a turn runs only what is new.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tessera/engine/answer.hpp"
#include "tessera/engine/model.hpp"
#include "tessera/engine/sequence.hpp"

namespace tessera {

struct SessionOptions {
  std::string system{};          // the system message; empty: what the template says
};

struct GenerateOptions {
  int32_t max_tokens = 512;      // ≥ 1
  SamplerOptions sampler{};      // temperature 0: greedy, on the device
  std::vector<std::string> stop{}; // the answer ends before the first of these
  // 1 to kStepsAtOnce: tokens that the device may make before the host looks at them. Fewer come more evenly; more leave the device less idle. An answer
  // that ends among them wastes the rest, and nothing shows it. Where the host chooses the tokens (device_can_sample()) it is 1.
  int32_t steps_at_once = kStepsAtOnce;
  bool log_probabilities = false;  // Reply::log_probabilities
  // 0: an answer ends when the context is full (kContextFull). Above: the conversation then goes on behind its first `sinks` tokens (the system message, say)
  // and the newest ones, half a context together; they are run again, and what fell out is forgotten for good. At most a quarter of the context counts.
  int32_t sinks = 0;

  // kInvalidArgument names what is out of range. (Stop strings are looked at when the answer begins.)
  Status validate(int64_t vocab_size = std::numeric_limits<int32_t>::max()) const {
    if (max_tokens < 1) return fail(ErrorCode::kInvalidArgument, cat("max_tokens is ", max_tokens, "; it must be at least 1"));
    if (steps_at_once < 1 || steps_at_once > kStepsAtOnce) return fail(ErrorCode::kInvalidArgument, cat("steps_at_once is ", steps_at_once, "; it must be 1 to ", kStepsAtOnce));
    if (sinks < 0) return fail(ErrorCode::kInvalidArgument, cat("sinks is ", sinks, "; it must be 0 (off) or more tokens"));
    return sampler.validate(vocab_size);
  }
};

struct Branch;   // a Session and its Reply

// One thread at a time: a call that finds another one running (also from its own on_text) gets kBusy. cancel() may be called from any thread.
// What is in the KV cache already is never run again: every turn runs the tokens behind the longest beginning that both have in common. A new
// conversation takes over the whole pages that another one, also one that is gone, began with. (A model with a sliding window does neither: what was
// taken back past the window, or given up for an error, is run again from the beginning.)
class Session {
 public:
  // Text as it becomes final: whole UTF-8 characters, never part of a stop string. Return false to end the answer.
  using OnText = Answer::OnText;

  explicit Session(Model model, SessionOptions options = {}) : model_(std::move(model)), state_(std::make_unique<State>(Sequence(model_.runtime()))) {
    if (!options.system.empty()) talk_.messages.push_back({"system", std::move(options.system)});
  }

  // Answers `text`. Errors: kUnsupported (no tokenizer or template for this model), kInvalidArgument (an option), kContextFull (the turn does
  // not fit: both numbers are in the message), kOutOfMemory (other sessions hold the pages), kCancelled (during the prompt), kBusy, and the
  // device's. On any error the conversation is as before the call; so it is when on_text throws, which passes through. An answer that was cut
  // short is a Reply with its stop_reason, and stays in the conversation.
  Result<Reply> reply(std::string_view text, const GenerateOptions& options = {}, const OnText& on_text = nullptr);

  // Answers the last question again, in place of the answer it has; of its prompt only the last token is run. The same options give the same
  // answer: another comes from another sampler.attempt (or seed). Errors as reply(), and kNotFound: nothing was asked yet.
  Result<Reply> regenerate(const GenerateOptions& options = {}, const OnText& on_text = nullptr);

  // A conversation equal to this one, going on by itself from here. They share what is in the KV cache: nothing is run and nothing is copied, but one
  // page a layer when the first of them goes on within it. kBusy.
  Result<Session> fork();

  // Answers `text` `count` times, together, each from a fork that the caller may go on with; the prompt is run once. Branch i is what reply() gives with
  // sampler.attempt + i. This conversation stays as it is. cancel() ends the answers, those that had begun as Replies that say so.
  // on_text is told whose text it gets; the branches' texts come by turns. Errors as reply(); kInvalidArgument also for count < 1 and
  // for several answers at temperature 0, which would all be one.
  using OnBranchText = std::function<bool(int32_t branch, std::string_view text)>;
  Result<std::vector<Branch>> branches(std::string_view text, int32_t count, const GenerateOptions& options = {}, const OnBranchText& on_text = nullptr);

  // Takes back the last question with its answer, gives the question, and returns their pages. kNotFound: nothing was asked yet; kBusy.
  Result<std::string> undo();

  void cancel() { state_->cancelled = true; }   // ends a running reply() within one chunk or token; no effect when none runs
  Status clear();                                // forgets the conversation; the system message stays. kBusy

  // The conversation instead of the present one: system (or none), then user and assistant in turn. Nothing is run before the next reply().
  // Errors: kInvalidArgument (another order of roles), kContextFull, kUnsupported, kBusy; the conversation is then as before.
  Status set_messages(std::vector<ChatMessage> messages);
  // Another system message (empty: none) for the conversation that there is. Errors as set_messages().
  Status set_system(std::string system);

  const std::vector<ChatMessage>& messages() const { return talk_.messages; }
  int32_t context_used() const { return static_cast<int32_t>(talk_.tokens.size()); }

 private:
  struct State {   // what a moved Session must not move: a running thread refers to it
    explicit State(Sequence tokens) : sequence(std::move(tokens)) {}
    Sequence sequence;
    std::atomic<bool> cancelled = false;
    std::atomic<bool> busy = false;
  };

  // A turn works on a copy, which takes the place of the original when all went well.
  struct Conversation {
    std::vector<ChatMessage> messages;
    std::vector<int32_t> tokens;           // all of it; the last may be chosen but not yet run
    std::vector<size_t> question_begins;   // tokens before each question; 0 as well where the template rewrote them later
  };

  Session(Model model, Sequence sequence, Conversation talk) : model_(std::move(model)), state_(std::make_unique<State>(std::move(sequence))), talk_(std::move(talk)) {}

  template <class Work>
  auto exclusively(Work work) -> decltype(work());
  Status ask(Conversation& talk, std::string question) const;
  Status read(Conversation& talk, std::vector<ChatMessage> messages) const;
  Result<std::string> take_back(Conversation& talk) const;
  Result<Reply> answer(Conversation talk, const GenerateOptions& options, const OnText& on_text);
  Result<int32_t> fit(std::vector<int32_t>& tokens, int32_t sinks) const;
  Result<std::unique_ptr<Answer>> begin(std::vector<int32_t> tokens, const GenerateOptions& options);
  Result<Reply> end(Answer& answer, Conversation talk, const OnText& on_text);
  Status check(const GenerateOptions& options) const;
  Status become(Conversation talk);

  Model model_;
  std::unique_ptr<State> state_;
  Conversation talk_;
};

template <class Work>
auto Session::exclusively(Work work) -> decltype(work()) {
  if (state_->busy.exchange(true)) return fail(ErrorCode::kBusy, "this session is answering already; use one session a thread");
  struct Release {   // also when a callback throws
    std::atomic<bool>& busy;
    ~Release() { busy = false; }
  } const release{state_->busy};
  return work();
}

inline Result<Reply> Session::reply(std::string_view text, const GenerateOptions& options, const OnText& on_text) {
  return exclusively([&]() -> Result<Reply> {
    state_->cancelled = false;
    TESSERA_TRY(check(options));
    Conversation talk = talk_;
    TESSERA_TRY(ask(talk, std::string(text)));
    return answer(std::move(talk), options, on_text);
  });
}

inline Result<Reply> Session::regenerate(const GenerateOptions& options, const OnText& on_text) {
  return exclusively([&]() -> Result<Reply> {
    state_->cancelled = false;
    TESSERA_TRY(check(options));
    Conversation talk = talk_;
    TESSERA_ASSIGN(std::string question, take_back(talk));
    TESSERA_TRY(ask(talk, std::move(question)));
    return answer(std::move(talk), options, on_text);
  });
}

inline Result<Session> Session::fork() {
  return exclusively([&]() -> Result<Session> {
    TESSERA_ASSIGN(Sequence sequence, state_->sequence.fork());
    return Session(model_, std::move(sequence), talk_);
  });
}

inline Result<std::string> Session::undo() {
  return exclusively([&]() -> Result<std::string> {
    Conversation talk = talk_;
    TESSERA_ASSIGN(std::string question, take_back(talk));
    TESSERA_TRY(become(std::move(talk)));
    return question;
  });
}

inline Status Session::clear() {
  return exclusively([&]() -> Status {
    Conversation talk;
    if (!talk_.messages.empty() && talk_.messages.front().role == "system") talk.messages.push_back(talk_.messages.front());
    return become(std::move(talk));
  });
}

inline Status Session::set_messages(std::vector<ChatMessage> messages) {
  return exclusively([&]() -> Status {
    Conversation talk;
    TESSERA_TRY(read(talk, std::move(messages)));
    return become(std::move(talk));
  });
}

inline Status Session::set_system(std::string system) {
  return exclusively([&]() -> Status {
    std::vector<ChatMessage> messages = talk_.messages;
    if (!messages.empty() && messages.front().role == "system") messages.erase(messages.begin());
    if (!system.empty()) messages.insert(messages.begin(), {"system", std::move(system)});
    Conversation talk;
    TESSERA_TRY(read(talk, std::move(messages)));
    return become(std::move(talk));
  });
}

inline Status Session::check(const GenerateOptions& options) const {
  if (!model_.tokenizer()) return fail(model_.tokenizer().error());
  if (!model_.chat_template()) return fail(model_.chat_template().error());
  return options.validate(model_.config().vocab_size);
}

// Takes the place of the present conversation; pages that it has no use for go back.
inline Status Session::become(Conversation talk) {
  talk_ = std::move(talk);
  return state_->sequence.truncate(state_->sequence.common(talk_.tokens));
}

// Adds a question, with the tokens from the end of the last answer to where the new one begins. When the template rewrites what was said
// before, all tokens are new.
inline Status Session::ask(Conversation& talk, std::string question) const {
  const ChatTemplate& chat = *model_.chat_template();
  std::string said;   // the part of the prompt that talk.tokens holds already
  if (!talk.tokens.empty()) said = chat.render_text({talk.messages.begin(), talk.messages.end() - 1}, true) + talk.messages.back().content;
  talk.messages.push_back({"user", std::move(question)});
  std::vector<PromptSegment> segments = chat.render(talk.messages, true);
  if (!chat.render_text(talk.messages, true).starts_with(said)) said.clear();
  if (said.empty()) {
    talk.tokens.clear();
    talk.question_begins.assign(talk.question_begins.size(), 0);
    talk.question_begins.push_back(0);
  } else {
    talk.question_begins.push_back(talk.tokens.size());
  }
  size_t skip = said.size();
  for (PromptSegment& segment : segments) {
    const size_t drop = std::min(skip, segment.text.size());
    segment.text.erase(0, drop);
    skip -= drop;
  }
  std::vector<int32_t> ids = model_.tokenizer()->encode(segments, !said.empty());
  if (said.empty()) model_.tokenizer()->add_bos(ids);
  talk.tokens.insert(talk.tokens.end(), ids.begin(), ids.end());
  return {};
}

// An empty conversation becomes one of `messages`, with the tokens that asking and answering would have made of their text.
inline Status Session::read(Conversation& talk, std::vector<ChatMessage> messages) const {
  size_t next = 0;
  if (!messages.empty() && messages[0].role == "system") talk.messages.push_back(std::move(messages[next++]));
  if (next < messages.size()) TESSERA_TRY(check({}));
  for (; next < messages.size(); next += 2) {
    for (size_t i = next; i < next + 2; ++i) {
      const std::string_view expected = i == next ? "user" : "assistant";
      if (i == messages.size()) return fail(ErrorCode::kInvalidArgument, "the conversation ends with a question; its last message must be an answer");
      if (messages[i].role != expected)
        return fail(ErrorCode::kInvalidArgument, cat("message ", i, " has the role '", escaped(messages[i].role), "'; expected '", expected, "'"));
    }
    TESSERA_TRY(ask(talk, std::move(messages[next].content)));
    const std::vector<int32_t> ids = model_.tokenizer()->encode(messages[next + 1].content, false);
    talk.tokens.insert(talk.tokens.end(), ids.begin(), ids.end());
    talk.messages.push_back(std::move(messages[next + 1]));
  }
  if (static_cast<int64_t>(talk.tokens.size()) > state_->sequence.capacity())
    return fail(ErrorCode::kContextFull, cat("the conversation has ", talk.tokens.size(), " tokens; the context holds ", state_->sequence.capacity()));
  return {};
}

// Removes the last question with its answer.
inline Result<std::string> Session::take_back(Conversation& talk) const {
  if (talk.question_begins.empty()) return fail(ErrorCode::kNotFound, "nothing was asked yet");
  const size_t begin = talk.question_begins.back();
  std::string question = std::move(talk.messages[talk.messages.size() - 2].content);
  talk.messages.resize(talk.messages.size() - 2);
  talk.question_begins.pop_back();
  talk.tokens.resize(begin);
  if (begin != 0 || talk.question_begins.empty()) return question;
  Conversation rewritten;   // the tokens before were other ones
  TESSERA_TRY(read(rewritten, std::move(talk.messages)));
  talk = std::move(rewritten);
  return question;
}

// Makes `tokens` fit the context, where they may roll on behind `sinks` of them; gives how many fell out.
inline Result<int32_t> Session::fit(std::vector<int32_t>& tokens, int32_t sinks) const {
  const Sequence& sequence = state_->sequence;
  if (static_cast<int64_t>(tokens.size()) <= sequence.capacity()) return 0;
  if (sinks > 0) return roll_context(tokens, sinks, sequence.capacity());
  const int32_t taken = sequence.common(tokens);
  return fail(ErrorCode::kContextFull, cat(static_cast<int32_t>(tokens.size()) - taken, " tokens do not fit: ", taken, " of the context's ", sequence.capacity(), " are taken"));
}

// The beginning of a reply to `tokens`, which the sequence keeps as much of as it can.
inline Result<std::unique_ptr<Answer>> Session::begin(std::vector<int32_t> tokens, const GenerateOptions& options) {
  Sequence& sequence = state_->sequence;
  TESSERA_ASSIGN(TextStream stream, TextStream::create(options.stop));
  const int32_t sinks = std::min(options.sinks, sequence.capacity() / 4);
  TESSERA_ASSIGN(const int32_t dropped, fit(tokens, sinks));
  TESSERA_ASSIGN(const int32_t kept, sequence.keep(tokens));
  auto answer = std::make_unique<Answer>(*model_.tokenizer(), std::move(stream), sequence.id(), std::move(tokens), kept, options.max_tokens, state_->cancelled);
  answer->request.sampler = options.sampler;
  answer->request.steps_at_once = options.steps_at_once;
  answer->request.log_probabilities = options.log_probabilities;
  answer->request.sinks = sinks;
  answer->request.dropped = dropped;
  return answer;
}

// Its end: what was said becomes part of the conversation.
inline Result<Reply> Session::end(Answer& answer, Conversation talk, const OnText& on_text) {
  Result<Reply> reply = answer.finish(on_text);
  TESSERA_TRY(state_->sequence.settle(answer.request.tokens));
  if (!reply) return reply;
  talk.tokens = std::move(answer.request.tokens);
  // Questions that moved forward, or fell out: those begin where the template would have to write all anew.
  if (answer.request.dropped > 0)
    for (size_t& begin : talk.question_begins) begin = begin > static_cast<size_t>(answer.request.dropped + answer.request.sinks) ? begin - static_cast<size_t>(answer.request.dropped) : 0;
  talk.messages.push_back({"assistant", reply->text});
  talk_ = std::move(talk);
  return reply;
}

inline Result<Reply> Session::answer(Conversation talk, const GenerateOptions& options, const OnText& on_text) {
  TESSERA_ASSIGN(const std::unique_ptr<Answer> answer, begin(std::move(talk.tokens), options));
  Request* const request = &answer->request;
  {
    struct Settle {   // also when on_text throws: the sequence knows what it holds then
      Sequence& sequence;
      const Request& request;
      ~Settle() { (void)sequence.settle(request.tokens); }
    } const settle{state_->sequence, *request};
    model_.engine().run(std::span(&request, 1), [&] { answer->look(); }, [&] { answer->deliver(on_text); });
  }
  return end(*answer, std::move(talk), on_text);
}

struct Branch {
  Session session;
  Reply reply;
};

inline Result<std::vector<Branch>> Session::branches(std::string_view text, int32_t count, const GenerateOptions& options, const OnBranchText& on_text) {
  return exclusively([&]() -> Result<std::vector<Branch>> {
    state_->cancelled = false;
    TESSERA_TRY(check(options));
    if (count < 1) return fail(ErrorCode::kInvalidArgument, cat(count, " answers were asked for; it must be at least 1"));
    if (count > 1 && options.sampler.temperature == 0) return fail(ErrorCode::kInvalidArgument, cat(count, " answers at temperature 0 would all be one: give a temperature above 0"));
    Conversation talk = talk_;
    TESSERA_TRY(ask(talk, std::string(text)));
    TESSERA_ASSIGN(const int32_t dropped, fit(talk.tokens, std::min(options.sinks, state_->sequence.capacity() / 4)));
    // The prompt is run here, but for its last token, with which each branch begins.
    TESSERA_ASSIGN(const int32_t kept, state_->sequence.keep(talk.tokens));
    const auto rest = std::span(std::as_const(talk.tokens)).first(talk.tokens.size() - 1).subspan(static_cast<size_t>(kept));
    if (!rest.empty()) TESSERA_TRY(state_->sequence.append(rest, &state_->cancelled));

    std::vector<Branch> made;
    std::vector<std::unique_ptr<Answer>> answers;
    std::vector<Request*> requests;
    std::vector<OnText> texts;
    for (int32_t i = 0; i < count; ++i) {
      TESSERA_ASSIGN(Sequence sequence, state_->sequence.fork());
      made.push_back({Session(model_, std::move(sequence), talk_), {}});
      TESSERA_ASSIGN(std::unique_ptr<Answer> answer, made.back().session.begin(talk.tokens, options));
      answer->request.sampler.attempt += static_cast<uint32_t>(i);
      answer->request.dropped += dropped;
      answer->request.cancelled = &state_->cancelled;
      requests.push_back(&answer->request);
      answers.push_back(std::move(answer));
      texts.push_back([i, &on_text](std::string_view piece) { return !on_text || on_text(i, piece); });
    }
    const auto each = [&](auto&& act) {
      for (size_t i = 0; i < answers.size(); ++i) act(*answers[i], texts[i]);
    };
    model_.engine().run(requests, [&] { each([](Answer& answer, const OnText&) { answer.look(); }); },
                        [&] { each([](Answer& answer, const OnText& on_piece) { answer.deliver(on_piece); }); });
    std::vector<Branch> ended;
    for (size_t i = 0; i < answers.size(); ++i) {
      auto reply = made[i].session.end(*answers[i], talk, texts[i]);
      if (!reply && reply.error().code() == ErrorCode::kCancelled) continue;   // before it had begun
      if (!reply) return fail(std::move(reply).error());
      ended.push_back({std::move(made[i].session), std::move(*reply)});
    }
    if (ended.empty()) return fail(ErrorCode::kCancelled, "cancelled");
    return ended;
  });
}

}  // namespace tessera
