// tessera-chat: what both ways of use share.
#pragma once
#include <cstdint>
#include <string>

#include "interrupt.hpp"
#include "terminal.hpp"
#include "tessera/tessera.hpp"

namespace chat {

// Exit codes: 0 done, 1 an error while running, 2 a wrong command line, 130 ended by Ctrl-C.
inline constexpr int kExitError = 1, kExitUsage = 2, kExitInterrupted = 130;

struct Options {
  std::string model;
  std::string prompt;
  bool has_prompt = false;
  std::string system;
  std::string device = "auto";
  std::string weights_in, activations_in;
  std::string chat_template;      // a built-in one instead of the file's
  int32_t context_tokens = 0;
  tessera::GenerateOptions generate;
  bool quiet = false;
  bool no_color = false;
  bool profile = false;
  bool dump_plan = false;
};

// Answers once, on standard output. Returns the exit code.
int run_once(tessera::Session& session, const std::string& prompt, const Options& options, const Status& status, Interrupt& interrupt, const tessera::Model& model);
// The conversation at a terminal. Returns the exit code.
int run_interactive(tessera::Session& session, const Options& options, const Status& status, Interrupt& interrupt, const tessera::Model& model);

// "128 tok · TTFT 0.31 s · decode 23.4 tok/s · context 640/4096 · PoCL …"
std::string statistics(const tessera::Reply& reply, const tessera::Session& session, const tessera::Model& model);

}  // namespace chat
