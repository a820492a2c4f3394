#include "terminal.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tessera/base/text.hpp"
#include "words.hpp"

namespace chat {
namespace {

size_t columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

bool input_is_terminal() { return isatty(STDIN_FILENO) != 0; }
bool output_is_terminal() { return isatty(STDOUT_FILENO) != 0; }

// https://no-color.org: any non-empty value switches colour off.
Status::Status(Level level, bool colour) : level_(level), terminal_(isatty(STDERR_FILENO) != 0) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  const bool dumb = term == nullptr || std::strcmp(term, "dumb") == 0;
  colour_ = colour && terminal_ && !dumb && (no_color == nullptr || *no_color == '\0');
  terminal_ = terminal_ && !dumb;
}

void Status::line(std::string_view text) const {
  if (level_ != Level::kQuiet) say(text);
}

void Status::detail(std::string_view text) const {
  if (level_ == Level::kVerbose) say(text, 10);
}

void Status::say(std::string_view text, size_t indent) const {
  const std::string shown = terminal_ ? wrapped(text, columns(), indent) : std::string(text);
  std::fprintf(stderr, colour_ ? "\033[2m%s\033[0m\n" : "%s\n", shown.c_str());
}

void Status::warning(std::string_view text) const { std::fprintf(stderr, "warning: %.*s\n", static_cast<int>(text.size()), text.data()); }
void Status::error(std::string_view message) const { std::fprintf(stderr, "error: %.*s\n", static_cast<int>(message.size()), message.data()); }

void Status::progress(const tessera::Progress& progress) {
  if (level_ == Level::kQuiet || !terminal_) return;
  if (progress.done >= progress.total) {
    std::fputs("\r\033[K", stderr);
    last_percent_ = -1;
    return;
  }
  const int percent = static_cast<int>(100 * progress.done / progress.total);
  if (percent == last_percent_) return;
  last_percent_ = percent;
  const bool kernels = progress.stage == "kernels";
  const std::string amount = kernels ? std::string() : tessera::cat(tessera::bytes_text(progress.done), " of ", tessera::bytes_text(progress.total));
  std::fprintf(stderr, "\r\033[K%s %3d %%  %s", kernels ? "preparing kernels for this device (once)" : "loading weights", percent, amount.c_str());
}

std::string harmless(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0) {   // U+0080 to U+009F: C1, which has its own "escape ["
      ++i;
    } else if ((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t') {
      out += text[i];
    }
  }
  return out;
}

}  // namespace chat
