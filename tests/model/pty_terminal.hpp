// A program in a terminal, as a person meets it.
#pragma once
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace tessera::test {

// A program on a pseudo-terminal: type() sends keys, wait_for() collects what it shows.
class Terminal {
 public:
  using Environment = std::vector<std::pair<std::string, std::string>>;

  // In a window of 100 columns and 40 rows.
  explicit Terminal(const std::vector<std::string>& command, const Environment& environment = {}) {
    const winsize size{40, 100, 0, 0};
    pid_ = forkpty(&fd_, nullptr, nullptr, &size);
    if (pid_ != 0) return;
    setenv("TERM", "xterm", 1);
    setenv("NO_COLOR", "", 1);
    setenv("TESSERA_HISTORY", "off", 1);   // the person's own history is not the tests'
    for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> argv;
    for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  ~Terminal() {
    if (pid_ > 0) kill(pid_, SIGKILL), waitpid(pid_, nullptr, 0);
    close(fd_);
  }
  void type(const std::string& keys) const { ASSERT_EQ(write(fd_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size())); }
  // Until `text` was shown since the last wait. A minute without output is a guard against hanging, not a measure.
  bool wait_for(const std::string& text) {
    for (;;) {
      if (const size_t at = shown_.find(text); at != std::string::npos) {
        shown_.erase(0, at + text.size());
        return true;
      }
      pollfd ready{fd_, POLLIN, 0};
      if (poll(&ready, 1, 60000) != 1) return false;
      char part[4096];
      const ssize_t got = read(fd_, part, sizeof part);
      if (got <= 0) return false;
      shown_.append(part, static_cast<size_t>(got));
      seen_.append(part, static_cast<size_t>(got));
    }
  }
  int exit_code() {
    int status = 0;
    char part[4096];
    pollfd ready{fd_, POLLIN, 0};
    int polled = 0;
    while ((polled = poll(&ready, 1, 60000)) == 1 && read(fd_, part, sizeof part) > 0) {
    }
    if (polled == 0) {
      ADD_FAILURE() << "the program did not end, and shows nothing for a minute";
      kill(pid_, SIGKILL);
    }
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  const std::string& shown() const { return shown_; }   // since the last wait
  const std::string& seen() const { return seen_; }     // from the beginning

 private:
  int fd_ = -1;
  pid_t pid_ = -1;
  std::string shown_, seen_;
};

}  // namespace tessera::test
