#include "terminal.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tessera/base/text.hpp"

namespace chat {

bool input_is_terminal() { return isatty(STDIN_FILENO) != 0; }
bool output_is_terminal() { return isatty(STDOUT_FILENO) != 0; }

// https://no-color.org: any non-empty value switches colour off.
Status::Status(bool quiet, bool colour) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) != 0) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  const bool dumb = term == nullptr || std::strcmp(term, "dumb") == 0;
  colour_ = colour && terminal_ && !dumb && (no_color == nullptr || *no_color == '\0');
  terminal_ = terminal_ && !dumb;
}

void Status::line(std::string_view text) const {
  if (quiet_) return;
  std::fprintf(stderr, colour_ ? "\033[2m%.*s\033[0m\n" : "%.*s\n", static_cast<int>(text.size()), text.data());
}

void Status::warning(std::string_view text) const { std::fprintf(stderr, "warning: %.*s\n", static_cast<int>(text.size()), text.data()); }

void Status::progress(const tessera::Progress& progress) {
  if (quiet_ || !terminal_) return;
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

void print_error(std::string_view message) { std::fprintf(stderr, "error: %.*s\n", static_cast<int>(message.size()), message.data()); }

}  // namespace chat
