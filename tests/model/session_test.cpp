// Sessions on a tiny model: what a turn runs, how answers end, what stays after errors and cancellation, and bad options.
#include <stdexcept>
#include <thread>

#include "model_fixture.hpp"

namespace tessera::test {
namespace {

class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    TESSERA_NEEDS_DEVICE(shared_device());
  }
};

TEST_F(SessionTest, TextStreamsAndEqualsTheReply) {
  Session session(*tiny_model());
  std::string streamed;
  const auto reply = session.reply("hello", {.max_tokens = 20}, [&](std::string_view text) {
    streamed += text;
    return true;
  });
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_EQ(streamed, reply->text);
  EXPECT_EQ(session.messages().back().content, reply->text);
  EXPECT_LE(reply->tokens, 20);
}

TEST_F(SessionTest, TheNextTurnRunsOnlyItsNewTokens) {
  Session session(*tiny_model());
  const auto first = session.reply("a long first question, to be run only once", {.max_tokens = 8});
  ASSERT_TRUE(first);
  const int32_t used = session.context_used();
  const uint64_t dispatches = tiny_model()->runtime()->counters().dispatches;
  const auto second = session.reply("b", {.max_tokens = 1});
  ASSERT_TRUE(second);
  EXPECT_GT(tiny_model()->runtime()->counters().dispatches, dispatches);
  // What is new: the end of the first answer's turn, "b" in its scaffold, and at most one token chosen but not yet run.
  EXPECT_LE(second->prompt_tokens, session.context_used() - used + 1);
  EXPECT_LT(second->prompt_tokens, first->prompt_tokens);
}

TEST_F(SessionTest, AConversationEqualsItsPromptRunAtOnce) {
  Session session(*tiny_model());
  const auto first = session.reply("one", {.max_tokens = 6});
  ASSERT_TRUE(first);
  const auto second = session.reply("two", {.max_tokens = 6});
  ASSERT_TRUE(second);
  // The same two turns in another session, whose cache begins empty, give the same text.
  Session other(*tiny_model());
  ASSERT_EQ(other.reply("one", {.max_tokens = 6})->text, first->text);
  EXPECT_EQ(other.reply("two", {.max_tokens = 6})->text, second->text);
}

TEST_F(SessionTest, SameSeedSameText) {
  const GenerateOptions options{.max_tokens = 16, .sampler = {.temperature = 1.0f, .top_k = 50, .seed = 7}};
  const auto answer = [&](const GenerateOptions& o) { return Session(*tiny_model()).reply("x", o)->text; };
  EXPECT_EQ(answer(options), answer(options));
  GenerateOptions other = options;
  other.sampler.seed = 8;
  EXPECT_NE(answer(options), answer(other));
}

TEST_F(SessionTest, StopStringsEndTheAnswerBeforeThem) {
  const std::string whole = Session(*tiny_model()).reply("stop", {.max_tokens = 24})->text;
  const auto next_character = [&](size_t at) {
    do ++at;
    while (at < whole.size() && (static_cast<unsigned char>(whole[at]) & 0xc0) == 0x80);
    return at;
  };
  const size_t from = next_character(whole.size() / 2), to = next_character(next_character(from));
  ASSERT_LT(from, whole.size());
  const std::string stop = whole.substr(from, to - from);
  Session session(*tiny_model());
  const auto reply = session.reply("stop", {.max_tokens = 24, .stop = {"never to be seen", stop}});
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_EQ(reply->stop_reason, StopReason::kStopString);
  EXPECT_EQ(reply->text, whole.substr(0, whole.find(stop)));
  EXPECT_TRUE(session.reply("go on", {.max_tokens = 2}));
}

TEST_F(SessionTest, ACallbackCanEndTheAnswer) {
  Session session(*tiny_model());
  const auto reply = session.reply("x", {.max_tokens = 50}, [](std::string_view) { return false; });
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->stop_reason, StopReason::kCancelled);
}

TEST_F(SessionTest, AnExceptionOfTheCallbackPassesAndChangesNothing) {
  Session session(*tiny_model());
  ASSERT_TRUE(session.reply("hello", {.max_tokens = 4}));
  const int32_t used = session.context_used();
  EXPECT_THROW((void)session.reply("more", {.max_tokens = 8}, [](std::string_view) -> bool { throw std::runtime_error("of the app"); }), std::runtime_error);
  EXPECT_EQ(session.context_used(), used);
  EXPECT_EQ(session.messages().size(), 2u);
  const auto after = session.reply("more", {.max_tokens = 8});   // not kBusy
  ASSERT_TRUE(after) << after.error().message();
  Session fresh(*tiny_model());
  ASSERT_TRUE(fresh.reply("hello", {.max_tokens = 4}));
  EXPECT_EQ(after->text, fresh.reply("more", {.max_tokens = 8})->text);
}

// The pages are shared: the session that finds none fails, the one that has them goes on.
TEST_F(SessionTest, WhenPagesRunOutOnlyTheNewestRequestFails) {
  Session first(*tiny_model()), second(*tiny_model());
  ASSERT_TRUE(first.reply(std::string(200, 'q'), {.max_tokens = 2}));
  const auto refused = second.reply(std::string(150, 'r'), {.max_tokens = 2});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kOutOfMemory) << refused.error().message();
  EXPECT_TRUE(second.messages().empty());
  const auto on = first.reply("x", {.max_tokens = 2});
  ASSERT_TRUE(on) << on.error().message();
  ASSERT_TRUE(first.clear());
  EXPECT_TRUE(second.reply(std::string(150, 'r'), {.max_tokens = 2}));
}

TEST_F(SessionTest, CancelFromAnotherThreadKeepsTheSessionUsable) {
  Session session(*tiny_model());
  std::atomic<bool> began = false;
  std::thread other([&] {
    while (!began) std::this_thread::yield();
    session.cancel();
  });
  const auto reply = session.reply("x", {.max_tokens = 200}, [&](std::string_view) {
    began = true;
    return true;
  });
  began = true;
  other.join();
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_TRUE(reply->stop_reason == StopReason::kCancelled || reply->stop_reason == StopReason::kEndOfText || reply->stop_reason == StopReason::kMaxTokens || reply->stop_reason == StopReason::kContextFull);
  session.clear();
  EXPECT_EQ(session.reply("hello", {.max_tokens = 8})->text, Session(*tiny_model()).reply("hello", {.max_tokens = 8})->text);
}

TEST_F(SessionTest, TwoThreadsInOneSessionAreRefused) {
  Session session(*tiny_model());
  std::optional<ErrorCode> inner;
  const auto reply = session.reply("x", {.max_tokens = 3}, [&](std::string_view) {
    const auto second = session.reply("y");
    if (!second) inner = second.error().code();
    return true;
  });
  ASSERT_TRUE(reply);
  EXPECT_EQ(inner, ErrorCode::kBusy);
}

TEST_F(SessionTest, ManySessionsInManyThreadsAnswerAsAlone) {
  const std::string alone = Session(*tiny_float_model()).reply("hello", {.max_tokens = 8})->text;
  std::vector<std::string> answers(3);
  std::vector<std::thread> threads;
  for (std::string& answer : answers) threads.emplace_back([&answer] { answer = Session(*tiny_float_model()).reply("hello", {.max_tokens = 8})->text; });
  for (std::thread& thread : threads) thread.join();
  for (const std::string& answer : answers) EXPECT_EQ(answer, alone);
}

TEST_F(SessionTest, AFullContextIsAnOutcomeAndATurnTooLongAnError) {
  Session session(*tiny_model());
  const auto too_long = session.reply(std::string(4000, 'q'));
  ASSERT_FALSE(too_long);
  EXPECT_EQ(too_long.error().code(), ErrorCode::kContextFull);
  EXPECT_NE(too_long.error().message().find("256"), std::string::npos) << too_long.error().message();
  EXPECT_TRUE(session.messages().empty());
  const auto reply = session.reply("x", {.max_tokens = 100000});   // nothing went wrong before: the session is as new
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_TRUE(reply->stop_reason == StopReason::kContextFull || reply->stop_reason == StopReason::kEndOfText);
  EXPECT_LE(session.context_used(), 257);
}

TEST_F(SessionTest, AConversationRollsOnPastAFullContext) {
  Session session(*tiny_model(), {.system = "be brief"});
  GenerateOptions options{.max_tokens = 100, .sampler = {.temperature = 0.9f, .seed = 2}, .log_probabilities = true, .sinks = 16};
  options.sampler.logit_bias = never_ending(*tiny_model());
  for (int turn = 0; turn < 6; ++turn) {
    const auto reply = session.reply(cat("question ", turn), options);
    ASSERT_TRUE(reply) << reply.error().message();
    EXPECT_EQ(reply->stop_reason, StopReason::kMaxTokens);
    EXPECT_EQ(reply->tokens, 100);
    EXPECT_EQ(reply->log_probabilities.size(), 100u);
    EXPECT_TRUE(std::ranges::all_of(reply->log_probabilities, [](float value) { return value < 0.0f && value > -100.0f; }));
    EXPECT_LE(session.context_used(), 257);
  }
  EXPECT_EQ(session.messages().size(), 13u);
  EXPECT_TRUE(session.undo());   // what it goes back to is still there
}

// --- undo, another answer, another conversation -------------------------------------------------------------------------------------

const GenerateOptions kDrawn{.max_tokens = 8, .sampler = {.temperature = 1.0f, .top_k = 50, .seed = 7}};

TEST_F(SessionTest, UndoTakesBackOneExchangeAndRunsNothingAgain) {
  Session session(*tiny_model(), {.system = "be brief"});
  ASSERT_TRUE(session.reply("a first question", kDrawn));
  const std::vector<ChatMessage> before = session.messages();
  const int32_t used = session.context_used();
  const auto second = session.reply("a second one", kDrawn);
  ASSERT_TRUE(second);
  PagedCache& cache = tiny_model()->runtime()->cache();
  const auto question = session.undo();
  ASSERT_TRUE(question) << question.error().message();
  EXPECT_EQ(*question, "a second one");
  EXPECT_EQ(session.messages().size(), before.size());
  EXPECT_EQ(session.context_used(), used);
  EXPECT_EQ(cache.statistics().live_pages, cache.pages_for(used)) << "the pages of what was undone come back";
  const auto again = session.reply("a second one", kDrawn);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->text, second->text) << "same seed, same place, same text";
  EXPECT_LE(again->prompt_tokens, second->prompt_tokens);
  ASSERT_TRUE(session.undo());
  ASSERT_TRUE(session.undo());
  EXPECT_EQ(session.messages().size(), 1u);   // the system message
  EXPECT_EQ(cache.statistics().live_pages, 0);
  const auto nothing = session.undo();
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().code(), ErrorCode::kNotFound);
}

TEST_F(SessionTest, RegenerateRunsOneTokenOfThePromptAndDrawsAnew) {
  Session session(*tiny_float_model());   // that token ran among others before, and runs alone now
  EXPECT_EQ(session.regenerate(kDrawn).error().code(), ErrorCode::kNotFound);
  ASSERT_TRUE(session.reply("one", kDrawn));
  const auto first = session.reply("two", kDrawn);
  ASSERT_TRUE(first);
  const auto same = session.regenerate(kDrawn);
  ASSERT_TRUE(same) << same.error().message();
  EXPECT_EQ(same->text, first->text);
  EXPECT_EQ(same->prompt_tokens, 1);
  GenerateOptions other = kDrawn;
  other.sampler.attempt = 1;
  const auto different = session.regenerate(other);
  ASSERT_TRUE(different);
  EXPECT_NE(different->text, first->text);
  EXPECT_EQ(session.messages().size(), 4u);
  EXPECT_EQ(session.messages().back().content, different->text);
  EXPECT_EQ(session.messages()[2].content, "two");
}

TEST_F(SessionTest, ARefusedRegenerationKeepsTheAnswer) {
  Session session(*tiny_model());
  const auto first = session.reply("one", kDrawn);
  ASSERT_TRUE(first);
  GenerateOptions bad = kDrawn;
  bad.sampler.top_p = NAN;
  EXPECT_EQ(session.regenerate(bad).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(session.messages().back().content, first->text);
}

TEST_F(SessionTest, MessagesReadBackGoOnAsTheConversationDid) {
  Session session(*tiny_model(), {.system = "be brief"});
  ASSERT_TRUE(session.reply("one", {.max_tokens = 6}));
  ASSERT_TRUE(session.reply("two", {.max_tokens = 6}));
  Session other(*tiny_model());
  ASSERT_TRUE(other.set_messages(session.messages()));
  EXPECT_EQ(other.messages().size(), 5u);
  EXPECT_GT(other.context_used(), 0);
  // An answer's text need not have the tokens it was made of, so equality is asked of two sessions that both read it.
  Session third(*tiny_model());
  ASSERT_TRUE(third.set_messages(session.messages()));
  const auto expected = third.reply("three", {.max_tokens = 6});
  ASSERT_TRUE(expected);
  ASSERT_TRUE(other.reply("three", {.max_tokens = 3}));
  ASSERT_TRUE(other.undo());
  const auto reply = other.reply("three", {.max_tokens = 6});
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_EQ(reply->text, expected->text);
  EXPECT_LT(reply->prompt_tokens, expected->prompt_tokens) << "what was read is in the cache";
}

TEST_F(SessionTest, ConversationsOutOfOrderAreRefusedAndChangeNothing) {
  Session session(*tiny_model());
  ASSERT_TRUE(session.reply("one", {.max_tokens = 2}));
  const int32_t used = session.context_used();
  using Messages = std::vector<ChatMessage>;
  for (const Messages& bad : {Messages{{"assistant", "x"}}, Messages{{"user", "x"}}, Messages{{"user", "x"}, {"user", "y"}}, Messages{{"user", "x"}, {"assistant", "y"}, {"system", "z"}},
                              Messages{{"system", "x"}, {"system", "y"}}, Messages{{"user", "x"}, {"assistant", "y"}, {"user", "z"}}, Messages{{"", ""}}})
    EXPECT_EQ(session.set_messages(bad).error().code(), ErrorCode::kInvalidArgument) << bad.size();
  const auto too_long = session.set_messages({{"user", std::string(4000, 'q')}, {"assistant", "y"}});
  ASSERT_FALSE(too_long);
  EXPECT_EQ(too_long.error().code(), ErrorCode::kContextFull);
  EXPECT_EQ(session.messages().size(), 2u);
  EXPECT_EQ(session.context_used(), used);
}

TEST_F(SessionTest, AnotherSystemMessageKeepsTheConversation) {
  Session session(*tiny_model());
  ASSERT_TRUE(session.reply("one", {.max_tokens = 4}));
  ASSERT_TRUE(session.set_system("be brief"));
  ASSERT_EQ(session.messages().size(), 3u);
  EXPECT_EQ(session.messages()[0].content, "be brief");
  EXPECT_TRUE(session.reply("two", {.max_tokens = 4}));
  ASSERT_TRUE(session.clear());
  EXPECT_EQ(session.messages().size(), 1u);
  ASSERT_TRUE(session.set_system(""));
  EXPECT_TRUE(session.messages().empty());
}

// A template that shows only the last question: each turn rewrites the prompt, and undo must find the tokens of the turn before.
TEST_F(SessionTest, ATemplateThatRewritesWhatWasSaidIsFollowed) {
  Model model = *tiny_model();
  const auto short_memory = ChatTemplate::create("{% for message in messages %}{% if loop.last %}{{ 'Q: ' + message['content'] + ' A: ' }}{% endif %}{% endfor %}");
  ASSERT_TRUE(short_memory) << short_memory.error().message();
  model.set_chat_template(*short_memory);
  {
    Session session(model);
    ASSERT_TRUE(session.reply("one", kDrawn));
    const auto two = session.reply("two", kDrawn);
    ASSERT_TRUE(two);
    ASSERT_TRUE(session.reply("three", kDrawn));
    ASSERT_TRUE(session.undo());
    const auto same = session.regenerate(kDrawn);
    ASSERT_TRUE(same);
    EXPECT_EQ(same->text, two->text);
    EXPECT_EQ(session.messages().size(), 4u);
  }
  model.set_chat_template(*ChatTemplate::named("chatml"));   // the model is shared by the tests
}

TEST_F(SessionTest, NothingChangesAConversationThatIsBeingAnswered) {
  Session session(*tiny_model());
  const auto reply = session.reply("x", {.max_tokens = 3}, [&](std::string_view) {
    EXPECT_EQ(session.clear().error().code(), ErrorCode::kBusy);
    EXPECT_EQ(session.undo().error().code(), ErrorCode::kBusy);
    EXPECT_EQ(session.set_system("y").error().code(), ErrorCode::kBusy);
    EXPECT_EQ(session.set_messages({}).error().code(), ErrorCode::kBusy);
    return true;
  });
  ASSERT_TRUE(reply);
  EXPECT_EQ(session.messages().size(), 2u);
}

TEST_F(SessionTest, GreedyWithPenaltiesIsChosenOnTheDeviceAndOnTheHost) {
  const std::string plain = Session(*tiny_model()).reply("x", {.max_tokens = 24})->text;
  // Neutral values take the device's way; a window of nothing too.
  EXPECT_EQ(Session(*tiny_model()).reply("x", {.max_tokens = 24, .sampler = {.repetition_penalty = 5.0f, .repeat_last_n = 0}})->text, plain);
  EXPECT_EQ(Session(*tiny_model()).reply("x", {.max_tokens = 24, .sampler = {.logit_bias = {{0, 0.0f}}}})->text, plain) << "the host's choice is the device's";
  const auto varied = Session(*tiny_model()).reply("x", {.max_tokens = 24, .sampler = {.presence_penalty = 100.0f, .repeat_last_n = -1}});
  ASSERT_TRUE(varied);
  EXPECT_NE(varied->text, plain);
  // Within the window that the device knows (the conversation is shorter): the same text from both.
  const auto on_device = Session(*tiny_model()).reply("x", {.max_tokens = 24, .sampler = {.presence_penalty = 100.0f, .repeat_last_n = 256}});
  ASSERT_TRUE(on_device);
  EXPECT_EQ(on_device->text, varied->text);
}

// Draws are named by seed and position: where they are made does not show, nor how many tokens a submission makes.
TEST_F(SessionTest, DrawsOnTheDeviceAreThoseOfTheHost) {
  for (const uint64_t seed : {1u, 2u, 3u, 4u}) {
    SamplerOptions device{.temperature = 0.8f, .top_k = 50, .top_p = 0.9f, .min_p = 0.02f, .repetition_penalty = 1.2f, .repeat_last_n = 256, .seed = seed}, host = device;
    host.repeat_last_n = -1;   // further back than the device looks, and here the same tokens
    ASSERT_TRUE(device_can_sample(device));
    ASSERT_FALSE(device_can_sample(host));
    const auto a = Session(*tiny_model()).reply("x", {.max_tokens = 40, .sampler = device}), b = Session(*tiny_model()).reply("x", {.max_tokens = 40, .sampler = host});
    ASSERT_TRUE(a && b);
    EXPECT_EQ(a->text, b->text) << "seed " << seed;
  }
}

TEST_F(SessionTest, PagesComeBack) {
  PagedCache& cache = tiny_model()->runtime()->cache();
  const int32_t live_before = cache.statistics().live_pages;
  {
    Session session(*tiny_model());
    ASSERT_TRUE(session.reply("hello", {.max_tokens = 4}));
    EXPECT_GT(cache.statistics().live_pages, live_before);
  }
  EXPECT_EQ(cache.statistics().live_pages, live_before);
}

struct BadOptions {
  const char* name;
  GenerateOptions options;
  const char* said;   // part of the message
};

class BadOptionsTest : public testing::TestWithParam<BadOptions> {};

TEST_P(BadOptionsTest, IsATypedErrorAndChangesNothing) {
  TESSERA_NEEDS_DEVICE(shared_device());
  Session session(*tiny_model());
  const auto reply = session.reply("x", GetParam().options);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(reply.error().message().find(GetParam().said), std::string::npos) << reply.error().message();
  EXPECT_TRUE(session.messages().empty());
  EXPECT_EQ(session.context_used(), 0);
}

INSTANTIATE_TEST_SUITE_P(Options, BadOptionsTest,
                         testing::Values(BadOptions{"temperature_nan", {.sampler = {.temperature = NAN}}, "temperature"}, BadOptions{"temperature_negative", {.sampler = {.temperature = -1.0f}}, "temperature"},
                                         BadOptions{"temperature_infinite", {.sampler = {.temperature = INFINITY}}, "temperature"}, BadOptions{"top_k_negative", {.sampler = {.temperature = 1.0f, .top_k = -1}}, "top_k"},
                                         BadOptions{"top_p_nan", {.sampler = {.temperature = 1.0f, .top_p = NAN}}, "top_p"},
                                         BadOptions{"bias_of_no_token", {.sampler = {.logit_bias = {{49152 * 100, 1.0f}}}}, "logit_bias"},
                                         BadOptions{"max_tokens_zero", {.max_tokens = 0}, "max_tokens"}, BadOptions{"steps_at_once_too_many", {.steps_at_once = 9}, "steps_at_once"}, BadOptions{"stop_empty", {.stop = {"a", ""}}, "stop"}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_F(SessionTest, TokensOutsideTheVocabularyNeverReachTheDevice) {
  Sequence sequence(tiny_model()->runtime());
  for (const int32_t bad : {-1, tiny_model()->config().vocab_size, INT32_MAX}) {
    const uint64_t submissions = tiny_model()->runtime()->counters().submissions;
    const auto result = sequence.append(std::vector<int32_t>{1, bad});
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(tiny_model()->runtime()->counters().submissions, submissions);
  }
  EXPECT_FALSE(sequence.append(std::vector<int32_t>{}));
  EXPECT_EQ(sequence.length(), 0);
}

}  // namespace
}  // namespace tessera::test
