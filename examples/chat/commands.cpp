#include "commands.hpp"

#include <algorithm>

#include "files.hpp"
#include "saved.hpp"
#include "settings.hpp"
#include "words.hpp"

namespace chat {
namespace {
using tessera::cat;

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  return first == std::string_view::npos ? std::string_view() : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// The first word of `text`, which loses it.
std::string_view take_word(std::string_view& text) {
  const std::string_view word = text.substr(0, text.find_first_of(" \t"));
  text = trimmed(text.substr(word.size()));
  return word;
}

// Whether all is well; otherwise says what is not.
template <class T>
bool good(const Chat& chat, const tessera::Result<T>& result) {
  if (!result) chat.status.error(result.error().message());
  return result.has_value();
}

void help(Chat& chat, std::string_view) {
  size_t width = 0;
  for (const Command& command : commands()) width = std::max(width, command.name.size() + command.arguments.size() + 3);
  const auto row = [&](std::string what, std::string_view explanation) {
    what.resize(width, ' ');
    chat.status.say(what + std::string(explanation), width);
  };
  for (const Command& command : commands()) row(cat(command.name, " ", command.arguments), command.help);
  row("//TEXT", "a message that begins with a slash");
  row("\"\"\"", "begins and ends a message of several lines; pasted lines stay together as they are");
  row("Ctrl-C", "ends an answer; twice at the prompt it leaves, as Ctrl-D does");
}

void clear(Chat& chat, std::string_view) {
  if (good(chat, chat.session.clear())) chat.status.line("the conversation is forgotten");
}

void undo(Chat& chat, std::string_view) {
  const auto question = chat.session.undo();
  if (good(chat, question)) chat.status.line(cat("taken back: ", harmless(*question)));
}

void regenerate(Chat& chat, std::string_view) { ask_again(chat); }

void system(Chat& chat, std::string_view text) {
  const auto& messages = chat.session.messages();
  const bool has = !messages.empty() && messages.front().role == "system";
  if (text.empty()) return chat.status.say(has ? harmless(messages.front().content) : "no system message");
  if (good(chat, chat.session.set_system(text == "-" ? std::string() : std::string(text))))
    chat.status.line(text == "-" ? "the system message is gone" : "the system message is set; the conversation stays");
}

void show_settings(const Chat& chat) {
  for (const Setting& setting : settings()) {
    std::string line = cat(setting.key, " ", setting.text(chat.generate));
    line.resize(std::max<size_t>(line.size() + 2, 26), ' ');
    chat.status.say(line + std::string(setting.help), 26);
  }
  chat.status.say(cat("order: ", chain_text(chat.generate.sampler)), 7);
}

void set_option(Chat& chat, std::string_view argument) {
  if (argument.empty()) return show_settings(chat);
  const std::string_view key = take_word(argument);
  tessera::GenerateOptions changed = chat.generate;
  if (!good(chat, set(changed, key, argument)) || !good(chat, changed.validate(chat.model.config().vocab_size))) return;
  chat.generate = std::move(changed);
  chat.status.line(cat("order: ", chain_text(chat.generate.sampler)));
}

void ask_file(Chat& chat, std::string_view path) {
  const auto text = read_text_file(expand_home(path));
  if (good(chat, text)) ask(chat, *text);
}

void save(Chat& chat, std::string_view argument) {
  const bool replace = argument == "--force" || argument.starts_with("--force ");
  if (replace) (void)take_word(argument);
  const std::string path = argument.empty() ? chat.saved_as : expand_home(argument);
  if (path.empty()) return chat.status.error("/save needs the name of a file");
  const SavedChat saved{chat.model.config().name, chat.generate, chat.session.messages()};
  if (!good(chat, save_chat(path, saved, replace || path == chat.saved_as))) return;
  chat.saved_as = path;
  chat.status.line(cat("saved ", saved.messages.size(), " messages in ", path));
}

void load(Chat& chat, std::string_view argument) {
  const std::string path = expand_home(argument);
  auto saved = load_chat(path);
  if (!good(chat, saved) || !good(chat, saved->generate.validate(chat.model.config().vocab_size))) return;
  const size_t count = saved->messages.size();
  if (!good(chat, chat.session.set_messages(std::move(saved->messages)))) return;
  chat.generate = std::move(saved->generate);
  chat.saved_as = path;
  if (saved->model != chat.model.config().name) chat.status.line(cat("this conversation was had with ", tessera::escaped(saved->model)));
  chat.status.line(cat(count, " messages, ", chat.session.context_used(), " tokens; they are read with the next question"));
}

void tokens(Chat& chat, std::string_view text) {
  if (text.empty()) return chat.status.say(cat("context ", chat.session.context_used(), " of ", chat.model.context_tokens(), " tokens, ", chat.session.messages().size(), " messages"));
  if (!good(chat, chat.model.tokenizer())) return;
  const std::vector<int32_t> ids = chat.model.tokenizer()->encode(text, false);
  std::string line = cat(ids.size(), ids.size() == 1 ? " token:" : " tokens:");
  for (const int32_t id : ids) line += cat(" ", id, " '", tessera::escaped(chat.model.tokenizer()->piece(id)), "'");
  chat.status.say(line, 2);
}

void stats(Chat& chat, std::string_view) { chat.status.say(facts(chat), 10); }
void leave(Chat& chat, std::string_view) { chat.leave = true; }

constexpr Command kCommands[] = {
    {"/help", "", "this list", help},
    {"/regen", "", "another answer to the last question", regenerate},
    {"/undo", "", "take back the last question and its answer", undo},
    {"/clear", "", "forget the conversation; the system message stays", clear},
    {"/system", "[TEXT]", "show the system message, or set it (-: none)", system},
    {"/set", "[KEY VALUE]", "show how answers are made, or change it", set_option},
    {"/file", "PATH", "ask what a file holds", ask_file},
    {"/save", "[--force] [FILE]", "keep messages and settings in a file; --force replaces another file", save},
    {"/load", "FILE", "go on with a saved conversation", load},
    {"/tokens", "[TEXT]", "tokens of the conversation, or those of a text", tokens},
    {"/stats", "", "model, device, memory, context, sampler", stats},
    {"/exit", "", "leave (Ctrl-D too)", leave},
};
}  // namespace

std::span<const Command> commands() { return kCommands; }

std::vector<std::string> command_names() {
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.emplace_back(command.name);
  return names;
}

bool is_command(std::string_view line) { return line.starts_with('/') && !line.starts_with("//") && line.find('\n') == std::string_view::npos; }

void run_command(Chat& chat, std::string_view line) {
  std::string_view argument = trimmed(line);
  const std::string_view name = take_word(argument);
  for (const Command& command : kCommands) {
    if (command.name != name) continue;
    if (argument.empty() && !command.arguments.empty() && !command.arguments.starts_with('[')) return chat.status.error(cat(name, " needs ", command.arguments, ": ", command.help));
    if (!argument.empty() && command.arguments.empty()) return chat.status.error(cat(name, " takes no arguments: ", command.help));
    return command.run(chat, argument);
  }
  chat.status.error(cat("unknown command ", harmless(name), did_you_mean(name, command_names()), "; /help lists the commands. A message that begins with a slash has two"));
}

}  // namespace chat
