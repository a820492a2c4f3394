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
  std::string model;              // a path, or a name to look for
  std::string prompt;
  bool has_prompt = false;
  std::string system;
  std::string device = "auto";
  std::string weights_in, activations_in;
  std::string precision = "default";
  std::string kv = "default";
  uint64_t kv_bytes = 0;
  int32_t page_tokens = 0;
  std::string chat_template;      // a built-in one instead of the file's
  int32_t context_tokens = 0;
  int32_t answers = 1;
  tessera::GenerateOptions generate;
  bool list = false;
  bool json = false;
  bool quiet = false, verbose = false;
  bool no_color = false;
  bool profile = false;
  bool dump_plan = false;
};

// One conversation with everything around it.
struct Chat {
  const tessera::Model& model;
  tessera::Session& session;
  tessera::GenerateOptions& generate;
  const Status& status;
  Interrupt& interrupt;
  std::string saved_as{};   // where this conversation was saved or loaded last: saving there again is no surprise
  bool leave = false;
};

// Asks once, answers on standard output. Returns the exit code.
int run_once(Chat& chat, const std::string& prompt, bool as_json);
int run_several(Chat& chat, const std::string& prompt, int32_t count, bool as_json);   // as many answers to one prompt
// The conversation at a terminal. Returns the exit code.
int run_interactive(Chat& chat);

// Show an answer while it is made, then its statistics, or say why there is none.
void ask(Chat& chat, std::string_view text);
void ask_again(Chat& chat);

// "128 tok · TTFT 0.31 s · decode 23.4 tok/s · context 640/4096 · PoCL …"
std::string statistics(const tessera::Reply& reply, const Chat& chat);
// Model, device, memory, context, sampler: the lines of /stats and -v.
std::string facts(const Chat& chat);

}  // namespace chat
