// Reads lines from a person: libedit with history on a terminal.
#pragma once
#include <memory>
#include <optional>
#include <string>

namespace chat {

class LineEditor {
 public:
  explicit LineEditor(const char* program);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;

  enum class Event { kLine, kInterrupt, kEnd };   // Ctrl-C at the prompt, Ctrl-D
  struct Input {
    Event event;
    std::string line;   // without the newline
  };
  Input read();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace chat
