#include "line_editor.hpp"

#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace chat {

struct LineEditor::State {
  EditLine* editor = nullptr;
  History* history = nullptr;
  HistEvent event{};
  std::string history_file;
  std::vector<std::string> words;
  std::string prompt;
  bool brackets_paste = false;
  bool interrupted = false;   // Ctrl-C ended the line

  static State& of(EditLine* editor) {
    State* state = nullptr;
    el_get(editor, EL_CLIENTDATA, &state);
    return *state;
  }
  void load_history();
  void keep(const std::string& line);
};

namespace {
namespace fs = std::filesystem;

// What a terminal sends around pasted text once it was asked to (xterm's control sequences, "bracketed paste mode").
constexpr wchar_t kPasteEnd[] = L"\033[201~";

// All of it at once, line breaks included: they end no line, and nothing in it is a key.
std::wstring pasted_text(EditLine* editor) {
  std::wstring text;
  wchar_t c = 0;
  while (el_wgetc(editor, &c) == 1) {
    text += c;
    if (!text.ends_with(kPasteEnd)) continue;
    text.resize(text.size() - std::wcslen(kPasteEnd));
    break;
  }
  std::wstring kept;
  for (const wchar_t character : text) {
    if (character == L'\r') kept += L'\n';
    if (character >= L' ' || character == L'\n' || character == L'\t') kept += character;
  }
  return kept;
}

// The letters by which every word that begins with `begun` goes on; a space when there is one such word.
std::string completion(const std::vector<std::string>& words, const std::string& begun) {
  std::string common;
  int found = 0;
  for (const std::string& word : words) {
    if (!word.starts_with(begun)) continue;
    if (found++ == 0) common = word;
    size_t same = 0;
    while (same < common.size() && same < word.size() && common[same] == word[same]) ++same;
    common.resize(same);
  }
  if (found == 0) return {};
  return common.substr(begun.size()) + (found == 1 ? " " : "");
}

}  // namespace

std::string history_file() {
  if (const char* named = std::getenv("TESSERA_HISTORY"); named != nullptr && *named != '\0') return std::strcmp(named, "off") == 0 ? "" : named;
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  if (state != nullptr && *state == '/') return std::string(state) + "/tessera/history";   // the specification ignores relative ones
  return home == nullptr ? std::string() : std::string(home) + "/.local/state/tessera/history";
}

void LineEditor::State::load_history() {
  std::error_code ignored;
  if (fs::is_regular_file(history_file, ignored)) ::history(history, &event, H_LOAD, history_file.c_str());
}

LineEditor::LineEditor(const char* program, std::string history_file, std::vector<std::string> words) : state_(std::make_unique<State>()) {
  std::setlocale(LC_CTYPE, "");  // wide characters of the person's language are edited as characters
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");   // what models read and write
  State& state = *state_;
  state.history_file = std::move(history_file);
  state.words = std::move(words);
  const char* term = std::getenv("TERM");
  state.brackets_paste = term != nullptr && std::strcmp(term, "dumb") != 0;
  state.editor = el_init(program, stdin, stdout, stderr);
  state.history = history_init();
  history(state.history, &state.event, H_SETSIZE, 500);
  history(state.history, &state.event, H_SETUNIQUE, 1);
  state.load_history();
  el_set(state.editor, EL_CLIENTDATA, &state);
  el_set(state.editor, EL_PROMPT, +[](EditLine* editor) -> char* { return State::of(editor).prompt.data(); });
  el_set(state.editor, EL_EDITOR, "emacs");
  el_set(state.editor, EL_SIGNAL, 1);   // a resized window is drawn anew
  el_set(state.editor, EL_HIST, history, state.history);
  // While a line is edited Ctrl-C is a key: libedit waits on when a signal interrupts its read.
  el_set(state.editor, EL_SETTY, "-d", "-isig", nullptr);
  el_set(state.editor, EL_ADDFN, "give-up-line", "leave the line unread", +[](EditLine* editor, int) -> unsigned char {
    State::of(editor).interrupted = true;
    return CC_EOF;
  });
  el_set(state.editor, EL_BIND, "^C", "give-up-line", nullptr);
  el_set(state.editor, EL_ADDFN, "insert-paste", "insert pasted text as it is", +[](EditLine* editor, int) -> unsigned char {
    return el_winsertstr(editor, pasted_text(editor).c_str()) == 0 ? CC_REFRESH : CC_ERROR;
  });
  el_set(state.editor, EL_BIND, "\\e[200~", "insert-paste", nullptr);
  el_set(state.editor, EL_ADDFN, "complete-command", "complete the command", +[](EditLine* editor, int) -> unsigned char {
    const LineInfo* line = el_line(editor);
    const std::string more = completion(State::of(editor).words, std::string(line->buffer, line->cursor));
    if (more.empty() || line->cursor == line->buffer) return CC_REFRESH_BEEP;
    return el_insertstr(editor, more.c_str()) == 0 ? CC_REFRESH : CC_ERROR;
  });
  el_set(state.editor, EL_BIND, "^I", "complete-command", nullptr);
  el_source(state.editor, nullptr);
}

LineEditor::~LineEditor() {
  el_end(state_->editor);
  history_end(state_->history);
}

// Each line at once, so that a program that is killed loses none; by rename, so that the file is never half written nor readable to others.
void LineEditor::State::keep(const std::string& line) {
  ::history(history, &event, H_ENTER, line.c_str());
  if (history_file.empty()) return;
  std::error_code ignored;
  fs::create_directories(fs::path(history_file).parent_path(), ignored);
  std::string temporary = history_file + ".XXXXXX";
  const int descriptor = mkstemp(temporary.data());   // mode 0600
  std::FILE* file = descriptor < 0 ? nullptr : fdopen(descriptor, "w");
  if (file == nullptr) return;   // no place for it: the lines are kept in memory
  const bool written = ::history(history, &event, H_SAVE_FP, file) >= 0;
  if (std::fclose(file) != 0 || !written || std::rename(temporary.c_str(), history_file.c_str()) != 0) std::remove(temporary.c_str());
}

LineEditor::Input LineEditor::read(const char* prompt) {
  State& state = *state_;
  int count = 0;
  state.interrupted = false;
  state.prompt = prompt;
  el_set(state.editor, EL_PREP_TERM, 1);   // el_gets would show the prompt first: a Ctrl-C in between would be a signal, not a key
  el_resize(state.editor);                 // the window may have changed during the answer
  if (state.brackets_paste) std::fputs("\033[?2004h", stdout);
  const char* text = el_gets(state.editor, &count);
  if (state.brackets_paste) std::fputs("\033[?2004l", stdout);
  if (state.interrupted) {
    el_reset(state.editor);
    return {Event::kInterrupt, {}};
  }
  if (text == nullptr || count <= 0) return {Event::kEnd, {}};
  std::string line(text, static_cast<size_t>(count));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  if (!line.empty()) state.keep(line);
  return {Event::kLine, std::move(line)};
}

}  // namespace chat
