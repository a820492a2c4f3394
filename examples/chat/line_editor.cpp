#include "line_editor.hpp"

#include <histedit.h>

#include <clocale>
#include <cstdio>

namespace chat {

struct LineEditor::State {
  EditLine* editor = nullptr;
  History* history = nullptr;
  HistEvent event{};
  bool interrupted = false;   // Ctrl-C ended the line
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
  // While a line is edited Ctrl-C is a key: libedit waits on when a signal interrupts its read.
  el_set(state_->editor, EL_SETTY, "-d", "-isig", nullptr);
  el_set(state_->editor, EL_CLIENTDATA, state_.get());
  el_set(state_->editor, EL_ADDFN, "give-up-line", "leave the line unread", +[](EditLine* editor, int) -> unsigned char {
    State* state = nullptr;
    el_get(editor, EL_CLIENTDATA, &state);
    state->interrupted = true;
    return CC_EOF;
  });
  el_set(state_->editor, EL_BIND, "^C", "give-up-line", nullptr);
  el_source(state_->editor, nullptr);
}

LineEditor::~LineEditor() {
  el_end(state_->editor);
  history_end(state_->history);
}

LineEditor::Input LineEditor::read() {
  int count = 0;
  state_->interrupted = false;
  el_set(state_->editor, EL_PREP_TERM, 1);   // el_gets would show the prompt first: a Ctrl-C in between would be a signal, not a key
  const char* text = el_gets(state_->editor, &count);
  if (state_->interrupted) {
    el_reset(state_->editor);
    return {Event::kInterrupt, {}};
  }
  if (text == nullptr || count <= 0) return {Event::kEnd, {}};
  std::string line(text, static_cast<size_t>(count));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  if (!line.empty()) history(state_->history, &state_->event, H_ENTER, line.c_str());
  return {Event::kLine, std::move(line)};
}

}  // namespace chat
