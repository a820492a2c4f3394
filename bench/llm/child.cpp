#include "child.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "tessera/base/text.hpp"

extern char** environ;

namespace tessera::bench {
namespace {

std::vector<std::string> environment_with(const Environment& changed) {
  std::vector<std::string> all;
  for (char** each = environ; *each != nullptr; ++each) {
    const std::string_view entry = *each;
    bool kept = true;
    for (const auto& [name, value] : changed) kept = kept && !entry.starts_with(name + "=");
    if (kept) all.emplace_back(entry);
  }
  for (const auto& [name, value] : changed) all.push_back(name + "=" + value);
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

struct Pipe {
  std::array<int, 2> ends{-1, -1};
  ~Pipe() {
    for (const int end : ends)
      if (end >= 0) close(end);
  }
  void close_end(size_t i) { close(std::exchange(ends[i], -1)); }
};

}  // namespace

Result<ChildAnswer> run_self(const std::vector<std::string>& arguments, const Environment& changed) {
  std::error_code error;
  const std::string self = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (error) return fail(ErrorCode::kIo, cat("where this program is cannot be read from /proc/self/exe: ", error.message()));
  std::vector<std::string> command{self}, environment = environment_with(changed);
  command.insert(command.end(), arguments.begin(), arguments.end());
  Pipe pipe;
  if (pipe2(pipe.ends.data(), O_CLOEXEC) != 0) return fail(ErrorCode::kIo, cat("no pipe: ", std::strerror(errno)));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe.ends[1], STDOUT_FILENO);
  const auto start = std::chrono::steady_clock::now();
  pid_t child = 0;
  const int refused = posix_spawn(&child, self.c_str(), &actions, nullptr, pointers(command).data(), pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (refused != 0) return fail(ErrorCode::kIo, cat("cannot start ", self, ": ", std::strerror(refused)));
  pipe.close_end(1);
  std::string line;
  char part[4096];
  for (ssize_t got = 0; line.find('\n') == std::string::npos && (got = read(pipe.ends[0], part, sizeof part)) != 0;) {
    if (got > 0) line.append(part, static_cast<size_t>(got));
    else if (errno != EINTR) break;
  }
  ChildAnswer answer;
  answer.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return fail(ErrorCode::kIo, cat("`", arguments.front(), "` in a process of its own ", WIFEXITED(status) ? cat("failed with exit code ", WEXITSTATUS(status)) : "was ended by a signal"));
  answer.json = nlohmann::ordered_json::parse(line, nullptr, false);
  if (!answer.json.is_object()) return fail(ErrorCode::kIo, cat("`", arguments.front(), "` in a process of its own said '", escaped(line), "' instead of JSON"));
  return answer;
}

Result<FreshFolder> FreshFolder::make() {
  std::error_code error;
  std::string pattern = (std::filesystem::temp_directory_path(error) / "tessera-bench-XXXXXX").string();
  if (error || mkdtemp(pattern.data()) == nullptr) return fail(ErrorCode::kIo, cat("no folder for a cold start's caches can be made: ", error ? error.message() : std::strerror(errno)));
  FreshFolder folder(pattern);
  for (const auto& [name, path] : folder.caches()) std::filesystem::create_directories(path, error);
  return folder;
}

FreshFolder::~FreshFolder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

Environment FreshFolder::caches() const {
  Environment all;
  for (const char* name : {"TESSERA_CACHE", "POCL_CACHE_DIR", "MESA_SHADER_CACHE_DIR", "MESA_GLSL_CACHE_DIR", "NEO_CACHE_DIR", "cl_cache_dir", "CUDA_CACHE_PATH", "__GL_SHADER_DISK_CACHE_PATH", "XDG_CACHE_HOME"})
    all.emplace_back(name, path_ + "/" + name);
  return all;
}

}  // namespace tessera::bench
