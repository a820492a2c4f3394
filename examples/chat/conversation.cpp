#include <cstdio>

#include "chat.hpp"
#include "commands.hpp"
#include "line_editor.hpp"
#include "saved.hpp"

namespace chat {
namespace {
using tessera::bytes_text;
using tessera::cat;

constexpr std::string_view kBlockMark = "\"\"\"";

bool show(std::string_view text) {
  const std::string shown = output_is_terminal() ? harmless(text) : std::string(text);
  std::fwrite(shown.data(), 1, shown.size(), stdout);
  return std::fflush(stdout) == 0;  // a closed pipe ends the answer
}

void finish_answer(const Chat& chat, const tessera::Result<tessera::Reply>& reply) {
  std::fputc('\n', stdout);
  std::fflush(stdout);
  if (reply) return chat.status.line(statistics(*reply, chat));
  if (reply.error().code() == tessera::ErrorCode::kCancelled) return chat.status.line("cancelled before the answer began");
  chat.status.error(reply.error().message());
  if (reply.error().code() == tessera::ErrorCode::kContextFull) chat.status.line("/clear starts a new conversation, /undo takes back the last question; -c gives a larger context");
}

// What follows `"""` up to the next; nothing when Ctrl-C gave it up. Ctrl-D ends it as `"""` does.
std::optional<std::string> read_block(LineEditor& editor, std::string line) {
  std::string text;
  for (line.erase(0, kBlockMark.size());; text += '\n') {
    if (line.ends_with(kBlockMark)) return text + line.substr(0, line.size() - kBlockMark.size());
    text += line;
    LineEditor::Input input = editor.read(". ");
    if (input.event == LineEditor::Event::kInterrupt) return std::nullopt;
    if (input.event == LineEditor::Event::kEnd) return text;
    line = std::move(input.line);
  }
}

void handle_line(Chat& chat, LineEditor& editor, const std::string& line) {
  if (is_command(line)) return run_command(chat, line);
  if (!line.starts_with(kBlockMark)) return ask(chat, line.starts_with("//") ? std::string_view(line).substr(1) : std::string_view(line));
  const std::optional<std::string> block = read_block(editor, line);
  if (!block) {
    std::fputc('\n', stdout);
    return chat.status.line("the message is dropped");
  }
  if (block->find_first_not_of(" \t\n") != std::string::npos) ask(chat, *block);
}

}  // namespace

std::string facts(const Chat& chat) {
  const tessera::Model& model = chat.model;
  const tessera::MemoryPlan& m = model.memory();
  const tessera::PagedCacheStatistics cached = model.runtime()->cache().statistics();
  return cat("model     ", model.config().name, ", ", model.config().n_layers, " layers, width ", model.config().dim,
             "\ndevice    ", model.device().info().name, " (", name_of(model.device().info().api), ", driver ", model.device().info().driver_version, ")",
             "\nmemory    weights ", bytes_text(m.weights), ", KV ", bytes_text(m.kv), ", intermediates ", bytes_text(m.arena), ", other ", bytes_text(m.inputs),
             "\ncontext   ", chat.session.context_used(), " of ", model.context_tokens(), " tokens",
             "\nprefixes  ", cached.prefix_cache.tokens_hit, " of ", cached.prefix_cache.tokens_looked_up, " prompt tokens taken over from earlier conversations, ", cached.cached_pages, " pages kept",
             "\nsampler   ", chain_text(chat.generate.sampler));
}

std::string statistics(const tessera::Reply& reply, const Chat& chat) {
  char text[160];
  std::snprintf(text, sizeof text, "%d tok · TTFT %.2f s · prefill %.0f tok/s · decode %.1f tok/s · context %d/%d", reply.tokens, reply.first_token_seconds,
                reply.first_token_seconds > 0.0 ? reply.prompt_tokens / reply.first_token_seconds : 0.0, reply.tokens_per_second, chat.session.context_used(), chat.model.context_tokens());
  std::string line = text;
  if (reply.stop_reason != tessera::StopReason::kEndOfText) line += " · " + std::string(name_of(reply.stop_reason));
  return line + " · " + chat.model.device().info().name;
}

// Whether all that was printed got where it was to go; says so if not.
bool written(const Chat& chat) {
  const bool done = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (!done) chat.status.error("writing the answer failed: is the disk full, or the reader gone?");
  return done;
}

int run_once(Chat& chat, const std::string& prompt, bool as_json) {
  const auto reply = chat.session.reply(prompt, chat.generate, as_json ? tessera::Session::OnText() : show);
  if (as_json) std::fputs((reply ? reply_json(*reply, chat.model, chat.generate) : error_json(reply.error())).c_str(), stdout);
  std::fputc('\n', stdout);
  if (!reply) {
    chat.status.error(reply.error().message());
    return chat.interrupt.seen() ? kExitInterrupted : kExitError;
  }
  if (!written(chat)) return kExitError;
  chat.status.line(statistics(*reply, chat));
  return chat.interrupt.seen() ? kExitInterrupted : 0;
}

int run_several(Chat& chat, const std::string& prompt, int32_t count, bool as_json) {
  const auto heading = [count](size_t number) { std::printf("%s--- %zu of %d ---\n", number == 1 ? "" : "\n", number, count); };
  // They are made together: the first is shown while it comes, the others when they are done.
  const auto show_first = [](int32_t branch, std::string_view text) { return branch != 0 || show(text); };
  if (!as_json) heading(1);
  auto branches = chat.session.branches(prompt, count, chat.generate, as_json ? tessera::Session::OnBranchText() : show_first);
  if (!branches) {
    if (as_json) std::puts(error_json(branches.error()).c_str());
    chat.status.error(branches.error().message());
    if (branches.error().code() == tessera::ErrorCode::kInvalidArgument) return kExitUsage;
    return chat.interrupt.seen() ? kExitInterrupted : kExitError;
  }
  tessera::GenerateOptions generate = chat.generate;
  for (const tessera::Branch& branch : *branches) {
    if (as_json) std::puts(reply_json(branch.reply, chat.model, generate).c_str());
    ++generate.sampler.attempt;
  }
  for (size_t i = 1; !as_json && i < branches->size(); ++i) {
    heading(i + 1);
    (void)show((*branches)[i].reply.text);
  }
  if (!as_json) std::fputc('\n', stdout);
  if (!written(chat)) return kExitError;
  for (tessera::Branch& branch : *branches) chat.status.line(statistics(branch.reply, Chat{chat.model, branch.session, chat.generate, chat.status, chat.interrupt}));
  return chat.interrupt.seen() ? kExitInterrupted : 0;
}

void ask(Chat& chat, std::string_view text) {
  chat.generate.sampler.attempt = 0;
  finish_answer(chat, chat.session.reply(text, chat.generate, show));
}

// The n-th other answer is the n-th attempt of the seed: a conversation can be had again from its seed and what was typed.
void ask_again(Chat& chat) {
  if (chat.generate.sampler.temperature == 0) chat.status.line("temperature 0 gives the same answer again; /set temperature 0.8 draws another");
  ++chat.generate.sampler.attempt;
  finish_answer(chat, chat.session.regenerate(chat.generate, show));
}

int run_interactive(Chat& chat) {
  LineEditor editor("tessera-chat", history_file(), command_names());
  chat.status.line("/help lists the commands. Ctrl-C ends an answer, Ctrl-D leaves.");
  bool interrupted_before = false;
  while (!chat.leave) {
    chat.interrupt.reset();
    LineEditor::Input input = editor.read("> ");
    if (input.event == LineEditor::Event::kEnd && chat.interrupt.seen()) input.event = LineEditor::Event::kInterrupt;   // a signal from elsewhere
    if (input.event == LineEditor::Event::kLine) {
      interrupted_before = false;
      if (input.line.find_first_not_of(" \t\n") != std::string::npos) handle_line(chat, editor, input.line);
      continue;
    }
    std::fputc('\n', stdout);
    if (input.event == LineEditor::Event::kEnd) return 0;
    if (interrupted_before) return kExitInterrupted;
    interrupted_before = true;
    chat.status.say("Ctrl-C again or /exit to leave");
  }
  return 0;
}

}  // namespace chat
