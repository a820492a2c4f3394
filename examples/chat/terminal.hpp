// What the chat program knows about the terminal: is it one, how wide, colours, a progress line on standard error.
#pragma once
#include <string>
#include <string_view>

#include "tessera/engine/options.hpp"

namespace chat {

bool input_is_terminal();
bool output_is_terminal();

// Text about the conversation on standard error, wrapped to the terminal's width: dim where colour is allowed.
class Status {
 public:
  enum class Level { kQuiet, kNormal, kVerbose };

  Status(Level level, bool colour);
  void line(std::string_view text) const;      // nothing when quiet
  void detail(std::string_view text) const;    // only when verbose
  // What a person asked for: also when quiet. Lines that go on are indented.
  void say(std::string_view text, size_t indent = 0) const;
  void warning(std::string_view text) const;
  void error(std::string_view message) const;
  // One line that is redrawn and, when the stage is done, erased. Written only to a terminal.
  void progress(const tessera::Progress& progress);

 private:
  Level level_;
  bool colour_;
  bool terminal_;
  int last_percent_ = -1;
};

// Text of a model as a terminal may be given it: without control characters but newline and tab, so that no answer moves the cursor,
// renames the window or answers in the person's stead.
std::string harmless(std::string_view text);

}  // namespace chat
