// What the chat program knows about the terminal: is it one, how wide, colours, a progress line on standard error.
#pragma once
#include <string>
#include <string_view>

#include "tessera/engine/options.hpp"

namespace chat {

bool input_is_terminal();
bool output_is_terminal();

// Status text on standard error: dim on a terminal that allows colour, nothing at all when quiet.
class Status {
 public:
  Status(bool quiet, bool colour);
  void line(std::string_view text) const;
  void warning(std::string_view text) const;
  // One line that is redrawn and, when the stage is done, erased. Written only to a terminal.
  void progress(const tessera::Progress& progress);

 private:
  bool quiet_;
  bool colour_;
  bool terminal_;
  int last_percent_ = -1;
};

// The number of --max-tokens and the like that a message shows: "128 tok · TTFT 0.31 s · …".
void print_error(std::string_view message);

}  // namespace chat
