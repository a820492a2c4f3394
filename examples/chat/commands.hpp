// What can be typed at the prompt besides messages. The one place that knows a command: /help, completion and suggestions come from its table.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "chat.hpp"

namespace chat {

struct Command {
  std::string_view name;        // "/save"
  std::string_view arguments;   // "FILE" must be there, "[TEXT]" may, "" there are none
  std::string_view help;
  void (*run)(Chat& chat, std::string_view argument);
};

std::span<const Command> commands();
std::vector<std::string> command_names();

// Whether a line is a command: it begins with one slash, and is one line.
bool is_command(std::string_view line);
// Runs it, or says what is wrong with it.
void run_command(Chat& chat, std::string_view line);

}  // namespace chat
