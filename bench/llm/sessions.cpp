// How much several answers at once give: S sessions together, one alone and a prompt's chunk of 8 tokens, by turns; and how many steps a submission pays for.
#include <chrono>
#include <cstdio>
#include <memory>
#include <vector>

#include "commands.hpp"
#include "samples.hpp"

namespace tessera::bench {
namespace {

using Clock = std::chrono::steady_clock;

// tok/s of `count` answers of `tokens` tokens together, their prompts run before.
Result<double> answers(const Model& model, const SessionsOptions& options, int32_t count, int32_t steps) {
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<std::unique_ptr<Request>> requests;
  std::vector<Request*> all;
  for (int32_t i = 0; i < count; ++i) {
    sequences.push_back(std::make_unique<Sequence>(model.runtime()));
    const std::vector<int32_t> prompt = prompt_of(model.config(), options.prompt, i);
    TESSERA_TRY(sequences.back()->append(prompt));
    auto request = std::make_unique<Request>();
    request->sequence = sequences.back()->id();
    request->tokens = prompt;
    request->tokens.push_back(prompt.front());
    request->begin = sequences.back()->length();
    request->remaining = options.tokens;
    request->steps_at_once = steps;
    request->sampler = options.sampler;
    request->on_token = [](const SampledToken&) -> std::optional<StopReason> { return std::nullopt; };
    all.push_back(request.get());
    requests.push_back(std::move(request));
  }
  const auto start = Clock::now();
  model.engine().run(all, [] {}, [] {});
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  for (const Request* request : all)
    if (!*request->outcome) return fail(request->outcome->error());
  return count * options.tokens / seconds;
}

// tok/s of a prompt in chunks of 8 tokens behind one of options.prompt.
Result<double> chunks(const Model& model, const SessionsOptions& options) {
  Sequence sequence(model.runtime());
  TESSERA_TRY(sequence.append(prompt_of(model.config(), options.prompt, 1)));
  const std::vector<int32_t> chunk = prompt_of(model.config(), 8, 2);
  const auto start = Clock::now();
  for (int32_t at = 0; at < options.tokens; at += 8) TESSERA_TRY(sequence.append(chunk));
  return (options.tokens + 7) / 8 * 8 / std::chrono::duration<double>(Clock::now() - start).count();
}

void line(const char* what, const Samples& rates, const Samples& base) {
  std::vector<double> ratios;
  for (size_t i = 0; i < rates.values.size(); ++i) ratios.push_back(rates.values[i] / base.values[i]);
  const Samples ratio{ratios};
  std::printf("%-36s %8.1f tok/s (%.1f to %.1f)   × %.2f (%.2f to %.2f)\n", what, rates.median(), rates.least(), rates.greatest(), ratio.median(), ratio.least(), ratio.greatest());
}

}  // namespace

Status run_sessions(const SessionsOptions& options) {
  TESSERA_ASSIGN(Device device, Device::open(options.device));
  const int64_t room = (options.prompt + options.tokens + kPageTokens) * options.sessions;
  TESSERA_ASSIGN(const ModelFile file, ModelFile::open(options.model));
  if (room > file.config().context_length) return fail(ErrorCode::kLimit, cat("the pool would need ", room, " tokens; the model was trained for ", file.config().context_length, ": fewer sessions or tokens"));
  TESSERA_ASSIGN(const Model model, Model::load(options.model, device, {.context_tokens = static_cast<int32_t>(room), .prefix_cache = false}));
  Samples one, together, chunk;
  std::vector<std::pair<int32_t, Samples>> steps;
  for (const int32_t n : {1, 2, 4}) steps.emplace_back(n, Samples());
  for (int32_t round = -1; round < options.rounds; ++round) {   // the first round is to warm up
    const auto keep = [round](Samples& rates, Result<double> rate) -> Status {
      if (!rate) return fail(std::move(rate).error());
      if (round >= 0) rates.values.push_back(*rate);
      return {};
    };
    TESSERA_TRY(keep(one, answers(model, options, 1, kStepsAtOnce)));
    TESSERA_TRY(keep(together, answers(model, options, options.sessions, kStepsAtOnce)));
    TESSERA_TRY(keep(chunk, chunks(model, options)));
    for (auto& [n, rates] : steps) TESSERA_TRY(keep(rates, answers(model, options, 1, n)));
  }
  std::printf("%s on %s; prompts of %d tokens, answers of %d; medians of %d rounds by turns (least to greatest), × one session\n", file.config().name.c_str(), device.info().name.c_str(),
              options.prompt, options.tokens, options.rounds);
  line("one session, 8 steps a submission", one, one);
  line(cat(options.sessions, " sessions together").c_str(), together, one);
  line("a prompt in chunks of 8 tokens", chunk, one);
  line(cat(options.sessions, " sessions ÷ chunks of 8").c_str(), together, chunk);
  for (const auto& [n, rates] : steps) line(cat("one session, ", n, n == 1 ? " step" : " steps", " a submission").c_str(), rates, one);
  return {};
}

}  // namespace tessera::bench
