// Reads lines from a person: libedit with history, completion and bracketed paste on a terminal.
#pragma once
#include <memory>
#include <string>
#include <vector>

namespace chat {

// $TESSERA_HISTORY ("off": none), else tessera/history in $XDG_STATE_HOME or ~/.local/state; empty: none.
std::string history_file();

class LineEditor {
 public:
  // Lines are kept in `history_file` (mode 0600; empty: nowhere). Tab completes the `words` at the beginning of a line.
  LineEditor(const char* program, std::string history_file, std::vector<std::string> words);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;

  enum class Event { kLine, kInterrupt, kEnd };   // Ctrl-C at the prompt, Ctrl-D
  struct Input {
    Event event;
    std::string line;   // without the newline at its end; pasted text may have others
  };
  Input read(const char* prompt);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace chat
