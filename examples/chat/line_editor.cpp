#include "line_editor.hpp"

#include <histedit.h>

#include <cerrno>
#include <clocale>
#include <cstdio>

namespace chat {

struct LineEditor::State {
  EditLine* editor = nullptr;
  History* history = nullptr;
  HistEvent event{};
};

LineEditor::LineEditor(const char* program) : state_(std::make_unique<State>()) {
  std::setlocale(LC_CTYPE, "");  // wide characters of the person's language are edited as characters
  state_->editor = el_init(program, stdin, stdout, stderr);
  state_->history = history_init();
  history(state_->history, &state_->event, H_SETSIZE, 500);
  el_set(state_->editor, EL_PROMPT, +[](EditLine*) -> char* {
    static char prompt[] = "> ";
    return prompt;
  });
  el_set(state_->editor, EL_EDITOR, "emacs");
  el_set(state_->editor, EL_HIST, history, state_->history);
  // The program has its own handler for Ctrl-C; libedit must give the interruption back instead of starting over.
  el_set(state_->editor, EL_SIGNAL, 0);
  el_source(state_->editor, nullptr);
}

LineEditor::~LineEditor() {
  el_end(state_->editor);
  history_end(state_->history);
}

LineEditor::Input LineEditor::read() {
  int count = 0;
  errno = 0;
  const char* text = el_gets(state_->editor, &count);
  if (text == nullptr || count <= 0) {
    if (errno == EINTR || count < 0) {
      el_set(state_->editor, EL_REFRESH);
      el_reset(state_->editor);
      return {Event::kInterrupt, {}};
    }
    return {Event::kEnd, {}};
  }
  std::string line(text, static_cast<size_t>(count));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  if (!line.empty()) history(state_->history, &state_->event, H_ENTER, line.c_str());
  return {Event::kLine, std::move(line)};
}

}  // namespace chat
