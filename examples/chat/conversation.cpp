#include <cstdio>

#include "chat.hpp"
#include "line_editor.hpp"

namespace chat {
namespace {

bool show(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return std::fflush(stdout) == 0;  // a closed pipe ends the answer
}

void print_stats(const tessera::Session& session, const tessera::Model& model, const Status& status) {
  const tessera::MemoryPlan& m = model.memory();
  using tessera::bytes_text;
  status.line(tessera::cat("model     ", model.config().name, ", ", model.config().n_layers, " layers, width ", model.config().dim));
  status.line(tessera::cat("device    ", model.device().info().name, " (", name_of(model.device().info().api), ", driver ", model.device().info().driver_version, ")"));
  status.line(tessera::cat("memory    weights ", bytes_text(m.weights), ", KV ", bytes_text(m.kv), ", intermediates ", bytes_text(m.arena), ", other ", bytes_text(m.inputs)));
  status.line(tessera::cat("context   ", session.context_used(), " of ", model.context_tokens(), " tokens"));
}

enum class Command { kNone, kHandled, kExit };

Command run_command(const std::string& line, tessera::Session& session, const tessera::Model& model, const Status& status) {
  if (line.empty() || line[0] != '/' || line.starts_with("//")) return Command::kNone;
  if (line == "/exit" || line == "/quit") return Command::kExit;
  if (line == "/clear") {
    session.clear();
    status.line("the conversation is forgotten");
  } else if (line == "/stats") {
    print_stats(session, model, status);
  } else if (line == "/help") {
    status.line("/clear  forget the conversation\n/stats  model, device, memory, context\n/exit   leave (Ctrl-D too)\n//text  a message that begins with a slash\nCtrl-C ends an answer.");
  } else {
    print_error("unknown command " + line + "; /help lists the commands");
  }
  return Command::kHandled;
}

}  // namespace

std::string statistics(const tessera::Reply& reply, const tessera::Session& session, const tessera::Model& model) {
  char text[160];
  std::snprintf(text, sizeof text, "%d tok · TTFT %.2f s · prefill %.0f tok/s · decode %.1f tok/s · context %d/%d", reply.tokens, reply.first_token_seconds,
                reply.first_token_seconds > 0.0 ? reply.prompt_tokens / reply.first_token_seconds : 0.0, reply.tokens_per_second, session.context_used(), model.context_tokens());
  std::string line = text;
  if (reply.stop_reason != tessera::StopReason::kEndOfText) line += " · " + std::string(name_of(reply.stop_reason));
  return line + " · " + model.device().info().name;
}

int run_once(tessera::Session& session, const std::string& prompt, const Options& options, const Status& status, Interrupt& interrupt, const tessera::Model& model) {
  const auto reply = session.reply(prompt, options.generate, show);
  std::fputc('\n', stdout);
  if (!reply) {
    print_error(reply.error().message());
    return interrupt.seen() ? kExitInterrupted : kExitError;
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    print_error("writing the answer failed: is the disk full, or the reader gone?");
    return kExitError;
  }
  status.line(statistics(*reply, session, model));
  return interrupt.seen() ? kExitInterrupted : 0;
}

int run_interactive(tessera::Session& session, const Options& options, const Status& status, Interrupt& interrupt, const tessera::Model& model) {
  LineEditor editor("tessera-chat");
  status.line("/help lists the commands. Ctrl-C ends an answer, Ctrl-D leaves.");
  bool interrupted_before = false;
  for (;;) {
    interrupt.reset();
    const LineEditor::Input input = editor.read();
    if (input.event == LineEditor::Event::kEnd) {
      std::fputc('\n', stdout);
      return 0;
    }
    if (input.event == LineEditor::Event::kInterrupt) {
      std::fputc('\n', stdout);
      if (interrupted_before) return kExitInterrupted;
      interrupted_before = true;
      status.line("Ctrl-C again or /exit to leave");
      continue;
    }
    interrupted_before = false;
    if (input.line.find_first_not_of(" \t") == std::string::npos) continue;
    const Command command = run_command(input.line, session, model, status);
    if (command == Command::kExit) return 0;
    if (command == Command::kHandled) continue;
    const auto reply = session.reply(input.line.starts_with("//") ? std::string_view(input.line).substr(1) : std::string_view(input.line), options.generate, show);
    std::fputc('\n', stdout);
    std::fflush(stdout);
    if (reply) {
      status.line(statistics(*reply, session, model));
    } else if (reply.error().code() == tessera::ErrorCode::kCancelled) {
      status.line("cancelled before the answer began");
    } else {
      print_error(reply.error().message());
      if (reply.error().code() == tessera::ErrorCode::kContextFull) status.line("/clear starts a new conversation; -c gives a larger context");
    }
  }
}

}  // namespace chat
